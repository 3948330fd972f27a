//! What a graph knows of itself that has not been told yet all that was counted before it began.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::{Graph, YOUNG};
use crate::graph::history;
use crate::observe::reports::{SLOT, slot_of};

impl Graph {
    /// What was written down has been read.
    pub(crate) fn recalled(&self) {
        self.inner.recalled.store(true, Ordering::Relaxed);
    }

    /// Whether it knows of the calls that were seen before this process began.
    pub(crate) fn has_recalled(&self) -> bool {
        self.inner.recalled.load(Ordering::Relaxed)
    }

    /// Whether it does not, and that comes in a moment. What cannot be read for good would be
    /// waited for without end, so later on answers say that they lack it.
    pub(crate) fn awaits_recall(&self) -> bool {
        !self.has_recalled() && !self.inner.grown.load(Ordering::Relaxed)
    }

    /// Whether it does not, and is not waited for any more.
    pub(crate) fn lacks_recall(&self) -> bool {
        !self.has_recalled() && self.inner.grown.load(Ordering::Relaxed)
    }

    /// Whether it began a moment ago, so that not every proxy has told it yet what it counted.
    pub(crate) fn gathers(&self) -> bool {
        self.inner.gathers.load(Ordering::Relaxed)
    }

    /// It looks for the first time. Of what was counted before, proxies tell again what a longest
    /// window would have that ends when all of them had time for that.
    pub(super) fn begins(&self, now: SystemTime) {
        let grown = slot_of(now) + YOUNG.as_secs() / SLOT;
        let known = grown.saturating_sub(history::LONGEST);
        self.inner.state.lock().history.begins(known);
    }

    /// Every proxy had time to tell it.
    pub(crate) fn grow(&self) {
        self.inner.gathers.store(false, Ordering::Relaxed);
        self.inner.grown.store(true, Ordering::Relaxed);
    }
}
