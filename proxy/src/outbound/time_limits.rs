//! The time limits of an attempt and of its response, why an attempt was abandoned, and what that
//! shows of its endpoint.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use policy::deadline::Deadline;
use policy::reason::Reason;
use policy::traffic::call::Timeouts;
use tokio::time::Instant;

use crate::endpoints::endpoint::Endpoint;
use crate::failure::Failure;
use crate::http::deadline::{self, StopConditions, WaitEnd};
use crate::http::replay::Replay;
use crate::http::upload::Upload;
use crate::outbound::call_policy;
use crate::outbound::route::Route;
use crate::outbound::send::Outgoing;

/// What an attempt ends by which has no head of its answer until then.
pub(super) fn of_attempt(
    route: &Route,
    outgoing: &Outgoing,
    upload: &Upload,
) -> Option<Box<StopConditions>> {
    let policy = route.policy.as_deref();
    let Timeouts {
        backend_request: limit,
        idle,
        ..
    } = *call_policy::timeouts(policy);
    let left = outgoing.leaving();
    let endless = outgoing.deadline == Deadline::NONE && left.is_none();
    if limit.is_none() && idle.is_none() && endless {
        return None;
    }
    let (method, now) = (&outgoing.parts.method, deadline::now());
    let deadline = outgoing.deadline;
    // Another Service is to have what is left of the time, where one may answer.
    let saves = || !route.overridden && call_policy::saves_time(policy, outgoing.fallback_call());
    let outlasts = deadline.outlasts(method, now, limit);
    let outlasts = outlasts.filter(|_| !saves() && !call_policy::ends_attempts(policy));
    let at = deadline.attempt(method, now, limit, outlasts.is_some());
    let ends = StopConditions::new(at, idle, upload, left);
    // A request for another protocol may have to wait for it.
    let slow = outlasts.filter(|_| outgoing.upgrade.is_none());
    ends.map(|ends| ends.slow_at(slow))
}

/// What the answer ends by.
pub(super) fn of_answer(
    route: &Route,
    outgoing: &Outgoing,
    upload: &Upload,
) -> Option<Box<StopConditions>> {
    let idle = call_policy::timeouts(route.policy.as_deref()).idle;
    let at = deadline::ends(outgoing.deadline, &outgoing.parts.method);
    let ends = StopConditions::new(at, idle, upload, outgoing.leaving());
    ends.map(|ends| ends.with_grpc(outgoing.grpc))
}

/// Why an attempt was abandoned that had no response in its time.
pub(super) fn abandoned(route: &Route, outgoing: &Outgoing, over: WaitEnd) -> Failure {
    // A call that was left has no waiting caller.
    let late = !matches!(over, WaitEnd::Left);
    outgoing.late.store(late, Relaxed);
    if let Err(passed) = deadline::check(outgoing.deadline) {
        return passed;
    }
    let timeouts = call_policy::timeouts(route.policy.as_deref());
    let limit = |limit: Option<_>| limit.unwrap_or_default();
    match over {
        WaitEnd::Time => Failure::TimedOut {
            detail: format!("no answer within {:?}", limit(timeouts.backend_request)).into(),
        },
        WaitEnd::Left => deadline::left(),
        WaitEnd::Still => {
            let detail = format!("nothing moved for {:?}", limit(timeouts.idle));
            Failure::refused(Reason::Deadline, detail)
        }
    }
}

/// An attempt without a response. Dropped before that is over, its caller has left, and it
/// reports to its endpoint how long the caller waited: a response would have taken longer.
/// Without that an endpoint that hangs would never be measured, and one without a measurement is
/// the cheapest.
pub(super) struct Unanswered<'a> {
    to: &'a Endpoint,
    replay: &'a Replay,
    since: Instant,
    over: bool,
}

impl<'a> Unanswered<'a> {
    pub(super) fn new(to: &'a Endpoint, replay: &'a Replay) -> Self {
        Self {
            to,
            replay,
            since: Instant::now(),
            over: false,
        }
    }

    /// The attempt has ended by itself.
    pub(super) fn over(mut self) {
        self.over = true;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // What the caller needed to send the request is no time of the endpoint.
        let waited = if self.replay.waits_for_sender() {
            Duration::ZERO
        } else {
            self.since.elapsed()
        };
        self.to.attempt_abandoned(waited);
    }
}
