//! What is left of an upload when its answer has come whole, and its server takes none of it.
//!
//! A server may answer before it has the body of a request, and read on or not. What it reads
//! it gets. One that neither reads on nor closes would keep the sender, its place and its
//! memory for as long as it likes, for a call that everybody else takes to be over. So the
//! rest is dropped then.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// A server that has answered takes something within this time, or twice this where it was
/// silent before. Long against a pause in which it stores what it has read.
pub(crate) const TAKES_WITHIN: Duration = Duration::from_secs(15);

/// Whether an answer has come whole. Told by who reads it to who still sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered(Arc<AtomicBool>);

impl Answered {
    pub(crate) fn note(&self) {
        self.0.store(true, Relaxed);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Tells when the rest of an upload is given up.
#[derive(Debug)]
pub(crate) struct StuckUpload {
    answered: Answered,
    wait: Option<Wait>,
}

/// The server takes nothing.
#[derive(Debug)]
struct Wait {
    /// It had answered when this began.
    answered: bool,
    over: Pin<Box<Sleep>>,
}

impl StuckUpload {
    pub(crate) const fn new(answered: Answered) -> Self {
        Self {
            answered,
            wait: None,
        }
    }

    /// The server took something.
    pub(crate) fn moves(&mut self) {
        self.wait = None;
    }

    /// Asked while the server takes nothing: ready once that lasts too long behind its answer.
    /// Nobody wakes the sender when the answer ends, so it looks from time to time.
    pub(crate) fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let answered = &self.answered;
        let wait = self.wait.get_or_insert_with(|| Wait {
            answered: answered.is_noted(),
            over: Box::pin(sleep(TAKES_WITHIN)),
        });
        loop {
            ready!(wait.over.as_mut().poll(cx));
            if wait.answered {
                return Poll::Ready(());
            }
            wait.answered = answered.is_noted();
            wait.over.as_mut().reset(Instant::now() + TAKES_WITHIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::{Answered, Duration, Instant, StuckUpload, TAKES_WITHIN};

    const MOMENT: Duration = Duration::from_millis(10);

    async fn is_given_up_within(stuck: &mut StuckUpload, time: Duration) -> bool {
        let given_up = poll_fn(|cx| stuck.poll_given_up(cx));
        timeout(time, given_up).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_given_up_behind_its_answer_and_not_before_it() {
        let answered = Answered::default();
        let mut stuck = StuckUpload::new(answered.clone());
        assert!(!is_given_up_within(&mut stuck, TAKES_WITHIN * 20 + MOMENT).await);
        answered.note();
        let noted = Instant::now();
        assert!(is_given_up_within(&mut stuck, TAKES_WITHIN * 2).await);
        assert!(noted.elapsed() >= TAKES_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_its_server_takes_goes_on_however_slowly() {
        let answered = Answered::default();
        let mut stuck = StuckUpload::new(answered.clone());
        answered.note();
        for _ in 0..20 {
            assert!(!is_given_up_within(&mut stuck, TAKES_WITHIN - MOMENT).await);
            stuck.moves();
        }
        assert!(is_given_up_within(&mut stuck, TAKES_WITHIN + MOMENT).await);
    }
}
