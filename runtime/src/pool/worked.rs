//! Holders that have completed work, and when they last did.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Holders that are remembered. API servers are a few.
const MAX_WORKED: usize = 1024;

/// Those that worked last, also when they hold nothing by now.
pub(super) struct Worked<K> {
    last: HashMap<K, u64>,
    order: BTreeMap<u64, K>,
}

impl<K> Default for Worked<K> {
    fn default() -> Self {
        Self {
            last: HashMap::new(),
            order: BTreeMap::new(),
        }
    }
}

impl<K: Clone + Ord + Hash> Worked<K> {
    /// Records that this one completed work `now`, a number that no other had before.
    pub(super) fn note(&mut self, holder: &K, now: u64) {
        if let Some(before) = self.last.insert(holder.clone(), now) {
            self.order.remove(&before);
        }
        self.order.insert(now, holder.clone());
        if self.order.len() > MAX_WORKED
            && let Some((_, longest_ago)) = self.order.pop_first()
        {
            self.last.remove(&longest_ago);
        }
    }

    /// When it last completed work.
    pub(super) fn last(&self, holder: &K) -> Option<u64> {
        self.last.get(holder).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_active_holders_are_dropped_beyond_limit() {
        let mut worked = Worked::default();
        worked.note(&0, 1);
        for holder in 1..=MAX_WORKED {
            worked.note(&holder, 2 * holder as u64);
            worked.note(&0, 2 * holder as u64 + 1);
        }
        assert_eq!(worked.last(&1), None);
        assert!(worked.last(&0).is_some() && worked.last(&2).is_some());
        assert_eq!(worked.last.len(), MAX_WORKED);
        assert_eq!(worked.order.len(), MAX_WORKED);
    }
}
