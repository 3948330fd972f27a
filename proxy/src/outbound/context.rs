//! The request that a call of the application is made for, and what the call inherits of it: its
//! class and its route override. An override sends the call to another Service than the one called,
//! where the parent request names it and the called Service's policy grants it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use policy::access::Caller;
use policy::deadline::DeadlineSource;
use policy::name::ServiceId;
use policy::overrides::grant;
use policy::traffic::call::Override;
use policy::traffic::guard::Priority;

use crate::config::snapshot::{Service, Snapshot};
use crate::http::context::{Contexts, ParentRequest, ServedRequest};
use crate::http::deadline;
use crate::http::received::Received;
use crate::http::route_override::{OverrideAuthor, RouteOverride, UnreadableOverride};
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::labels::{ContextLabels, OverrideLabels};

/// What a call is made for, from its headers.
pub(super) fn of_call(proxy: &Proxy, received: &Received) -> ParentRequest {
    let (named, map) = (received.context, &received.parts.headers);
    let made_for = proxy.contexts.of_call(named, map);
    if let Some(how) = made_for.how() {
        let metrics = &proxy.telemetry.metrics;
        metrics.contexts.at(&ContextLabels { how }).inc();
    }
    made_for
}

/// The class that a call may have at most. A raise is ignored.
pub(super) fn priority(
    configured: Option<Priority>,
    made_for: Option<&ServedRequest>,
) -> Option<Priority> {
    let inherited = made_for.and_then(|request| request.inherited().priority);
    let inherited = inherited.filter(|class| *class == Priority::Sheddable);
    let configured = configured.filter(|class| *class != Priority::Critical);
    inherited.or(configured)
}

/// Where a call requests to go: by its own header, else by the request that it is made for.
pub(super) fn route_override(
    proxy: &Proxy,
    received: &Received,
    made_for: &ParentRequest,
) -> Option<Arc<RouteOverride>> {
    let inherited = match made_for {
        ParentRequest::Request(request) => request.inherited().route_override.as_ref(),
        _ => None,
    };
    let Some(headers) = &received.route_override else {
        return inherited.cloned();
    };
    match headers.read(OverrideAuthor::Own, &proxy.own.namespace) {
        Ok(Some(route_override)) => Some(Arc::new(route_override)),
        Ok(None) => inherited.cloned(),
        Err(UnreadableOverride) => {
            count_override(proxy, "unreadable");
            None
        }
    }
}

/// Where a call to `service` goes instead, if that is requested and granted.
pub(super) fn override_target(
    proxy: &Proxy,
    snapshot: &Snapshot,
    service: &Service,
    (resource, route_override): (&str, Option<&RouteOverride>),
) -> Option<ServiceId> {
    let route_override = route_override?;
    let target = route_override.of(&service.id)?;
    let policies = snapshot.policies.of(resource);
    let offered = policies.and_then(|policies| policies.overrides.decide(None).0.as_deref());
    let offered: &[Override] = offered.unwrap_or_default();
    let own = Caller::Mesh {
        id: &proxy.own.identity,
        pod: snapshot.policies.pod(),
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is none: what expires has.
    let unix = since.map_or(i64::MAX, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    });
    match grant(
        offered,
        &target,
        own,
        route_override.requested(),
        route_override.proof(),
        unix,
    ) {
        Ok(()) => {
            count_override(proxy, "granted");
            Some(target)
        }
        Err(ignored) => {
            count_override(proxy, ignored.as_str());
            None
        }
    }
}

fn count_override(proxy: &Proxy, outcome: &'static str) {
    let metrics = &proxy.telemetry.metrics;
    metrics.overrides.at(&OverrideLabels { outcome }).inc();
}

/// Guards a call that has not completed. Dropped before, its caller has left: at the end of the
/// call's own time that is the failure that this proxy would have reported a moment later.
pub(super) struct CancelGuard<'a> {
    contexts: &'a Contexts,
    outgoing: &'a Outgoing,
    completed: bool,
}

impl<'a> CancelGuard<'a> {
    pub(super) const fn new(contexts: &'a Contexts, outgoing: &'a Outgoing) -> Self {
        Self {
            contexts,
            outgoing,
            completed: false,
        }
    }

    /// The call has completed with `sent`.
    pub(super) fn completed<T>(mut self, sent: T) -> T {
        self.completed = true;
        sent
    }
}

impl Drop for CancelGuard<'_> {
    fn drop(&mut self) {
        if self.completed || deadline::reached(self.outgoing.deadline) != Some(DeadlineSource::Own)
        {
            return;
        }
        if let Some(retry_parent) = self.outgoing.retry_parent() {
            self.contexts.mark_retries_exhausted(&retry_parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, HeaderValue, Request};
    use policy::deadline::{Deadline, RequestedTimeout};
    use tokio::time::advance;

    use super::*;
    use crate::http::body::empty;
    use crate::http::context::OpenRequest;
    use crate::http::replay::Replay;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn outgoing(deadline: Deadline, map: &HeaderMap) -> Outgoing {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.headers = map.clone();
        let called = SocketAddr::from(([10, 0, 0, 1], 80));
        Outgoing {
            grpc: true,
            deadline,
            ..Outgoing::by_itself(parts, Replay::new(empty()), called)
        }
    }

    /// Whether a call with so many milliseconds of its own, and of what it is made for, marks
    /// that when its caller leaves after `after`, or it has come to an end before.
    async fn marks(own: Option<u64>, rest: Option<u64>, after: u64, over: bool) -> bool {
        let name = HeaderName::from_static("traceparent");
        let map = HeaderMap::from_iter([(name, HeaderValue::from_static(PARENT))]);
        let contexts = Contexts::default();
        let requested = RequestedTimeout {
            grpc: own.map(Duration::from_millis),
            rest: rest.map(Duration::from_millis),
            ..RequestedTimeout::default()
        };
        let call = outgoing(Deadline::arrived(deadline::now(), requested, None), &map);
        let cancel_guard = CancelGuard::new(&contexts, &call);
        advance(Duration::from_millis(after)).await;
        if over {
            cancel_guard.completed(());
        } else {
            drop(cancel_guard);
        }
        contexts.retries_exhausted(&OpenRequest::default(), &map)
    }

    // Claims: calls-46
    #[tokio::test(start_paused = true)]
    async fn call_abandoned_at_own_deadline_marks_parent_request() {
        let cases = [
            (Some(300), None, 300, false, true),
            // By a clock that began a moment earlier.
            (Some(300), None, 299, false, true),
            (Some(300), Some(200), 299, false, true),
            // For a reason of its own.
            (Some(300), None, 100, false, false),
            (None, None, 300, false, false),
            // No caller waits any more.
            (None, Some(300), 300, false, false),
            (Some(900), Some(300), 300, false, false),
            // Others report what it came to.
            (Some(300), None, 300, true, false),
        ];
        for (own, rest, after, over, marked) in cases {
            let marks = marks(own, rest, after, over).await;
            assert_eq!(marks, marked, "{own:?} {rest:?} after {after} ms, {over}");
        }
    }

    #[test]
    fn what_would_raise_a_class_says_nothing() {
        use Priority::{Critical, Normal, Sheddable};
        for (configured, class) in [
            (None, None),
            (Some(Critical), None),
            (Some(Normal), Some(Normal)),
            (Some(Sheddable), Some(Sheddable)),
        ] {
            assert_eq!(priority(configured, None), class);
        }
    }
}
