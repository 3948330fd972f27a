//! Waits for another process that count only the time in which this one ran.
//!
//! A process that is not scheduled, on a CPU that others have, reads nothing, and once it goes on
//! its timers end before it has read what came meanwhile. What takes several turns, as a handshake
//! or the answer to a ping, would fail by that, and the other side would be blamed.
//!
//! So such a wait goes by short steps, and one that ends late does not count.
//!
//! Claims: attack-28

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// By which a wait goes.
const STEP: Duration = Duration::from_millis(250);
/// A step that ends so much later than it was to end is one of a process that stood still.
const LATE: Duration = Duration::from_millis(100);

/// What `work` comes to; `None` where it does not within this time. Steps that end late count as
/// well once they have taken as much: work that is never on time waits for twice as many turns.
pub(crate) async fn scheduled_within<T>(
    time: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let (mut left, mut spared) = (time, time);
    loop {
        let step = left.min(STEP);
        let due = Instant::now() + step;
        if let Ok(done) = timeout_at(due, work.as_mut()).await {
            return Some(done);
        }
        let counted = if due.elapsed() >= LATE && !spared.is_zero() {
            &mut spared
        } else {
            &mut left
        };
        *counted = counted.saturating_sub(step);
        if left.is_zero() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    const WAIT: Duration = Duration::from_secs(2);
    const MOMENT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn wait_does_not_count_what_the_process_stood_still() {
        let mut wait = pin!(scheduled_within(WAIT, pending::<()>()));
        assert!(timeout(Duration::ZERO, wait.as_mut()).await.is_err());
        advance(Duration::from_secs(12)).await;
        assert!(timeout(WAIT - MOMENT, wait.as_mut()).await.is_err());
        assert_eq!(timeout(2 * MOMENT, wait.as_mut()).await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn scheduled_wait_ends_in_always_late_process() {
        let mut wait = pin!(scheduled_within(WAIT, pending::<()>()));
        let mut turns = 0;
        while timeout(Duration::ZERO, wait.as_mut()).await.is_err() {
            turns += 1;
            assert!(turns <= 17, "it waits for ever");
            advance(Duration::from_secs(1)).await;
        }
        assert!(turns > 8, "{turns}");
    }

    #[tokio::test(start_paused = true)]
    async fn wait_takes_its_time_and_no_more() {
        assert_eq!(scheduled_within(WAIT, ready(1)).await, Some(1));
        let began = Instant::now();
        assert_eq!(scheduled_within(WAIT, sleep(WAIT * 2)).await, None);
        assert!((WAIT..WAIT + MOMENT).contains(&began.elapsed()));
    }
}
