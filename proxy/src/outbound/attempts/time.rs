//! How long a call's attempts and its response may take, and why an attempt was abandoned.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use policy::deadline::Deadline;
use policy::reason::Reason;
use policy::retry;
use policy::traffic::call::Timeouts;

use super::Attempts;
use super::failed::{Doubted, Failed};
use crate::endpoints::endpoint::InFlight;
use crate::failure::Failure;
use crate::http::deadline::{self, StopConditions, WaitEnd};
use crate::http::replay::Replay;
use crate::http::upload::Upload;
use crate::outbound::attempt_outcome;
use crate::outbound::call_policy;
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;

impl Attempts<'_> {
    pub(super) fn timeouts(&self) -> &Timeouts {
        call_policy::timeouts(self.route.policy.as_deref())
    }

    /// What an attempt ends by which has no head of its answer until then.
    pub(super) fn attempt_ends(
        &self,
        outgoing: &Outgoing,
        upload: &Upload,
    ) -> Option<Box<StopConditions>> {
        let Timeouts {
            backend_request: limit,
            idle,
            ..
        } = *self.timeouts();
        let left = outgoing.leaving();
        let endless = outgoing.deadline == Deadline::NONE && left.is_none();
        if limit.is_none() && idle.is_none() && endless {
            return None;
        }
        let (method, now) = (&outgoing.parts.method, deadline::now());
        let deadline = outgoing.deadline;
        // Another Service is to have what is left of the time, where one may answer.
        let saves = || {
            let policy = self.route.policy.as_deref();
            !self.route.overridden && call_policy::saves_time(policy, outgoing.fallback_call())
        };
        let outlasts = deadline.outlasts(method, now, limit);
        let outlasts = outlasts.filter(|_| !saves());
        let at = deadline.attempt(method, now, limit, outlasts.is_some());
        let ends = StopConditions::new(at, idle, upload, left);
        // A request for another protocol may have to wait for it.
        let slow = outlasts.filter(|_| outgoing.upgrade.is_none());
        ends.map(|ends| ends.slow_at(slow))
    }

    /// An attempt to that endpoint has taken as long as one may. Whether it is abandoned for
    /// another one, which is chosen and paid for with that: what was there when the attempt began
    /// may be gone by now, since calls that hang together would all count on the same token.
    /// Where none follows, an end would save no time, and the attempt goes on.
    pub(super) fn is_followed(
        &mut self,
        proxy: &Proxy,
        to: SocketAddr,
        outgoing: &Outgoing,
    ) -> bool {
        let failed = Failed {
            doubted: Doubted::PassedOver,
            ..Failed::new(outgoing, retry::Ended::TimedOut)
        };
        self.tried.push(to);
        let next = self.decide_next(proxy, &failed);
        // It is noted once the attempt has ended.
        self.tried.pop();
        // Why none follows is not counted: nothing has failed.
        matches!(next, retry::Next::Retry { .. })
    }

    /// An attempt takes longer than one may, and goes on because none follows it. That its
    /// endpoint failed it must not wait until the call is over, which may be much later: others
    /// go there meanwhile.
    ///
    /// When to look again: while the sender of the request is waited for, nothing is shown.
    pub(super) fn slow(&mut self, to: &mut InFlight, call: &Call) -> Option<Instant> {
        if self.shown {
            return None;
        }
        let (latency, signal) = attempt_outcome::signal_when_late(self.waits_for_sender());
        if signal.is_some() {
            self.record(to, latency, signal, call);
            self.shown = true;
            return None;
        }
        let limit = self.timeouts().backend_request?;
        Some(deadline::now() + limit)
    }

    /// Whether the endpoint has to wait for the remaining request itself.
    pub(super) fn waits_for_sender(&self) -> bool {
        self.replay.is_some_and(Replay::waits_for_sender)
    }

    /// What the answer ends by.
    pub(super) fn answer_ends(
        &self,
        outgoing: &Outgoing,
        upload: &Upload,
    ) -> Option<Box<StopConditions>> {
        let at = deadline::ends(outgoing.deadline, &outgoing.parts.method);
        let ends = StopConditions::new(at, self.timeouts().idle, upload, outgoing.leaving());
        ends.map(|ends| ends.with_grpc(outgoing.grpc))
    }

    /// Why an attempt was abandoned that had no response in its time.
    pub(super) fn late(&self, outgoing: &Outgoing, over: WaitEnd) -> Failure {
        // A call that was left has no waiting caller.
        let late = !matches!(over, WaitEnd::Left);
        outgoing.late.store(late, Relaxed);
        if let Err(passed) = deadline::check(outgoing.deadline) {
            return passed;
        }
        let limit = |limit: Option<_>| limit.unwrap_or_default();
        match over {
            WaitEnd::Time => Failure::TimedOut {
                detail: format!(
                    "no answer within {:?}",
                    limit(self.timeouts().backend_request)
                )
                .into(),
            },
            WaitEnd::Left => deadline::left(),
            WaitEnd::Still => {
                let detail = format!("nothing moved for {:?}", limit(self.timeouts().idle));
                Failure::refused(Reason::Deadline, detail)
            }
        }
    }
}
