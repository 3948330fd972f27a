//! Relays a connection of opaque bytes from the application to an endpoint.
//!
//! All that this shows of the endpoint is that a connection could be opened, and that counts only
//! once the protocol is known to be opaque bytes: [`ConnectSignal`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Version;
use policy::name::ServiceId;
use policy::protocol::Protocol;
use policy::reason::Reason;
use tokio::net::TcpStream;

use crate::config::snapshot::Snapshot;
use crate::endpoints::learned::now;
use crate::failure::Failure;
use crate::net::chunk::ChunkIo;
use crate::net::connect;
use crate::net::prefixed::Prefixed;
use crate::outbound::admission::look_at_breaker;
use crate::outbound::attempts::Attempts;
use crate::outbound::call_policy;
use crate::outbound::connection::Connection;
use crate::outbound::fallback;
use crate::outbound::fault;
use crate::outbound::route::{Route, leaves_alike, may_leave};
use crate::outbound::routing::route_call;
use crate::outbound::shadow;
use crate::outbound::tunnel::{self, Tunnel};
use crate::proxy::Proxy;
use crate::telemetry::call::{Call, CallKind};

/// What it shows of an endpoint that a way to it could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectSignal {
    /// That it serves: bytes are what is spoken.
    Serves,
    /// Nothing: neither side has sent anything, and requests may be what comes.
    IsNoSign,
}

/// A way to an endpoint that was opened before it is known what it is to carry. Neither the
/// endpoint nor its breaker gets a report before that is known: that a connection could be opened
/// shows nothing of how requests are answered.
pub(super) struct Ahead {
    pub(super) tunnel: Tunnel,
    opened: Box<OpenedRoute>,
}

/// Where it goes, and since when.
struct OpenedRoute {
    route: Route,
    started: Instant,
}

/// Such a way, and the call that it was opened for.
pub(super) struct OpenedTunnel {
    pub(super) ahead: Ahead,
    pub(super) call: Call,
}

/// Where opaque bytes go, and whether the Service may take them that the policy names in
/// place of what serves.
struct RoutedBytes {
    route: Route,
    may_fall_back: bool,
}

fn led_to((service, port): (&ServiceId, u16)) -> (Arc<str>, u16) {
    (service.to_string().into(), port)
}

impl ConnectSignal {
    /// `Detect`: neither side has sent anything.
    const fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Detect => Self::IsNoSign,
            Protocol::Http1
            | Protocol::Http2
            | Protocol::Grpc
            | Protocol::Tls
            | Protocol::Opaque => Self::Serves,
        }
    }
}

impl Ahead {
    /// It carries bytes, and so counts as any connection of them that began when it was opened.
    fn counted(mut self, proxy: &Proxy, call: &Call) -> Result<Tunnel, Failure> {
        let mut attempts = Attempts::new(&self.opened.route);
        attempts.admit_started(proxy, self.opened.started)?;
        attempts.opened(&mut self.tunnel.in_flight, call);
        Ok(self.tunnel)
    }
}

/// Opens a byte stream to an endpoint of the Service that was called, before it is known
/// whether one is wanted.
pub(super) async fn open_ahead(connection: &Connection, call: &mut Call) -> Result<Ahead, Failure> {
    let RoutedBytes { route, .. } = route_bytes(connection, call)?;
    let opened = Box::new(OpenedRoute {
        route,
        started: now(),
    });
    let idle = call_policy::timeouts(opened.route.policy.as_deref()).idle;
    let mut tunnel = open_by(
        connection,
        &opened.route,
        idle,
        ConnectSignal::IsNoSign,
        call,
    )
    .await?;
    tunnel.led_to = opened.route.led_to();
    Ok(Ahead { tunnel, opened })
}

fn route_bytes(connection: &Connection, call: &mut Call) -> Result<RoutedBytes, Failure> {
    let snapshot = connection.proxy.config.snapshot();
    connection.may_open(&snapshot)?;
    let route = route_call(connection, &snapshot, None, None, None)?;
    shadow::may_be_led_to(&snapshot, route.led_to().as_ref())?;
    call.set_ends(route.call_ends());
    let fallback = fallback::service_of_bytes(&route).map(led_to);
    let may_fall_back = shadow::may_be_led_to(&snapshot, fallback.as_ref()).is_ok();
    Ok(RoutedBytes {
        route,
        may_fall_back,
    })
}

/// The same, or to the Service that takes connections in its place.
async fn open_or_fall_back(
    connection: &Connection,
    signal: ConnectSignal,
    call: &mut Call,
) -> Result<Tunnel, Failure> {
    let RoutedBytes {
        route,
        may_fall_back,
    } = route_bytes(connection, call)?;
    let idle = call_policy::timeouts(route.policy.as_deref()).idle;
    let failure = match open_by(connection, &route, idle, signal, call).await {
        Ok(mut tunnel) => {
            tunnel.led_to = route.led_to();
            return Ok(tunnel);
        }
        Err(failure) => failure,
    };
    let to = fallback::of_bytes(&route, &failure).filter(|_| may_fall_back);
    let Some(to) = to else {
        return Err(failure);
    };
    let instead = route.elsewhere(&connection.proxy, to, None);
    let before = call.falls_back(instead.call_ends());
    let opened = Box::pin(open_by(connection, &instead, idle, signal, call)).await;
    fallback::count_bytes(call, to.0, opened.is_ok());
    let mut tunnel = opened.map_err(|_| {
        call.returns(before);
        failure
    })?;
    tunnel.led_to = Some(led_to(to));
    Ok(tunnel)
}

/// Opens a byte stream to an endpoint, trying others while none was reached. What `call` is
/// counted on is the endpoint that was tried last. It ends after `idle` in which nothing
/// moved, which the called Service defines.
async fn open_by(
    connection: &Connection,
    route: &Route,
    idle: Option<Duration>,
    signal: ConnectSignal,
    call: &mut Call,
) -> Result<Tunnel, Failure> {
    if route.leaving().is_some_and(|leaving| leaving.tls.is_some()) {
        let detail = "this proxy begins TLS to the server for requests of HTTP, and these bytes are \
                      none";
        return Err(Failure::refused(Reason::BadRequest, detail));
    }
    let mut attempts = Attempts::new(route);
    match signal {
        ConnectSignal::Serves => attempts.admit(&connection.proxy)?,
        ConnectSignal::IsNoSign => look_at_breaker(route)?,
    }
    while let Some(mut attempt) = attempts.next(&connection.proxy, call) {
        // Before it is known what comes, requests may be, each of which is drawn by itself.
        if signal == ConnectSignal::Serves
            && let Some(harm) = fault::of_bytes(&connection.proxy, &attempts, &mut attempt, call)
            && let Some(failure) = harm.await
        {
            attempts.failed(attempt, failure, call);
            continue;
        }
        let endpoint = attempt.endpoint();
        let opened = match &endpoint.identity {
            Some(identity) => {
                tunnel::open(&connection.proxy, endpoint, identity, route.handing()).await
            }
            None if route.handing().is_some() => Err(Route::no_gateway()),
            None => {
                let limit = attempts.connect_timeout();
                let connecting = connection.proxy.connector.connect(endpoint.addr, limit);
                tunnel::open_plain(endpoint.addr, connecting).await
            }
        };
        match opened {
            Ok(path) => {
                if signal == ConnectSignal::Serves {
                    attempts.opened(&mut attempt.in_flight, call);
                }
                let mut tunnel = path.counted(attempt.in_flight, idle);
                tunnel.standing = route.choice.standing().cloned();
                tunnel.handed = tunnel.standing.is_some() && route.handing().is_some();
                return Ok(tunnel);
            }
            Err(failure) => attempts.failed(attempt, failure, call),
        }
    }
    Err(attempts.failure(call))
}

/// Relays bytes of this protocol to an endpoint; `opened` is the way to one, if there is one
/// already.
pub(super) async fn relay(
    connection: &Connection,
    stream: Prefixed<TcpStream>,
    opened: Option<OpenedTunnel>,
    protocol: Protocol,
) {
    let signal = ConnectSignal::of(protocol);
    let is_tls = protocol == Protocol::Tls;
    let (tunnel, call) = match opened {
        Some(OpenedTunnel { ahead, mut call }) => {
            if is_tls {
                call.carries_tls();
            }
            match signal {
                ConnectSignal::Serves => (ahead.counted(&connection.proxy, &call), call),
                ConnectSignal::IsNoSign => (Ok(ahead.tunnel), call),
            }
        }
        None => {
            let mut call = connection.call(CallKind::Bytes);
            if is_tls {
                call.carries_tls();
            }
            let tunnel = Box::pin(open_or_fall_back(connection, signal, &mut call)).await;
            (tunnel, call)
        }
    };
    let mut tunnel = match tunnel {
        Ok(tunnel) => tunnel,
        Err(failure) => {
            tracing::debug!(addr = %connection.addr, %failure, "could not serve a connection");
            return call.reset(&failure, || connect::reset(&stream.inner));
        }
    };
    if signal == ConnectSignal::IsNoSign {
        // One side may have ended without a word, and the other one stays for hours.
        tunnel.in_flight.shows_nothing();
    }
    relay_opened(connection, stream, tunnel, call).await;
}

/// Opens the way of bytes that are taken once it is open.
pub(super) async fn open_way(connection: &Connection, call: &mut Call) -> Result<Tunnel, Failure> {
    Box::pin(open_or_fall_back(connection, ConnectSignal::Serves, call)).await
}

/// Relays bytes to where a way is open.
pub(super) async fn relay_opened<S: ChunkIo>(
    connection: &Connection,
    mut stream: Prefixed<S>,
    tunnel: Tunnel,
    call: Call,
) {
    connection.count("opaque", "opaque", Version::HTTP_11);
    let (led_to, standing) = (tunnel.led_to.clone(), tunnel.standing.clone());
    let handed = tunnel.handed;
    let may_go_on = |now: &Snapshot| {
        connection
            .may_open(now)
            .and_then(|()| shadow::may_be_led_to(now, led_to.as_ref()))
            .and_then(|()| connection.may_go_on(now))
            .and_then(|()| may_leave(now, standing.as_deref()))
            .and_then(|()| leaves_alike(now, standing.as_deref(), handed))
    };
    let config = &connection.proxy.config;
    let forbidden = async {
        tokio::select! {
            refused = config.until_refused(may_go_on) => refused,
            gone = connection.pod_gone() => gone,
        }
    };
    let budget = connection.proxy.budget();
    tunnel.relay(&mut stream, budget, call, forbidden).await;
}
