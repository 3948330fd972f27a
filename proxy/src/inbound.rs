//! Handles connections from outside the pod: accept, TLS (or plaintext where permitted), detect,
//! then per request or connection deadline, authorize, limit, overload, forward to the
//! application, and count the result.
//!
//! Imports `config`, `failure`, `http`, `mesh`, `net`, `proxy` and `telemetry`;
//! not `endpoints`, and never `outbound`.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Version;
use policy::well_known::PROXY_PORTS;
use runtime::occupancy::Permit;
use tokio::net::TcpStream;

mod authorize;
mod connection;
mod forward;
mod guard;
mod opaque;
mod path;
mod peer;
mod reauthorize;
mod request;
mod respond;
mod serve;

use crate::http::head::ReportedHead;
use crate::http::server::{Accepted, Profile, serve as serve_http};
use crate::inbound::connection::{CallerContext, Connection};
use crate::inbound::peer::PeerProxy;
use crate::inbound::serve::{detect, serve};
use crate::mesh::protocol::Transport;
use crate::mesh::tls::{Secured, accept};
use crate::net::connect;
use crate::net::prefixed::Prefixed;
use crate::proxy::Proxy;
use crate::telemetry::labels::{Direction, Security};

/// Serves one connection to the mesh port.
pub async fn serve_mesh(proxy: Arc<Proxy>, stream: TcpStream, permit: Arc<Permit>) {
    let Ok(own) = stream.local_addr() else { return };
    if !proxy.own.has(own.ip()) {
        return turn_away(&proxy, &stream);
    }
    // A peer that does not finish a handshake is the first to lose its permit.
    permit.silent();
    permit.head_begins();
    let Secured {
        stream,
        flush,
        peer: identity,
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
    permit.prove(identity.spiffe.as_str());
    let (version, label) = match transport {
        Transport::Http1 => (Version::HTTP_11, "http1"),
        Transport::Http2 => (Version::HTTP_2, "http2"),
    };
    proxy.count_connection(Direction::inbound, label, Security::mtls);
    let drain = proxy.drain.clone();
    let (config, proven) = (Arc::clone(&proxy.config), Arc::clone(&identity));
    let budget = Arc::clone(proxy.budget());
    let peer = Arc::new(PeerProxy {
        proxy,
        who: CallerContext::new(identity, certificate_end.clone()),
        ip: own.ip(),
        transport,
        charged: permit.within(),
    });
    let refused = {
        let peer = Arc::clone(&peer);
        move |how, head: ReportedHead<'_>| peer.of_port(None).turned_away(how, head)
    };
    let handler = move |request| Arc::clone(&peer).handle(request);
    let close = async move {
        // On the heap: most connections end long before.
        let expired = Box::pin(certificate_end.passed());
        let distrusted = Box::pin(config.until_refused(|now| now.keep(&proven)));
        tokio::select! {
            () = drain.time_to_go() => {}
            // The peer has another certificate by then, and proves its identity by a new
            // connection.
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

/// Serves one connection that came in plaintext, redirected from `original`.
pub async fn serve_plain(
    proxy: Arc<Proxy>,
    stream: TcpStream,
    original: SocketAddr,
    permit: Arc<Permit>,
) {
    if !proxy.own.has(original.ip()) || PROXY_PORTS.contains(&original.port()) {
        return turn_away(&proxy, &stream);
    }
    let from = stream.peer_addr().ok().map(|from| from.ip());
    let who = CallerContext::outside(&proxy.telemetry.remotes, from);
    let connection = Arc::new(Connection::new(proxy, who, original));
    let mut stream = Prefixed::new(stream);
    permit.silent();
    let spoken = detect(&connection, &mut stream, &permit).await;
    serve(connection, stream, spoken, &permit, None).await;
}

/// A caller of something that is no application of the pod gets nothing of it.
fn turn_away(proxy: &Proxy, stream: &TcpStream) {
    proxy.telemetry.metrics.limit("direct-call");
    connect::reset(stream);
}

#[cfg(test)]
pub(crate) fn size_of_a_request() -> usize {
    crate::future_sizes::future_of(request::handle_request)
}
