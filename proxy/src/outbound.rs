//! Handles connections that the application opens: accept, detect, then per request or connection
//! route, edit, breaker, choose, send, copy, fall back and respond; and count the result.
//!
//! Imports `config`, `endpoints`, `failure`, `http`, `mesh`, `net`, `proxy` and
//! `telemetry`; never `inbound`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use policy::protocol::Protocol;
use policy::reason::Reason;
use runtime::occupancy::Permit;
use tokio::net::TcpStream;
use tokio::time::timeout;

mod admission;
mod attempt_outcome;
mod attempts;
mod call_policy;
mod candidates;
mod choice;
mod connection;
mod context;
mod detect;
mod edits;
mod exchange;
mod fallback;
mod fault;
mod mirror;
mod opaque;
mod opened_to;
mod passthrough;
mod request;
mod respond;
mod retries;
mod route;
mod routing;
mod send;
mod serving;
mod serving_headers;
mod shadow;
mod tenant;
mod time_limits;
mod tunnel;

use self::request::handle_request;
use crate::config::snapshot::Destination;
use crate::config::store::TooManyInUse;
use crate::failure::Failure;
use crate::http::head::ReportedHead;
use crate::http::plain_stream::PlainStream;
use crate::http::server::{Accepted, Profile, serve as serve_http};
use crate::net::connect;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{Sniffed, sniff, sniff_declared};
use crate::outbound::connection::Connection;
use crate::outbound::detect::detect;
use crate::outbound::opaque::relay;
use crate::outbound::opened_to::OpenedTo;
use crate::outbound::passthrough::{external, turn_away, unknown, unserved};
use crate::proxy::Proxy;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::call_ends::CallEnds;

/// Serves one redirected connection until it ends.
pub async fn serve(proxy: Arc<Proxy>, stream: TcpStream, addr: SocketAddr, permit: Arc<Permit>) {
    let Ok((found, guard)) = proxy.config.find(addr).await else {
        return Box::pin(turn_away(&proxy, stream, addr, permit, too_many_in_use)).await;
    };
    let Some(destination) = found else {
        return Box::pin(unknown(&proxy, stream, addr, &guard, permit)).await;
    };
    let protocol = match &*destination {
        Destination::External => {
            return Box::pin(external(&proxy, stream, addr, &guard, permit)).await;
        }
        Destination::Refused { reason, service } => {
            let failure = Failure::not_sent(Reason::NoEndpoint, reason.clone());
            let called = unserved(&proxy, service, addr);
            return refuse(&proxy, &stream, called, &failure);
        }
        Destination::Service(name) => proxy.config.inspect(|now| {
            let service = now.services.get(name);
            service.map_or(Protocol::Detect, |service| service.protocol)
        }),
        Destination::Pod(pod) => pod.protocol,
    };
    let opened = OpenedTo::new(&proxy.config, destination, addr, guard);
    let connection = Arc::new(Connection::new(proxy, addr, opened));
    let mut stream = Prefixed::new(stream);
    permit.silent();
    let is_declared = protocol.is_http();
    let (protocol, tunnel) = match protocol {
        Protocol::Detect => match Box::pin(detect(&connection, &mut stream)).await {
            Ok(found) => found,
            Err(failure) => return connection.failed_tcp(&failure, || {}),
        },
        declared => (declared, None),
    };
    let version = match protocol {
        Protocol::Http1 => Version::HTTP_11,
        Protocol::Http2 | Protocol::Grpc => Version::HTTP_2,
        Protocol::Detect | Protocol::Opaque | Protocol::Tls => {
            permit.busy();
            return Box::pin(relay(&connection, stream, tunnel, protocol)).await;
        }
    };
    // A declaration names the family; the bytes show which version it is.
    let sniff_head: fn(&[u8]) -> Sniffed = if is_declared { sniff_declared } else { sniff };
    // A connection without a byte ends with its target, as an idle one does.
    tokio::select! {
        _ = timeout(HEAD_PATIENCE, stream.first_bytes()) => {}
        () = connection.over() => return,
    }
    let looked = stream.look_at_head(Duration::ZERO, sniff_head, &permit);
    if looked.await.is_err() {
        return;
    }
    if is_declared && sniff_declared(stream.read_ahead()) == Sniffed::Opaque {
        return connection.reset_no_request(&stream);
    }
    let version = match sniff(stream.read_ahead()) {
        Sniffed::Http2 => Version::HTTP_2,
        Sniffed::Http1 => Version::HTTP_11,
        Sniffed::Opaque | Sniffed::Unsure => version,
    };
    connection.count("http1", "http2", version);
    requests(connection, stream, version, permit).await;
}

/// No controller was queried about the address: it may be of the mesh, whatever the mode.
fn too_many_in_use() -> Failure {
    Failure::not_sent(Reason::Overload, TooManyInUse.to_string())
}

/// Resets a connection to an address that the controller refuses to every caller.
fn refuse(proxy: &Proxy, stream: &TcpStream, called: CallEnds, failure: &Failure) {
    tracing::debug!(?called, %failure, "refused a connection");
    let call = Call::begin(&proxy.telemetry, CallKind::Bytes, called);
    call.reset(failure, || connect::reset(stream));
}

/// Serves the requests of a connection until it ends.
fn requests(
    connection: Arc<Connection>,
    stream: Prefixed<TcpStream>,
    version: Version,
    permit: Arc<Permit>,
) -> impl Future<Output = ()> {
    let budget = Arc::clone(connection.proxy.budget());
    let refused = {
        let connection = Arc::clone(&connection);
        move |how, head: ReportedHead<'_>| connection.turned_away(how, head)
    };
    let gone = {
        let connection = Arc::clone(&connection);
        async move { connection.over().await }
    };
    let handler = move |request| handle_request(Arc::clone(&connection), request);
    let accepted = Accepted {
        version,
        profile: Profile::OwnApplication,
        budget,
        permit,
    };
    let stream = stream.map(PlainStream::from);
    serve_http(stream, accepted, gone, refused, handler)
}

/// An idle connection of a declared port may stay silent for this long before
/// the declared version is assumed.
const HEAD_PATIENCE: Duration = Duration::from_secs(3600);

#[cfg(test)]
pub(crate) fn size_of_a_request() -> usize {
    crate::future_sizes::future_of(request::handle_request)
}
