//! One mesh, or none, around the pods of one scenario: network, applications, proxies.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;

use super::application::{self, App, Repeats, Running};
use super::client::Target;
use super::cluster::{Asked, Cluster, GRPC_PORT, HTTP_PORT, Pod, address, services};
use super::envoy::{self, Extra};
use super::generator::{self, Load, Sample};
use super::network::{self, CONTROL, Network};
use crate::namespaces::{Namespace, Process};
use crate::proof::sum;
use crate::sidecar::{self, READY_WITHIN, Sidecar, WEFT_ADMIN};
use crate::standing_in::{Authority, ClusterView as _};

/// Between the last preparation and the first call of a load.
const AHEAD: Duration = Duration::from_millis(200);

/// What stands between the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mesh {
    Direct,
    Weft(PathBuf),
    Envoy(PathBuf, Extra),
}

impl Mesh {
    /// For the signs of life of a run.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Direct => "no proxy between",
            Self::Weft(_) => "Weft",
            Self::Envoy(_, extra) if extra.retries_503 => "Envoy, 503 tried again too",
            Self::Envoy(_, extra) if extra.adaptive => "Envoy, adaptive concurrency",
            Self::Envoy(..) => "Envoy, Istio's defaults",
        }
    }
}

/// What a scenario is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a> {
    pub(super) pods: &'a [Pod],
    pub(super) requested: Asked,
}

#[derive(Debug)]
pub(super) struct Scenario {
    pods: Vec<Pod>,
    meshed: bool,
    // Dropped in this order: processes, applications, the controller, then namespaces.
    proxies: Vec<Process>,
    apps: Vec<Running>,
    pub(super) repeats: Arc<Repeats>,
    /// Of Weft.
    controller: Option<(Arc<Cluster>, watch::Sender<()>)>,
    network: Network,
    folder: PathBuf,
}

impl Scenario {
    /// Everything runs, and every caller has had a first good answer. `capture` is Weft's
    /// proxy, which writes the redirection for whichever mesh. `folder` is made, and gone
    /// afterwards.
    pub(super) fn start(
        mesh: &Mesh,
        capture: &Path,
        layout: Layout<'_>,
        folder: &Path,
    ) -> Result<Self> {
        let authority = Arc::new(Authority::new()?);
        fs::create_dir(folder).with_context(|| folder.display().to_string())?;
        let names: Vec<_> = layout.pods.iter().map(|pod| pod.name).collect();
        let network = Network::new(&names)?;
        let repeats = Arc::new(Repeats::default());
        let mut scenario = Self {
            pods: layout.pods.to_vec(),
            meshed: *mesh != Mesh::Direct,
            proxies: Vec::new(),
            apps: Vec::new(),
            repeats,
            controller: None,
            network,
            folder: folder.to_owned(),
        };
        for (at, pod) in layout.pods.iter().enumerate() {
            let namespace = scenario.network.pod(at);
            let app = application::start(namespace, pod.behaviour, &scenario.repeats)?;
            scenario.apps.push(app);
        }
        if scenario.meshed {
            let capture = capture.to_string_lossy();
            for at in 0..layout.pods.len() {
                scenario.network.pod(at).run(&[&*capture, "capture"])?;
            }
        }
        match mesh {
            Mesh::Direct => {}
            Mesh::Weft(binary) => scenario.start_weft(binary, layout, authority)?,
            Mesh::Envoy(binary, extra) => {
                let attempt = layout.requested.attempt;
                envoy::write(folder, &authority, layout.pods, *extra, attempt)?;
                scenario.start_proxies(crate::envoy::ADMIN_PORT, |one| one.start_envoy(binary))?;
            }
        }
        scenario.first_calls()?;
        Ok(scenario)
    }

    fn start_weft(
        &mut self,
        binary: &Path,
        layout: Layout<'_>,
        authority: Arc<Authority>,
    ) -> Result<()> {
        fs::write(self.folder.join("root.pem"), authority.root.cert_pem())?;
        for pod in &self.pods {
            fs::write(self.folder.join(pod.name), pod.name)?;
        }
        let cluster = Arc::new(Cluster::new(layout.pods, layout.requested));
        let ends = start_controller(&self.network.router, authority, &cluster)?;
        self.controller = Some((cluster, ends));
        self.start_proxies(WEFT_ADMIN, |one| one.start_weft(binary))
    }

    fn start_proxies(
        &mut self,
        admin: u16,
        start: impl Fn(&Sidecar<'_>) -> Result<Process>,
    ) -> Result<()> {
        for (at, pod) in self.pods.iter().enumerate() {
            let sidecar = Sidecar {
                within: self.network.pod(at),
                namespace: Cluster::NAMESPACE,
                pod: pod.name,
                ip: network::ip(at),
                trust_domain: Cluster::TRUST_DOMAIN,
                controller: network::controller(at),
                folder: &self.folder,
            };
            self.proxies.push(start(&sidecar)?);
        }
        for (at, process) in self.proxies.iter().enumerate() {
            let ready = sidecar::wait_ready(self.network.pod(at), admin, process);
            ready.with_context(|| self.log(at))?;
        }
        Ok(())
    }

    /// Each pod without a Service calls the first one, over HTTP/1.1.
    fn first_calls(&self) -> Result<()> {
        let target = self.target(1, false);
        for at in self.callers() {
            let until = Instant::now() + READY_WITHIN;
            loop {
                let answer = self
                    .network
                    .pod(at)
                    .within(|| sidecar::get(target.addr, target.host, application::METHOD));
                match answer {
                    Ok((200, _)) => break,
                    Ok((status, body)) => ensure!(
                        Instant::now() < until,
                        "the first call was answered {status} {body}; {}",
                        self.log(at)
                    ),
                    Err(error) => ensure!(
                        Instant::now() < until,
                        "no first answer: {error:#}; {}",
                        self.log(at)
                    ),
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// The Service of this number, which begins with 1.
    fn target(&self, number: u8, grpc: bool) -> Target {
        let host = services(&self.pods)[usize::from(number) - 1];
        let addr = if self.meshed {
            address(number, if grpc { GRPC_PORT } else { HTTP_PORT })
        } else {
            // Without a mesh the Service's address is unknown: its first pod.
            let at = self.pods.iter().position(|pod| pod.service == Some(host));
            let port = if grpc {
                application::GRPC
            } else {
                application::HTTP
            };
            (network::ip(at.unwrap_or_default()), port).into()
        };
        Target { addr, host, grpc }
    }

    fn callers(&self) -> impl Iterator<Item = usize> {
        let pods = self.pods.iter().enumerate();
        pods.filter(|(_, pod)| pod.service.is_none())
            .map(|(at, _)| at)
    }

    /// Every caller makes the load to the first Service; meanwhile `events` happen, and
    /// get its start. Gives the samples of each caller.
    pub(super) fn load(
        &mut self,
        load: Load,
        grpc: bool,
        events: impl FnOnce(&Self, Instant) -> Result<()> + Send,
    ) -> Result<Vec<Vec<Sample>>> {
        let begin = Instant::now() + AHEAD;
        self.apps.iter().for_each(|one| one.app.count_from(begin));
        let target = self.target(1, grpc);
        let callers: Vec<(&Namespace, Target)> = self
            .callers()
            .map(|at| (self.network.pod(at), target))
            .collect();
        let this = &*self;
        let samples = std::thread::scope(|scope| {
            let happening = scope.spawn(move || events(this, begin));
            let samples = generator::run(&callers, load, begin)?;
            match happening.join() {
                Ok(happened) => happened?,
                Err(_) => anyhow::bail!("an event of a scenario panicked"),
            }
            anyhow::Ok(samples)
        })?;
        self.check()?;
        Ok(samples)
    }

    /// # Errors
    /// When a proxy has ended, or refused its configuration: then it was no measurement.
    fn check(&mut self) -> Result<()> {
        for at in 0..self.proxies.len() {
            let log = self.log(at);
            self.proxies[at].alive().context(log)?;
        }
        if let Some((cluster, _)) = &self.controller {
            let refusals = cluster.refusals();
            ensure!(
                refusals.is_empty(),
                "proxies refused their configuration: {refusals:?}"
            );
        }
        Ok(())
    }

    pub(super) fn app(&self, pod: &str) -> &App {
        &self.apps[self.at(pod)].app
    }

    /// Every application of a Service.
    pub(super) fn apps_of(&self, service: &'static str) -> impl Iterator<Item = &App> {
        let pods = self.pods.iter().zip(&self.apps);
        pods.filter(move |(pod, _)| pod.service == Some(service))
            .map(|(_, running)| &*running.app)
    }

    pub(super) fn lose(&self, pod: &str) -> Result<()> {
        self.network.lose(self.at(pod))
    }

    /// What Weft's proxies of the callers have counted, each by itself; nothing of others.
    pub(super) fn counted(&self, metric: &str, labels: &[&str]) -> Result<Vec<f64>> {
        if self.controller.is_none() {
            return Ok(Vec::new());
        }
        let pages = self
            .callers()
            .map(|at| sidecar::page(self.network.pod(at), WEFT_ADMIN, "/metrics"));
        pages.map(|page| Ok(sum(&page?, metric, labels))).collect()
    }

    /// What Weft's proxies carry out of policies.
    pub(super) fn carried(&self) -> Option<policy::traffic::part::Parts> {
        Some(self.controller.as_ref()?.0.carried())
    }

    fn at(&self, pod: &str) -> usize {
        let at = self.pods.iter().position(|one| one.name == pod);
        at.expect("scenarios name pods of their own layout")
    }

    /// The end of what a proxy wrote.
    fn log(&self, at: usize) -> String {
        let name = self.pods[at].name;
        let log = fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
        format!("the proxy of {name} wrote: {last}")
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Serves the router's address until the sender is dropped.
fn start_controller(
    router: &Namespace,
    authority: Arc<Authority>,
    cluster: &Arc<Cluster>,
) -> Result<watch::Sender<()>> {
    let listener = router.within(|| {
        Ok(std::net::TcpListener::bind((
            std::net::Ipv4Addr::UNSPECIFIED,
            CONTROL,
        ))?)
    })?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (ends, mut end) = watch::channel(());
    let cluster = Arc::clone(cluster);
    std::thread::Builder::new()
        .name("controller".to_owned())
        .spawn(move || {
            let ended = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    ended = crate::standing_in::serve(listener, authority, cluster) => ended,
                    // Nothing is ever sent: the scenario is over.
                    _ = end.changed() => Ok(()),
                }
            });
            if let Err(error) = ended {
                eprintln!("weft-bench: the stand-in controller ended: {error:#}");
            }
        })?;
    Ok(ends)
}
