//! Puts the parts together: two threads, five listeners, one shutdown.
//!
//! The data path has a thread of its own; certificates, configuration, probes
//! and scrapes live on another, so that none of them can delay a request.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use identity::Roots;
use identity::tls::CertHandle;
use parking_lot::Mutex;
use policy::mode::MtlsMode;
use prometheus_client::registry::Registry;
use runtime::admin::Admin;
use runtime::occupancy::{Occupancy, Place};
use runtime::ready::Ready;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::capture::original_dst;
use crate::control::{Control, Progress};
use crate::lifecycle::{Lifecycle, STOP_WITHIN};
use crate::mesh::{MESH_PORT, MeshTls};
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::target::State;
use crate::{inbound, outbound, pages, places, tcp, tunnel};

pub const OUTBOUND_PORT: u16 = 15101;
pub const INBOUND_PORT: u16 = 15106;
pub const ADMIN_PORT: u16 = 15190;
/// Never delivered to, whoever asks.
pub const OWN_PORTS: [u16; 4] = [OUTBOUND_PORT, INBOUND_PORT, MESH_PORT, ADMIN_PORT];

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
    let roots = Roots::from_pem(&bundle)
        .map_err(|error| anyhow::anyhow!("{}: {error}", settings.trust_bundle.display()))?;
    let certs = CertHandle::empty();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry).compatible(&mut registry, &settings);
    let state = Arc::new(State::new(metrics));
    let tls = MeshTls::new(certs.clone(), roots.clone());
    let proxy = Arc::new(Proxy {
        settings: Arc::clone(&settings),
        state: Arc::clone(&state),
        peers: Peers::new(tls.clone()),
        tls,
        lifecycle: Lifecycle::default(),
    });
    let control = Control {
        settings,
        state,
        certs,
        roots,
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
        let certificate = ready.hold("certificate");
        let policy = ready.hold("policy of the own workload");
        let progress = control.start();
        let mut seen = progress.clone();
        let _ = started.send(progress);
        let noted = ready.clone();
        runtime::task::spawn("readiness", async move {
            tokio::select! {
                _ = async {
                    let _ = seen.certified.wait_for(|done| *done).await;
                    let _ = seen.configured.wait_for(|done| *done).await;
                } => {}
                _ = seen.leaving.wait_for(|leaving| *leaving) => {
                    noted.note(Some("the mesh is being uninstalled: relaying without it"));
                }
            }
            certificate.release();
            policy.release();
        });
        let pages = pages::Pages::new(Arc::clone(proxy))?;
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
    /// What happens while the mesh is being uninstalled. Nobody tells where
    /// Services are served any more, so permissive workloads call as if they had
    /// no proxy. Callers are judged by the last rules while there are any.
    fn without_mesh(self, snapshot: &Snapshot) -> bool {
        let permissive = snapshot.mtls() == MtlsMode::Permissive;
        !snapshot.is_complete() || (self == Self::Outbound && permissive)
    }

    fn places(self, metrics: &Metrics) -> Arc<Occupancy> {
        match self {
            Self::Outbound => places::of_listener(metrics, "outbound-connections", false),
            Self::Inbound => places::of_listener(metrics, "inbound-connections", true),
            Self::Mesh => places::of_listener(metrics, "mesh-connections", true),
        }
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
            tunnel::reset(&stream);
            continue;
        };
        tcp::tune(&stream);
        let proxy = Arc::clone(&proxy);
        let unmeshed = *progress.leaving.borrow() && kind.without_mesh(&proxy.state.snapshot());
        tokio::spawn(async move {
            proxy.state.metrics.open_connections.inc();
            let story = conversation(
                Arc::clone(&proxy),
                stream,
                kind,
                unmeshed,
                Arc::clone(&place),
            );
            places::keep(&place, story).await;
            proxy.state.metrics.open_connections.dec();
        });
    }
}

/// One accepted connection, boxed where the story is long so that waiting
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
        _ if unmeshed => relay_unmeshed(stream, original).await,
        Kind::Outbound => Box::pin(outbound::serve(proxy, stream, original, place)).await,
        Kind::Inbound => Box::pin(inbound::serve_plain(proxy, stream, original, place)).await,
        Kind::Mesh => {}
    }
}

/// The mesh is gone for good: be invisible.
async fn relay_unmeshed(mut stream: TcpStream, original: SocketAddr) {
    if let Ok(mut server) = tcp::connect(original, tcp::CONNECT_TIMEOUT_EXTERNAL).await {
        let _ = tcp::relay(&mut stream, &mut server).await;
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
