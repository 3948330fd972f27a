//! Background tasks with a name, whose panic is logged and ends the process.
//!
//! tokio swallows the panic of a task that is not joined, and the process would go on in part: with
//! an old certificate, or without a watch. Here the kubelet starts a new one.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;
use tracing::{Instrument, error, error_span};

/// Exit code after a panic, the one that Rust itself uses.
const PANIC_EXIT_CODE: i32 = 101;

/// Runs `future` on the current runtime. `name` stands in its log lines.
#[expect(
    clippy::disallowed_methods,
    reason = "this is what everybody else is sent to"
)]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    spawn_guarded(name, future, || {
        crate::log::flush();
        std::process::exit(PANIC_EXIT_CODE)
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is what everybody else is sent to"
)]
fn spawn_guarded<F>(
    name: &'static str,
    future: F,
    end: impl FnOnce() + Send + 'static,
) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(guarded(name, future, end))
}

/// What is spawned for `future`.
fn guarded<F: Future, E: FnOnce()>(
    name: &'static str,
    future: F,
    end: E,
) -> impl Future<Output = F::Output> {
    let guarded = Guarded {
        name,
        end: Some(end),
        future,
    };
    guarded.instrument(error_span!("task", name))
}

pin_project! {
    // A future of its own and no async block: that would keep what it is given once as
    // given and once as pinned, and every connection and stream is such a task.
    struct Guarded<F, E> {
        name: &'static str,
        end: Option<E>,
        #[pin]
        future: F,
    }
}

impl<F: Future, E: FnOnce()> Future for Guarded<F, E> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Stands around this one poll only: a task that is merely dropped while another
        // one panics, as when a test fails, is innocent.
        let _guard = PanicGuard {
            name: this.name,
            end: this.end,
        };
        this.future.poll(context)
    }
}

struct PanicGuard<'a, E: FnOnce()> {
    name: &'static str,
    end: &'a mut Option<E>,
}

impl<E: FnOnce()> Drop for PanicGuard<'_, E> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        error!(task = self.name, "task panicked, ending the process");
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn panic_of_a_task_ends_the_process() {
        let (ended, end) = oneshot::channel();
        let handle = spawn_guarded(
            "breaks",
            async {
                tokio::task::yield_now().await;
                assert_eq!(1, 2, "on purpose");
            },
            move || {
                let _ = ended.send(());
            },
        );
        end.await.unwrap();
        assert!(handle.await.unwrap_err().is_panic());
    }

    #[test]
    fn task_holds_its_future_once() {
        async fn large() {
            let buffer = [7_u8; 4096];
            tokio::task::yield_now().await;
            assert_eq!(std::hint::black_box(&buffer)[0], 7);
        }
        let future = large();
        let alone = size_of_val(&future);
        assert!(alone >= 4096, "it does not hold what it is to hold");
        let spawned = size_of_val(&guarded("large", future, || ()));
        // Beside it a name and a span.
        assert!(spawned <= alone + 128, "{spawned} bytes for {alone}");
    }

    #[test]
    fn panic_elsewhere_that_drops_a_task_ends_nothing() {
        let failed = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let _inside = runtime.enter();
            let _innocent = spawn("innocent", std::future::pending::<()>());
            runtime.block_on(tokio::task::yield_now());
            assert_eq!(1, 2, "the runtime is dropped while this unwinds");
        });
        // Had the task been blamed, the process would have ended here.
        assert!(failed.is_err());
    }

    #[tokio::test]
    async fn task_that_ends_or_is_aborted_ends_nothing_else() {
        assert_eq!(spawn("answers", async { 7 }).await.unwrap(), 7);
        let endless = spawn("endless", std::future::pending::<()>());
        endless.abort();
        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
