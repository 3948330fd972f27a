//! What becomes of the graph when the clock that numbers its slots is set.

use std::time::{Instant, SystemTime};

use tracing::warn;

use super::{Graph, GraphState};
use crate::graph::wall_clock::{ClockStep, WallClock};
use crate::observe::reports::slot_of;

impl GraphState {
    /// Whether the clock was set, and nothing was done about it yet.
    pub(super) fn clock_is_set(&self) -> bool {
        let clock = self.clock.as_ref();
        clock.is_some_and(|clock| clock.is_set(SystemTime::now(), Instant::now()))
    }
}

impl Graph {
    /// Looks at the clock, which shows `now` at the moment `at`. From the first look on responses
    /// report when it is set.
    pub(super) fn look_at_clock(&self, now: SystemTime, at: Instant) {
        let mut state = self.inner.state.lock();
        let Some(clock) = &mut state.clock else {
            state.clock = Some(WallClock::new(now, at));
            return;
        };
        let Some(step) = clock.look(now, at) else {
            return;
        };
        // Before any query finds the clock looked at.
        state.clock_set_in = Some(slot_of(now));
        drop(state);
        self.clock_was_set(step, now);
    }

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
