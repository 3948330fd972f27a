//! One attempt: sends a request to one endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use http::request::Parts;
use http::{HeaderValue, Method, Uri, Version, header};
use policy::reason::Reason;

use crate::endpoints::endpoint::Endpoint;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::client::exchange::{self, UpstreamResponse};
use crate::http::received::host_of;
use crate::http::replay::Replay;
use crate::mesh::peer::{self, Peer};
use crate::mesh::protocol;
use crate::net::connect::CONNECT_TIMEOUT;
use crate::proxy::Proxy;

/// A request on its way to whichever endpoint takes it.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) parts: Parts,
    pub(super) replay: Replay,
    pub(super) upgrade: Option<HeaderValue>,
    /// The address that the application called.
    pub(super) called: SocketAddr,
}

impl Outgoing {
    /// Sends one attempt to one endpoint.
    pub(super) async fn send(
        &self,
        proxy: &Proxy,
        endpoint: &Endpoint,
    ) -> Result<UpstreamResponse, Failure> {
        match &endpoint.identity {
            Some(identity) => {
                let peer = proxy.peers.mesh(endpoint.addr.ip(), identity);
                self.send_to_peer(&peer, endpoint.addr.port()).await
            }
            None => self.send_plain(proxy, endpoint.addr).await,
        }
    }

    fn body(&self) -> Result<Body, Failure> {
        self.replay
            .take()
            .ok_or_else(|| Failure::lost("the request's body is too large to be sent again"))
    }

    async fn send_plain(
        &self,
        proxy: &Proxy,
        addr: SocketAddr,
    ) -> Result<UpstreamResponse, Failure> {
        let (clients, parts, replay) = (&proxy.clients, &self.parts, &self.replay);
        if let Some(upgrade) = &self.upgrade {
            let mut parts = parts.clone();
            let map = &mut parts.headers;
            map.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            map.insert(header::UPGRADE, upgrade.clone());
            return exchange::http1(clients, addr, CONNECT_TIMEOUT, &parts, replay).await;
        }
        if parts.version == Version::HTTP_2 {
            return exchange::http2(clients, addr, &Arc::default(), parts, self.body()?).await;
        }
        exchange::http1(clients, addr, CONNECT_TIMEOUT, parts, replay).await
    }

    async fn send_to_peer(&self, peer: &Peer, port: u16) -> Result<UpstreamResponse, Failure> {
        let (parts, host) = (&self.parts, host_of(&self.parts));
        if self.upgrade.is_none() && fits_a_line(parts, host, &self.replay) {
            let make = || Ok(line_request(port, parts, host, self.body()?));
            if let Some(answer) = peer::send_by_line(peer, make).await? {
                return Ok(answer);
            }
        }
        let mesh = self.mesh_parts(port)?;
        let waiting = peer.lines.beside();
        let answer = if self.upgrade.is_some() {
            peer::open(peer, mesh).await
        } else {
            peer::send(peer, mesh, self.body()?).await
        };
        drop(waiting);
        answer
    }

    /// The head of the same request by HTTP/2, with what the peer must know.
    fn mesh_parts(&self, port: u16) -> Result<Parts, Failure> {
        let parts = &self.parts;
        let mut mesh = parts.clone();
        let protocol = if parts.version == Version::HTTP_2 {
            "http2"
        } else {
            "http1"
        };
        let authority = host_of(parts).map_or_else(|| self.called.to_string(), str::to_owned);
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        mesh.version = Version::HTTP_2;
        mesh.headers.remove(header::HOST);
        mesh.headers.insert(protocol::PORT, HeaderValue::from(port));
        mesh.headers
            .insert(protocol::PROTOCOL, HeaderValue::from_static(protocol));
        let bad =
            |what: &str| Failure::not_sent(Reason::BadRequest, format!("{what} cannot be sent on"));
        if let Some(upgrade) = &self.upgrade {
            mesh.headers.insert(protocol::UPGRADE_TO, upgrade.clone());
            mesh.headers.insert(
                protocol::TARGET,
                HeaderValue::from_str(target).map_err(|_| bad("the request target"))?,
            );
            mesh.method = Method::CONNECT;
            mesh.uri = authority.parse().map_err(|_| bad("the Host header"))?;
        } else {
            mesh.uri = Uri::builder()
                .scheme("http")
                .authority(authority)
                .path_and_query(target)
                .build()
                .map_err(|_| bad("the Host header"))?;
        }
        Ok(mesh)
    }
}

/// Bytes of a body that a quiet line carries: what every socket takes at once, so
/// that a line never waits for an application that does not read.
const LINE_BODY: u64 = 16 * 1024;

/// True for requests that lose nothing in HTTP/1.1 with one at a time: those that
/// came so, and are small and complete in themselves.
fn fits_a_line(parts: &Parts, host: Option<&str>, replay: &Replay) -> bool {
    parts.version == Version::HTTP_11
        && host.is_some_and(|host| !host.is_empty())
        && !parts.headers.contains_key(header::EXPECT)
        && !parts.headers.contains_key(header::TE)
        && replay.size().is_some_and(|size| size <= LINE_BODY)
}

/// The same request for a quiet line: origin form, Host, and what the peer must
/// know.
fn line_request(port: u16, parts: &Parts, host: Option<&str>, body: Body) -> Request<Body> {
    let mut parts = parts.clone();
    if parts.uri.authority().is_some() {
        // A target with an authority beats the header.
        if let Some(Ok(host)) = host.map(HeaderValue::from_str) {
            parts.headers.insert(header::HOST, host);
        }
        let target = parts.uri.path_and_query().cloned();
        parts.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    let says_so = [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method);
    if says_so && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        // As by HTTP/2; some servers insist on it.
        parts
            .headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    parts
        .headers
        .insert(protocol::PORT, HeaderValue::from(port));
    parts
        .headers
        .insert(protocol::PROTOCOL, HeaderValue::from_static("http1"));
    Request::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::empty;

    /// The head as it is written: method, target, version, then the headers in order.
    fn wire(parts: &Parts) -> String {
        let fields = parts.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            format!("{name}: {value}")
        });
        let fields: Vec<String> = fields.collect();
        let line = format!("{} {} {:?}", parts.method, parts.uri, parts.version);
        format!("{line} | {}", fields.join(" | "))
    }

    fn parts(line: (&str, &str, Version), headers: &[(&'static str, &'static str)]) -> Parts {
        let (method, uri, version) = line;
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn by_http2(parts: Parts, upgrade: Option<&'static str>) -> String {
        let outgoing = Outgoing {
            parts,
            replay: Replay::new(empty()),
            upgrade: upgrade.map(HeaderValue::from_static),
            called: SocketAddr::from(([10, 0, 0, 1], 80)),
        };
        wire(&outgoing.mesh_parts(8080).unwrap())
    }

    fn by_http1(parts: &Parts) -> String {
        wire(
            &line_request(8080, parts, host_of(parts), empty())
                .into_parts()
                .0,
        )
    }

    const ONE: Version = Version::HTTP_11;
    const TWO: Version = Version::HTTP_2;

    #[test]
    fn requests_to_a_peer_are_written_as_ever() {
        let get = || {
            parts(
                ("GET", "/a?b", ONE),
                &[("x", "1"), ("host", "h:1"), ("y", "2"), ("z", "3")],
            )
        };
        let absolute = || parts(("POST", "https://h/a", ONE), &[("host", "h"), ("x", "1")]);
        let grpc = || {
            parts(
                ("POST", "http://h/S/M", TWO),
                &[("te", "trailers"), ("host", "h")],
            )
        };
        let bare = || parts(("OPTIONS", "*", Version::HTTP_10), &[("x", "1")]);
        for (case, written) in [
            (
                by_http2(get(), None),
                "GET http://h:1/a?b HTTP/2.0 | x: 1 | z: 3 | y: 2 | weft-port: 8080 | weft-protocol: http1",
            ),
            (
                by_http2(absolute(), None),
                "POST http://h/a HTTP/2.0 | x: 1 | weft-port: 8080 | weft-protocol: http1",
            ),
            (
                by_http2(grpc(), None),
                "POST http://h/S/M HTTP/2.0 | te: trailers | weft-port: 8080 | weft-protocol: http2",
            ),
            (
                by_http2(bare(), None),
                "OPTIONS http://10.0.0.1:80* HTTP/2.0 | x: 1 | weft-port: 8080 | weft-protocol: http1",
            ),
            (
                by_http2(get(), Some("websocket")),
                "CONNECT h:1 HTTP/2.0 | x: 1 | z: 3 | y: 2 | weft-port: 8080 | weft-protocol: http1 \
                 | weft-upgrade: websocket | weft-target: /a?b",
            ),
            (
                by_http1(&get()),
                "GET /a?b HTTP/1.1 | x: 1 | host: h:1 | y: 2 | z: 3 | weft-port: 8080 | weft-protocol: http1",
            ),
            (
                by_http1(&absolute()),
                "POST /a HTTP/1.1 | host: h | x: 1 | content-length: 0 | weft-port: 8080 | weft-protocol: http1",
            ),
        ] {
            assert_eq!(case, written);
        }
    }
}
