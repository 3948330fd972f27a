//! How often a call is moved to another endpoint because it was not sent to one, or to
//! another connection of the same one. That costs no token of a budget, so it has bounds of
//! its own.

use policy::reason::Reason;

use crate::failure::{Failure, Next, RENEWALS};

/// Times that a call may be offered while no endpoint takes it.
const ENDPOINTS: u8 = 3;

/// The same of those that have no room for it. Each may take half a minute to refuse, and where
/// the fleet is full a call that wanders through it takes turns from others.
const OVERLOADED: u8 = 2;

/// The endpoints that a call was not sent to, and the connections that ended before it.
#[derive(Debug)]
pub(super) struct Failovers {
    renewals: u8,
    unsent: u8,
    overloaded: u8,
}

impl Failovers {
    pub(super) const NONE: Self = Self {
        renewals: 0,
        unsent: 0,
        overloaded: 0,
    };

    /// Whether the same endpoint is tried once more by another connection, which then counts.
    pub(super) fn renews(&mut self, failure: &Failure) -> bool {
        let renews = failure.next() == Next::SameEndpoint && self.renewals < RENEWALS;
        self.renewals += u8::from(renews);
        renews
    }

    /// An attempt failed so.
    pub(super) fn note(&mut self, failure: &Failure) {
        if failure.next() != Next::Stop {
            self.unsent = self.unsent.saturating_add(1);
            let overload = failure.reason() == Reason::Overload;
            self.overloaded = self.overloaded.saturating_add(u8::from(overload));
        }
    }

    /// A server refused it whose application has no room, and it goes to another one.
    pub(super) const fn moved(&mut self) {
        self.overloaded = self.overloaded.saturating_add(1);
    }

    /// Whether another endpoint may be tried.
    pub(super) const fn may_go_on(&self) -> bool {
        self.unsent < ENDPOINTS && self.overloaded < OVERLOADED
    }

    /// Whether one of them had no room for it.
    pub(super) const fn found_overload(&self) -> bool {
        self.overloaded > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Endpoints that are tried where each fails like this, by turns.
    fn attempted(reasons: &[Reason]) -> usize {
        let mut failovers = Failovers::NONE;
        let mut failures = reasons.iter().cycle();
        let mut attempted = 0;
        while failovers.may_go_on() {
            failovers.note(&Failure::not_sent(*failures.next().unwrap(), "x"));
            attempted += 1;
        }
        attempted
    }

    #[test]
    fn call_fails_over_twice_or_once_when_full() {
        assert_eq!(attempted(&[Reason::ConnectFailed]), 3);
        assert_eq!(attempted(&[Reason::Overload]), 2);
        assert_eq!(attempted(&[Reason::Overload, Reason::ConnectFailed]), 3);
        assert_eq!(attempted(&[Reason::ConnectFailed, Reason::Overload]), 3);
    }

    #[test]
    fn call_rejected_for_overload_gets_one_more_failover() {
        let mut failovers = Failovers::NONE;
        failovers.moved();
        assert!(failovers.may_go_on() && failovers.found_overload());
        failovers.note(&Failure::not_sent(Reason::ConnectFailed, "x"));
        assert!(failovers.may_go_on());
        failovers.note(&Failure::not_sent(Reason::Overload, "x"));
        assert!(!failovers.may_go_on());
    }

    #[test]
    fn what_an_application_may_have_seen_is_no_move() {
        let mut failovers = Failovers::NONE;
        for _ in 0..5 {
            failovers.note(&Failure::lost("x"));
            failovers.note(&Failure::refused(Reason::Overload, "x"));
        }
        assert!(failovers.may_go_on() && !failovers.found_overload());
    }
}
