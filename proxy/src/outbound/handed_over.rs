//! Serves the connections by which peer proxies hand calls over to the own Gateway (an egress
//! gateway). Each call is to leave the mesh for an ExternalService that names the Gateway.
//!
//! `handed` decides whether a call may leave, `handed_route` where it goes, `request` and `opaque`
//! send it. No header of the mesh goes on from here.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, Request, Response, Version};
use identity::verify::PeerIdentity;
use policy::egress::may_be_outside;
use policy::protocol::Protocol;
use policy::reason::Reason;
use runtime::occupancy::Permit;
use tokio::net::TcpStream;

use crate::config::snapshot::Destination;
use crate::config::store::DestinationGuard;
use crate::failure::{Failure, Next};
use crate::http::body::{self, Body};
use crate::http::byte_stream::ByteStream;
use crate::http::head::ReportedHead;
use crate::http::http2::recv::RecvBody;
use crate::http::http2::server::Accept;
use crate::http::incoming::IncomingBody;
use crate::http::server::{Accepted, Profile, serve as serve_http};
use crate::mesh::protocol::{
    AppHttp, AppPort, HandedOver, PeerRequest, RequestKind, Transport, not_sent,
};
use crate::mesh::tls::{Secured, accept};
use crate::net::connect;
use crate::net::prefixed::Prefixed;
use crate::outbound::connection::Connection;
use crate::outbound::egress;
use crate::outbound::handed::{Handed, HandedTarget};
use crate::outbound::opaque::{open_way, relay_opened};
use crate::outbound::request::handle_request;
use crate::proxy::Proxy;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::labels::{Direction, Security};

const ONLY_HANDED: &str = "a Gateway takes here only calls that are to leave the mesh, for an \
                           ExternalService that names it; call its Service at a port of a listener";
const NO_REQUEST: &str = "a Gateway lets out requests of HTTP and bytes";

/// A peer that hands calls over on one connection.
struct HandingPeer {
    proxy: Arc<Proxy>,
    peer: Arc<PeerIdentity>,
    transport: Transport,
    /// For what its tunnels make this proxy do its connection is charged.
    charged: Arc<Permit>,
}

/// Serves one connection to the port of the mesh at which a Gateway takes calls that are to leave.
pub async fn serve_handed_over(proxy: Arc<Proxy>, stream: TcpStream, permit: Arc<Permit>) {
    let Ok(own) = stream.local_addr() else { return };
    if !proxy.own.has(own.ip()) {
        proxy.telemetry.metrics.limit("direct-call");
        return connect::reset(&stream);
    }
    // A peer that does not finish a handshake is the first to lose its permit.
    permit.silent();
    permit.head_begins();
    let Secured {
        stream,
        flush,
        peer,
        certificate_end,
        transport,
    } = match accept(proxy.peers.tls(), stream).await {
        Ok(secured) => secured,
        Err(reason) => {
            let metrics = &proxy.telemetry.metrics;
            return metrics.tls_failed(Direction::inbound, reason);
        }
    };
    permit.busy();
    permit.prove(peer.spiffe.as_str());
    let (version, label) = match transport {
        Transport::Http1 => (Version::HTTP_11, "http1"),
        Transport::Http2 => (Version::HTTP_2, "http2"),
    };
    proxy.count_connection(Direction::inbound, label, Security::mtls);
    let drain = proxy.drain.clone();
    let (config, proven) = (Arc::clone(&proxy.config), Arc::clone(&peer));
    let budget = Arc::clone(proxy.budget());
    let handing = Arc::new(HandingPeer {
        proxy,
        peer,
        transport,
        charged: permit.within(),
    });
    let refused = {
        let handing = Arc::clone(&handing);
        move |how, head: ReportedHead<'_>| handing.call(CallKind::Request).turned_away(how, head)
    };
    let handler = move |request| Arc::clone(&handing).handle(request);
    let close = async move {
        // On the heap: most connections end long before.
        let expired = Box::pin(certificate_end.passed());
        let distrusted = Box::pin(config.until_refused(|now| now.keep(&proven)));
        tokio::select! {
            () = drain.time_to_go() => {}
            () = expired => {}
            _ = distrusted => {}
        }
    };
    let accepted = Accepted {
        version,
        profile: Profile::Mesh(flush),
        budget,
        permit,
    };
    serve_http(stream, accepted, close, refused, handler).await;
}

impl HandingPeer {
    /// One request or tunnel.
    async fn handle(self: Arc<Self>, request: Request<IncomingBody>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let method = parts.method.clone();
        let over = HandedOver::read(&parts.headers);
        let request = PeerRequest::decode(parts, self.transport).map_err(|malformed| malformed.0);
        let (over, request) = match (over, request) {
            (Ok(Some(over)), Ok(request)) => (over, request),
            (Ok(None), Ok(_)) => {
                let failure = Failure::refused(Reason::UnknownDestination, ONLY_HANDED);
                return self.refuse(&failure, &method, RequestKind::Http);
            }
            (Err(malformed), _) | (_, Err(malformed)) => {
                let failure = Failure::refused(Reason::BadRequest, malformed);
                return self.refuse(&failure, &method, RequestKind::Http);
            }
        };
        match (request, body) {
            (PeerRequest::Http { port, speak, parts }, body) => {
                let speaks = match speak {
                    AppHttp::Http1 => Protocol::Http1,
                    AppHttp::Http2 => Protocol::Http2,
                };
                match self.connection(over, port, Some(speaks)).await {
                    Ok(connection) => {
                        let request = Request::from_parts(parts, body);
                        handle_request(Arc::new(connection), request).await
                    }
                    Err(failure) => self.refuse(&failure, &method, RequestKind::Http),
                }
            }
            (PeerRequest::Tcp { port, .. }, IncomingBody::Http2(incoming)) => {
                match self.connection(over, port, None).await {
                    Ok(connection) => self.tunnel(connection, incoming).await,
                    Err(failure) => self.refuse(&failure, &method, RequestKind::Tcp),
                }
            }
            _ => {
                let failure = Failure::refused(Reason::BadRequest, NO_REQUEST);
                self.refuse(&failure, &method, RequestKind::Http)
            }
        }
    }

    /// What was handed over, where it may leave, once it is known where it goes.
    async fn connection(
        &self,
        over: HandedOver,
        port: AppPort,
        speaks: Option<Protocol>,
    ) -> Result<Connection, Failure> {
        let config = &self.proxy.config;
        if !config.is_configured() {
            return Err(Failure::no_configuration());
        }
        let own = self.proxy.own.identity.trust_domain();
        if self.peer.spiffe.trust_domain() != own {
            let detail = "the caller is of another trust domain than this Gateway";
            return Err(Failure::refused(Reason::NotAllowed, detail));
        }
        let peer = Arc::clone(&self.peer);
        let handed = Handed::new(peer, over, port.get(), speaks)?;
        let target_port = config.inspect(|now| {
            let admitted = handed.admitted(now)?;
            Ok::<u16, Failure>(admitted.port.target_port)
        })?;
        let (ip, guard) = match &handed.to {
            HandedTarget::Host(host) => {
                let name = wire::names::external(host, target_port);
                egress::look_up_name(config, &name).await;
                (self.proxy.own.ip, None)
            }
            HandedTarget::Address(ip) => {
                let outside = self.outside(SocketAddr::new(*ip, target_port));
                (*ip, Some(outside.await?))
            }
        };
        let addr = SocketAddr::new(ip, port.get());
        let handed = handed.keeping(guard);
        Ok(Connection::handed_over(
            Arc::clone(&self.proxy),
            addr,
            handed,
        ))
    }

    /// Whether nothing of the cluster stands at an address: an object may list networks that pods are
    /// in, and this Gateway reaches what its callers may not.
    async fn outside(&self, addr: SocketAddr) -> Result<DestinationGuard, Failure> {
        if !may_be_outside(addr.ip()) {
            return Err(inside(addr));
        }
        let found = self.proxy.config.find(addr).await;
        let (found, guard) =
            found.map_err(|full| Failure::not_sent(Reason::Overload, full.to_string()))?;
        stands_outside(found.as_deref(), addr).map(|()| guard)
    }

    /// Opens the way of bytes, and relays them once the peer knows that it is open.
    async fn tunnel(&self, connection: Connection, incoming: RecvBody) -> Response<Body> {
        let (accept, out) = Accept::new();
        let mut response = Response::new(body::empty());
        response.extensions_mut().insert(accept);
        let mut call = connection.call(CallKind::Bytes);
        let tunnel = match open_way(&connection, &mut call).await {
            Ok(tunnel) => tunnel,
            Err(failure) => {
                let response = call.refuse(&failure, &Method::POST, false);
                return proven(&failure, response, RequestKind::Tcp);
            }
        };
        let permit = self.charged.within();
        #[expect(clippy::disallowed_methods, reason = "one byte stream")]
        tokio::spawn(async move {
            permit.busy();
            let Ok(out) = out.await else { return };
            let stream = Prefixed::new(ByteStream::new(out, incoming));
            relay_opened(&connection, stream, tunnel, call).await;
        });
        response
    }

    fn call(&self, kind: CallKind) -> Call {
        let ends = CallEnds::to_service(Arc::default(), 0);
        Call::begin(&self.proxy.telemetry, kind, ends)
    }

    fn refuse(&self, failure: &Failure, method: &Method, kind: RequestKind) -> Response<Body> {
        tracing::debug!(peer = self.peer.spiffe.as_str(), %failure, "let nothing out");
        let call = self.call(match kind {
            RequestKind::Tcp => CallKind::Bytes,
            RequestKind::Http | RequestKind::Upgrade => CallKind::Request,
        });
        proven(failure, call.refuse(failure, method, false), kind)
    }
}

/// With proof that nothing has left, where that is so and another pod may let it out.
fn proven(failure: &Failure, response: Response<Body>, kind: RequestKind) -> Response<Body> {
    match failure.next() {
        Next::Stop => response,
        Next::SameEndpoint | Next::OtherEndpoint => not_sent(failure, response, kind),
    }
}

/// Whether what the controller has found at an address is outside the cluster: relaying to a node
/// works, and its ports are none that a Gateway lets calls out to.
fn stands_outside(found: Option<&Destination>, addr: SocketAddr) -> Result<(), Failure> {
    match found {
        Some(Destination::External { inside: false }) => Ok(()),
        Some(_) => Err(inside(addr)),
        None => {
            let detail = "the mesh does not know this address yet";
            Err(Failure::not_sent(Reason::UnknownDestination, detail))
        }
    }
}

fn inside(addr: SocketAddr) -> Failure {
    let detail = format!(
        "{addr} is no address outside the cluster, and a Gateway lets no call out to any other; call \
         the Service of what is there"
    );
    Failure::refused(Reason::EgressDenied, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_lets_no_call_out_to_a_node() {
        let addr: SocketAddr = ([192, 168, 0, 1], 10250).into();
        let reason = |inside| {
            let found = Destination::External { inside };
            stands_outside(Some(&found), addr).map_err(|failure| failure.reason())
        };
        assert_eq!(reason(false), Ok(()));
        assert_eq!(reason(true), Err(Reason::EgressDenied));
    }
}
