//! Decides which calls of a pod may leave the mesh, and by which ExternalService each is admitted
//! and counted.
//!
//! A call is recognised by the address that was dialled, else by the host that a request names, or
//! by the server name of the application's own TLS. Objects only add up: the most specific one
//! that admits a call decides how it leaves, and none takes away what another one gives.
//!
//! A name is what the caller says. So a call that was recognised by its name goes to an address of
//! that name, which controllers resolve, and never to any other address that was dialled.

mod gateway;
mod handed;
mod host;
mod outside;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::mode::BadMode;
use crate::origin::Origin;

pub use handed::{BadCaller, ExternalCaller, HandedCall, NotHanded, To};
pub use host::{BadHost, HostPattern, host_name, is_address_host};
pub use outside::{behind_nat64, may_be_outside};

/// Most objects that one pod is given.
pub const MAX_OBJECTS: usize = 512;
/// Most names, covered by wildcards, whose addresses one pod may query at a time.
pub const MAX_NAMES: usize = 256;

/// What is done with calls that no object gives. Ordered from loose to tight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EgressMode {
    /// They pass.
    #[default]
    Allow,
    /// They pass and are counted.
    Audit,
    /// They are refused.
    Deny,
}

/// What one pod may call outside the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    pub mode: EgressMode,
    /// Those that admit the pod, in order of precedence between equals.
    pub objects: Vec<ExternalObject>,
}

/// An ExternalService: hosts and addresses outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalObject {
    /// The object.
    pub origin: Origin,
    pub hosts: Vec<HostPattern>,
    pub addresses: Vec<IpNet>,
    /// What its exact hosts resolve to. Only where one of its ports is for TCP, whose calls name
    /// no host.
    pub resolved: Vec<IpAddr>,
    /// Each number once.
    pub ports: Vec<ExternalPort>,
    /// `namespace/name` of the Gateway by which its calls leave, and by no other way.
    pub gateway: Option<Arc<str>>,
    /// At that Gateway: those whose calls it lets out. Everywhere else empty.
    pub callers: Vec<ExternalCaller>,
}

/// A port of such an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalPort {
    /// That callers use.
    pub port: u16,
    pub protocol: ExternalProtocol,
    /// That is dialled.
    pub target_port: u16,
    /// `None`: bytes leave as they come.
    pub tls: Option<Arc<OriginateTls>>,
}

/// What is spoken at a port, which says by what a call is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExternalProtocol {
    /// Requests in plaintext, each by its host.
    Http,
    /// The application's own TLS, by its server name.
    Tls,
    /// Anything, by the address alone.
    Tcp,
}

/// TLS that the proxy begins, around what the application sends in plaintext.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OriginateTls {
    /// The name that the certificate must have. `None`: the host by which the call was recognised.
    pub server_name: Option<Arc<str>>,
    pub roots: Roots,
}

/// The authorities that a server outside the mesh is believed by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Roots {
    /// Those of the public web.
    Public,
    /// These alone. Text without any certificate believes none.
    Pem(Arc<str>),
}

/// How calls of a Service leave the mesh that stands for an object: what its endpoints need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalTarget {
    /// The object.
    pub object: Origin,
    /// The host that requests name from here on.
    pub host: Arc<str>,
    /// `None`: bytes leave as they come.
    pub tls: Option<Arc<OriginateTls>>,
    /// The object does not admit the pod: its calls are refused.
    pub denied: bool,
    /// `namespace/name` of the Gateway by which its calls leave, whose pods the endpoints are.
    pub gateway: Option<Arc<str>>,
}

/// A call to an address outside the mesh.
#[derive(Clone, Copy, Debug)]
pub struct ExternalCall<'a> {
    /// That was dialled.
    pub addr: IpAddr,
    pub port: u16,
    /// Of the request, as [`host_name`] reads it; `None` without a request or name.
    pub host: Option<&'a str>,
    /// Of the application's own TLS, as [`host_name`] reads it; `None` without.
    pub sni: Option<&'a str>,
}

/// What is done with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// An object gives it.
    Object(Admitted<'a>),
    /// None does, and it passes to the address that was dialled.
    NoObject(Unnamed),
    /// None does, and it is refused with [`crate::reason::Reason::EgressDenied`].
    Denied,
}

/// Why a call passes that no object gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unnamed {
    /// It is counted.
    Audit,
    /// It is not.
    Allowed,
}

/// A call that an object gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted<'a> {
    pub object: &'a ExternalObject,
    pub port: &'a ExternalPort,
    pub by: By<'a>,
}

/// By what a call was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// The address that was dialled, to which it goes.
    Address,
    /// This host, to one of whose addresses it goes.
    Host(&'a str),
}

/// What of a call's bytes decides at a port, where its address does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The host of each request.
    pub host: bool,
    /// The server name of the application's own TLS.
    pub sni: bool,
}

/// How specific a match is. Addresses come first: what they decide needs no look at bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// By the bytes of the name behind the `*`.
    Wildcard(usize),
    ExactHost,
    /// By the length of the prefix.
    Address(u8),
}

impl Egress {
    /// Nothing may be called: what a proxy holds that has no configuration which it can read.
    #[must_use]
    pub const fn closed() -> Self {
        Self {
            mode: EgressMode::Deny,
            objects: Vec::new(),
        }
    }

    /// Whether every call passes unseen, as without any configuration.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.mode, EgressMode::Allow) && self.objects.is_empty()
    }

    /// What is done with a call. Before its bytes are read, its names are `None`, and an object
    /// that is found then decides whatever the bytes are.
    #[must_use]
    pub fn decide<'a>(&'a self, call: &ExternalCall<'a>) -> Decision<'a> {
        let mut best: Option<(Rank, Admitted<'a>)> = None;
        for object in &self.objects {
            let ports = object.ports.iter();
            for port in ports.filter(|port| port.port == call.port) {
                let Some((rank, by)) = object.recognise(port, call) else {
                    continue;
                };
                if best.as_ref().is_none_or(|(found, _)| rank > *found) {
                    best = Some((rank, Admitted { object, port, by }));
                }
            }
        }
        match (best, self.mode) {
            (Some((_, admitted)), _) => Decision::Object(admitted),
            (None, EgressMode::Allow) => Decision::NoObject(Unnamed::Allowed),
            (None, EgressMode::Audit) => Decision::NoObject(Unnamed::Audit),
            (None, EgressMode::Deny) => Decision::Denied,
        }
    }

    /// What of the bytes of calls to a port can decide about them.
    #[must_use]
    pub fn reads(&self, port: u16) -> Reads {
        let named = self.objects.iter().filter(|one| !one.hosts.is_empty());
        let ports = named.flat_map(|object| &object.ports);
        ports
            .filter(|own| own.port == port)
            .fold(Reads::default(), |reads, own| match own.protocol {
                ExternalProtocol::Http => Reads {
                    host: true,
                    ..reads
                },
                ExternalProtocol::Tls => Reads { sni: true, ..reads },
                ExternalProtocol::Tcp => reads,
            })
    }

    /// Whether an object gives calls by this name to a port, whatever address they were made to.
    #[must_use]
    pub fn gives_name(&self, port: u16, protocol: ExternalProtocol, name: &str) -> bool {
        let mut objects = self.objects.iter();
        objects.any(|object| {
            let mut hosts = object.hosts.iter();
            object.has_port(port, protocol) && hosts.any(|pattern| pattern.matches(name))
        })
    }

    /// Whether an object gives calls to the addresses of these hosts at a port, whichever these
    /// are by now.
    #[must_use]
    pub fn gives_hosts(&self, port: u16, hosts: &[Arc<str>]) -> bool {
        let mut objects = self.objects.iter();
        objects.any(|object| {
            let mut all = hosts.iter();
            object.has_port(port, ExternalProtocol::Tcp)
                && !hosts.is_empty()
                && all.all(|host| object.exact_hosts().any(|own| own == host))
        })
    }

    /// The endpoints that calls by name may go to without a query, which are those of exact
    /// hosts: names of endpoints resources. None where a Gateway alone needs them.
    pub fn exact_endpoints(&self) -> impl Iterator<Item = String> {
        self.objects
            .iter()
            .flat_map(ExternalObject::exact_endpoints)
    }

    /// Whether an object gives calls by this host to endpoints at this port: what may be queried.
    #[must_use]
    pub fn names(&self, host: &str, target_port: u16) -> bool {
        let mut objects = self.objects.iter();
        objects.any(|object| object.names(host, target_port))
    }
}

impl ExternalObject {
    fn recognise<'a>(
        &self,
        port: &ExternalPort,
        call: &ExternalCall<'a>,
    ) -> Option<(Rank, By<'a>)> {
        let addr = call.addr.to_canonical();
        let nets = self.addresses.iter().filter(|net| net.contains(&addr));
        let longest = nets.map(IpNet::prefix_len).max();
        let by_tcp = port.protocol == ExternalProtocol::Tcp && self.resolved.contains(&addr);
        let own = by_tcp.then_some(if addr.is_ipv4() { 32 } else { 128 });
        if let Some(prefix) = longest.max(own) {
            return Some((Rank::Address(prefix), By::Address));
        }
        let host = match port.protocol {
            ExternalProtocol::Http => call.host?,
            ExternalProtocol::Tls => call.sni?,
            ExternalProtocol::Tcp => return None,
        };
        let fitting = self.hosts.iter().filter(|pattern| pattern.matches(host));
        let ranks = fitting.map(|pattern| match pattern {
            HostPattern::Exact(_) => Rank::ExactHost,
            HostPattern::Below(suffix) => Rank::Wildcard(suffix.len()),
        });
        ranks.max().map(|rank| (rank, By::Host(host)))
    }

    fn has_port(&self, number: u16, protocol: ExternalProtocol) -> bool {
        let mut ports = self.ports.iter();
        ports.any(|port| port.port == number && port.protocol == protocol)
    }

    /// Whether it names an address itself, and not by what a host resolves to.
    #[must_use]
    pub fn lists(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.addresses.iter().any(|net| net.contains(&addr))
    }

    /// The hosts that are names as they stand.
    pub fn exact_hosts(&self) -> impl Iterator<Item = &Arc<str>> {
        self.hosts.iter().filter_map(HostPattern::exact)
    }

    fn exact_endpoints(&self) -> impl Iterator<Item = String> {
        let named = self.ports.iter().filter(move |port| self.dials_names(port));
        named.flat_map(move |port| {
            let hosts = self.exact_hosts();
            hosts.map(move |host| endpoints_name(host, port.target_port))
        })
    }

    /// Whether calls by a name to a port go to addresses of that name from here.
    const fn dials_names(&self, port: &ExternalPort) -> bool {
        self.gateway.is_none() && port.is_by_name()
    }

    /// Whether calls by this host go to endpoints at this port from here.
    #[must_use]
    pub fn names(&self, host: &str, target_port: u16) -> bool {
        self.gateway.is_none() && self.gives_endpoints(host, target_port)
    }

    /// Whether it gives calls by this host to endpoints at this port, wherever these are dialled.
    #[must_use]
    pub fn gives_endpoints(&self, host: &str, target_port: u16) -> bool {
        let mut ports = self.ports.iter();
        let mut hosts = self.hosts.iter();
        ports.any(|port| port.is_by_name() && port.target_port == target_port)
            && hosts.any(|pattern| pattern.matches(host))
    }
}

impl ExternalPort {
    /// Whether its calls may be recognised by a name.
    #[must_use]
    pub const fn is_by_name(&self) -> bool {
        matches!(
            self.protocol,
            ExternalProtocol::Http | ExternalProtocol::Tls
        )
    }
}

impl Admitted<'_> {
    /// The endpoints of a host that the call goes to; `None`: to the address that was dialled, or
    /// to the pods of a Gateway.
    #[must_use]
    pub fn endpoints(&self) -> Option<String> {
        match self.by {
            _ if self.object.gateway.is_some() => None,
            By::Address => None,
            By::Host(host) => Some(endpoints_name(host, self.port.target_port)),
        }
    }

    /// The name that the certificate of the server must have, where the proxy begins TLS. `None`
    /// then too where there is no name: such a handshake must fail.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        let tls = self.port.tls.as_deref()?;
        match (&tls.server_name, self.by) {
            (Some(name), _) => Some(name),
            (None, By::Host(host)) => Some(host),
            (None, By::Address) => None,
        }
    }
}

/// Name of the endpoints resource with the addresses of a host, each at this port. Also what a
/// proxy subscribes to for the name that a wildcard covers.
#[must_use]
pub fn endpoints_name(host: &str, target_port: u16) -> String {
    format!("{ENDPOINTS}{host}:{target_port}")
}

/// What those names begin with.
pub const ENDPOINTS: &str = "external/";

impl EgressMode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Audit => "audit",
            Self::Deny => "deny",
        }
    }
}

impl FromStr for EgressMode {
    type Err = BadMode;

    fn from_str(raw: &str) -> Result<Self, BadMode> {
        [Self::Allow, Self::Audit, Self::Deny]
            .into_iter()
            .find(|mode| mode.as_str() == raw)
            .ok_or_else(|| BadMode {
                raw: raw.to_owned(),
                expected: "deny, audit, allow",
            })
    }
}

impl fmt::Display for EgressMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ExternalProtocol {
    /// As objects write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(raw: &str) -> Option<Self> {
        let mut all = [Self::Http, Self::Tls, Self::Tcp].into_iter();
        all.find(|one| one.as_str() == raw)
    }
}

#[cfg(test)]
mod tests;
