//! Drops the rest of a request's body when the response is complete and nothing of the body moves
//! any more.
//!
//! A server may answer before it has the body of a request, and read on or not. A rest that is
//! still read goes on. But a server that neither reads on nor closes would keep the sender for as
//! long as it likes, and a silent sender the server, with permits and memory, for a call that is
//! over for all others. So the rest is dropped then.
//!
//! Claims: calls-8

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::time::{Sleep, sleep};

/// Behind an answer something is sent and taken within this time. Long against a pause in
/// which a server stores what it has read.
pub(crate) const MOVES_WITHIN: Duration = Duration::from_secs(15);

/// Whether an answer has come complete. The reader reports it to the sender.
#[derive(Clone, Debug, Default)]
pub struct Answered(Arc<AnswerSignal>);

#[derive(Debug, Default)]
struct AnswerSignal {
    is_whole: AtomicBool,
    sender: AtomicWaker,
}

impl Answered {
    pub fn note(&self) {
        self.0.is_whole.store(true, Relaxed);
        self.0.sender.wake();
    }

    fn poll_noted(&self, cx: &Context<'_>) -> Poll<()> {
        let is_whole = || self.0.is_whole.load(Relaxed);
        if is_whole() {
            return Poll::Ready(());
        }
        self.0.sender.register(cx.waker());
        // It may have come just now.
        if is_whole() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Ready when the rest of an upload is abandoned.
#[derive(Debug)]
pub struct StuckUpload {
    answered: Answered,
    /// Nothing moves behind the answer.
    wait: Option<Pin<Box<Sleep>>>,
}

impl StuckUpload {
    pub const fn new(answered: Answered) -> Self {
        Self {
            answered,
            wait: None,
        }
    }

    /// Something was sent or taken.
    pub fn moves(&mut self) {
        self.wait = None;
    }

    /// Polled while nothing moves: ready once that lasts too long behind the answer.
    pub(crate) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.answered.poll_noted(cx));
        let new = || Box::pin(sleep(MOVES_WITHIN));
        self.wait.get_or_insert_with(new).as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::{Answered, Duration, MOVES_WITHIN, StuckUpload, sleep};

    const MOMENT: Duration = Duration::from_millis(10);

    async fn is_abandoned_within(stuck: &mut StuckUpload, time: Duration) -> bool {
        let abandoned = poll_fn(|cx| stuck.poll_abandoned(cx));
        timeout(time, abandoned).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn stalled_upload_is_abandoned_only_after_its_response() {
        let answered = Answered::default();
        let mut stuck = StuckUpload::new(answered.clone());
        assert!(!is_abandoned_within(&mut stuck, MOVES_WITHIN * 20).await);
        // A waiting sender is woken by the answer.
        let waits =
            tokio::spawn(async move { is_abandoned_within(&mut stuck, MOVES_WITHIN * 9).await });
        sleep(MOMENT).await;
        answered.note();
        sleep(MOVES_WITHIN - MOMENT).await;
        assert!(!waits.is_finished());
        sleep(MOMENT * 2).await;
        assert!(waits.is_finished());
        assert!(waits.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_moves_goes_on_however_slowly() {
        let answered = Answered::default();
        let mut stuck = StuckUpload::new(answered.clone());
        answered.note();
        for _ in 0..20 {
            assert!(!is_abandoned_within(&mut stuck, MOVES_WITHIN - MOMENT).await);
            stuck.moves();
        }
        assert!(is_abandoned_within(&mut stuck, MOVES_WITHIN + MOMENT).await);
    }
}
