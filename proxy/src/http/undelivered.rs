//! The received bytes of an answer that broke off, as long as its client has not taken them.
//!
//! A client that is connected to the application itself reads what was sent, and then sees the
//! break. So these bytes go first, in order. But a client that takes none of them must not keep an
//! answer whose server is gone, with its memory and its permit, for as long as it likes.
//!
//! Claims: attack-27

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::http::ending_body::ended_for;

/// Behind a break something is taken within this time. Twice what an upload has behind its
/// answer: it is seen chunk by chunk, and one may have more than 100 KiB.
pub(crate) const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Whether what came before an answer broke off goes first. What this proxy ends itself, because
/// its time is over or it is not allowed any more, ends at once.
pub(crate) fn is_delivered(error: &(dyn Error + 'static)) -> bool {
    ended_for(error).is_none()
}

/// Ready when what is left is abandoned.
#[derive(Debug, Default)]
pub(crate) struct Undelivered {
    progress: usize,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Undelivered {
    /// Polled while something is left: ready once `progress`, which is another one whenever some of
    /// it was taken, has been the same for too long.
    pub(crate) fn poll_given_up(&mut self, progress: usize, cx: &mut Context<'_>) -> Poll<()> {
        let new = || Box::pin(sleep(TAKEN_WITHIN));
        let wait = self.wait.get_or_insert_with(new);
        if std::mem::replace(&mut self.progress, progress) != progress {
            wait.as_mut().reset(Instant::now() + TAKEN_WITHIN);
        }
        wait.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::timeout;

    use super::{Duration, TAKEN_WITHIN, Undelivered};

    const MOMENT: Duration = Duration::from_millis(10);

    async fn is_given_up_within(rest: &mut Undelivered, left: usize, time: Duration) -> bool {
        let given_up = poll_fn(|cx| rest.poll_given_up(left, cx));
        timeout(time, given_up).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn slowly_read_response_is_kept_but_stalled_one_abandoned() {
        let mut rest = Undelivered::default();
        for left in (0..20).rev() {
            assert!(!is_given_up_within(&mut rest, left, TAKEN_WITHIN - MOMENT).await);
        }
        assert!(is_given_up_within(&mut rest, 0, MOMENT * 2).await);
    }
}
