//! A rate limiter by key: how often each of many callers may act.
//!
//! The generic cell rate algorithm: per key one moment, at which the key would be
//! idle again. Nothing ticks in the background, and a key that has been idle for
//! long enough is the same as one that was never seen, so it is forgotten.
//!
//! Not the `governor` crate, whose keyed store has no bound of its own: this one
//! holds at most a given number of keys, and when more come at the same time it
//! forgets the one that has used least of its allowance.
//!
//! Invariant: time is an argument.
//!
//! Claims: attack-77

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// An allowance: `burst` at once, then one per `every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// What may come at once after a quiet time, at least 1.
    pub burst: u32,
    /// The time after which one more may come.
    pub every: Duration,
}

impl Allowance {
    /// One moment's worth of `burst`.
    fn slack(&self) -> Duration {
        self.every * self.burst.saturating_sub(1)
    }

    /// The moment at which a key that was idle from `idle_at` on is idle again after one
    /// more use, or how long that use has to wait.
    fn after(&self, idle_at: Option<Instant>, now: Instant) -> Result<Instant, Duration> {
        let idle_at = idle_at.map_or(now, |at| at.max(now));
        let ahead = idle_at.duration_since(now);
        match ahead.checked_sub(self.slack()) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(idle_at + self.every),
        }
    }
}

/// The allowance of one caller.
#[derive(Clone, Debug)]
pub struct Rate {
    allowance: Allowance,
    idle_at: Option<Instant>,
}

impl Rate {
    /// Unused so far.
    #[must_use]
    pub const fn new(allowance: Allowance) -> Self {
        Self {
            allowance,
            idle_at: None,
        }
    }

    /// Uses the allowance once.
    ///
    /// # Errors
    /// How long to wait, when it is used up.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.idle_at = Some(self.allowance.after(self.idle_at, now)?);
        Ok(())
    }
}

/// The same allowance for each of many callers.
#[derive(Debug)]
pub struct Rates<K> {
    allowance: Allowance,
    most: usize,
    keys: Mutex<Keys<K>>,
}

#[derive(Debug)]
struct Keys<K> {
    idle_at: HashMap<K, Instant>,
    /// The same, by the moment.
    order: BTreeSet<(Instant, K)>,
}

impl<K: Clone + Ord + Hash> Rates<K> {
    /// `most`: keys that are remembered at one time, at least 1.
    #[must_use]
    pub fn new(allowance: Allowance, most: usize) -> Self {
        Self {
            allowance,
            most: most.max(1),
            keys: Mutex::new(Keys {
                idle_at: HashMap::new(),
                order: BTreeSet::new(),
            }),
        }
    }

    /// Uses the allowance of `key` once.
    ///
    /// # Errors
    /// How long to wait, when it is used up.
    pub fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut keys = self.keys.lock();
        keys.forget_idle(now);
        let before = keys.idle_at.get(key).copied();
        let idle_at = self.allowance.after(before, now)?;
        keys.put(key, before, idle_at, self.most);
        Ok(())
    }

    /// Charges `key` for so many uses that have been made already, also where its allowance
    /// is used up. Returns how long the next use has to wait.
    #[must_use]
    pub fn charge(&self, key: &K, uses: u32, now: Instant) -> Duration {
        let mut keys = self.keys.lock();
        keys.forget_idle(now);
        let before = keys.idle_at.get(key).copied();
        let idle_at = before.map_or(now, |at| at.max(now)) + self.allowance.every * uses;
        keys.put(key, before, idle_at, self.most);
        let ahead = idle_at.duration_since(now);
        ahead.saturating_sub(self.allowance.slack())
    }

    /// Keys that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.lock().idle_at.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Clone + Ord + Hash> Keys<K> {
    /// Notes when `key` is idle again, which was to be at `before`.
    fn put(&mut self, key: &K, before: Option<Instant>, idle_at: Instant, most: usize) {
        match before {
            Some(before) => {
                self.order.remove(&(before, key.clone()));
            }
            None if self.idle_at.len() >= most => self.forget_first(),
            None => {}
        }
        self.idle_at.insert(key.clone(), idle_at);
        self.order.insert((idle_at, key.clone()));
    }

    fn forget_idle(&mut self, now: Instant) {
        while self
            .order
            .first()
            .is_some_and(|(idle_at, _)| *idle_at <= now)
        {
            self.forget_first();
        }
        // A flood of keys must not keep its memory for ever.
        if self.idle_at.len() < self.idle_at.capacity() / 8 {
            self.idle_at.shrink_to_fit();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.idle_at.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_THEN_ONE_PER_SECOND: Allowance = Allowance {
        burst: 10,
        every: Duration::from_secs(1),
    };

    /// Takes until refused: how often, and the wait that was named.
    fn burst(rates: &Rates<u32>, key: u32, now: Instant) -> (u32, Duration) {
        let mut taken = 0;
        loop {
            match rates.take(&key, now) {
                Ok(()) => taken += 1,
                Err(wait) => return (taken, wait),
            }
        }
    }

    #[test]
    fn burst_passes_then_one_per_interval_and_key() {
        let (rates, start) = (Rates::new(TEN_THEN_ONE_PER_SECOND, 100), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(burst(&rates, 1, start), (10, second));
        assert_eq!(burst(&rates, 2, start), (10, second), "another key");
        assert_eq!(burst(&rates, 1, start + second), (1, second));
        // The wait that was named is enough, and less is not.
        let almost = start + 2 * second - Duration::from_millis(1);
        assert_eq!(rates.take(&1, almost), Err(Duration::from_millis(1)));
        assert_eq!(burst(&rates, 1, start + 2 * second), (1, second));
        assert_eq!(burst(&rates, 1, start + 60 * second), (10, second));
        let mut alone = Rate::new(TEN_THEN_ONE_PER_SECOND);
        let taken = (0..20).filter(|_| alone.take(start).is_ok()).count();
        assert_eq!(taken, 10);
    }

    #[test]
    fn completed_work_is_charged_and_delays_next_use() {
        let (rates, start) = (Rates::new(TEN_THEN_ONE_PER_SECOND, 100), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(rates.charge(&1, 9, start), Duration::ZERO);
        assert_eq!(rates.charge(&1, 1, start), second);
        assert_eq!(rates.charge(&1, 25, start), 26 * second);
        assert_eq!(rates.take(&1, start), Err(26 * second));
        assert_eq!(rates.take(&1, start + 26 * second), Ok(()));
        assert_eq!(burst(&rates, 2, start), (10, second), "another key");
        for key in 3..1_000 {
            assert_eq!(rates.charge(&key, 1, start), Duration::ZERO);
        }
        assert_eq!(rates.len(), 100);
    }

    #[test]
    fn key_overflow_drops_least_used_key() {
        let (rates, start) = (Rates::new(TEN_THEN_ONE_PER_SECOND, 100), Instant::now());
        burst(&rates, 0, start);
        for key in 1..10_000 {
            rates.take(&key, start).unwrap();
        }
        assert_eq!(rates.len(), 100);
        assert!(rates.take(&0, start).is_err(), "the greedy one is known");
    }

    #[test]
    fn keys_that_are_idle_again_are_forgotten() {
        let (rates, start) = (Rates::new(TEN_THEN_ONE_PER_SECOND, 10_000), Instant::now());
        for key in 0..5_000 {
            rates.take(&key, start).unwrap();
        }
        assert_eq!(rates.len(), 5_000);
        rates.take(&9_999, start + Duration::from_secs(2)).unwrap();
        assert_eq!(rates.len(), 1);
        assert!(rates.keys.lock().idle_at.capacity() < 5_000);
    }
}
