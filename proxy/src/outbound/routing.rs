//! Finds the route of a call, from one snapshot: by the override that its request names, by the
//! rules of the Service that was called, else to that Service itself or to the pod of the client's
//! choice. At a Gateway `listener_route` and `handed_route` find it.

use std::net::IpAddr;
use std::sync::Arc;

use policy::http_match::RequestFacts;
use policy::reason::Reason;

use crate::config::snapshot::{Destination, PodTarget, Snapshot};
use crate::failure::Failure;
use crate::http::grpc::is_grpc;
use crate::http::route_override::RouteOverride;
use crate::outbound::call_policy::{CallPolicy, Names};
use crate::outbound::choice::{Choice, RoutedEndpoints};
use crate::outbound::connection::{CameTo, Connection};
use crate::outbound::context::override_target;
use crate::outbound::edits::Unsent;
use crate::outbound::egress;
use crate::outbound::handed_route;
use crate::outbound::listener_route;
use crate::outbound::opened_to::{Standing, may_call};
use crate::outbound::route::{Route, may_leave};
use crate::outbound::route_query::{RouteQuery, known_service};
use crate::outbound::tenant;

/// Where a call on a connection goes: `request` is its head and the host that it names, and
/// `None` of opaque bytes. `client`: for which it came in at a listener, where that is not the other
/// end of the connection.
pub(super) fn route_call(
    connection: &Connection,
    snapshot: &Snapshot,
    request: Option<(&RequestFacts<'_>, Option<&str>)>,
    client: Option<IpAddr>,
    route_override: Option<&RouteOverride>,
) -> Result<Route, Unsent> {
    let route = find_route(connection, snapshot, request, client, route_override)?;
    if let Some(name) = route.choice.standing() {
        may_leave(snapshot, Some(&**name))?;
    }
    Ok(route)
}

fn find_route(
    connection: &Connection,
    snapshot: &Snapshot,
    request: Option<(&RequestFacts<'_>, Option<&str>)>,
    client: Option<IpAddr>,
    route_override: Option<&RouteOverride>,
) -> Result<Route, Unsent> {
    let opened = match &connection.came_to {
        CameTo::Opened(opened) => opened,
        CameTo::Listener(edge) => {
            let pod = connection.proxy.own.pod.as_str();
            let client = client.unwrap_or(edge.client);
            return listener_route::find(edge, snapshot, request, (client, pod));
        }
        CameTo::Handed(handed) => {
            let host = request.map(|(_, host)| host);
            return Ok(handed_route::find(connection, snapshot, handed, host)?);
        }
    };
    let standing = opened.standing(snapshot);
    let facts = request.map(|(facts, _)| facts);
    match opened.target(snapshot, standing) {
        Destination::Service(name) => {
            let called = (&**name, route_override);
            to_service(connection, snapshot, called, facts, |query| query.service())
        }
        Destination::Pod(pod) => {
            let host = request.and_then(|(_, host)| host);
            match host.and_then(|host| headless(pod, host)) {
                Some(name) => {
                    let called = (name, route_override);
                    let may_call = may_call(pod, standing);
                    // Clients of gRPC balance by themselves, and have to see what fails.
                    let balances = facts.is_some_and(|facts| is_grpc(facts.headers));
                    let may_move =
                        standing == Standing::There && !balances && !connection.has_answered();
                    to_service(connection, snapshot, called, facts, |query| {
                        query.pod(pod, may_call, may_move)
                    })
                }
                None => {
                    may_call(pod, standing)?;
                    Ok(to_pod(connection, pod))
                }
            }
        }
        Destination::External { .. } => {
            let host = request.and_then(|(_, host)| host);
            Ok(egress::route(connection, snapshot, host)?)
        }
        Destination::Refused { .. } => {
            let gone = "no Service or pod of the mesh has this address and port any more";
            Err(Failure::not_sent(Reason::UnknownDestination, gone).into())
        }
    }
}

/// To a pod by its own address, whichever Services it serves.
fn to_pod(connection: &Connection, pod: &PodTarget) -> Route {
    let choice = Choice::One(Arc::clone(&pod.endpoint));
    Route::to(&Arc::default(), connection.addr.port(), choice)
}

/// To where an override or a rule sends a call of that Service, and else `otherwise`.
fn to_service(
    connection: &Connection,
    snapshot: &Snapshot,
    (name, route_override): (&str, Option<&RouteOverride>),
    facts: Option<&RequestFacts<'_>>,
    otherwise: impl FnOnce(&RouteQuery<'_>) -> Result<Route, Failure>,
) -> Result<Route, Unsent> {
    if let Some(route) = to_override(connection, snapshot, (name, route_override), facts)? {
        return Ok(route);
    }
    let tenant = tenant::of(snapshot, name, facts, &connection.proxy.own.pod);
    let query = RouteQuery {
        snapshot,
        name,
        facts,
        tenant: tenant.as_ref(),
        actions: None,
    };
    match query.by_rule()? {
        Some(route) => Ok(route),
        None => Ok(otherwise(&query)?),
    }
}

/// To the Service that its request asks for, before rules and tenants, where the policy of
/// the called one grants that. Without an endpoint there, the called one does not serve it.
fn to_override(
    connection: &Connection,
    snapshot: &Snapshot,
    (name, route_override): (&str, Option<&RouteOverride>),
    facts: Option<&RequestFacts<'_>>,
) -> Result<Option<Route>, Failure> {
    if route_override.is_none() {
        return Ok(None);
    }
    let service = known_service(snapshot, name)?;
    let target = override_target(&connection.proxy, snapshot, service, (name, route_override));
    let Some(target) = target else {
        return Ok(None);
    };
    let endpoints: Arc<str> =
        wire::names::endpoints(&target.namespace, &target.name, service.port).into();
    let names = Names {
        root: name,
        serving: Some(&endpoints),
    };
    let choice = Choice::Any(RoutedEndpoints::of(snapshot, &endpoints));
    Ok(Some(Route {
        backend: target.to_string().into(),
        policy: CallPolicy::of(&snapshot.policies, names, facts, None),
        overridden: true,
        ..Route::to(&service.label, service.port, choice)
    }))
}

/// The headless Service of a pod that a request to its address names.
fn headless<'a>(pod: &'a PodTarget, host: &str) -> Option<&'a str> {
    if pod.headless.is_empty() {
        return None;
    }
    let host = canonical_host(host);
    let mut all = pod.headless.iter();
    let named = all.find(|(hosts, _)| hosts.contains(&host));
    named.map(|(_, name)| &**name)
}

/// Host without port and trailing dot, in lower case.
fn canonical_host(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::canonical_host;

    #[test]
    fn a_host_is_compared_without_port_dot_and_case() {
        for host in [
            "Web.shop.svc",
            "web.shop.svc.",
            "web.shop.svc:8080",
            "WEB.shop.svc.:80",
        ] {
            assert_eq!(canonical_host(host), "web.shop.svc", "{host}");
        }
    }
}
