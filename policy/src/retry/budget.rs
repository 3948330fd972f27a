//! The retry budget of one backend: what retries to it may cost this proxy.
//!
//! Savings and costs are counted in steps of half a second, of which those of the last `interval`
//! count: what was saved before a calm time is not spent in the storm after it. Steps are as long
//! for every `interval`, because routes with values of their own share the budget of a backend.
//! Within any `interval`, retries are at most the percentage of successes plus what `minPerSecond`
//! gives.
//!
//! No lock: requests of several threads save at once. A step is one word, its number beside its
//! balance; two threads that spend the same token see the sum afterwards, and the later one gives
//! it back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::traffic::call::Budget;

const STEP: Duration = Duration::from_millis(500);
/// The longest interval is a minute.
const STEPS: usize = 120;
/// A retry, in hundredths of a token: a success saves the percentage of the budget.
const RETRY: i32 = 100;

/// Tokens for retries to one backend. 984 bytes per backend.
#[derive(Debug)]
pub struct RetryBudget {
    start: Instant,
    /// Number of the slot in the upper half, its balance in the lower.
    steps: [AtomicU64; STEPS],
    /// When the reserve is full again, in nanoseconds since `start`.
    reserve: AtomicU64,
}

impl RetryBudget {
    #[must_use]
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            steps: [const { AtomicU64::new(0) }; STEPS],
            reserve: AtomicU64::new(0),
        }
    }

    /// A first attempt succeeded.
    pub fn save(&self, now: Instant, settings: &Budget) {
        self.add(self.step(now), settings.percent.get().into());
    }

    /// Takes what a retry costs, if it is there: one of `minPerSecond`, which comes again
    /// by itself, else of the savings.
    pub fn spend(&self, now: Instant, settings: &Budget, peers: u32) -> bool {
        if self.spend_reserve(now, settings, peers) {
            return true;
        }
        let step = self.step(now);
        if self.balance(step, settings) < RETRY {
            return false;
        }
        self.add(step, -RETRY);
        let paid = self.balance(step, settings) >= 0;
        if !paid {
            self.add(step, RETRY);
        }
        paid
    }

    /// Retries that the savings would pay for, for the page of the proxy.
    #[must_use]
    pub fn saved(&self, now: Instant, settings: &Budget) -> u32 {
        let balance = self.balance(self.step(now), settings) / RETRY;
        u32::try_from(balance).unwrap_or(0)
    }

    /// A bucket that holds a second's worth, and one token at least.
    fn spend_reserve(&self, now: Instant, settings: &Budget, peers: u32) -> bool {
        if settings.min_per_second == 0 {
            return false;
        }
        let per_second = f64::from(settings.min_per_second) / f64::from(peers.max(1));
        let gap = (1e9 / per_second) as u64;
        let room = gap.max(1_000_000_000);
        let now = now.saturating_duration_since(self.start).as_nanos() as u64;
        // The gap was longer when there were more peers, or another route's is.
        self.reserve.fetch_min(now + room, Relaxed);
        let take = |full: u64| {
            let next = full.max(now) + gap;
            (next <= now + room).then_some(next)
        };
        self.reserve.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// Slots are numbered from 1, so that an untouched word is an old one.
    fn step(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.start);
        1 + (since.as_millis() / STEP.as_millis()) as u32
    }

    fn add(&self, step: u32, amount: i32) {
        let word = &self.steps[step as usize % STEPS];
        let change = |word: u64| {
            let before = if number(word) == step {
                balance(word)
            } else {
                0
            };
            Some(pack(step, before.saturating_add(amount)))
        };
        // It always has a value to write.
        let _ = word.fetch_update(Relaxed, Relaxed, change);
    }

    fn balance(&self, step: u32, settings: &Budget) -> i32 {
        let word = self.steps.iter().map(|word| word.load(Relaxed));
        let counted = settings.interval.as_millis().div_ceil(STEP.as_millis());
        let counted = counted.clamp(1, STEPS as u128) as u32;
        let oldest = step.saturating_sub(counted - 1);
        let current = word.filter(|word| (oldest..=step).contains(&number(*word)));
        current.fold(0, |sum: i32, word| sum.saturating_add(balance(word)))
    }
}

const fn number(word: u64) -> u32 {
    (word >> 32) as u32
}

const fn balance(word: u64) -> i32 {
    word as u32 as i32
}

const fn pack(step: u32, balance: i32) -> u64 {
    (step as u64) << 32 | balance as u32 as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn success_saves_fifth_of_retry_and_failure_nothing() {
        let (start, settings) = (
            Instant::now(),
            Budget {
                min_per_second: 0,
                ..Budget::DEFAULT
            },
        );
        let budget = RetryBudget::new(start);
        assert!(!budget.spend(start, &settings, 1), "nothing was saved");
        for _ in 0..14 {
            budget.save(start, &settings);
        }
        assert_eq!(budget.saved(start, &settings), 2);
        assert!(budget.spend(start, &settings, 1) && budget.spend(start, &settings, 1));
        assert!(!budget.spend(start, &settings, 1), "0.8 are left");
        budget.save(start, &settings);
        assert!(budget.spend(start, &settings, 1));
    }

    #[test]
    fn savings_are_worth_an_interval_and_no_more() {
        let (start, settings) = (
            Instant::now(),
            Budget {
                min_per_second: 0,
                ..Budget::DEFAULT
            },
        );
        let budget = RetryBudget::new(start);
        // An hour of 50 a second, and then the storm: 5 s of savings are there.
        for n in 0..3600 * 50 {
            budget.save(start + ms(n * 20), &settings);
        }
        let storm = start + ms(3600 * 1000);
        let spent = (0..1000)
            .filter(|_| budget.spend(storm, &settings, 1))
            .count();
        assert!((45..=50).contains(&spent), "{spent}");
        assert_eq!(budget.saved(storm + ms(6000), &settings), 0);
        // What was spent is not held against what comes later.
        budget.save(storm + ms(6000), &settings);
        assert_eq!(budget.balance(budget.step(storm + ms(6000)), &settings), 20);
    }
}
