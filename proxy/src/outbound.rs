//! Handles connections that the application opens, those that clients open to a Gateway, and those that
//! proxies hand over to it: accept, detect, then per request or connection route, edit, breaker, choose, send, copy, fall back and
//! respond; and count the result.
//!
//! Imports `config`, `endpoints`, `failure`, `http`, `mesh`, `net`, `proxy` and
//! `telemetry`; never `inbound`.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use http::{Request, Version};
use policy::protocol::Protocol;
use policy::reason::Reason;
use runtime::occupancy::Permit;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

mod admission;
mod attempt_outcome;
mod attempts;
mod call_policy;
mod candidates;
mod choice;
mod connection;
mod context;
mod detect;
mod edge;
mod edits;
mod egress;
mod exchange;
mod fallback;
mod fault;
mod handed;
mod handed_over;
mod handed_route;
mod listener_connection;
mod listener_route;
mod mirror;
mod opaque;
mod opened_to;
mod outside;
mod passthrough;
mod request;
mod reserved;
mod respond;
mod retries;
mod route;
mod route_query;
mod routing;
mod send;
mod serving;
mod serving_headers;
mod shadow;
mod tenant;
mod time_limits;
mod tunnel;

pub use self::edge::{Edge, Enters};
pub use self::handed_over::serve_handed_over;
pub use self::listener_connection::ListenerConnection;
use self::request::handle_request;
use crate::config::snapshot::{Destination, Snapshot};
use crate::config::store::{DestinationGuard, TooManyInUse};
use crate::failure::Failure;
use crate::http::head::ReportedHead;
use crate::http::incoming::IncomingBody;
use crate::http::plain_stream::PlainStream;
use crate::http::received::host_of;
use crate::http::server::{Accepted, Profile, serve as serve_http};
use crate::net::connect;
use crate::net::prefixed::Prefixed;
use crate::net::server_name::{Hello, LONGEST_HELLO, hello};
use crate::net::sniff::{DETECT_WITHIN, Sniffed, sniff, sniff_declared};
use crate::outbound::connection::Connection;
use crate::outbound::detect::detect;
use crate::outbound::opaque::relay;
use crate::outbound::opened_to::OpenedTo;
use crate::outbound::outside::{Outside, Plan};
use crate::outbound::passthrough::{Undecided, external, turn_away, unknown, unserved};
use crate::proxy::Proxy;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::call_ends::CallEnds;

/// Serves one redirected connection until it ends.
pub async fn serve(proxy: Arc<Proxy>, stream: TcpStream, addr: SocketAddr, permit: Arc<Permit>) {
    let Ok((found, guard)) = proxy.config.find(addr).await else {
        return Box::pin(turn_away(&proxy, stream, addr, permit, too_many_in_use)).await;
    };
    let Some(destination) = found else {
        let Some(undecided) = Box::pin(unknown(&proxy, stream, addr, &guard, permit)).await else {
            return;
        };
        let opened_to = (Arc::new(Destination::External { inside: false }), guard);
        return decided(proxy, addr, opened_to, Outside::unknown(), undecided).await;
    };
    let protocol = match &*destination {
        Destination::External { .. } => {
            let external = Box::pin(external(&proxy, stream, addr, &guard, permit));
            let Some(undecided) = external.await else {
                return;
            };
            let opened_to = (Arc::clone(&destination), guard);
            return decided(proxy, addr, opened_to, Outside::default(), undecided).await;
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

/// Serves a connection to what is outside the mesh whose calls are decided one by one.
fn decided(
    proxy: Arc<Proxy>,
    addr: SocketAddr,
    (destination, guard): (Arc<Destination>, DestinationGuard),
    outside: Outside,
    undecided: Undecided,
) -> impl Future<Output = ()> {
    let opened = OpenedTo::new(&proxy.config, destination, addr, guard);
    let connection = Connection::outside(proxy, addr, opened, outside);
    // On the heap: most connections stay inside the mesh.
    Box::pin(decide(connection, undecided))
}

async fn decide(mut connection: Connection, undecided: Undecided) {
    let Undecided {
        stream,
        permit,
        plan,
    } = undecided;
    let mut stream = Prefixed::new(stream);
    permit.silent();
    let Ok(protocol) = read(&mut connection, &mut stream, plan).await else {
        return;
    };
    let connection = Arc::new(connection);
    let version = match protocol {
        Protocol::Http1 => Version::HTTP_11,
        Protocol::Http2 | Protocol::Grpc => Version::HTTP_2,
        Protocol::Detect | Protocol::Opaque | Protocol::Tls => {
            permit.busy();
            egress::look_up(&connection, None).await;
            return Box::pin(relay(&connection, stream, None, protocol)).await;
        }
    };
    connection.count("http1", "http2", version);
    // Beside what serves it, which owns it.
    let socket = stream.inner.as_fd().try_clone_to_owned();
    let may_go_on = |now: &Snapshot| connection.may_go_on(now);
    let config = &connection.proxy.config;
    tokio::select! {
        () = requests(Arc::clone(&connection), stream, version, permit) => {}
        refused = config.until_refused(may_go_on) => {
            tracing::debug!(addr = %connection.addr, %refused, "ended a connection");
            // No answer may look whole that is not.
            if let Ok(socket) = &socket {
                let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

/// Reads of a connection what its plan wants to know: whether it carries requests, and for which
/// server TLS is.
///
/// # Errors
/// When nothing will come of it.
async fn read(
    connection: &mut Connection,
    stream: &mut Prefixed<TcpStream>,
    plan: Plan,
) -> std::io::Result<Protocol> {
    let Some(patience) = plan.patience else {
        return Ok(Protocol::Opaque);
    };
    tokio::select! {
        came = timeout(patience, stream.first_bytes()) => {
            // One that has left without a word wants nothing.
            if let Ok(came) = came
                && !came?
            {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        () = connection.over() => return Err(std::io::ErrorKind::ConnectionAborted.into()),
    }
    if !stream.has_bytes() {
        return Ok(Protocol::Opaque);
    }
    let until = Instant::now() + DETECT_WITHIN;
    if plan.hello && stream.read_ahead().first() == Some(&TLS) {
        let hello = stream.look_for(until, LONGEST_HELLO, hello).await?;
        if let Some(Hello::Named(name)) = hello {
            connection.names_server(&name);
        }
    }
    if stream.begins_as_tls() {
        return Ok(Protocol::Tls);
    }
    if !plan.requests {
        return Ok(Protocol::Opaque);
    }
    Ok(stream.look(until, sniff).await?.protocol())
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
    let handler = move |request: Request<IncomingBody>| {
        let connection = Arc::clone(&connection);
        if connection.outside.is_none() {
            return Either::Left(handle_request(connection, request));
        }
        Either::Right(Box::pin(async move {
            let (parts, body) = request.into_parts();
            egress::look_up(&connection, host_of(&parts)).await;
            handle_request(connection, Request::from_parts(parts, body)).await
        }))
    };
    let accepted = Accepted {
        version,
        profile: Profile::OwnApplication,
        budget,
        permit,
    };
    let stream = stream.map(PlainStream::from);
    serve_http(stream, accepted, gone, refused, handler)
}

/// The first byte of a TLS record of a handshake.
const TLS: u8 = 0x16;

/// An idle connection of a declared port may stay silent for this long before
/// the declared version is assumed.
const HEAD_PATIENCE: Duration = Duration::from_secs(3600);

#[cfg(test)]
pub(crate) fn size_of_a_request() -> usize {
    crate::future_sizes::future_of(request::handle_request)
}
