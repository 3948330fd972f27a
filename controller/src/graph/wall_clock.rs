//! Detects that the wall clock was set, by comparing it with the time that passed. The clock
//! numbers the intervals. A clock that is slewed, or a thread that waits, is no such step.
//!
//! Claims: observe-11

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use crate::observe::reports::INTERVAL;

/// A clock that shows something else than the time that passed, by more than this, was set.
/// Less puts calls into an interval beside theirs.
const SET: Duration = Duration::from_secs(2 * INTERVAL);

/// By how much the clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockStep {
    /// What it shows now was there before.
    Back(Duration),
    /// This time never was.
    Ahead(Duration),
}

impl fmt::Display for ClockStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Back(by) => write!(f, "{} s back", by.as_secs()),
            Self::Ahead(by) => write!(f, "{} s ahead", by.as_secs()),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct WallClock {
    /// What it showed at the last look, and when that was.
    looked: (SystemTime, Instant),
}

impl WallClock {
    /// One that shows `now` at the moment `at`.
    pub(super) fn new(now: SystemTime, at: Instant) -> Self {
        Self { looked: (now, at) }
    }

    /// Looks at it again: whether it was set meanwhile.
    pub(super) fn look(&mut self, now: SystemTime, at: Instant) -> Option<ClockStep> {
        let step = self.step(now, at);
        self.looked = (now, at);
        step
    }

    /// Whether it was set since the last look, which this is none of.
    pub(super) fn is_set(&self, now: SystemTime, at: Instant) -> bool {
        self.step(now, at).is_some()
    }

    fn step(&self, now: SystemTime, at: Instant) -> Option<ClockStep> {
        let (shown, looked_at) = self.looked;
        let due = shown.checked_add(at.saturating_duration_since(looked_at))?;
        let (by, step) = match now.duration_since(due) {
            Ok(by) => (by, ClockStep::Ahead(by)),
            Err(early) => (early.duration(), ClockStep::Back(early.duration())),
        };
        (by > SET).then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What a look finds `passed` after the one before, when the clock shows `now`.
    fn look(passed: Duration, now: SystemTime) -> Option<ClockStep> {
        let at = Instant::now();
        WallClock::new(start(), at).look(now, at + passed)
    }

    fn start() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    #[test]
    fn clock_matching_elapsed_time_was_not_set() {
        for passed in [SECOND * 2, SECOND * 3600] {
            assert_eq!(look(passed, start() + passed), None, "{passed:?}");
            assert_eq!(look(passed, start() + passed + SET), None, "{passed:?}");
            assert_eq!(look(passed, start() + passed - SET), None, "{passed:?}");
        }
    }

    #[test]
    fn clock_step_beyond_two_intervals_is_measured() {
        let (passed, by) = (SECOND * 2, SET + SECOND);
        let due = start() + passed;
        assert_eq!(look(passed, due + by), Some(ClockStep::Ahead(by)));
        assert_eq!(look(passed, due - by), Some(ClockStep::Back(by)));
        let hours = SECOND * 7200;
        assert_eq!(look(passed, due - hours), Some(ClockStep::Back(hours)));
        let step = ClockStep::Back(due.duration_since(UNIX_EPOCH).unwrap());
        assert_eq!(look(passed, UNIX_EPOCH), Some(step));
    }

    /// A look in between takes nothing from the next look.
    #[test]
    fn step_is_there_until_it_is_looked_at() {
        let at = Instant::now();
        let mut clock = WallClock::new(start(), at);
        assert!(!clock.is_set(start() + SECOND * 2, at + SECOND * 2));
        let (ahead, later) = (start() + SECOND * 600, at + SECOND);
        assert!(clock.is_set(ahead, later) && clock.is_set(ahead, later));
        assert!(clock.look(ahead, later).is_some());
        assert!(!clock.is_set(ahead, later));
    }

    #[test]
    fn clock_step_is_reported_once() {
        let at = Instant::now();
        let mut clock = WallClock::new(start(), at);
        assert!(clock.look(start() + SECOND * 600, at + SECOND).is_some());
        assert_eq!(clock.look(start() + SECOND * 602, at + SECOND * 3), None);
    }
}
