//! Dry runs of access rules: what rules that are not in force would decide about a call that the
//! rules in force have decided, and how much time their evaluation may take.
//!
//! The call waits while dry runs are evaluated. So the size of one set of rules is bounded before
//! it is compiled, and the time of all of them while they are evaluated.
//!
//! Claims: observe-121, observe-122

use std::time::{Duration, Instant};

/// Patterns of one set of rules, of paths and of headers.
pub const MAX_PATTERNS: usize = 64;
/// What asking may take in each [`SECOND`], for all sets of rules of a proxy together: a
/// hundredth of a core.
const MOST: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);

/// What a call would be, beside what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It passes, or does not, as it would.
    Kept,
    /// It passes, and would not.
    WouldRefuse,
    /// It does not pass, and would.
    WouldAllow,
}

impl Tried {
    /// Of a call that passes now or not, and would then or not.
    #[must_use]
    pub const fn of(now: bool, then: bool) -> Self {
        match (now, then) {
            (true, false) => Self::WouldRefuse,
            (false, true) => Self::WouldAllow,
            (true, true) | (false, false) => Self::Kept,
        }
    }
}

/// What asking took of the current second.
#[derive(Debug, Default)]
pub struct EvaluationBudget {
    /// When the second began, and what was taken since.
    second: Option<(Instant, Duration)>,
}

impl EvaluationBudget {
    /// Whether there is time left at `now`.
    pub fn is_left(&mut self, now: Instant) -> bool {
        let (began, spent) = self.second.get_or_insert((now, Duration::ZERO));
        let passed = now.saturating_duration_since(*began);
        if passed >= SECOND {
            let seconds = u32::try_from(passed.as_secs()).unwrap_or(u32::MAX);
            *began += SECOND.saturating_mul(seconds);
            // What one call took beyond is missing in the seconds that follow.
            *spent = spent.saturating_sub(MOST.saturating_mul(seconds));
        }
        *spent < MOST
    }

    /// So much was taken.
    pub fn spend(&mut self, took: Duration) {
        if let Some((_, spent)) = &mut self.second {
            *spent = spent.saturating_add(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn dry_run_reports_only_calls_with_changed_verdict() {
        assert_eq!(Tried::of(true, false), Tried::WouldRefuse);
        assert_eq!(Tried::of(false, true), Tried::WouldAllow);
        assert_eq!(Tried::of(true, true), Tried::Kept);
        assert_eq!(Tried::of(false, false), Tried::Kept);
    }

    #[test]
    fn ten_milliseconds_of_each_second_may_be_taken() {
        let start = Instant::now();
        let mut spending = EvaluationBudget::default();
        for at in 0..10 {
            assert!(spending.is_left(start + MS * at), "{at}");
            spending.spend(MS);
        }
        assert!(!spending.is_left(start + MS * 10));
        assert!(!spending.is_left(start + MS * 999));
        assert!(spending.is_left(start + MS * 1_000), "another second");
    }

    #[test]
    fn what_one_call_took_beyond_is_missing_later() {
        let start = Instant::now();
        let mut spending = EvaluationBudget::default();
        assert!(spending.is_left(start));
        spending.spend(MS * 25);
        for (at, left) in [(1, false), (2, true), (3, true)] {
            let now = start + SECOND * at;
            assert_eq!(spending.is_left(now), left, "{at}");
        }
        // A budget that is queried seldom gets no more than that.
        let mut seldom = EvaluationBudget::default();
        assert!(seldom.is_left(start));
        assert!(seldom.is_left(start + SECOND * 3_600));
        seldom.spend(MS * 10);
        assert!(!seldom.is_left(start + SECOND * 3_600 + MS));
    }
}
