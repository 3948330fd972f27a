//! Requests and tunnels of peer proxies.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use policy::reason::Reason;
use runtime::occupancy::Permit;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::head::Asked;
use crate::http::incoming::IncomingBody;
use crate::http::received::{PeerUpgrade, Upgrades};
use crate::http::replay::KeptBody;
use crate::inbound::connection::{CallerContext, Connection};
use crate::mesh::protocol::upgrade::marked;
use crate::mesh::protocol::{AppHttp, AppPort, PeerRequest, Transport};
use crate::net::prefixed::HEAD_WITHIN;
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
                connection
                    .handle_request(request, speak, Upgrades::FromPeer(None))
                    .await
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
                    connection.tunnel(body, permit).await
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
        connection
            .handle_request(request, AppHttp::Http1, upgrade)
            .await
    }

    fn malformed(&self, detail: &'static str, method: &Method) -> Response<Body> {
        let failure = Failure::refused(Reason::BadRequest, detail);
        let mut call = self.of_port(None).call(CallKind::Request);
        call.asks_in_vain(Asked {
            method: Some(method),
            ..Asked::default()
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
