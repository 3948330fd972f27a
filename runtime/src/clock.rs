//! Reads the wall clock, and waits until a given time of it.
//!
//! A timer counts the monotonic clock, which stalls while a machine is suspended and
//! does not follow a clock that is set. Certificates end by the wall clock. So waiting for
//! a moment of that means reading it again and again.
//!
//! Claims: attack-85

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

/// Longest time between two looks at the wall clock: what a machine that wakes up
/// is late at most.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Returns the time. Clones are the same clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The machine's.
    #[must_use]
    pub fn system() -> Self {
        Self::from_fn(SystemTime::now)
    }

    /// A clock that a test sets.
    #[must_use]
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    #[must_use]
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Returns once it is `at`, at most [`LOOK_EVERY`] after the clock jumped there.
    /// A clock that is set back does not prolong the wait: other machines, whose
    /// clocks went on, may be the ones that look at the certificate.
    pub async fn sleep_until(&self, at: SystemTime) {
        let left = || at.duration_since(self.now()).unwrap_or_default();
        let planned = Instant::now().checked_add(left());
        loop {
            let planned = planned.map_or(Duration::MAX, |planned| {
                planned.saturating_duration_since(Instant::now())
            });
            let left = left().min(planned);
            if left.is_zero() {
                return;
            }
            sleep(left.min(LOOK_EVERY)).await;
        }
    }

    /// Returns once it is before `since`, at most [`LOOK_EVERY`] after the clock was set
    /// back: what was made while it was ahead is refused by others until `since` comes.
    pub async fn back_before(&self, since: SystemTime) {
        while self.now() >= since {
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
    use std::time::UNIX_EPOCH;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A clock that goes with paused time, and how many seconds it is ahead.
    fn clock() -> (Clock, Arc<AtomicI64>) {
        let (start, ahead) = (Instant::now(), Arc::new(AtomicI64::new(0)));
        let jumps = Arc::clone(&ahead);
        let clock = Clock::from_fn(move || {
            let base = UNIX_EPOCH + 1_000 * HOUR + start.elapsed();
            let jump = jumps.load(Relaxed);
            let distance = Duration::from_secs(jump.unsigned_abs());
            if jump < 0 {
                base - distance
            } else {
                base + distance
            }
        });
        (clock, ahead)
    }

    #[tokio::test(start_paused = true)]
    async fn wait_ends_at_its_moment() {
        let (clock, _) = clock();
        let (start, at) = (Instant::now(), clock.now() + 10 * HOUR);
        clock.sleep_until(at).await;
        assert!(start.elapsed().abs_diff(10 * HOUR) < Duration::from_secs(1));
    }

    // Claims: M3
    #[tokio::test(start_paused = true)]
    async fn forward_clock_jump_ends_wait_at_next_check() {
        let (clock, ahead) = clock();
        let at = clock.now() + 10 * HOUR;
        let waiting = clock.clone();
        let waiting = tokio::spawn(async move { waiting.sleep_until(at).await });
        sleep(HOUR).await;
        assert!(!waiting.is_finished());
        ahead.store(100 * 24 * 3_600, Relaxed);
        tokio::time::timeout(LOOK_EVERY, waiting)
            .await
            .unwrap()
            .unwrap();
    }

    // Claims: M3
    #[tokio::test(start_paused = true)]
    async fn clock_set_back_does_not_prolong_wait() {
        let (clock, ahead) = clock();
        let (start, at) = (Instant::now(), clock.now() + 10 * HOUR);
        let waiting = clock.clone();
        let waiting = tokio::spawn(async move { waiting.sleep_until(at).await });
        sleep(HOUR).await;
        ahead.store(-10 * 24 * 3_600, Relaxed);
        waiting.await.unwrap();
        assert!(start.elapsed().abs_diff(10 * HOUR) < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_set_before_moment_is_noticed_within_one_check() {
        let (clock, ahead) = clock();
        let since = clock.now() - HOUR / 12;
        let waiting = clock.clone();
        let waiting = tokio::spawn(async move { waiting.back_before(since).await });
        sleep(HOUR).await;
        // Still after it.
        ahead.store(-3_600, Relaxed);
        sleep(2 * LOOK_EVERY).await;
        assert!(!waiting.is_finished());
        ahead.store(-2 * 3_600, Relaxed);
        tokio::time::timeout(LOOK_EVERY, waiting)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn moment_that_is_over_is_not_waited_for() {
        let (clock, _) = clock();
        let start = Instant::now();
        clock.sleep_until(clock.now() - HOUR).await;
        clock.sleep_until(UNIX_EPOCH).await;
        assert!(start.elapsed().is_zero());
    }
}
