//! Relays connections to addresses that the mesh does not serve: unknown ones, and those outside.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use http::{Request, Version};
use policy::reason::Reason;
use runtime::occupancy::Permit;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::config::snapshot::Snapshot;
use crate::config::store::DestinationGuard;
use crate::failure::Failure;
use crate::http::head::ReportedHead;
use crate::http::incoming::IncomingBody;
use crate::http::plain_stream::PlainStream;
use crate::http::received::{Received, Upgrades};
use crate::http::server::{Accepted, Profile, serve as serve_http};
use crate::net::connect::ConnectTimeout;
use crate::net::prefixed::Prefixed;
use crate::net::server_name::{FirstWords, first_words};
use crate::net::sniff::{DETECT_WITHIN, Sniffed, sniff};
use crate::net::{connect, relay};
use crate::outbound::opened_to::until_meshed;
use crate::outbound::outside::{FirstLook, Plan, first_look, may_pass_unknown, may_pass_unread};
use crate::outbound::shadow;
use crate::proxy::Proxy;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::labels::{Direction, Security};
use crate::telemetry::trace::CameFrom;

/// A connection on which both ends are silent is known by its address from then on.
const NAMED_WITHIN: Duration = Duration::from_secs(1);
/// And so is one that did not come about while its caller was silent. A client that sends first
/// has mostly done so before any host is known not to answer, so this is for hosts that are near.
const NAMED_IN_VAIN_WITHIN: Duration = Duration::from_millis(20);

/// A connection that is not passed on as it comes: each of its calls is decided by what it is.
pub(super) struct Undecided {
    pub(super) stream: TcpStream,
    pub(super) permit: Arc<Permit>,
    pub(super) plan: Plan,
}

/// The controller did not send in time what the address is. In plaintext it is called only if it
/// was never seen as meshed.
pub(super) async fn unknown(
    proxy: &Arc<Proxy>,
    stream: TcpStream,
    addr: SocketAddr,
    guard: &DestinationGuard,
    permit: Arc<Permit>,
) -> Option<Undecided> {
    let look = |now: &Snapshot| {
        let any = shadow::may_pass(now).is_ok();
        let unknown = may_pass_unknown(now).is_ok();
        (any, unknown, first_look(now, addr))
    };
    let (any, unknown, first_look) = proxy.config.inspect(look);
    if !any {
        turn_away(proxy, stream, addr, permit, shadow::refusal).await;
        return None;
    }
    let meshed = proxy.config.registry.was_meshed(addr);
    if !meshed && unknown {
        let audited = match first_look {
            FirstLook::Passes { audited } => audited,
            FirstLook::Read(plan) => {
                return Some(Undecided {
                    stream,
                    permit,
                    plan,
                });
            }
        };
        count_audited(proxy, audited);
        let may_pass =
            |now: &Snapshot| may_pass_unknown(now).and_then(|()| may_pass_unread(now, addr));
        let forbidden = async {
            tokio::select! {
                refused = proxy.config.until_refused(may_pass) => refused,
                meshed = until_meshed(&proxy.config, addr, guard) => meshed,
            }
        };
        pass_through(proxy, stream, addr, forbidden).await;
        return None;
    }
    let failure: fn() -> Failure = if proxy.config.is_configured() {
        || {
            let detail = "the mesh does not know this address yet";
            Failure::not_sent(Reason::UnknownDestination, detail)
        }
    } else {
        Failure::no_configuration
    };
    turn_away(proxy, stream, addr, permit, failure).await;
    None
}

/// What lies outside the mesh, by the controller.
pub(super) async fn external(
    proxy: &Arc<Proxy>,
    stream: TcpStream,
    addr: SocketAddr,
    guard: &DestinationGuard,
    permit: Arc<Permit>,
) -> Option<Undecided> {
    let look = |now: &Snapshot| shadow::may_pass(now).map(|()| first_look(now, addr));
    let audited = match proxy.config.inspect(look) {
        Ok(FirstLook::Passes { audited }) => audited,
        Ok(FirstLook::Read(plan)) => {
            return Some(Undecided {
                stream,
                permit,
                plan,
            });
        }
        Err(_) => {
            turn_away(proxy, stream, addr, permit, shadow::refusal).await;
            return None;
        }
    };
    count_audited(proxy, audited);
    let may_pass = |now: &Snapshot| may_pass_unread(now, addr);
    let forbidden = async {
        tokio::select! {
            refused = proxy.config.until_refused(may_pass) => refused,
            meshed = until_meshed(&proxy.config, addr, guard) => meshed,
        }
    };
    pass_through(proxy, stream, addr, forbidden).await;
    None
}

fn count_audited(proxy: &Proxy, audited: bool) {
    if audited {
        proxy.telemetry.metrics.audit_egress.inc();
    }
}

/// How a call is counted to this address that no endpoint will serve: by the port of the Service
/// that has the address, else by the address. Only so many of both are distinguished: a scan of
/// all ports would else make as many ways.
pub(crate) fn unserved(proxy: &Proxy, service: &str, addr: SocketAddr) -> CallEnds {
    if service.is_empty() {
        let address = addr.ip().to_canonical().to_string();
        return CallEnds::Unserved {
            service: Arc::default(),
            port: addr.port(),
            remote: proxy.telemetry.remotes.admit(Direction::outbound, &address),
        };
    }
    let service = service.into();
    let is_apart = proxy.telemetry.lacked.admit(&service, addr.port());
    CallEnds::Unserved {
        service,
        port: if is_apart { addr.port() } else { 0 },
        remote: Arc::default(),
    }
}

/// Refuses what is sent to an address that is no part of the mesh, in HTTP where that is spoken.
pub(crate) async fn turn_away(
    proxy: &Proxy,
    stream: TcpStream,
    addr: SocketAddr,
    permit: Arc<Permit>,
    failure: fn() -> Failure,
) {
    let mut stream = Prefixed::new(stream);
    let sniffed = stream
        .look(tokio::time::Instant::now() + DETECT_WITHIN, sniff)
        .await;
    let call = {
        let telemetry = Arc::clone(&proxy.telemetry);
        // Of no Service that could be named.
        let called = unserved(proxy, "", addr);
        move |kind| Call::begin(&telemetry, kind, called.clone())
    };
    let version = match sniffed {
        Ok(Sniffed::Http1) => Version::HTTP_11,
        Ok(Sniffed::Http2) => Version::HTTP_2,
        Ok(Sniffed::Opaque | Sniffed::Unsure) => {
            let mut call = call(CallKind::Bytes);
            if stream.begins_as_tls() {
                call.carries_tls();
            }
            return call.reset(&failure(), || connect::reset(&stream.inner));
        }
        Err(_) => return,
    };
    let budget = Arc::clone(proxy.budget());
    let begin = call.clone();
    let handler = move |request: Request<IncomingBody>| {
        let mut call = begin(CallKind::Request);
        let response = match Received::new(request, Upgrades::Own) {
            Ok(received) => {
                call.note_request(&received.parts, CameFrom::Application);
                call.refuse(&failure(), &received.parts.method, received.grpc)
            }
            Err(rejected) => call.reject(&rejected),
        };
        std::future::ready(response)
    };
    let accepted = Accepted {
        version,
        profile: Profile::OwnApplication,
        budget,
        permit,
    };
    let refused = move |how, head: ReportedHead<'_>| call(CallKind::Request).turned_away(how, head);
    let stream = stream.map(PlainStream::from);
    serve_http(stream, accepted, std::future::pending(), refused, handler).await;
}

/// Runs in the background: before one of them sends something there is nothing to relay.
async fn either_speaks(client: &TcpStream, server: &TcpStream) {
    let mut first = [0];
    tokio::select! {
        // An accepted socket counts as readable before anything has come, so it is looked at.
        _ = client.peek(&mut first) => {}
        _ = server.readable() => {}
        () = sleep(NAMED_WITHIN) => {}
    }
}

/// The server is not there to send anything.
async fn caller_speaks(client: &TcpStream) {
    let mut first = [0];
    let _ = timeout(NAMED_IN_VAIN_WITHIN, client.peek(&mut first)).await;
}

/// Relays to an address outside the mesh as if no proxy were there, until that is
/// `forbidden`.
async fn pass_through(
    proxy: &Arc<Proxy>,
    mut stream: TcpStream,
    addr: SocketAddr,
    forbidden: impl Future<Output = Failure>,
) {
    let outside = |remote| CallEnds::External {
        port: addr.port(),
        remote,
        security: Security::plaintext,
    };
    let mut call = Call::begin(&proxy.telemetry, CallKind::Bytes, outside(Arc::default()));
    let connecting = proxy.connector.connect(addr, ConnectTimeout::External);
    let connected = connecting.await;
    match &connected {
        Ok(server) => either_speaks(&stream, server).await,
        Err(_) => caller_speaks(&stream).await,
    }
    let FirstWords { host, is_tls } = first_words(&stream);
    let remote = {
        // Not held for as long as the connection lasts.
        let name = host.unwrap_or_else(|| addr.ip().to_canonical().to_string());
        let remotes = &proxy.telemetry.remotes;
        remotes.admit(Direction::outbound, &name)
    };
    call.set_ends(outside(remote));
    if is_tls {
        call.carries_tls();
    }
    let mut forbidden = pin!(forbidden);
    // While it was connected and silent, the address may have come to be of the mesh.
    if let Some(failure) = forbidden.as_mut().now_or_never() {
        return call.reset(&failure, || connect::reset(&stream));
    }
    let mut server = match connected {
        Ok(server) => server,
        Err(error) => {
            let failure = Failure::not_sent(Reason::ConnectFailed, error.to_string());
            return call.reset(&failure, || connect::reset(&stream));
        }
    };
    let cell = call.open();
    tokio::select! {
        outcome = relay::relay(&mut stream, &mut server, proxy.budget(), cell.flows()) => {
            call.relayed(outcome);
        }
        failure = forbidden => {
            // A side that had not received its end was aborted with the relay.
            call.reset(&failure, || {});
        }
    }
}
