//! Says when each object of a set is read next, for objects that are read one by one because
//! nothing gives the right to watch all of their kind.
//!
//! The set follows what users name. An object is read at once when it is named, and then again and
//! again; the one that waits longest comes first. Time is an argument.
//!
//! May import nothing else of this crate.

use std::collections::{BTreeMap, BTreeSet};
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
        for key in wanted {
            self.due.entry(key).or_insert(now);
        }
        gone
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// The one that waits longest, which is due again after a while.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<ObjectKey> {
        let (key, due) = self.due.iter_mut().min_by_key(|(_, due)| **due)?;
        if *due > now {
            return None;
        }
        *due = now + EVERY;
        Some(key.clone())
    }

    /// Reads one earlier, or later, than it would be.
    pub(crate) fn set_due(&mut self, key: &ObjectKey, at: Instant) {
        if let Some(due) = self.due.get_mut(key) {
            *due = at;
        }
    }

    /// Whether it is still wanted.
    pub(crate) fn wants(&self, key: &ObjectKey) -> bool {
        self.due.contains_key(key)
    }
}
