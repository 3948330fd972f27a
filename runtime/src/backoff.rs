//! Exponential backoff: how long to wait before the next try.
//!
//! The wait doubles from a first delay to a maximum. Each wait is spread over its upper half, so
//! that a thousand proxies that lost the same controller do not reconnect in one instant.

use std::time::Duration;

/// Doublings after which the shift is pointless; keeps the arithmetic in range.
const MOST_DOUBLINGS: u32 = 31;

/// The delays between attempts of one operation.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    maximum: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits from `first` to `maximum`.
    #[must_use]
    pub const fn new(first: Duration, maximum: Duration) -> Self {
        Self {
            first,
            maximum,
            failures: 0,
        }
    }

    /// The wait after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.delay(rand::random());
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Notes one more failure and waits.
    pub async fn wait(&mut self) {
        let delay = self.next_delay();
        tokio::time::sleep(delay).await;
    }

    /// Starts again from the first delay, after a success that lasted.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last reset.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// `spread` in 0..1 places the delay between half of it and all of it.
    fn delay(&self, spread: f64) -> Duration {
        let factor = 1u32 << self.failures.min(MOST_DOUBLINGS);
        let full = self.first.saturating_mul(factor).min(self.maximum);
        full.mul_f64(0.5 + spread / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MAXIMUM: Duration = Duration::from_secs(5);

    #[test]
    fn waits_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(FIRST, MAXIMUM);
        let mut full = Vec::new();
        for _ in 0..8 {
            full.push(backoff.delay(1.0).as_millis());
            backoff.next_delay();
        }
        assert_eq!(full, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn backoff_stays_in_upper_half_after_endless_failures() {
        let mut backoff = Backoff::new(FIRST, MAXIMUM);
        for _ in 0..1_000 {
            let most = backoff.delay(1.0);
            let delay = backoff.next_delay();
            assert!(delay >= most / 2 && delay <= most, "{delay:?} of {most:?}");
        }
        assert_eq!(backoff.failures(), 1_000);
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(FIRST, MAXIMUM);
        backoff.next_delay();
        backoff.next_delay();
        backoff.reset();
        assert_eq!(backoff.delay(1.0), FIRST);
    }
}
