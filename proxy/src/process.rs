//! Puts the parts together: two threads, five listeners, one shutdown.
//!
//! The data path has a thread of its own; certificates, configuration, probes
//! and scrapes live on another, so that none of them can delay a request.

pub mod permits;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use identity::Roots;
use identity::tls::CertHandle;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use runtime::admin::Admin;
use runtime::clock::Clock;
use runtime::occupancy::{Occupancy, Place};
use runtime::ready::Ready;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::admin;
use crate::config::store::State;
use crate::control::leaving::follow_readiness;
use crate::control::{Control, Progress};
use crate::drain::{Lifecycle, STOP_WITHIN};
use crate::http::client::multiplexed::Peers;
use crate::mesh::tls::{MESH_PORT, MeshTls};
use crate::net::budget::Budget;
use crate::net::original_dst::original_dst;
use crate::net::{connect, relay};
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;
use crate::{inbound, outbound};

pub const OUTBOUND_PORT: u16 = 15101;
pub const INBOUND_PORT: u16 = 15106;
pub const ADMIN_PORT: u16 = 15190;
/// Never delivered to, whoever asks.
pub const OWN_PORTS: [u16; 4] = [OUTBOUND_PORT, INBOUND_PORT, MESH_PORT, ADMIN_PORT];

/// Memory that the proxy keeps within where its container has no limit, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;
const BACKLOG: i32 = 1024;
/// Wait after a failed accept (out of file descriptors), so it cannot spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Everything that a connection needs.
#[derive(Debug)]
pub struct Proxy {
    pub settings: Arc<Settings>,
    pub state: Arc<State>,
    pub peers: Peers,
    /// Bytes that connections may hold.
    pub budget: Arc<Budget>,
    pub tls: MeshTls,
    pub lifecycle: Lifecycle,
}

/// Runs the proxy until SIGTERM.
///
/// # Errors
/// When a port is taken, or the trust bundle cannot be read.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    let settings = Arc::new(settings);
    let bundle = std::fs::read_to_string(&settings.trust_bundle)
        .map_err(|error| anyhow::anyhow!("{}: {error}", settings.trust_bundle.display()))?;
    let roots = Roots::from_pem(&settings.identity, &bundle)
        .map_err(|error| anyhow::anyhow!("{}: {error}", settings.trust_bundle.display()))?;
    let certs = CertHandle::empty();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry).compatible(&mut registry, &settings);
    let tls = MeshTls::new(certs.clone(), roots.clone()).counted(metrics.clone());
    let state = Arc::new(State::new(metrics));
    let limit = runtime::cgroup::memory_limit(Path::new(runtime::cgroup::ROOT)).unwrap_or(MEMORY);
    let budget = Budget::new(usize::try_from(limit).unwrap_or(usize::MAX));
    let proxy = Arc::new(Proxy {
        settings: Arc::clone(&settings),
        state: Arc::clone(&state),
        peers: Peers::new(tls.clone(), Arc::clone(&budget)),
        budget,
        tls,
        lifecycle: Lifecycle::default(),
    });
    let control = Control {
        settings,
        state,
        certs,
        roots,
        clock: Clock::system(),
    };
    let (started, progress) = oneshot::channel();
    let beside = Arc::clone(&proxy);
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            if let Err(error) = control_thread(&beside, control, registry, started) {
                tracing::error!(%error, "the control thread could not start");
                runtime::log::flush();
                std::process::exit(1);
            }
        })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let progress = progress.await?;
        serve(proxy, progress).await
    })
}

fn control_thread(
    proxy: &Arc<Proxy>,
    control: Control,
    registry: Registry,
    started: oneshot::Sender<Progress>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let admin =
            match Admin::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), ADMIN_PORT)).await {
                Err(error) if no_ipv6(&error) => {
                    Admin::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), ADMIN_PORT)).await
                }
                bound => bound,
            }?;
        let ready = Ready::new();
        // Until the task below has taken its own.
        let starting = ready.hold("certificate");
        let progress = control.start();
        let seen = progress.clone();
        let _ = started.send(progress);
        let held = ready.clone();
        runtime::task::spawn("readiness", async move {
            let follow = follow_readiness(
                held,
                seen.certified,
                seen.configured,
                seen.leaving,
                starting,
            );
            follow.await;
        });
        let pages = admin::Pages::new(Arc::clone(proxy))?;
        admin
            .run(
                ready,
                Arc::new(Mutex::new(registry)),
                move |request, peer| pages.clone().answer(request, peer),
            )
            .await;
        Ok(())
    })
}

async fn serve(proxy: Arc<Proxy>, progress: Progress) -> anyhow::Result<()> {
    let stopped = runtime::shutdown::signal()?;
    let mut listeners = Vec::new();
    let mut held = Vec::new();
    for (kind, port) in [
        (Kind::Outbound, OUTBOUND_PORT),
        (Kind::Inbound, INBOUND_PORT),
        (Kind::Mesh, MESH_PORT),
    ] {
        let places = kind.places(&proxy.state.metrics);
        runtime::task::spawn("slow heads", Arc::clone(&places).watch());
        held.push(Arc::clone(&places));
        for addr in kind.addresses(port) {
            let listener = match listen(addr) {
                Ok(listener) => listener,
                Err(error) if addr.is_ipv6() && no_ipv6(&error) => continue,
                Err(error) => anyhow::bail!("port {port} on {}: {error}", addr.ip()),
            };
            let accepting = accept(
                Arc::clone(&proxy),
                listener,
                kind,
                Arc::clone(&places),
                progress.clone(),
            );
            listeners.push(runtime::task::spawn("accept", accepting));
        }
    }
    let sweeping = Arc::clone(&proxy);
    runtime::task::spawn("sweep", async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            sweeping.peers.sweep();
        }
    });
    let signal = stopped.await;
    tracing::info!(signal, "stopping");
    proxy.lifecycle.drain();
    proxy.state.reports.leave();
    for listener in &listeners {
        listener.abort();
    }
    let ended = async {
        for places in &held {
            places.emptied().await;
        }
    };
    // What is still open then belongs to applications that have ended.
    let _ = tokio::time::timeout(STOP_WITHIN, ended).await;
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Outbound,
    Inbound,
    Mesh,
}

impl Kind {
    fn places(self, metrics: &Metrics) -> Arc<Occupancy> {
        let full: fn(&Metrics) = match self {
            Self::Outbound => |metrics| metrics.limit("outbound-connections"),
            Self::Inbound => |metrics| metrics.limit("inbound-connections"),
            Self::Mesh => |metrics| metrics.limit("mesh-connections"),
        };
        permits::of_listener(metrics, full, self != Self::Outbound)
    }

    /// Redirected outbound connections arrive on loopback, nothing else does.
    const fn addresses(self, port: u16) -> [SocketAddr; 2] {
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

async fn accept(
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
        let Ok(place) = places.admit(caller.ip().into()).await else {
            connect::reset(&stream);
            continue;
        };
        connect::tune(&stream);
        let proxy = Arc::clone(&proxy);
        let leaving = *progress.leaving.borrow();
        let unmeshed = leaving.relays(kind == Kind::Outbound, &proxy.state.snapshot());
        tokio::spawn(async move {
            proxy.state.metrics.open_connections.inc();
            let serving = conversation(
                Arc::clone(&proxy),
                stream,
                kind,
                unmeshed,
                Arc::clone(&place),
            );
            permits::keep(&place, serving).await;
            proxy.state.metrics.open_connections.dec();
        });
    }
}

/// One accepted connection, boxed where its future is large so that waiting
/// connections stay small.
async fn conversation(
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
        _ => return proxy.state.metrics.limit("direct-call"),
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
        let _ = relay::relay(&mut stream, &mut server, &proxy.budget).await;
    }
}

fn is_own_listener(proxy: &Proxy, addr: SocketAddr) -> bool {
    OWN_PORTS.contains(&addr.port())
        && (addr.ip().is_loopback() || proxy.settings.is_own(addr.ip()))
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
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
fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}
