//! A set with a maximum size whose members expire after a fixed time.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Each is held in two places. Beyond `most`, the oldest make room.
#[derive(Debug)]
pub(crate) struct ExpiringSet<K> {
    until: HashMap<K, Instant>,
    order: VecDeque<(Instant, K)>,
    kept: Duration,
    most: usize,
}

impl<K: Copy + Eq + Hash> ExpiringSet<K> {
    #[must_use]
    pub(crate) fn new(kept: Duration, most: usize) -> Self {
        Self {
            until: HashMap::new(),
            order: VecDeque::new(),
            kept,
            most,
        }
    }

    /// It is remembered from now on, anew where it was noted before.
    pub(crate) fn note(&mut self, one: K, now: Instant) {
        self.forget(now);
        while self.order.len() >= self.most {
            self.drop_oldest();
        }
        let until = now + self.kept;
        self.until.insert(one, until);
        self.order.push_back((until, one));
    }

    #[must_use]
    pub(crate) fn has(&self, one: &K, now: Instant) -> bool {
        self.until.get(one).is_some_and(|until| now < *until)
    }

    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }

    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
    }

    /// What was noted again has a later entry, which keeps it.
    fn drop_oldest(&mut self) {
        if let Some((until, one)) = self.order.pop_front()
            && self.until.get(&one) == Some(&until)
        {
            self.until.remove(&one);
        }
    }
}
