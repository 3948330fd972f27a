//! Whether a graph that is starting up still lacks what was counted before its start.

use std::time::SystemTime;

use super::startup::{Startup, StartupEvent};
use super::{Graph, UNREAD, YOUNG};
use crate::graph::history;
use crate::observe::reports::{SLOT, slot_of};

impl Graph {
    /// What was written down has been read.
    pub(crate) fn recalled(&self) {
        self.advance(StartupEvent::Recalled);
        *self.inner.unread.lock() = None;
    }

    /// What was written down could not be read, for this reason, which names the object.
    pub(crate) fn cannot_recall(&self, why: String) {
        *self.inner.unread.lock() = Some(why);
    }

    /// Why what was written down cannot be read, and what to do.
    pub(crate) fn why_unread(&self) -> String {
        let unread = self.inner.unread.lock().clone();
        unread.unwrap_or_else(|| UNREAD.to_owned())
    }

    /// Whether it knows of the calls that were seen before this process began.
    pub(crate) fn has_recalled(&self) -> bool {
        self.startup().has_recalled()
    }

    /// Whether the checkpoint is not loaded yet, and will be in a moment. One that cannot be read
    /// at all would be awaited without end, so later on responses report that they lack it.
    pub(crate) fn awaits_recall(&self) -> bool {
        self.startup().awaits_recall()
    }

    /// Whether it does not, and is not waited for any more.
    pub(crate) fn lacks_recall(&self) -> bool {
        self.startup().lacks_recall()
    }

    /// Whether it is starting up, so that some proxies have not sent it yet what they counted.
    pub(crate) fn gathers(&self) -> bool {
        self.startup().gathers()
    }

    /// The first look. Of what was counted before, proxies send again what a window of max length
    /// would have that ends when all of them had time for that.
    pub(super) fn begins(&self, now: SystemTime) {
        let grown = slot_of(now) + YOUNG.as_secs() / SLOT;
        let known = grown.saturating_sub(history::LONGEST);
        self.inner.state.lock().history.begins(known);
    }

    /// Every proxy had time to report again.
    pub(crate) fn grow(&self) {
        self.advance(StartupEvent::Grown);
    }

    pub(super) fn advance(&self, event: StartupEvent) {
        let mut startup = self.inner.startup.lock();
        *startup = startup.after(event);
    }

    fn startup(&self) -> Startup {
        *self.inner.startup.lock()
    }
}
