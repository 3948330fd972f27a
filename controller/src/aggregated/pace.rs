//! Ends connections and streams whose client reads a response too slowly.
//!
//! A body without room on its way to the client is not polled for its next part, so it cannot
//! check the time itself. So a watcher beside each HTTP/2 stream, and each HTTP/1 connection,
//! checks it and ends the stream: its memory is freed, and the client sees that the response broke
//! off.

use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// From one part of an answer to the next that its reader has room for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// From the first part of an answer to its end. The API server gives a call 60 s.
pub(super) const LONGEST: Duration = Duration::from_secs(65);

tokio::task_local! {
    /// Of the stream, or of the connection, on whose behalf this runs.
    static PACE: Arc<Pace>;
}

/// Until when the reader of an answer has to have room for more.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// `None` while it is not the reader that is waited for.
    until: Mutex<Option<Instant>>,
    changed: Notify,
}

impl Pace {
    /// That of the stream or connection which is served here.
    pub(super) fn current() -> Option<Arc<Self>> {
        PACE.try_with(Arc::clone).ok()
    }

    /// A part of the answer that `started` then is on its way, and the next one waits for it.
    pub(super) fn waits_for_reader(&self, started: Instant) {
        let until = (Instant::now() + PATIENCE).min(started + LONGEST);
        let before = self.until.lock().replace(until);
        if before.is_none() {
            self.changed.notify_one();
        }
    }

    /// The reader has room, and there is nothing to send yet.
    pub(super) fn waits_for_answer(&self) {
        *self.until.lock() = None;
    }

    /// Waits until the reader took too long.
    async fn is_lost(&self) {
        loop {
            let until = *self.until.lock();
            match until {
                None => self.changed.notified().await,
                Some(until) if until <= Instant::now() => return,
                Some(until) => sleep_until(until).await,
            }
        }
    }
}

/// Serves one stream or one connection to its end; `None` if a reader took too long.
pub(super) async fn patiently<F: Future>(served: F) -> Option<F::Output> {
    let pace = Arc::new(Pace::default());
    // A connection is kilobytes, and would stand in the future of each that waits for it.
    let served = PACE.scope(Arc::clone(&pace), Box::pin(served));
    tokio::select! {
        ended = served => Some(ended),
        () = pace.is_lost() => None,
    }
}

/// Runs each stream of HTTP/2 connections by itself.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// Counts those that were cut.
    pub(super) cut: Counter,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let cut = self.cut.clone();
        let served = async move {
            if patiently(stream).await.is_none() {
                cut.inc();
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "one call's: its panic ends that call only"
        )]
        tokio::spawn(served);
    }
}
