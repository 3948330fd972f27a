//! What stands before the application: how long a request may take, and limits of this pod.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, header};
use policy::deadline::Deadline;
use policy::limit::Emptied;
use policy::path::PathReadings;
use policy::reason::Reason;
use policy::traffic::guard::Priority;

use crate::config::guard::{Arrival, Exceeded, Noticed, PortGuard};
use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::deadline::{self, Timed, now};
use crate::http::received::{Received, authority_of};
use crate::http::shadow::Shadow;
use crate::inbound::authorize::Admitted;
use crate::inbound::connection::Connection;
use crate::inbound::path::JudgedPath;
use crate::telemetry::call::Call;
use crate::telemetry::labels::{RateLimitedLabels, ShadowLabels};

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

impl Connection {
    /// Until when a request has to be done: by its caller, and by policies where its caller's
    /// proxy did not apply them: it has none or carried bytes, or the pod was called by its own
    /// address. A peer proxy marks that, and one of an earlier version shows where the host is
    /// that address. Headers of ours count only from peer proxies.
    pub(super) fn deadline(
        &self,
        snapshot: &Snapshot,
        received: &Received,
        path: &JudgedPath,
    ) -> Deadline {
        let (parts, is_proxy) = (&received.parts, self.is_of_proxy());
        let times = received.times.as_deref().filter(|_| is_proxy);
        let weft = times.and_then(|times| times.timeout.as_ref());
        let rest = times.and_then(|times| times.rest.as_ref());
        let timed = Timed::read(&parts.headers, received.grpc, weft, rest);
        self.proxy.telemetry.metrics.read_time(timed.unreadable);
        let guard = self.guard(snapshot).filter(|guard| guard.has_times());
        let guard = guard.filter(|_| !self.is_called_as_service(received));
        let request = guard.and_then(|guard| {
            guard.request_time(self.caller(), &path.facts(parts), path.forms().ways())
        });
        deadline::arrived(parts, timed, request)
    }

    /// Whether the proxy of its caller applied policies to a request, and may choose another
    /// endpoint for it: it read the request, which was not sent to this very pod.
    pub(super) fn is_called_as_service(&self, received: &Received) -> bool {
        let times = received.times.as_deref();
        let leaves_policies = times.is_some_and(|times| times.unlimited);
        self.is_of_proxy() && !leaves_policies && !self.is_called_by_address(&received.parts)
    }

    /// Whether a request names no Service as its host, but the pod's own address.
    fn is_called_by_address(&self, parts: &Parts) -> bool {
        let host = authority_of(parts);
        let host = host
            .as_ref()
            .map(|host| host.host().trim_matches(['[', ']']));
        let ip = host.and_then(|host| host.parse().ok());
        ip.is_some_and(|ip| self.proxy.own.has(ip))
    }

    /// May a copy come in that is only for pods which can change nothing?
    pub(super) fn admit_copy(
        &self,
        snapshot: &Snapshot,
        received: &Received,
    ) -> Result<(), Failure> {
        let wants = self.shadow(received) == Some(Shadow::ReadOnly);
        if wants && snapshot.takes_copies().is_none() {
            let detail = "a copy that is only for pods which their proxy lets change nothing, and \
                          this is none";
            return Err(Failure::refused(Reason::ShadowWrite, detail));
        }
        Ok(())
    }

    /// What a request has to do with copies, which only a proxy of the mesh may state. It proves
    /// nothing: the receiver of a mirror could learn whose copies it gets, and so could its own
    /// callees. So it may only take something from a request, which is evaluated, limited and
    /// counted as any other, and goes last ([`Self::requested_class`]).
    pub(super) fn shadow(&self, received: &Received) -> Option<Shadow> {
        received.shadow.filter(|_| self.is_of_proxy())
    }

    /// Counts by whose word calls of this pod are not copied for a while.
    pub(super) fn count_shadow(&self, shadow: Option<Shadow>) {
        let said = match shadow {
            None => return,
            Some(Shadow::Any | Shadow::ReadOnly) => "copy",
            Some(Shadow::Perhaps(_)) => "perhaps",
        };
        let peer = Arc::clone(&self.label);
        let labels = ShadowLabels { peer, said };
        let metrics = &self.proxy.telemetry.metrics;
        metrics.shadow_requests.at(&labels).inc();
    }

    /// The class that a request states, which counts only from peer proxies. A copy is Sheddable
    /// whatever it states, or a false mark as a copy would cost nothing.
    pub(super) fn requested_class(&self, received: &Received) -> Option<Priority> {
        match self.shadow(received) {
            Some(Shadow::Any | Shadow::ReadOnly) => Some(Priority::Sheddable),
            Some(Shadow::Perhaps(_)) | None => received.priority.filter(|_| self.is_of_proxy()),
        }
    }

    /// The limit that refuses this request, after it was allowed: others use no tokens.
    pub(super) fn limited(
        &self,
        snapshot: &Snapshot,
        parts: &Parts,
        path: &JudgedPath,
    ) -> Option<Box<Exceeded>> {
        let guard = self.guard(snapshot)?;
        self.exceeds(
            guard,
            &Arrival {
                caller: self.caller(),
                request: Some(&path.facts(parts)),
                path: path.forms().ways(),
            },
        )
    }

    /// May this caller use the port for opaque bytes, and for one more connection of them?
    /// `begins_as_tls`: as far as they were looked at.
    pub(super) fn admit_bytes(
        &self,
        snapshot: &Snapshot,
        begins_as_tls: bool,
    ) -> Result<Admitted, Failure> {
        let admitted = self.authorize_bytes(snapshot, begins_as_tls)?;
        let arrival = Arrival {
            caller: self.caller(),
            request: None,
            path: PathReadings::One,
        };
        let guard = self.guard(snapshot);
        match guard.and_then(|guard| self.exceeds(guard, &arrival)) {
            Some(exceeded) => Err(failure(&exceeded)),
            None => Ok(admitted),
        }
    }

    pub(super) fn guard<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a PortGuard> {
        let guard = snapshot.guard.as_ref()?;
        guard.port(self.local.port()).map(|port| &**port)
    }

    fn exceeds(&self, guard: &PortGuard, arrival: &Arrival<'_>) -> Option<Box<Exceeded>> {
        let count = |origin: &policy::origin::Origin, mode| {
            let labels = RateLimitedLabels {
                policy: format!("{}/{}", origin.namespace(), origin.name()).into(),
                limit: origin.rule_name().unwrap_or_default().into(),
                mode,
            };
            self.proxy.telemetry.metrics.rate_limited.at(&labels).inc();
        };
        let admitted = guard.admit(now(), arrival, |noticed| match noticed {
            Noticed::Audited(origin) => count(origin, "Audit"),
            Noticed::Overflowed => self.proxy.telemetry.metrics.limit("rate-limit-keys"),
        });
        let exceeded = admitted.err()?;
        count(&exceeded.origin, "Enforce");
        Some(Box::new(exceeded))
    }
}

fn failure(exceeded: &Exceeded) -> Failure {
    let (origin, wait) = (&exceeded.origin, exceeded.refused.retry_after());
    let emptied = match exceeded.refused.emptied {
        Emptied::Own => "is reached",
        Emptied::Forgotten => {
            "is reached by more keys than it has places for: what forgotten keys used is counted \
             to this one"
        }
        Emptied::Shared => {
            "has no place for one more caller, and the bucket that such callers share is empty"
        }
    };
    Failure::Refused {
        reason: Reason::Limit,
        by: Some(origin.clone()),
        detail: format!("the limit of {origin} {emptied}; a token is there in {wait} s").into(),
    }
}

/// The answer to a request that exceeds a limit: with when to come again.
pub(super) fn answer(exceeded: &Exceeded, call: Call, parts: &Parts, grpc: bool) -> Response<Body> {
    let mut response = call.refuse(&failure(exceeded), &parts.method, grpc);
    let (name, value) = if grpc {
        let millis = exceeded.refused.wait.as_millis().max(1);
        (PUSHBACK, u64::try_from(millis).unwrap_or(u64::MAX))
    } else {
        (header::RETRY_AFTER, exceeded.refused.retry_after())
    };
    response
        .headers_mut()
        .insert(name, HeaderValue::from(value));
    response
}
