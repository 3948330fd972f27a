//! Decides about each call to an address outside the mesh, and where it goes.
//!
//! A call that an object gives by its host or server name goes to an address of that name, however
//! its caller came by the address that it dialled. One that an object gives by its address, or that
//! passes because no object is needed, goes to the address that was dialled.

use std::net::SocketAddr;
use std::sync::Arc;

use policy::egress::{Admitted, By, Decision, Unnamed, host_name};
use policy::reason::Reason;

use crate::config::snapshot::Snapshot;
use crate::config::store::Store;
use crate::endpoints::registry::PodRef;
use crate::failure::Failure;
use crate::mesh::protocol::HandedOver;
use crate::outbound::choice::{Choice, RoutedEndpoints};
use crate::outbound::connection::Connection;
use crate::outbound::outside::{Outside, Passed, denied};
use crate::outbound::route::{External, Route};
use crate::outbound::shadow;

/// Waits until the addresses are known of the name that gives a call. `host`: of its request;
/// `None` for bytes.
pub(super) async fn look_up(connection: &Connection, host: Option<&str>) {
    let Some(outside) = &connection.outside else {
        return;
    };
    let host = host.and_then(host_name);
    let call = outside.call(connection.addr, host.as_deref());
    let config = &connection.proxy.config;
    let name = config.inspect(|now| match now.egress.decide(&call) {
        Decision::Object(admitted) => admitted.endpoints(),
        Decision::NoObject(_) | Decision::Denied => None,
    });
    if let Some(name) = name {
        look_up_name(config, &name).await;
    }
}

/// Waits until the addresses are known of the host whose endpoints have this name.
pub(super) async fn look_up_name(config: &Store, name: &str) {
    let is_known = || is_resolved(config, name);
    let (changes, subscribe) = (config.changes(), &config.subscriptions_changed);
    config
        .names
        .look_up(name, is_known, changes, subscribe)
        .await;
}

fn is_resolved(config: &Store, name: &str) -> bool {
    config.inspect(|now| now.endpoints_of(name).is_some())
}

/// Where a call goes. `host`: of its request; `None` for bytes.
///
/// # Errors
/// When it is refused, or its name has no address that may be called.
pub(super) fn route(
    connection: &Connection,
    snapshot: &Snapshot,
    host: Option<&str>,
) -> Result<Route, Failure> {
    // Its address has come to be none of the mesh: what was opened to a Service or pod goes
    // nowhere else.
    let Some(outside) = &connection.outside else {
        let gone = "no Service or pod of the mesh has this address and port any more";
        return Err(Failure::not_sent(Reason::UnknownDestination, gone));
    };
    let host = host.and_then(host_name);
    let call = outside.call(connection.addr, host.as_deref());
    let name = call.host.or(call.sni);
    let (route, passed, gateway) = match snapshot.egress.decide(&call) {
        Decision::Denied => return Err(denied(connection.addr, name)),
        Decision::NoObject(unnamed) => {
            outside.may_dial(snapshot, connection.addr, true)?;
            if unnamed == Unnamed::Audit {
                connection.proxy.telemetry.metrics.audit_egress.inc();
            }
            let external = External {
                remote: connection.remote(name),
                tls: None,
                handed: None,
            };
            let choice = dialled(connection, connection.addr)?;
            let route = leaving(connection, choice, external);
            (route, Passed::Address, None)
        }
        Decision::Object(admitted) => {
            let gateway = admitted.object.gateway.clone();
            let (route, passed) = match &gateway {
                Some(gateway) => by_gateway(connection, snapshot, &admitted, gateway)?,
                None => given(connection, snapshot, outside, &admitted)?,
            };
            (route, passed, gateway)
        }
    };
    if outside.passes(passed, gateway) {
        connection.breaks();
    }
    // What ends connections may have looked before this was noted.
    let revision = snapshot.policy_revision;
    let config = &connection.proxy.config;
    config.inspect(|now| match now.policy_revision == revision {
        true => Ok(()),
        false => connection.may_go_on(now),
    })?;
    Ok(route)
}

/// The way of a call that an object gives.
fn given(
    connection: &Connection,
    snapshot: &Snapshot,
    outside: &Outside,
    admitted: &Admitted<'_>,
) -> Result<(Route, Passed), Failure> {
    let by_address = admitted.by == By::Address;
    outside.may_dial(snapshot, connection.addr, by_address)?;
    let tls = admitted.port.tls.as_ref();
    let external = External {
        remote: Arc::clone(admitted.object.origin.label()),
        tls: tls.map(|tls| (Arc::clone(tls), admitted.server_name().map(Arc::from))),
        handed: None,
    };
    let choice = match admitted.by {
        By::Address => {
            let addr = SocketAddr::new(connection.addr.ip(), admitted.port.target_port);
            dialled(connection, addr)?
        }
        By::Host(host) => {
            let name = wire::names::external(host, admitted.port.target_port);
            resolved(snapshot, &name, host)?
        }
    };
    let passed = passed(connection, admitted);
    Ok((leaving(connection, choice, external), passed))
}

/// The way of a call whose object names a Gateway: to a pod of that, which lets it out, and never in
/// another way.
fn by_gateway(
    connection: &Connection,
    snapshot: &Snapshot,
    admitted: &Admitted<'_>,
    gateway: &str,
) -> Result<(Route, Passed), Failure> {
    shadow::may_pass(snapshot)?;
    let object = Arc::clone(admitted.object.origin.label());
    let name: Arc<str> = wire::names::handing_over(gateway).into();
    let among = RoutedEndpoints::of(snapshot, &name);
    if among.set().endpoints.is_empty() {
        let detail = format!(
            "no pod of Gateway {gateway} is ready, and calls of ExternalService {object} leave by \
             that Gateway alone: `kubectl describe gateway` shows why"
        );
        return Err(Failure::not_sent(Reason::NoEndpoint, detail));
    }
    let to = match admitted.by {
        By::Address => connection.addr.ip().to_canonical().to_string().into(),
        By::Host(host) => host.into(),
    };
    let external = External {
        remote: Arc::clone(&object),
        tls: None,
        handed: Some(HandedOver { object, to }),
    };
    let route = leaving(connection, Choice::Any(among), external);
    Ok((route, passed(connection, admitted)))
}

/// By what a call is let through.
fn passed(connection: &Connection, admitted: &Admitted<'_>) -> Passed {
    let object = admitted.object;
    match admitted.by {
        By::Host(host) => Passed::Name(host.into()),
        By::Address if object.lists(connection.addr.ip()) => Passed::Address,
        By::Address => Passed::Resolved(object.exact_hosts().cloned().collect()),
    }
}

/// The addresses of a host.
pub(super) fn resolved(snapshot: &Snapshot, name: &str, host: &str) -> Result<Choice, Failure> {
    let Some(set) = snapshot.endpoints_of(name) else {
        let detail = format!("the controller has not resolved {host} yet");
        return Err(Failure::not_sent(Reason::NoEndpoint, detail));
    };
    if set.endpoints.is_empty() {
        let detail = format!(
            "{host} resolves to no address outside the cluster; a host inside it is called by the \
             name of its Service"
        );
        return Err(Failure::refused(Reason::EgressDenied, detail));
    }
    let name: Arc<str> = name.into();
    Ok(Choice::Any(RoutedEndpoints::of(snapshot, &name)))
}

/// The address that was dialled, unless it is one of the mesh by now, to which no plaintext goes.
pub(super) fn dialled(connection: &Connection, addr: SocketAddr) -> Result<Choice, Failure> {
    let registry = &connection.proxy.config.registry;
    let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
    if registry.was_meshed(addr) {
        let detail = "the address is one of the mesh now, to which no plaintext is sent";
        return Err(Failure::refused(Reason::UnknownDestination, detail));
    }
    Ok(Choice::One(registry.at(
        addr,
        None,
        PodRef::default(),
        false,
    )))
}

pub(super) fn leaving(connection: &Connection, choice: Choice, external: External) -> Route {
    Route {
        external: Some(Box::new(external)),
        ..Route::to(&Arc::default(), connection.addr.port(), choice)
    }
}
