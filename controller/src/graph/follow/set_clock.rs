//! What becomes of the graph when the clock is set by which its slots are numbered.

use std::time::SystemTime;

use tracing::warn;

use super::Graph;
use crate::graph::wall_clock::ClockStep;
use crate::observe::reports::slot_of;

impl Graph {
    /// The clock was set, and shows `now`. What stands in slots that come only now would be
    /// taken for what is counted in them, or keep it out, until the clock is there again. So it
    /// goes; what is before them stays where it is.
    pub(super) fn clock_was_set(&self, step: ClockStep, now: SystemTime) {
        warn!(
            %step,
            "the clock of this node was set: answers of the service graph that go back to that \
             say that they are not complete"
        );
        self.inner.metrics.clock_sets.inc();
        let current = slot_of(now);
        self.inner.reports.forget_from(current);
        let mut state = self.inner.state.lock();
        state.history.forget_from(current);
        state.remembered_to = state.remembered_to.min(current);
        state.clock_set_in = Some(current);
    }
}
