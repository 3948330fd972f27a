//! Schedules reads of single objects that cannot be watched, since nothing gives the right to watch
//! all of their kind.
//!
//! The set follows what users name. An object is read at once when it is named, and then again and
//! again. Namespaces take turns, and in each the one that waits longest comes first: who names
//! thousands of objects makes those of others wait no longer than for one. Time is an argument.
//!
//! May import nothing else of this crate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::world::ObjectKey;
use tokio::time::Instant;

/// A changed object is seen within this time.
pub(crate) const EVERY: Duration = Duration::from_secs(10);
/// Between two reads, so that many objects cost the API server 20 reads a second.
pub(crate) const PACE: Duration = Duration::from_millis(50);

/// When each object is read next.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    due: BTreeMap<ObjectKey, Instant>,
    /// Number of the last read in each namespace.
    turns: BTreeMap<Arc<str>, u64>,
    /// Reads so far.
    reads: u64,
}

impl Schedule {
    /// Takes which are wanted, and returns those that are not any more.
    pub(crate) fn want(&mut self, wanted: BTreeSet<ObjectKey>, now: Instant) -> Vec<ObjectKey> {
        let known = self.due.keys();
        let gone: Vec<ObjectKey> = known
            .filter(|key| !wanted.contains(*key))
            .cloned()
            .collect();
        for key in &gone {
            self.due.remove(key);
        }
        let named: BTreeSet<&str> = wanted.iter().map(|key| &*key.namespace).collect();
        self.turns
            .retain(|namespace, _| named.contains(&**namespace));
        for key in wanted {
            self.due.entry(key).or_insert(now);
        }
        gone
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// The one whose turn it is, which is due again after a while.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<ObjectKey> {
        let turns = &self.turns;
        let waiting = self.due.iter_mut().filter(|(_, due)| **due <= now);
        let turn = |key: &ObjectKey| turns.get(&key.namespace).copied();
        let (key, due) = waiting.min_by_key(|(key, due)| (turn(key), **due))?;
        *due = now + EVERY;
        self.reads += 1;
        self.turns.insert(Arc::clone(&key.namespace), self.reads);
        Some(key.clone())
    }

    /// Reads one earlier, or later, than it would be.
    pub(crate) fn set_due(&mut self, key: &ObjectKey, at: Instant) {
        if let Some(due) = self.due.get_mut(key) {
            *due = at;
        }
    }

    /// All that are wanted.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &ObjectKey> {
        self.due.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_objects_of_one_namespace_delay_no_other() {
        let many = (0..1000).map(|n| ObjectKey::new("many", &format!("a{n:04}")));
        let few = ["b", "c"].map(|name| ObjectKey::new("few", name));
        let mut schedule = Schedule::default();
        schedule.want(many.clone().collect(), Instant::now());
        tokio::time::advance(EVERY / 2).await;
        schedule.want(many.chain(few.clone()).collect(), Instant::now());
        let read = (0..5).filter_map(|_| schedule.take_due(Instant::now()));
        let read: Vec<ObjectKey> = read.collect();
        assert!(few.iter().all(|key| read.contains(key)), "{read:?}");
        assert_eq!(read.len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn object_that_waits_longest_comes_first() {
        let [first, second] = ["b", "a"].map(|name| ObjectKey::new("shop", name));
        let mut schedule = Schedule::default();
        let start = Instant::now();
        schedule.want(BTreeSet::from([first.clone()]), start);
        tokio::time::advance(PACE).await;
        let now = Instant::now();
        schedule.want(BTreeSet::from([first.clone(), second.clone()]), now);
        assert_eq!(schedule.take_due(now), Some(first));
        assert_eq!(schedule.take_due(now), Some(second));
        assert_eq!(schedule.take_due(now), None, "each once");
        assert_eq!(schedule.next_due(), Some(now + EVERY));
    }
}
