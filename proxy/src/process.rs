//! One process: its two threads, the permits of all listeners, the memory budget of their
//! connections, and its end.
//!
//! The data path has a thread of its own; certificates, configuration, probes
//! and scrapes live on another, so that none of them can delay a request.
//!
//! A process serves workloads, today the one that its environment describes. Each brings a
//! [`Proxy`] with its own identity, configuration, connections, telemetry and end, and listeners of
//! its own. The workloads share what this file has, and the two streams of a process: standard
//! error, with the log at the most verbose level that any of them requests ([`runtime::log`]), and
//! standard output, with the access log lines of each. [`run`] serves one: its pages are at a fixed
//! port.
//!
//! Imports `admin`, `control`, `drain`, `inbound`, `mesh`, `net`, `outbound`, `proxy`,
//! `settings` and `telemetry`.

pub(crate) mod collector;
pub(crate) mod heap;
pub(crate) mod listener;
pub(crate) mod permits;
pub(crate) mod relief;
pub(crate) mod workload;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::control::Progress;
use crate::drain::STOP_WITHIN;
use crate::mesh::peer::WATCH_EVERY;
use crate::net::budget::Budget;
use crate::process::collector::Connector;
use crate::process::listener::{Addresses, ServedWorkload, listen, no_ipv6};
use crate::process::permits::Permits;
use crate::process::workload::Workload;
use crate::proxy::Proxy;
use crate::settings::WorkloadSettings;
use crate::telemetry::startup::StartupStep;

/// What connections may hold where the container has no limit, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;
/// The same for the program as a whole. All permits of the three listeners at rest take some 240
/// MiB; below that no honest caller may lose a connection where nothing forces it.
const HEAP: u64 = 512 * 1024 * 1024;
/// Requests on a connection whose certificate is older than it may be have this long to end. With
/// the three seconds for which a Revocation is announced, a stolen key is of use for five.
const OUTDATED_GRACE: Duration = Duration::from_secs(2);
/// How often a proxy looks whether that is over, and for its new certificate while the one in use
/// is outdated.
const REVOCATION_LOOK: Duration = Duration::from_millis(100);
/// So many looks at what waits for peers, and what is idle is closed: every five seconds.
const LOOKS: u32 = 2;

/// Serves workloads on the current runtime.
#[derive(Debug)]
pub struct Process {
    proxies: Vec<Arc<Proxy>>,
    /// Of every listener of each of them.
    permits: Vec<Permits>,
    accepting: Vec<JoinHandle<()>>,
}

/// Runs the proxy of one workload until SIGTERM. `began`: when the program did.
///
/// # Errors
/// When a port is taken, or the trust bundle cannot be read.
pub fn run(settings: WorkloadSettings, began: Instant) -> anyhow::Result<()> {
    let budget = budget();
    let workload = Workload::new(settings, &budget)?;
    let proxy = Arc::clone(workload.proxy());
    let startup = proxy.telemetry.metrics.startup.clone();
    startup.began_at(began.into());
    let (started, progress) = oneshot::channel();
    let (connector, to_collector) = collector::connector();
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            if let Err(error) = control_thread(workload, connector, started) {
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
        let leaving = progress.await?.leaving;
        let stopped = runtime::stop::signal()?;
        runtime::task::spawn(
            "to the collector",
            collector::serve(Arc::clone(&proxy), to_collector),
        );
        let served = ServedWorkload {
            proxy,
            addresses: Addresses::of_sidecar(),
            leaving,
        };
        let process = Process::start(vec![served], budget)?;
        startup.reached(StartupStep::Listeners);
        let signal = stopped.await;
        tracing::info!(signal, "stopping");
        process.stop().await;
        Ok(())
    })
}

/// What all connections of the process may hold.
fn budget() -> Arc<Budget> {
    let limit = runtime::cgroup::memory_limit(Path::new(runtime::cgroup::ROOT));
    let bytes = |default| usize::try_from(limit.unwrap_or(default)).unwrap_or(usize::MAX);
    Budget::measured(bytes(MEMORY), bytes(HEAP), heap::in_use)
}

fn control_thread(
    workload: Workload,
    connector: Connector,
    started: oneshot::Sender<Progress>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (progress, pages) = workload.start(connector).await?;
        let _ = started.send(progress);
        pages.await;
        Ok(())
    })
}

impl Process {
    /// Opens the listeners of all these workloads, and serves what comes. What their
    /// connections hold is bounded by `budget`, which is that of their proxies.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start(workloads: Vec<ServedWorkload>, budget: Arc<Budget>) -> anyhow::Result<Self> {
        let mut process = Self {
            proxies: Vec::new(),
            permits: Vec::new(),
            accepting: Vec::new(),
        };
        let together = workloads.len();
        permits::warn_of_few_files(together);
        for workload in workloads {
            process.serve(workload, together)?;
        }
        let relieving = relief::relieve(budget, process.permits.clone());
        runtime::task::spawn("memory", relieving);
        runtime::task::spawn("sweep", sweep(process.proxies.clone()));
        for proxy in &process.proxies {
            runtime::task::spawn("revocations", follow_revocations(Arc::clone(proxy)));
        }
        Ok(process)
    }

    /// Serves one workload of so many.
    fn serve(&mut self, workload: ServedWorkload, together: usize) -> anyhow::Result<()> {
        self.proxies.push(Arc::clone(&workload.proxy));
        for (listener, addresses) in workload.listeners(together) {
            let permits = listener.permits();
            runtime::task::spawn("slow heads", Arc::clone(&permits.occupancy).watch());
            self.permits.push(permits.clone());
            for addr in addresses {
                let socket = match listen(addr) {
                    Ok(socket) => socket,
                    Err(error) if addr.is_ipv6() && no_ipv6(&error) => continue,
                    Err(error) => anyhow::bail!("port {} on {}: {error}", addr.port(), addr.ip()),
                };
                let accepting = Arc::clone(&listener).accept(socket);
                self.accepting
                    .push(runtime::task::spawn("accept", accepting));
            }
        }
        Ok(())
    }

    /// Ends all workloads: nothing new is accepted, and what is open gets a moment.
    pub async fn stop(self) {
        for proxy in &self.proxies {
            proxy.drain.stop();
            proxy.leave();
        }
        for accepting in &self.accepting {
            accepting.abort();
        }
        let ended = async {
            for permits in &self.permits {
                permits.occupancy.emptied().await;
            }
        };
        // What is still open then belongs to applications that have ended.
        let _ = timeout(STOP_WITHIN, ended).await;
    }
}

/// Breaks off what waits for peers that give no sign of life, and closes connections that were
/// idle for a while, for ever.
pub async fn sweep(proxies: Vec<Arc<Proxy>>) {
    loop {
        for _ in 0..LOOKS {
            sleep(WATCH_EVERY).await;
            for proxy in &proxies {
                proxy.peers.watch_over();
                proxy.peers.end_unless(|peer| proxy.config.keeps(peer));
            }
        }
        for proxy in &proxies {
            proxy.peers.sweep();
            proxy.clients.sweep();
            proxy.unmeshed.sweep();
            proxy.originators.sweep();
        }
    }
}

/// Ends connections as soon as their certificates are revoked, for ever. Where the own one is
/// outdated, no request begins on connections that it opened from when there is a newer one, which
/// is before peers refuse it: so no request is lost.
async fn follow_revocations(proxy: Arc<Proxy>) {
    let config = &proxy.config;
    let mut changes = config.policy_changes();
    let (mut seen, mut outdated, mut grace_ends) = (None, false, None);
    loop {
        let current = config.revocations();
        if current != seen {
            proxy.end_revoked();
            outdated = config.own_was_outdated();
            let ends = tokio::time::Instant::now() + OUTDATED_GRACE;
            grace_ends = current.is_some().then_some(ends);
            seen = current;
        }
        if outdated && !config.own_is_outdated() {
            proxy.peers.retire_unless(|_| false);
            outdated = false;
        }
        if grace_ends.is_some_and(|ends| ends <= tokio::time::Instant::now()) {
            proxy.end_outdated();
            grace_ends = None;
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            () = sleep(REVOCATION_LOOK), if outdated || grace_ends.is_some() => {}
        }
    }
}
