//! `Edge`: the listener of the own Gateway at which a client's connection came in, and how its
//! requests are changed before their route is found.
//!
//! The program of the Gateway accepts the connection and reads of it which listener it is for; this
//! proxy carries out what the listener's routes say. Clients have no say in headers of the mesh, and
//! their version of HTTP is not always that of the application: browsers speak HTTP/2 wherever TLS
//! offers it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::request::Parts;
use http::uri::Scheme as UriScheme;
use http::{HeaderValue, Uri, Version};
use policy::egress::host_name;
use policy::gateway::{CameBy, Listener, ListenerProtocol};
use policy::protocol::Protocol;
use policy::reason::Reason;
use policy::route::edits::Scheme;

use crate::config::gateway::{GatewayConfig, ServedGateway};
use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::grpc::ends_in_trailers;
use crate::http::headers::{CLIENT_ADDRESS, name_authority};
use crate::http::received::{Received, host_of};

/// What the program of the Gateway does with each request that can be read: it edits the head, and
/// returns the address of the client that it believes.
pub type Enters = Arc<dyn Fn(&mut Parts) -> Result<IpAddr, Failure> + Send + Sync>;

/// One connection of a client, as it came in.
#[derive(Clone)]
pub struct Edge {
    /// The address that was called, with the port of the listener.
    pub addr: SocketAddr,
    /// The port of the pod, by which its listeners are found.
    pub target_port: u16,
    /// What its listener carries.
    pub protocol: ListenerProtocol,
    /// The server that TLS is for, as [`policy::egress::host_name`] reads it; `None`: it names none.
    pub server_name: Option<Box<str>>,
    /// The other end of the connection, which is no client where the Gateway believes proxies.
    pub client: IpAddr,
    pub enters: Enters,
    /// Whether traces go on here that its requests belong to. Clients outside would decide by them
    /// what the mesh records.
    pub continues_traces: bool,
}

/// The address of the client that the Gateway believes, in the extensions of a request.
#[derive(Clone, Copy, Debug)]
struct ClientAddress(IpAddr);

/// The host of a request in plaintext that asks for an upgrade, as [`host_name`] reads it. All
/// listeners of a port share its connections, and by the host that of this one is found.
#[derive(Clone, Debug)]
pub(super) struct UpgradeHost(Option<Box<str>>);

impl UpgradeHost {
    /// Takes it out of its request.
    pub(super) fn take(parts: &mut Parts) -> Option<Self> {
        parts.extensions.remove()
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge")
            .field("addr", &self.addr)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

impl Edge {
    /// Of the URLs by which clients call it.
    pub(super) const fn scheme(&self) -> Scheme {
        match self.protocol {
            ListenerProtocol::Https => Scheme::Https,
            ListenerProtocol::Http | ListenerProtocol::Tls | ListenerProtocol::Tcp => Scheme::Http,
        }
    }

    /// The listener that the connection belongs to, as of now.
    pub(super) fn listener<'a>(&self, served: &'a ServedGateway) -> Option<&'a Listener> {
        served.gateway.listener_of_connection(self.came_by())
    }

    /// The connection, as the listeners of requests are found by it.
    pub(super) fn came_by(&self) -> CameBy<'_> {
        CameBy {
            target_port: self.target_port,
            protocol: self.protocol,
            server_name: self.server_name.as_deref(),
        }
    }

    /// Whether what is carried that is no request any more may go on: only as long as its listener
    /// is there, and a certificate where that needs one.
    pub(super) fn may_go_on(&self, snapshot: &Snapshot) -> Result<(), Failure> {
        let gateway = snapshot.gateway.as_deref();
        if gateway.is_some_and(|gateway| self.is_served(gateway)) {
            return Ok(());
        }
        let gone = "its listener is gone, or the certificate of that";
        Err(Failure::refused(Reason::NoRoute, gone))
    }

    /// Whether what a request has become that named this host may go on: only as long as a listener
    /// is there for the host.
    pub(super) fn may_carry(
        &self,
        UpgradeHost(host): &UpgradeHost,
        snapshot: &Snapshot,
    ) -> Result<(), Failure> {
        let gateway = snapshot.gateway.as_deref();
        let served = gateway.and_then(|gateway| gateway.served.as_deref());
        let named = served.and_then(|served| {
            let host = host.as_deref();
            served.gateway.listener(self.target_port, host)
        });
        if named.is_some_and(|listener| listener.protocol == self.protocol) {
            return Ok(());
        }
        let gone = "the listener of its host is gone";
        Err(Failure::refused(Reason::NoRoute, gone))
    }

    fn is_served(&self, gateway: &GatewayConfig) -> bool {
        let Some(served) = gateway.served.as_deref() else {
            return false;
        };
        if self.protocol == ListenerProtocol::Http {
            // All listeners of the port share its connections.
            let mut all = served.gateway.listeners.iter();
            return all
                .any(|one| (one.target_port, one.protocol) == (self.target_port, self.protocol));
        }
        let is_certified = |listener: &Listener| {
            let mut names = listener.certificates.iter();
            self.protocol != ListenerProtocol::Https
                || names.any(|name| gateway.certificates.contains_key(name))
        };
        self.listener(served).is_some_and(is_certified)
    }

    /// A request has come.
    ///
    /// # Errors
    /// When it is refused.
    pub(super) fn enter(&self, received: &mut Received) -> Result<(), Failure> {
        received.of_outside();
        let client = (self.enters)(&mut received.parts)?;
        let parts = &mut received.parts;
        parts.extensions.insert(ClientAddress(client));
        if received.upgrade.is_some() && self.protocol == ListenerProtocol::Http {
            let host = host_of(parts).and_then(host_name);
            let host = UpgradeHost(host.map(Into::into));
            parts.extensions.insert(host);
        }
        leave_scheme(parts);
        Ok(())
    }
}

/// The scheme has no meaning behind this proxy: clients of HTTP/2 write whatever they like, and some
/// servers take no other than theirs.
fn leave_scheme(parts: &mut Parts) {
    let scheme = parts.uri.scheme();
    if scheme.is_some_and(|scheme| *scheme != UriScheme::HTTP) {
        let mut uri = parts.uri.clone().into_parts();
        uri.scheme = Some(UriScheme::HTTP);
        if let Ok(uri) = Uri::from_parts(uri) {
            parts.uri = uri;
        }
    }
}

/// The client for which a request came in at a listener, as the Gateway believes it.
pub(super) fn client_of(parts: &Parts) -> Option<IpAddr> {
    let noted = parts.extensions.get::<ClientAddress>();
    noted.map(|ClientAddress(client)| *client)
}

/// Writes for which client a request is passed on, where the Gateway has noted one. Only proxies
/// get that.
pub(super) fn name_client(parts: &mut Parts) -> bool {
    let Some(ClientAddress(client)) = parts.extensions.remove() else {
        return false;
    };
    if let Ok(address) = HeaderValue::try_from(client.to_string()) {
        parts.headers.insert(CLIENT_ADDRESS, address);
    }
    true
}

/// Brings a request into the version of HTTP that an application speaks whose port is declared so.
/// gRPC is HTTP/2 whatever is declared, and what is to be upgraded is HTTP/1.1.
pub(super) fn speak(parts: &mut Parts, declared: Protocol, upgrades: bool) {
    let is_http2 = match declared {
        _ if upgrades => false,
        Protocol::Http2 | Protocol::Grpc => true,
        Protocol::Http1 | Protocol::Detect | Protocol::Opaque | Protocol::Tls => {
            parts.version == Version::HTTP_2 && ends_in_trailers(&parts.headers)
        }
    };
    let came = parts.version;
    if is_http2 {
        parts.version = Version::HTTP_2;
        name_authority(parts);
        // One without a host cannot be sent so.
        if parts.uri.authority().is_none() {
            parts.version = came;
        }
    } else if came == Version::HTTP_2 {
        parts.version = Version::HTTP_11;
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(version: Version, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn request_has_the_version_that_its_application_speaks() {
        use Protocol::{Detect, Grpc, Http1, Http2};
        const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");
        const WEB: (&str, &str) = ("content-type", "application/grpc-web");
        const HOST: (&str, &str) = ("host", "web.shop");
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (came, declared, headers, spoken) in [
            (two, Detect, &[HOST][..], one),
            (two, Http1, &[HOST], one),
            (two, Http2, &[HOST], two),
            (one, Http2, &[HOST], two),
            (one, Grpc, &[HOST], two),
            (one, Http2, &[], one),
            (two, Detect, &[HOST, GRPC], two),
            (two, Detect, &[HOST, WEB], one),
            (one, Detect, &[HOST, GRPC], one),
            (Version::HTTP_10, Detect, &[], Version::HTTP_10),
        ] {
            let uri = if came == two {
                "http://web.shop/a?b"
            } else {
                "/a?b"
            };
            let mut parts = parts(came, uri, headers);
            speak(&mut parts, declared, false);
            let case = format!("{came:?} {declared:?} {headers:?}");
            assert_eq!(parts.version, spoken, "{case}");
            if spoken == two {
                assert_eq!(parts.uri.to_string(), "http://web.shop/a?b", "{case}");
            }
        }
        let mut upgrade = parts(one, "/", &[HOST]);
        speak(&mut upgrade, Http2, true);
        assert_eq!(upgrade.version, one);
    }

    #[test]
    fn scheme_of_client_is_not_passed_on() {
        for scheme in ["http", "https", "ftp", "x-custom"] {
            let mut parts = parts(Version::HTTP_2, &format!("{scheme}://web.shop/a?b"), &[]);
            leave_scheme(&mut parts);
            assert_eq!(parts.uri.to_string(), "http://web.shop/a?b");
        }
        let mut parts = parts(Version::HTTP_11, "/a?b", &[]);
        leave_scheme(&mut parts);
        assert_eq!(parts.uri.to_string(), "/a?b");
    }

    #[test]
    fn client_is_named_where_the_gateway_noted_one() {
        let mut none = parts(Version::HTTP_11, "/", &[]);
        assert!(!name_client(&mut none));
        assert!(none.headers.is_empty());
        let mut noted = parts(Version::HTTP_11, "/", &[]);
        let client = IpAddr::from([203, 0, 113, 7]);
        noted.extensions.insert(ClientAddress(client));
        assert!(name_client(&mut noted));
        assert_eq!(noted.headers[CLIENT_ADDRESS], "203.0.113.7");
    }
}
