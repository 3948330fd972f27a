//! Serves the requests and tunnels of a peer proxy on one connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use policy::reason::Reason;
use runtime::occupancy::Permit;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::config::snapshot::Snapshot;
use crate::failure::{Failure, Next};
use crate::http::body::{self, Body};
use crate::http::byte_stream::ByteStream;
use crate::http::head::ReportedHead;
use crate::http::http2::recv::RecvBody;
use crate::http::http2::server::Accept;
use crate::http::incoming::IncomingBody;
use crate::http::received::{PeerUpgrade, Upgrades};
use crate::http::replay::KeptBody;
use crate::inbound::authorize::{AllowedBytes, Expected, evaluates_requests, expected};
use crate::inbound::connection::{CallerContext, Connection};
use crate::inbound::guard::admit_bytes;
use crate::inbound::opaque::{call_of_bytes, relay_bytes};
use crate::inbound::request::handle_request;
use crate::inbound::serve::{detect, race, serve};
use crate::mesh::protocol::upgrade::marked;
use crate::mesh::protocol::{AppHttp, AppPort, PeerRequest, RequestKind, Transport, not_sent};
use crate::net::prefixed::{HEAD_WITHIN, Prefixed};
use crate::proxy::Proxy;
use crate::telemetry::call::CallKind;

/// A peer proxy on one connection.
pub(super) struct PeerProxy {
    pub(super) proxy: Arc<Proxy>,
    pub(super) who: CallerContext,
    /// The address that it called, one of the pod's own.
    pub(super) ip: IpAddr,
    pub(super) transport: Transport,
    /// For what its tunnels make this proxy do its connection is charged.
    pub(super) charged: Arc<Permit>,
}

impl PeerProxy {
    /// What it requests of one port, or of none that it could name.
    pub(super) fn of_port(&self, port: Option<AppPort>) -> Connection {
        let local = SocketAddr::new(self.ip, port.map_or(0, AppPort::get));
        Connection::new(Arc::clone(&self.proxy), self.who.clone(), local)
    }

    /// One request or tunnel.
    pub(super) async fn handle(self: Arc<Self>, request: Request<IncomingBody>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let method = parts.method.clone();
        let request = match PeerRequest::decode(parts, self.transport) {
            Ok(request) => request,
            Err(malformed) => return self.malformed(malformed.0, &method),
        };
        match request {
            PeerRequest::Http { port, speak, parts }
            | PeerRequest::ReadOnlyCopy { port, speak, parts } => {
                let request = Request::from_parts(parts, body);
                let connection = Arc::new(self.of_port(Some(port)).of_proxy());
                handle_request(connection, request, speak, Upgrades::FromPeer(None)).await
            }
            PeerRequest::Upgrade {
                port,
                to,
                body: size,
                parts,
            } => {
                let posts = parts.method == Method::POST;
                let request = Request::from_parts(parts, body);
                // On the heap: hardly any request is for an upgrade.
                let answer = Box::pin(self.upgrade(port, to, size, request)).await;
                if posts { marked(answer) } else { answer }
            }
            PeerRequest::Tcp { port, .. } => match body {
                IncomingBody::Http2(body) => {
                    let permit = self.charged.within();
                    let connection = Arc::new(self.of_port(Some(port)));
                    tunnel(connection, body, permit).await
                }
                _ => self.malformed("tunnels are for HTTP/2", &method),
            },
        }
    }

    /// An upgrade whose request has a body of this size.
    async fn upgrade(
        &self,
        port: AppPort,
        to: HeaderValue,
        size: usize,
        mut request: Request<IncomingBody>,
    ) -> Response<Body> {
        let Some(body) = first_bytes(&mut request, size).await else {
            return self.malformed("the body of an upgrade did not come", &Method::CONNECT);
        };
        let upgrade = Upgrades::FromPeer(Some(Box::new(PeerUpgrade { to, body })));
        let connection = Arc::new(self.of_port(Some(port)).of_proxy());
        handle_request(connection, request, AppHttp::Http1, upgrade).await
    }

    fn malformed(&self, detail: &'static str, method: &Method) -> Response<Body> {
        let failure = Failure::refused(Reason::BadRequest, detail);
        let mut call = self.of_port(None).call(CallKind::Request);
        call.note_rejected(ReportedHead {
            method: Some(method),
            ..ReportedHead::default()
        });
        call.refuse(&failure, method, false)
    }
}

/// The first bytes of a stream, which are the body of the request that opened it. The peer proxy
/// has them all, and sends nothing behind them before the answer: they come as a head does.
async fn first_bytes(request: &mut Request<IncomingBody>, size: usize) -> Option<Bytes> {
    let kept = request.extensions().get::<KeptBody>().cloned();
    let body = request.body_mut();
    let read = async {
        let mut bytes = BytesMut::new();
        while bytes.len() < size {
            let data = body.frame().await?.ok()?.into_data().ok()?;
            bytes.extend_from_slice(&data);
            if let Some(kept) = &kept {
                kept.note(bytes.capacity());
            }
        }
        (bytes.len() == size).then(|| bytes.freeze())
    };
    timeout(HEAD_WITHIN, read).await.ok()?
}

/// What a tunnel may carry, as it is decided before anything of it is read.
enum TunnelContent {
    /// Nothing but requests passes, each of them evaluated.
    Requests,
    /// It may carry either, and is evaluated when its protocol is known.
    Either,
    /// Bytes, and these may pass.
    Bytes(AllowedBytes),
}

/// Bytes that come as the body of a peer proxy's request, declared as opaque. Where they are
/// HTTP, its requests count for the peer as any others.
async fn tunnel(
    connection: Arc<Connection>,
    incoming: RecvBody,
    permit: Arc<Permit>,
) -> Response<Body> {
    let (accept, out) = Accept::new();
    let mut response = Response::new(body::empty());
    response.extensions_mut().insert(accept);
    let content = tunnel_content(&connection, &connection.proxy.config.snapshot());
    let allowed = match content {
        Ok(TunnelContent::Requests) => {
            #[expect(clippy::disallowed_methods, reason = "one byte stream")]
            tokio::spawn(async move {
                let Ok(out) = out.await else { return };
                let mut stream = Prefixed::new(ByteStream::new(out, incoming));
                // As from outside: a silent caller may lose its permit.
                permit.silent();
                let spoken = detect(&connection, &mut stream, &permit).await;
                serve(connection, stream, spoken, &permit, None).await;
            });
            return response;
        }
        Ok(TunnelContent::Either) => None,
        Ok(TunnelContent::Bytes(allowed)) => Some(allowed),
        // A caller without any access gets that before it sends anything.
        Err(failure) => return unopened(&connection, &failure),
    };
    let (server, began) = match connect_in_turn(&connection).await {
        Ok((server, began)) => (Prefixed::new(server), began),
        Err(failure) => return unopened(&connection, &failure),
    };
    #[expect(clippy::disallowed_methods, reason = "one byte stream")]
    tokio::spawn(async move {
        // What the caller sends, or that it sends no more, makes nothing of the connection:
        // it may leave right behind that.
        let connect_guard = connection.connect_guard(began);
        let Ok(out) = out.await else { return };
        let mut stream = Prefixed::new(ByteStream::new(out, incoming));
        if let Some(allowed) = allowed {
            permit.busy();
            let guard = Some(&connect_guard);
            relay_bytes(&connection, stream, Some(server), Ok(allowed), guard).await;
        } else {
            // The peer's declaration as opaque does not count: unless the port is declared
            // so, HTTP in a tunnel is evaluated and cleaned as HTTP.
            let guard = Some(&connect_guard);
            let spoken = race(&connection, &mut stream, server, guard).await;
            serve(Arc::clone(&connection), stream, spoken, &permit, guard).await;
        }
        // Requests go by connections of their own, whose answers make up for nothing here.
        if connection.has_answered() {
            connect_guard.ended();
        }
    });
    response
}

/// Opens a connection to the application when the caller may, and returns when that began.
async fn connect_in_turn(connection: &Connection) -> Result<(TcpStream, Option<Instant>), Failure> {
    let connect_guard = connection.connect_guard(None);
    let turn = connect_guard.begins_in_turn().await;
    turn.map_err(|full| Failure::not_sent(Reason::Overload, full.to_string()))?;
    let connected = connection.connect().await;
    let began = connect_guard.handed_on();
    match connected {
        Ok(server) => Ok((server, began)),
        Err(error) => Err(Failure::not_sent(Reason::ConnectFailed, error.to_string())),
    }
}

/// What may be sent in a tunnel; and where that is known to be bytes, whether they may pass.
/// By one snapshot, and those are not evaluated again.
///
/// # Errors
/// When nothing may pass.
fn tunnel_content(connection: &Connection, snapshot: &Snapshot) -> Result<TunnelContent, Failure> {
    match expected(connection, snapshot) {
        Expected::Http { declared, .. } if declared || evaluates_requests(connection, snapshot) => {
            Ok(TunnelContent::Requests)
        }
        Expected::Either => Ok(TunnelContent::Either),
        Expected::Bytes | Expected::Http { .. } => {
            // Nothing of them has come yet.
            let allowed = admit_bytes(connection, snapshot, false);
            allowed.map(TunnelContent::Bytes)
        }
    }
}

/// The answer to a peer whose tunnel is not opened.
fn unopened(connection: &Connection, failure: &Failure) -> Response<Body> {
    let call = call_of_bytes(connection);
    let response = call.refuse(failure, &Method::POST, false);
    match failure.next() {
        Next::Stop => response,
        Next::SameEndpoint | Next::OtherEndpoint => not_sent(failure, response, RequestKind::Tcp),
    }
}
