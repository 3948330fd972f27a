//! The messages between two proxies that carry a request: its destination, its protocol, and its
//! outcome. Only this file writes and reads the headers for that, but for `weft-unsent`, which is
//! also sent where no head could be read. Other facts of a message, as its time or its class, are
//! in headers of their own and pass unchanged. The names of all are in `http::header_names`,
//! because `http` removes them from messages and may not import this.
//!
//! A request of one application to another travels as itself, with what the receiving proxy must
//! know in further headers. An upgrade is a CONNECT stream, and so its response hides the
//! application's status: a 2xx would make a tunnel of it. Bytes are the two bodies of a POST. A
//! field that is missing, sent twice or out of place is malformed and refused, so no decision
//! depends on which of two values is read.
//!
//! Invariant: what [`PeerRequest::encode`] and [`PeerResponse::encode`] write is what every earlier
//! version reads, to the byte. Two are the exception, and must be. A proxy that does not support
//! copies would pass a copy for read-only pods to its application as any request, and one that
//! supports upgrades by GET alone would take the body of a POST for bytes of the other protocol. So
//! they are written in a way that such a proxy refuses.

use std::borrow::Borrow;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Response, StatusCode, Uri, Version, header, response};
use policy::reason::Reason;
use policy::well_known::PROXY_PORTS;

use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::head::number;
use crate::http::header_names::{
    PORT, PROTOCOL, SCHEME, SHADOW, STATUS, TARGET, UNSENT, UPGRADE_TO,
};
use crate::http::received::{AbsoluteForm, acceptable, authority_of};
use crate::http::refusal::reason_in;
use crate::http::shadow::Shadow;

mod handed_over;
pub(crate) mod upgrade;

pub use self::handed_over::HandedOver;

/// The bodies of the exchange are the bytes of a connection.
const TCP: &str = "tcp";

/// An upgrade by POST, whose body comes first on the stream.
const BY_POST: &str = "http1-post";

/// What is to be spoken with the application, of a copy.
const COPY_HTTP1: &str = "http1-copy";
const COPY_HTTP2: &str = "http2-copy";

/// What carries a request to the peer proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Http2,
    /// One request at a time, and neither upgrades nor bytes.
    Http1,
}

/// A port of an application: neither 0 nor one of the proxy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppPort(u16);

impl AppPort {
    #[must_use]
    pub fn new(port: u16) -> Option<Self> {
        (port != 0 && !PROXY_PORTS.contains(&port)).then_some(Self(port))
    }

    pub(crate) const fn get(self) -> u16 {
        self.0
    }
}

/// The version of HTTP that the application is to be spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppHttp {
    Http1,
    Http2,
}

impl AppHttp {
    #[must_use]
    pub fn of(version: Version) -> Self {
        if version == Version::HTTP_2 {
            Self::Http2
        } else {
            Self::Http1
        }
    }

    pub(crate) const fn version(self) -> Version {
        match self {
            Self::Http1 => Version::HTTP_11,
            Self::Http2 => Version::HTTP_2,
        }
    }

    /// Its name, also in metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }

    const fn of_copy(self) -> &'static str {
        match self {
            Self::Http1 => COPY_HTTP1,
            Self::Http2 => COPY_HTTP2,
        }
    }

    fn of_copy_named(name: &[u8]) -> Option<Self> {
        let versions = [Self::Http1, Self::Http2];
        versions
            .into_iter()
            .find(|one| one.of_copy().as_bytes() == name)
    }
}

/// A request of one proxy to another. `P` is the application's request, borrowed from a sender that
/// may have to send it again.
#[derive(Clone, Debug)]
pub enum PeerRequest<P = Parts> {
    Http {
        port: AppPort,
        speak: AppHttp,
        parts: P,
    },
    /// The same of a copy for a pod that can change nothing.
    ReadOnlyCopy {
        port: AppPort,
        speak: AppHttp,
        parts: P,
    },
    /// A GET or POST that offers another protocol than HTTP from then on.
    Upgrade {
        port: AppPort,
        to: HeaderValue,
        /// Bytes of the body, which comes first on the stream.
        body: usize,
        parts: P,
    },
    /// Bytes. The authority, which a request must have, is not read.
    Tcp {
        port: AppPort,
        authority: Authority,
        /// To a Gateway: they are to leave the mesh.
        external: Option<HandedOver>,
    },
}

/// Why a message between two proxies is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

const NO_PORT: Malformed = Malformed("weft-port names no port of an application");
const NO_SCHEME: Malformed = Malformed("weft-scheme is no scheme");
const NO_HOST: Malformed = Malformed("the Host header cannot be sent on");
const TUNNEL: Malformed = Malformed("tunnels are for HTTP/2");
const COPY: Malformed =
    Malformed("copies are for HTTP/2, and say in weft-shadow that they are read-only");

impl<P: Borrow<Parts>> PeerRequest<P> {
    /// The head that carries it.
    ///
    /// # Errors
    /// When the request cannot be sent on by this transport.
    pub(crate) fn encode(&self, transport: Transport) -> Result<Parts, Malformed> {
        match (self, transport) {
            (Self::Http { port, speak, parts }, Transport::Http2) => {
                request_head(parts.borrow(), *port, speak.label())
            }
            (Self::ReadOnlyCopy { port, speak, parts }, Transport::Http2) => {
                request_head(parts.borrow(), *port, speak.of_copy())
            }
            (Self::Http { port, speak, parts }, Transport::Http1) => {
                Ok(dedicated_head(parts.borrow(), *port, *speak))
            }
            (
                Self::Upgrade {
                    port,
                    to,
                    body,
                    parts,
                },
                Transport::Http2,
            ) => PeerRequest::<Parts>::upgrade_head(parts.borrow(), *port, to, *body),
            (
                Self::Tcp {
                    port,
                    authority,
                    external,
                },
                Transport::Http2,
            ) => {
                let mut uri = http::uri::Parts::default();
                uri.scheme = Some(Scheme::HTTP);
                uri.authority = Some(authority.clone());
                uri.path_and_query = Some(PathAndQuery::from_static("/"));
                let (mut mesh, ()) = http::Request::new(()).into_parts();
                mesh.method = Method::POST;
                mesh.uri = Uri::from_parts(uri).map_err(|_| NO_HOST)?;
                mesh.headers.insert(PORT, HeaderValue::from(port.get()));
                mesh.headers.insert(PROTOCOL, HeaderValue::from_static(TCP));
                if let Some(external) = external {
                    external.write(&mut mesh.headers).map_err(Malformed)?;
                }
                Ok(mesh)
            }
            (Self::Upgrade { .. } | Self::Tcp { .. }, Transport::Http1) => Err(TUNNEL),
            (Self::ReadOnlyCopy { .. }, Transport::Http1) => Err(COPY),
        }
    }

    pub(crate) const fn kind(&self) -> RequestKind {
        match self {
            Self::Http { .. } | Self::ReadOnlyCopy { .. } => RequestKind::Http,
            Self::Upgrade { .. } => RequestKind::Upgrade,
            Self::Tcp { .. } => RequestKind::Tcp,
        }
    }
}

/// A head for HTTP/2 of a request to an application.
fn request_head(parts: &Parts, port: AppPort, protocol: &'static str) -> Result<Parts, Malformed> {
    let target = parts.uri.path_and_query().cloned();
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority_of(parts).ok_or(NO_HOST)?);
    uri.path_and_query = Some(target.unwrap_or(PathAndQuery::from_static("/")));
    let mut mesh = head_of(parts, port, protocol);
    mesh.uri = Uri::from_parts(uri).map_err(|_| NO_HOST)?;
    Ok(mesh)
}

/// A head for HTTP/2, which names the host in its target.
fn head_of(parts: &Parts, port: AppPort, protocol: &'static str) -> Parts {
    let mut mesh = parts.clone();
    mesh.version = Version::HTTP_2;
    mesh.headers.remove(header::HOST);
    insert_target(&mut mesh, port, protocol);
    mesh
}

/// A head in origin form.
fn dedicated_head(parts: &Parts, port: AppPort, speak: AppHttp) -> Parts {
    let mut mesh = parts.clone();
    mesh.version = Version::HTTP_11;
    if let Some(authority) = parts.uri.authority() {
        // A target with an authority beats the header.
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            mesh.headers.insert(header::HOST, host);
        }
        let target = parts.uri.path_and_query().cloned();
        mesh.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    let says_so = [Method::POST, Method::PUT, Method::PATCH].contains(&mesh.method);
    if says_so && !mesh.headers.contains_key(header::CONTENT_LENGTH) {
        // As by HTTP/2; some servers insist on it.
        mesh.headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    insert_target(&mut mesh, port, speak.label());
    mesh
}

fn insert_target(mesh: &mut Parts, port: AppPort, protocol: &'static str) {
    let map = &mut mesh.headers;
    map.insert(PORT, HeaderValue::from(port.get()));
    map.insert(PROTOCOL, HeaderValue::from_static(protocol));
    if let Some(AbsoluteForm(scheme)) = mesh.extensions.get::<AbsoluteForm>()
        && let Ok(scheme) = HeaderValue::from_str(scheme.as_str())
    {
        map.insert(SCHEME, scheme);
    }
}

impl PeerRequest {
    /// The request of a peer proxy in this head.
    ///
    /// # Errors
    /// When it holds none, or two.
    pub(crate) fn decode(mut parts: Parts, transport: Transport) -> Result<Self, Malformed> {
        let port = only(&mut parts.headers, &PORT)?
            .and_then(|port| number(&port))
            .and_then(AppPort::new)
            .ok_or(NO_PORT)?;
        if let Some(scheme) = only(&mut parts.headers, &SCHEME)? {
            let scheme = Some(scheme.as_bytes()).filter(|scheme| !scheme.is_empty());
            let scheme = scheme.and_then(|scheme| Scheme::try_from(scheme).ok());
            parts
                .extensions
                .insert(AbsoluteForm(scheme.ok_or(NO_SCHEME)?));
        }
        let protocol = only(&mut parts.headers, &PROTOCOL)?;
        let protocol = protocol.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let upgrades = parts.method == Method::CONNECT;
        if upgrades && protocol == BY_POST.as_bytes() {
            return Self::decode_upgrade(parts, port, transport, Method::POST);
        }
        let copied = AppHttp::of_copy_named(protocol).filter(|_| !upgrades);
        let speak = match protocol {
            b"http1" => AppHttp::Http1,
            b"http2" if !upgrades => AppHttp::Http2,
            b"tcp" if !upgrades => return Self::decode_tcp(&parts, port, transport),
            _ => copied.ok_or(Malformed("weft-protocol names no protocol"))?,
        };
        if upgrades {
            return Self::decode_upgrade(parts, port, transport, Method::GET);
        }
        for name in [UPGRADE_TO, TARGET] {
            if parts.headers.contains_key(name) {
                return Err(Malformed("an upgrade is asked for with CONNECT"));
            }
        }
        if copied.is_none() {
            return Ok(Self::Http { port, speak, parts });
        }
        let shadow = parts.headers.get(SHADOW).map(Shadow::of_peer);
        if transport == Transport::Http1 || shadow != Some(Shadow::ReadOnly) {
            return Err(COPY);
        }
        Ok(Self::ReadOnlyCopy { port, speak, parts })
    }

    fn decode_tcp(parts: &Parts, port: AppPort, transport: Transport) -> Result<Self, Malformed> {
        if transport == Transport::Http1 {
            return Err(TUNNEL);
        }
        acceptable(parts).map_err(Malformed)?;
        if parts.method != Method::POST {
            return Err(Malformed("a tunnel is asked for with POST"));
        }
        let authority = authority_of(parts).ok_or(Malformed("a tunnel without authority"))?;
        Ok(Self::Tcp {
            port,
            authority,
            external: HandedOver::read(&parts.headers).map_err(Malformed)?,
        })
    }
}

/// Takes the value of a header that must not be there twice.
fn only(map: &mut HeaderMap, name: &HeaderName) -> Result<Option<HeaderValue>, Malformed> {
    if map.get_all(name).iter().nth(1).is_some() {
        return Err(Malformed("a header between two proxies is there twice"));
    }
    Ok(map.remove(name))
}

/// What an answer is the answer to: how it is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Http,
    Upgrade,
    Tcp,
}

/// What a peer proxy answers.
#[derive(Debug)]
pub(crate) enum PeerResponse {
    /// The application's answer, or one of the peer proxy in its place.
    Answered(response::Parts),
    /// The stream carries another protocol from now on: `to`, if the application named it.
    Switched {
        to: Option<HeaderValue>,
        parts: response::Parts,
    },
    /// No application saw the request, which is proven. `parts` is the answer for a caller
    /// that cannot try elsewhere.
    NotSent {
        reason: Reason,
        parts: response::Parts,
    },
}

impl PeerResponse {
    /// The head that carries it.
    pub(crate) fn encode(self, kind: RequestKind) -> response::Parts {
        match self {
            Self::Answered(mut parts) => {
                if kind == RequestKind::Upgrade {
                    let status = HeaderValue::from(parts.status.as_u16());
                    parts.headers.insert(STATUS, status);
                    // A CONNECT stream answered with 2xx would become a tunnel.
                    parts.status = StatusCode::MISDIRECTED_REQUEST;
                }
                parts
            }
            Self::Switched { to, mut parts } => {
                let status = HeaderValue::from(StatusCode::SWITCHING_PROTOCOLS.as_u16());
                parts.headers.insert(STATUS, status);
                if let Some(to) = to {
                    parts.headers.insert(UPGRADE_TO, to);
                }
                parts.status = StatusCode::OK;
                parts
            }
            Self::NotSent { mut parts, .. } => {
                parts.headers.insert(UNSENT, HeaderValue::from_static("1"));
                parts
            }
        }
    }

    /// What a peer proxy answered with this head.
    ///
    /// # Errors
    /// When that can be read in two ways.
    pub(crate) fn decode(mut parts: response::Parts, kind: RequestKind) -> Result<Self, Malformed> {
        if parts.headers.contains_key(UNSENT) {
            let reason = reason_in(&parts.headers).unwrap_or(Reason::ConnectFailed);
            return Ok(Self::NotSent { reason, parts });
        }
        if kind != RequestKind::Upgrade {
            return Ok(Self::Answered(parts));
        }
        let Some(status) = only(&mut parts.headers, &STATUS)? else {
            // The peer proxy itself has answered.
            return Ok(Self::Answered(parts));
        };
        let status = StatusCode::from_bytes(status.as_bytes())
            .map_err(|_| Malformed("weft-status is no status"))?;
        let switched = status == StatusCode::SWITCHING_PROTOCOLS;
        let carrier = if switched {
            StatusCode::OK
        } else {
            StatusCode::MISDIRECTED_REQUEST
        };
        if parts.status != carrier {
            return Err(Malformed("weft-status on a stream of another status"));
        }
        parts.status = status;
        if !switched {
            return Ok(Self::Answered(parts));
        }
        let to = only(&mut parts.headers, &UPGRADE_TO)?;
        Ok(Self::Switched { to, parts })
    }
}

/// Marks the `response` that `failure` gives as proof that no application saw the request.
pub(crate) fn not_sent(
    failure: &Failure,
    response: Response<Body>,
    kind: RequestKind,
) -> Response<Body> {
    let reason = failure.reason();
    let (parts, body) = response.into_parts();
    let parts = PeerResponse::NotSent { reason, parts }.encode(kind);
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests;
