//! Finds the route of a call that a peer proxy has handed over to the own Gateway: to the host or
//! address that the peer wrote, by the ports, addresses and TLS of the ExternalService that it named.

use std::net::SocketAddr;
use std::sync::Arc;

use policy::egress::host_name;
use policy::reason::Reason;

use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::outbound::connection::Connection;
use crate::outbound::egress;
use crate::outbound::handed::{Handed, HandedTarget};
use crate::outbound::route::{External, Route};
use crate::outbound::shadow;

/// The way of what was handed over. `host`: of a request, as it names it; `None` for bytes.
///
/// # Errors
/// When it does not leave, or has nowhere to go.
pub(super) fn find(
    connection: &Connection,
    snapshot: &Snapshot,
    handed: &Handed,
    host: Option<Option<&str>>,
) -> Result<Route, Failure> {
    shadow::may_pass(snapshot)?;
    let admitted = handed.admitted(snapshot)?;
    let target_port = admitted.port.target_port;
    let choice = match &handed.to {
        HandedTarget::Address(ip) => {
            egress::dialled(connection, SocketAddr::new(*ip, target_port))?
        }
        HandedTarget::Host(own) => {
            let named = host.map(|host| host.and_then(host_name));
            if named.is_some_and(|named| named.as_deref() != Some(&**own)) {
                let detail = "the request names another host than it was let through by";
                return Err(Failure::refused(Reason::BadRequest, detail));
            }
            let name = wire::names::external(own, target_port);
            egress::resolved(snapshot, &name, own)?
        }
    };
    let tls = admitted.port.tls.as_ref();
    let external = External {
        remote: Arc::clone(admitted.object.origin.label()),
        tls: tls.map(|tls| (Arc::clone(tls), admitted.server_name().map(Arc::from))),
        handed: None,
    };
    Ok(Route {
        speaks: handed.speaks,
        ..egress::leaving(connection, choice, external)
    })
}
