//! Route overrides: calls that go to another Service than the one they are made to, because their
//! request names it and the called Service's policy grants it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use policy::access::Caller;
use policy::name::ServiceId;
use policy::overrides::grant;
use policy::traffic::call::Override;

use crate::config::snapshot::{Service, Snapshot};
use crate::http::context::ParentRequest;
use crate::http::received::Received;
use crate::http::route_override::{OverrideAuthor, RouteOverride};
use crate::proxy::Proxy;
use crate::telemetry::labels::OverrideLabels;

/// Where a call requests to go: by its own header, else by the request that it is made for.
pub(super) fn route_override_of(
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
        Err(()) => {
            count(proxy, "unreadable");
            None
        }
    }
}

/// Where a call to `service` goes instead, if that is requested and granted.
pub(super) fn target(
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
            count(proxy, "granted");
            Some(target)
        }
        Err(ignored) => {
            count(proxy, ignored.as_str());
            None
        }
    }
}

fn count(proxy: &Proxy, outcome: &'static str) {
    let metrics = &proxy.telemetry.metrics;
    metrics.overrides.at(&OverrideLabels { outcome }).inc();
}
