//! The listeners that a Gateway serves, and the routes of each by host: finds the listener of a
//! connection, and the route of a request.
//!
//! A connection belongs to one listener: of those at its port the one whose hostname fits the name
//! that the client gave most closely. A request belongs to one, too, and where the two differ it is
//! refused. Routes of other listeners are never looked at, also where none of its own fits.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::egress::{HostPattern, host_name, is_address_host};
use crate::http_match::RequestFacts;
use crate::origin::Origin;
use crate::reason::Reason;
use crate::route::{Forward, Rule, Table};

/// Most listeners of one Gateway, as the API allows.
pub const MAX_LISTENERS: usize = 64;
/// Ports below it need a privilege, so pods listen on others.
const PRIVILEGED: u16 = 1024;
/// What is added to such a port.
const SHIFT: u16 = 20_000;

/// What the pods of one Gateway serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// The object.
    pub origin: Origin,
    pub listeners: Vec<Listener>,
}

/// A listener of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique in its Gateway.
    pub name: Arc<str>,
    /// That clients call.
    pub port: u16,
    /// Of the pods: see [`target_port`].
    pub target_port: u16,
    pub protocol: ListenerProtocol,
    /// `None`: every host.
    pub hostname: Option<HostPattern>,
    /// Names of certificate resources. Only HTTPS has any, and without one it refuses handshakes.
    pub certificates: Vec<Arc<str>>,
    /// The one that fits best first: see [`by_specificity`].
    pub routes: Vec<HostRoutes>,
}

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerProtocol {
    /// Requests in plaintext.
    Http,
    /// Requests in TLS, which ends here.
    Https,
    /// TLS that passes through, by its server name.
    Tls,
    /// Anything.
    Tcp,
}

/// The rules of all routes for some hosts of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoutes {
    /// `None`: every host.
    pub hostname: Option<HostPattern>,
    /// Of calls that fit none of its rules the next host's table decides.
    pub table: Arc<Table<Forward>>,
}

/// How a request came in: by which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CameBy<'a> {
    /// The port of the pod.
    pub target_port: u16,
    /// What the listener of the connection carries.
    pub protocol: ListenerProtocol,
    /// The server that TLS is for, as [`host_name`] reads it; `None`: it names none.
    pub server_name: Option<&'a str>,
}

/// Why no listener takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoListener {
    /// It would be served as of no host, and its application may read one in it.
    BadHost,
    /// None at the port is for its host.
    OfHost,
    /// Its listener is another one than that of its connection.
    Misdirected,
}

/// The port of pods for a port of a listener, or `None` where pods have no such port.
#[must_use]
pub fn target_port(port: u16) -> Option<u16> {
    match port {
        0 => None,
        1..PRIVILEGED => Some(SHIFT + port),
        _ => Some(port),
    }
}

/// What distinguishes clients where each has a limit: the part of an address that a client cannot
/// choose. Of public IPv6 that is the network of 64 bits that each one has at least; addresses of
/// pods and nodes, which share such a network, are mostly none of these.
#[must_use]
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if (0x2000..0x4000).contains(&address.segments()[0]) => IpAddr::V6(
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)),
        ),
        address => address,
    }
}

/// What hostnames are sorted by: those that fit a host best come first.
#[must_use]
pub fn by_specificity(hostname: Option<&HostPattern>) -> impl Ord + use<> {
    match hostname {
        Some(HostPattern::Exact(name)) => (0, Reverse(name.len()), Arc::clone(name)),
        Some(HostPattern::Below(name)) => (1, Reverse(name.len()), Arc::clone(name)),
        None => (2, Reverse(0), Arc::default()),
    }
}

fn fits(hostname: Option<&HostPattern>, host: Option<&str>) -> bool {
    match (hostname, host) {
        (None, _) => true,
        (Some(pattern), Some(host)) => pattern.matches(host),
        (Some(_), None) => false,
    }
}

impl Gateway {
    /// The listener that a connection or a request belongs to, by the port of the pod and the name
    /// that it gives, as [`crate::egress::host_name`] reads it. `None` as name stands for none, or
    /// for an address.
    #[must_use]
    pub fn listener(&self, target_port: u16, host: Option<&str>) -> Option<&Listener> {
        let here = self.listeners.iter();
        let here = here.filter(|listener| listener.target_port == target_port);
        here.filter(|listener| fits(listener.hostname.as_ref(), host))
            .min_by_key(|listener| by_specificity(listener.hostname.as_ref()))
    }

    /// The listener that a connection belongs to.
    #[must_use]
    pub fn listener_of_connection(&self, came_by: CameBy<'_>) -> Option<&Listener> {
        let found = self.listener(came_by.target_port, came_by.server_name);
        found.filter(|listener| listener.protocol == came_by.protocol)
    }

    /// The listener that a request belongs to, and the name of its host. `sent`: the host as the
    /// request has it.
    ///
    /// # Errors
    /// When it belongs to none, or to another one than its connection.
    pub fn listener_of_request<'h>(
        &self,
        came_by: CameBy<'_>,
        sent: Option<&'h str>,
    ) -> Result<(&Listener, Option<Cow<'h, str>>), NoListener> {
        let host = sent.and_then(host_name);
        if host.is_none() && sent.is_some_and(|sent| !is_address_host(sent)) {
            return Err(NoListener::BadHost);
        }
        let named = self.listener(came_by.target_port, host.as_deref());
        let named = named.ok_or(NoListener::OfHost)?;
        let is_here = match came_by.protocol {
            // All listeners of the port share its connections.
            ListenerProtocol::Http => named.protocol == ListenerProtocol::Http,
            _ => self
                .listener_of_connection(came_by)
                .is_some_and(|own| own.name == named.name),
        };
        if is_here {
            Ok((named, host))
        } else {
            Err(NoListener::Misdirected)
        }
    }
}

impl HostRoutes {
    /// Whether its rules are for a host.
    #[must_use]
    pub fn is_for(&self, host: Option<&str>) -> bool {
        fits(self.hostname.as_ref(), host)
    }
}

impl NoListener {
    /// As the client gets it.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::BadHost => Reason::BadRequest,
            Self::OfHost => Reason::NoRoute,
            Self::Misdirected => Reason::Misdirected,
        }
    }

    /// What is wrong with the request.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::BadHost => "the Host of the request is neither a name nor an address",
            Self::OfHost => "no listener at this port is for the host",
            Self::Misdirected => {
                "the connection was opened to another host than the request names; open one to \
                 that host"
            }
        }
    }
}

impl Listener {
    /// The rule that decides, of the most specific host with one that fits. `None` as request
    /// stands for a connection; `None` as decision: no route is for it.
    #[must_use]
    pub fn decide(
        &self,
        host: Option<&str>,
        request: Option<&RequestFacts<'_>>,
    ) -> Option<&Rule<Forward>> {
        let (nth, at) = self.position(host, request)?;
        self.routes.get(nth)?.table.rules.get(at)
    }

    /// The places of that rule: of its host among those of the listener, and its own there.
    #[must_use]
    pub fn position(
        &self,
        host: Option<&str>,
        request: Option<&RequestFacts<'_>>,
    ) -> Option<(usize, usize)> {
        let here = self.routes.iter().enumerate();
        let mut here = here.filter(|(_, routes)| routes.is_for(host));
        here.find_map(|(nth, routes)| Some((nth, routes.table.position(request)?)))
    }
}

impl ListenerProtocol {
    /// As a Gateway spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
        }
    }

    /// Whether connections are distinguished by the server name of TLS.
    #[must_use]
    pub const fn reads_server_name(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

impl fmt::Display for ListenerProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
