//! Binds the listeners, and accepts: which side a connection is of, and the address that
//! it was for before it was redirected.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use runtime::occupancy::{Occupancy, Place};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::control::Progress;
use crate::net::connect;
use crate::net::original_dst::original_dst;
use crate::net::relay::{Copied, relay};
use crate::ports::OWN_PORTS;
use crate::process::permits;
use crate::proxy::Proxy;
use crate::telemetry::metrics::Metrics;
use crate::{inbound, outbound};

const BACKLOG: i32 = 1024;
/// Wait after a failed accept (out of file descriptors), so it cannot spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Outbound,
    Inbound,
    Mesh,
}

impl Kind {
    pub(super) fn places(self, metrics: &Metrics) -> Arc<Occupancy> {
        let full: fn(&Metrics) = match self {
            Self::Outbound => |metrics| metrics.limit("outbound-connections"),
            Self::Inbound => |metrics| metrics.limit("inbound-connections"),
            Self::Mesh => |metrics| metrics.limit("mesh-connections"),
        };
        permits::of_listener(metrics, full, self != Self::Outbound)
    }

    /// Redirected outbound connections arrive on loopback, nothing else does.
    pub(super) const fn addresses(self, port: u16) -> [SocketAddr; 2] {
        let (v4, v6) = match self {
            Self::Outbound => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
            Self::Inbound | Self::Mesh => (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
        };
        [
            SocketAddr::new(IpAddr::V4(v4), port),
            SocketAddr::new(IpAddr::V6(v6), port),
        ]
    }
}

pub(crate) async fn accept(
    proxy: Arc<Proxy>,
    listener: TcpListener,
    kind: Kind,
    places: Arc<Occupancy>,
    progress: Progress,
) {
    loop {
        let (stream, caller) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        poll_fn(|cx| proxy.budget.poll_room(cx)).await;
        let Ok(place) = places.admit(caller.ip().into()).await else {
            connect::reset(&stream);
            continue;
        };
        connect::tune(&stream);
        let proxy = Arc::clone(&proxy);
        let leaving = *progress.leaving.borrow();
        let unmeshed = proxy
            .state
            .inspect(|now| leaving.relays(kind == Kind::Outbound, now));
        #[expect(
            clippy::disallowed_methods,
            reason = "one connection's: its panic ends that connection only"
        )]
        tokio::spawn(async move {
            proxy.telemetry.metrics.open_connections.inc();
            let serving = serve_connection(
                Arc::clone(&proxy),
                stream,
                kind,
                unmeshed,
                Arc::clone(&place),
            );
            permits::keep(&place, serving).await;
            proxy.telemetry.metrics.open_connections.dec();
        });
    }
}

/// One accepted connection, boxed where its future is large so that waiting
/// connections stay small.
pub(crate) async fn serve_connection(
    proxy: Arc<Proxy>,
    stream: TcpStream,
    kind: Kind,
    unmeshed: bool,
    place: Arc<Place>,
) {
    if kind == Kind::Mesh {
        return Box::pin(inbound::serve_mesh(proxy, stream, place)).await;
    }
    let original = match original_dst(&stream) {
        Ok(original) if !is_own_listener(&proxy, original) => original,
        // Somebody called the proxy's port itself: nothing to relay to.
        _ => return proxy.telemetry.metrics.limit("direct-call"),
    };
    match kind {
        _ if unmeshed => relay_unmeshed(&proxy, stream, original).await,
        Kind::Outbound => Box::pin(outbound::serve(proxy, stream, original, place)).await,
        Kind::Inbound => Box::pin(inbound::serve_plain(proxy, stream, original, place)).await,
        Kind::Mesh => {}
    }
}

/// The mesh is gone for good: be invisible.
async fn relay_unmeshed(proxy: &Proxy, mut stream: TcpStream, original: SocketAddr) {
    if let Ok(mut server) = connect::connect(original, connect::CONNECT_TIMEOUT_EXTERNAL).await {
        let mut copied = Copied::default();
        let _ = relay(&mut stream, &mut server, &proxy.budget, &mut copied).await;
    }
}

fn is_own_listener(proxy: &Proxy, addr: SocketAddr) -> bool {
    OWN_PORTS.contains(&addr.port())
        && (addr.ip().is_loopback() || proxy.settings.is_own(addr.ip()))
}

pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// True for the errors of a kernel or namespace without IPv6.
pub(crate) fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}
