//! Bounds how often a call is sent: as retries, which a policy allows and a budget pays for, and as
//! failovers, where an endpoint did not get it or its connection ended.
//!
//! Only one proxy on a path retries: callers above do not retry what failed here in its last
//! attempt, and this proxy does not retry what proxies below have retried.

use std::sync::atomic::Ordering::Relaxed;

use policy::deadline::DeadlineSource;
use policy::reason::Reason;
use policy::retry::{self, Attempted, RequestedWait, RetryOutcome, may_retry};
use policy::traffic::call::Retry;

use crate::endpoints::learned::now;
use crate::endpoints::set::EndpointSet;
use crate::failure::{Failure, Next, RENEWALS};
use crate::http::deadline;
use crate::outbound::send::Outgoing;
use crate::telemetry::call::Call;

/// Times that a call may be offered while no endpoint takes it.
const ENDPOINTS: u8 = 3;

/// The same of those that have no room for it. Each may take half a minute to refuse, and where
/// the fleet is full a call that wanders through it takes turns from others.
const OVERLOADED: u8 = 2;

/// What is known of a call that failed, as far as that decides where it goes next.
pub(super) struct Failed<'a> {
    pub(super) outgoing: &'a Outgoing,
    pub(super) ended: retry::Ended,
    pub(super) requested_wait: RequestedWait,
    /// Its response reports that retries below it are exhausted: `weft-spent`.
    pub(super) retries_exhausted: bool,
}

impl<'a> Failed<'a> {
    /// Without a response.
    pub(super) const fn new(outgoing: &'a Outgoing, ended: retry::Ended) -> Self {
        Self {
            outgoing,
            ended,
            requested_wait: RequestedWait::Nothing,
            retries_exhausted: false,
        }
    }

    /// A proxy refused it, so no application saw it.
    pub(super) const fn was_refused(&self) -> bool {
        matches!(self.ended, retry::Ended::Refused(_))
    }
}

/// The retries of a call so far, and what it may have of them.
pub(super) struct Retries<'a> {
    pub(super) policy: &'a Retry,
    /// The call may be sent again after an application has seen it.
    repeatable: bool,
    made: u8,
    pub(super) failovers: Failovers,
}

impl<'a> Retries<'a> {
    pub(super) const fn new(policy: &'a Retry, repeatable: bool) -> Self {
        Self {
            policy,
            repeatable,
            made: 0,
            failovers: Failovers::NONE,
        }
    }

    pub(super) const fn made(&self) -> u8 {
        self.made
    }

    /// Another one begins. Where it follows a retry, that has failed.
    pub(super) fn begin(&mut self, call: &Call) {
        self.count_failed(call);
        self.made += 1;
    }

    /// Counts a retry that failed: when the next one begins, or there is none.
    pub(super) fn count_failed(&self, call: &Call) {
        if self.made > 0 {
            call.retried(RetryOutcome::Failure);
        }
    }

    /// Whether one may follow such a failure at all. What was refused was seen by no application.
    pub(super) const fn may_follow(&self, failed: &Failed<'_>) -> bool {
        self.repeatable || failed.was_refused()
    }

    /// What follows. A retry is paid for with that, and counts once it is made.
    pub(super) fn decide(&mut self, set: &EndpointSet, failed: &Failed<'_>) -> retry::Next {
        let attempted = self.attempted(failed);
        let now = now();
        let random = rand::random();
        let peers = set.peers();
        let next = may_retry(self.policy, &attempted, &set.budget, now, peers, random);
        if matches!(next, retry::Next::Retry { .. }) && failed.was_refused() {
            self.failovers.moved();
        }
        next
    }

    /// Whether such a failure of the last attempt is final for the call's parent request, too.
    pub(super) fn exhausts_parent_retries(&self, failed: &Failed<'_>) -> bool {
        self.attempted(failed).exhausts_parent_retries(self.policy)
    }

    /// A failed attempt, as far as it decides what follows.
    fn attempted<'b>(&self, failed: &Failed<'b>) -> Attempted<'b> {
        let outgoing = failed.outgoing;
        Attempted {
            method: &outgoing.parts.method,
            grpc: outgoing.grpc,
            ended: failed.ended,
            retries: self.made,
            moved: self.failovers.found_overload(),
            body_kept: outgoing.replay.is_kept(),
            retries_exhausted: failed.retries_exhausted || outgoing.is_for_retry(),
            late: outgoing.late.load(Relaxed)
                && deadline::reached(outgoing.deadline) != Some(DeadlineSource::Context),
            requested_wait: failed.requested_wait,
            deadline: outgoing.deadline,
        }
    }
}

/// The endpoints that a call was not sent to, and the connections that ended before it. A
/// failover costs no token of a budget, so there are bounds of its own.
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
