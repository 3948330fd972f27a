//! Puts the parts together: two threads, five listeners, one shutdown.
//!
//! The data path has a thread of its own; certificates, configuration, probes
//! and scrapes live on another, so that none of them can delay a request.
//!
//! Imports everything but `probe` and `capture`.

pub(crate) mod heap;
pub(crate) mod listener;
pub(crate) mod permits;
pub(crate) mod relief;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use identity::Roots;
use identity::tls::CertHandle;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use runtime::admin::Admin;
use runtime::clock::Clock;
use runtime::ready::Ready;
use tokio::sync::oneshot;

use crate::admin;
use crate::config::store::Store;
use crate::control::leaving::follow_readiness;
use crate::control::{Control, Progress};
use crate::drain::{Drain, STOP_WITHIN};
use crate::http::client::Clients;
use crate::mesh::peers::Peers;
use crate::mesh::tls::MeshTls;
use crate::net::budget::Budget;
use crate::ports::MESH_PORT;
use crate::ports::{ADMIN_PORT, INBOUND_PORT, OUTBOUND_PORT};
use crate::process::listener::{Kind, accept, listen, no_ipv6};
use crate::proxy::Proxy;
use crate::settings::Settings;
use crate::telemetry::Telemetry;
use crate::telemetry::labels::Direction;
use crate::telemetry::metrics::Metrics;

/// What connections may hold where the container has no limit, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;
/// The same for the program as a whole. All places of the three listeners at rest take
/// some 240 MiB; below that nobody honest may lose a connection where nothing forces it.
const HEAP: u64 = 512 * 1024 * 1024;
const SWEEP_EVERY: Duration = Duration::from_secs(5);

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
    let tls = MeshTls::new(certs.clone(), roots.clone()).counted({
        let metrics = metrics.clone();
        move |reason| metrics.tls_failed(Direction::outbound, reason)
    });
    let telemetry = Arc::new(Telemetry::new(metrics, settings.access_log));
    let config = Arc::new(Store::new(Arc::clone(&telemetry)));
    let limit = runtime::cgroup::memory_limit(Path::new(runtime::cgroup::ROOT));
    let bytes = |default| usize::try_from(limit.unwrap_or(default)).unwrap_or(usize::MAX);
    let budget = Budget::measured(bytes(MEMORY), bytes(HEAP), heap::held);
    let proxy = Arc::new(Proxy {
        settings: Arc::clone(&settings),
        config: Arc::clone(&config),
        telemetry,
        peers: Peers::new(tls.clone(), Arc::clone(&budget)),
        clients: Clients::new(Arc::clone(&budget)),
        budget,
        tls,
        drain: Drain::default(),
    });
    let control = Control {
        settings,
        config,
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
                #[expect(clippy::disallowed_methods, reason = "nothing is served any more")]
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
        let places = kind.places(&proxy.telemetry.metrics);
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
    let relieving = relief::relieve(
        Arc::clone(&proxy.budget),
        held.clone(),
        proxy.telemetry.metrics.clone(),
    );
    runtime::task::spawn("memory", relieving);
    let sweeping = Arc::clone(&proxy);
    runtime::task::spawn("sweep", async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            sweeping.peers.sweep();
            sweeping.clients.sweep();
        }
    });
    let signal = stopped.await;
    tracing::info!(signal, "stopping");
    proxy.drain.begin();
    proxy.telemetry.reports.leave();
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
