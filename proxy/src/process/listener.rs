//! Binds the listeners and accepts their connections, with the original destination of each.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use policy::well_known::{INBOUND_PORT, MESH_PORT, OUTBOUND_PORT, PROXY_PORTS};
use runtime::occupancy::Permit;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::control::leaving::Leaving;
use crate::net::connect::{self, ConnectTimeout};
use crate::net::original_dst::original_dst;
use crate::net::relay::{Flows, relay};
use crate::process::permits::{self, Permits};
use crate::proxy::Proxy;
use crate::telemetry::metrics::Metrics;
use crate::{inbound, outbound};

const BACKLOG: i32 = 1024;
/// Wait after a failed accept (out of file descriptors), so it cannot spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    Outbound,
    Inbound,
    Mesh,
}

/// Where the connections of one workload come in.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub outbound: Vec<SocketAddr>,
    pub inbound: Vec<SocketAddr>,
    pub mesh: Vec<SocketAddr>,
    /// The address that a connection was for before it was redirected.
    pub original: fn(&TcpStream) -> io::Result<SocketAddr>,
}

/// A workload, and how a process comes by its connections.
#[derive(Debug)]
pub struct ServedWorkload {
    pub(super) proxy: Arc<Proxy>,
    pub(super) addresses: Addresses,
    /// Whether the mesh is being uninstalled, and what that means to this workload.
    pub(super) leaving: watch::Receiver<Leaving>,
}

/// One listener of one workload.
#[derive(Debug)]
pub(crate) struct Listener {
    proxy: Arc<Proxy>,
    kind: ListenerKind,
    permits: Permits,
    original: fn(&TcpStream) -> io::Result<SocketAddr>,
    leaving: watch::Receiver<Leaving>,
}

impl Addresses {
    /// All connections of a pod are redirected to these, whatever its own addresses.
    /// Redirected outbound connections arrive on loopback, nothing else does.
    #[must_use]
    pub(super) fn of_sidecar() -> Self {
        let at = |v4: Ipv4Addr, v6: Ipv6Addr, port| {
            vec![
                SocketAddr::new(v4.into(), port),
                SocketAddr::new(v6.into(), port),
            ]
        };
        let everywhere = |port| at(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, port);
        Self {
            outbound: at(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, OUTBOUND_PORT),
            inbound: everywhere(INBOUND_PORT),
            mesh: everywhere(MESH_PORT),
            original: |stream| original_dst(stream),
        }
    }
}

impl ServedWorkload {
    /// A workload that nothing is known of by which the mesh might leave it behind.
    #[must_use]
    pub fn new(proxy: Arc<Proxy>, addresses: Addresses) -> Self {
        let (_, leaving) = watch::channel(Leaving::No);
        Self {
            proxy,
            addresses,
            leaving,
        }
    }

    /// Its listeners and their sockets, in a process that serves so many workloads.
    pub(super) fn listeners(
        self,
        workloads: usize,
    ) -> impl Iterator<Item = (Arc<Listener>, Vec<SocketAddr>)> {
        let Addresses {
            outbound,
            inbound,
            mesh,
            original,
        } = self.addresses;
        let (proxy, leaving) = (self.proxy, self.leaving);
        [
            (ListenerKind::Outbound, outbound),
            (ListenerKind::Inbound, inbound),
            (ListenerKind::Mesh, mesh),
        ]
        .into_iter()
        .map(move |(kind, addresses)| {
            let listener = Listener {
                permits: kind.permits(&proxy.telemetry.metrics, workloads),
                proxy: Arc::clone(&proxy),
                kind,
                original,
                leaving: leaving.clone(),
            };
            (Arc::new(listener), addresses)
        })
    }
}

impl ListenerKind {
    fn permits(self, metrics: &Metrics, workloads: usize) -> Permits {
        let full: fn(&Metrics) = match self {
            Self::Outbound => |metrics| metrics.limit("outbound-connections"),
            Self::Inbound => |metrics| metrics.limit("inbound-connections"),
            Self::Mesh => |metrics| metrics.limit("mesh-connections"),
        };
        permits::of_listener(metrics, full, self != Self::Outbound, workloads)
    }
}

impl Listener {
    pub(super) const fn permits(&self) -> &Permits {
        &self.permits
    }

    /// Serves what comes in on one socket, for ever.
    pub(super) async fn accept(self: Arc<Self>, socket: TcpListener) {
        loop {
            let (stream, caller) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if runtime::files::ran_out(&error) {
                        self.proxy.telemetry.metrics.limit("open-files");
                    }
                    tracing::warn!(%error, "could not accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            poll_fn(|cx| self.proxy.budget().poll_room(cx)).await;
            let Ok(permit) = self.permits.occupancy.admit(caller.ip().into()).await else {
                connect::reset(&stream);
                continue;
            };
            connect::tune(&stream);
            let leaving = *self.leaving.borrow();
            let unmeshed = self
                .proxy
                .config
                .inspect(|now| leaving.relays(self.kind == ListenerKind::Outbound, now));
            let listener = Arc::clone(&self);
            #[expect(
                clippy::disallowed_methods,
                reason = "one connection's: its panic ends that connection only"
            )]
            tokio::spawn(keep_connection(listener, stream, unmeshed, permit));
        }
    }
}

/// One accepted connection, for as long as it may keep its permit.
pub(crate) async fn keep_connection(
    listener: Arc<Listener>,
    stream: TcpStream,
    unmeshed: bool,
    permit: Arc<Permit>,
) {
    let open = &listener.proxy.telemetry.metrics.open_connections;
    open.inc();
    // Pinned where it is made: a future that is passed on by value is held twice and
    // more, by each of ten thousand idle connections.
    let serving = pin!(serve_connection(
        &listener,
        stream,
        unmeshed,
        Arc::clone(&permit)
    ));
    permit.keep(serving).await;
    open.dec();
}

/// Boxed where its future is large, so that waiting connections stay small.
async fn serve_connection(
    listener: &Listener,
    stream: TcpStream,
    unmeshed: bool,
    permit: Arc<Permit>,
) {
    let proxy = Arc::clone(&listener.proxy);
    if listener.kind == ListenerKind::Mesh {
        return Box::pin(inbound::serve_mesh(proxy, stream, permit)).await;
    }
    let original = match (listener.original)(&stream) {
        Ok(original) if !is_own_listener(&proxy, original) => original,
        // A call of the proxy's port itself: nothing to relay to.
        _ => return proxy.telemetry.metrics.limit("direct-call"),
    };
    match listener.kind {
        _ if unmeshed => Box::pin(relay_unmeshed(&proxy, stream, original)).await,
        ListenerKind::Outbound => Box::pin(outbound::serve(proxy, stream, original, permit)).await,
        ListenerKind::Inbound => {
            Box::pin(inbound::serve_plain(proxy, stream, original, permit)).await
        }
        ListenerKind::Mesh => {}
    }
}

/// The mesh is gone for good: be invisible.
async fn relay_unmeshed(proxy: &Proxy, mut stream: TcpStream, original: SocketAddr) {
    let connecting = proxy.connector.connect(original, ConnectTimeout::External);
    if let Ok(mut server) = connecting.await {
        let flows = Flows::default();
        let _ = relay(&mut stream, &mut server, proxy.budget(), &flows).await;
    }
}

fn is_own_listener(proxy: &Proxy, addr: SocketAddr) -> bool {
    PROXY_PORTS.contains(&addr.port()) && (addr.ip().is_loopback() || proxy.own.has(addr.ip()))
}

/// Opens a listening socket at this address.
///
/// # Errors
/// When the port is taken, or there is no such address.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
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
#[must_use]
pub fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::SystemTime;

    use identity::Roots;
    use identity::authority::{ROOT_LIFE, Root};
    use identity::tls::CertHandle;
    use policy::access_log::AccessLog;
    use policy::name::SpiffeId;
    use prometheus_client::registry::Registry;
    use runtime::occupancy::Holder;

    use super::*;
    use crate::net::budget::Budget;
    use crate::settings::Own;
    use crate::telemetry::Telemetry;

    fn proxy() -> Arc<Proxy> {
        let web = SpiffeId::of("cluster.local", "shop", "web").unwrap();
        let root = Root::generate(SystemTime::now(), ROOT_LIFE).unwrap();
        let roots = Roots::new(&web, vec![root.certificate().clone()]).unwrap();
        let ip = IpAddr::from([10, 0, 0, 1]);
        let own = Own::new("shop".to_owned(), "web-1".to_owned(), web, vec![ip]).unwrap();
        let metrics = Metrics::register(&mut Registry::default());
        let telemetry = Telemetry::new(metrics, AccessLog::OFF);
        let budget = Budget::new(1 << 20);
        let proxy = Proxy::new(own, telemetry, CertHandle::empty(), roots, &budget);
        Arc::new(proxy)
    }

    // Claims: M6, attack-72
    #[tokio::test]
    async fn listener_permit_is_not_taken_from_others() {
        let workload = ServedWorkload::new(proxy(), Addresses::of_sidecar());
        let listeners: Vec<_> = workload
            .listeners(1)
            .map(|(listener, _)| listener)
            .collect();
        let neighbour = Holder::from(IpAddr::from([10, 0, 0, 9]));
        for (at, listener) in listeners.iter().enumerate() {
            let permit = listener.permits().occupancy.try_admit(&neighbour);
            let taken = |other: &Arc<Listener>| other.permits().occupancy.taken();
            let taken: Vec<usize> = listeners.iter().map(taken).collect();
            let mut expected = [0; 3];
            expected[at] = 1;
            assert_eq!(taken, expected);
            drop(permit);
        }
    }
}
