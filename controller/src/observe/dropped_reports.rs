//! Records for which namespaces reports were dropped, because their pods exceeded their share of
//! memory.
//!
//! A call that is missing from the sums may then still have happened, and a response has to report
//! that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Namespaces that are named in one stretch of time; with more, it counts for all.
const MAX_NAMESPACES: usize = 64;

/// Reports that are missing from a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DroppedReports {
    /// Of the pods that reported them.
    namespaces: BTreeSet<Arc<str>>,
    /// Some are of further namespaces.
    others: bool,
}

impl DroppedReports {
    /// A report of a pod of this namespace went.
    pub(crate) fn note(&mut self, namespace: &Arc<str>) {
        if self.namespaces.contains(namespace) {
            return;
        }
        if self.namespaces.len() < MAX_NAMESPACES {
            self.namespaces.insert(Arc::clone(namespace));
        } else {
            self.others = true;
        }
    }

    /// Those of another stretch as well.
    pub(crate) fn add(&mut self, more: &Self) {
        more.namespaces.iter().for_each(|one| self.note(one));
        self.others |= more.others;
    }

    /// None went.
    pub(crate) fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && !self.others
    }

    /// Whether some may be of pods of a namespace that `is_meant`.
    pub(crate) fn concerns(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        self.others || self.namespaces.iter().any(|one| is_meant(one))
    }

    /// Bytes that it takes at most.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.namespaces.iter();
        names.map(|name| size_of::<Arc<str>>() + name.len()).sum()
    }
}

/// The same by interval.
pub(super) type ByInterval = BTreeMap<u64, DroppedReports>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_beyond_namespace_limit_concerns_all_namespaces() {
        let of = |numbers: std::ops::Range<usize>| {
            let mut dropped_reports = DroppedReports::default();
            for number in numbers {
                dropped_reports.note(&format!("n{number}").into());
            }
            dropped_reports
        };
        assert!(DroppedReports::default().is_empty());
        let mut few = of(0..2);
        few.add(&of(1..3));
        assert!(
            ["n0", "n1", "n2"]
                .iter()
                .all(|name| few.concerns(|one| one == *name))
        );
        assert!(!few.concerns(|one| one == "n3") && !few.is_empty());
        let many = of(0..MAX_NAMESPACES + 1);
        assert!(many.concerns(|_| false));
        few.add(&many);
        assert!(few.concerns(|_| false));
        assert!(few.bytes() < MAX_NAMESPACES * (16 + 64));
    }
}
