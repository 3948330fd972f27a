//! Starts the proxy of one workload, from its settings until it serves: certificate, configuration,
//! and responses to the kubelet.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use identity::Roots;
use identity::tls::CertHandle;
use parking_lot::Mutex;
use policy::well_known::ADMIN_PORT;
use prometheus_client::registry::Registry;
use runtime::admin::{Admin, Scraped};
use runtime::clock::Clock;
use runtime::ready::Ready;
use tokio::sync::watch;

use crate::admin::Pages;
use crate::control::leaving::follow_readiness;
use crate::control::revoked::follow_revocation;
use crate::control::{Control, Progress};
use crate::net::budget::Budget;
use crate::process::collector::Connector;
use crate::process::listener::no_ipv6;
use crate::proxy::Proxy;
use crate::settings::WorkloadSettings;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::startup::StartupStep;
use crate::telemetry::trace::export::export;
use crate::telemetry::trace::signal::Signal;

/// One workload, and what lives on the control thread for it.
pub(super) struct Workload {
    proxy: Arc<Proxy>,
    control: Control,
    /// What a scrape of this workload reads.
    registry: Registry,
    pages: Pages,
}

impl Workload {
    /// # Errors
    /// When the trust bundle, the injected probes or hooks cannot be read.
    pub(super) fn new(settings: WorkloadSettings, budget: &Arc<Budget>) -> anyhow::Result<Self> {
        let (own, controller) = (settings.own, settings.controller);
        let at = controller.trust_bundle.display();
        let bundle = std::fs::read_to_string(&controller.trust_bundle)
            .map_err(|error| anyhow::anyhow!("{at}: {error}"))?;
        let identity = own.identity.clone();
        let roots = Roots::from_pem(&identity, &bundle)
            .map_err(|error| anyhow::anyhow!("{at}: {error}"))?;
        let certs = CertHandle::empty();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let metrics = metrics.compatible(&mut registry, settings.compatibility.as_ref(), &own);
        let telemetry = Telemetry::new(metrics, settings.access_log);
        let proxy = Proxy::new(own, telemetry, certs.clone(), roots.clone(), budget);
        let proxy = Arc::new(proxy);
        let (probes, hooks) = (settings.probes.as_deref(), settings.hooks.as_deref());
        Ok(Self {
            control: Control {
                identity,
                controller: Arc::new(controller),
                config: Arc::clone(&proxy.config),
                certs,
                roots,
                refused: Arc::default(),
                denied: Arc::default(),
                renew_within: watch::Sender::default(),
                clock: Clock::system(),
                draining: proxy.drain.watch(),
            },
            registry,
            pages: Pages::new(Arc::clone(&proxy), probes, hooks)?,
            proxy,
        })
    }

    pub(super) const fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// Begins to speak with the controller and, by `connector`, with a collector of
    /// traces; gives what answers the admin port, `ready` among it.
    ///
    /// # Errors
    /// When that port is taken.
    pub(super) async fn start(
        self,
        connector: Connector,
        ready: Ready,
    ) -> anyhow::Result<(Progress, impl Future<Output = Infallible>)> {
        let admin = open_admin().await?;
        let startup = self.proxy.telemetry.metrics.startup.clone();
        startup.reached(StartupStep::Settings);
        // Until the task below has taken its own.
        let starting = ready.hold("certificate");
        let progress = self.control.start();
        let seen = progress.clone();
        let ready_handle = ready.clone();
        runtime::task::spawn("readiness", async move {
            let follow = follow_readiness(
                ready_handle,
                seen.certified,
                seen.configured,
                seen.leaving,
                starting,
            );
            follow.await;
        });
        let (config, certified) = (Arc::clone(&self.proxy.config), progress.certified.clone());
        let following = follow_revocation(ready.clone(), config, certified);
        runtime::task::spawn("revocation", following);
        let awaited = ready.clone();
        runtime::task::spawn("startup", async move {
            awaited.wait().await;
            startup.reached(StartupStep::Ready);
            startup.log();
        });
        for signal in [Signal::Spans, Signal::Logs] {
            let telemetry = Arc::clone(&self.proxy.telemetry);
            let connector = connector.clone();
            let connect = move |to| connector.clone().connect(to);
            runtime::task::spawn(signal.name(), export(telemetry, signal, connect));
        }
        let calls = self.proxy.telemetry.metrics.calls.clone();
        let scraped = Scraped::from(Arc::new(Mutex::new(self.registry)));
        let scraped = scraped.finished(move |page| calls.annotate(page));
        let pages = self.pages;
        let answering = admin.run(ready, scraped, move |request, peer| {
            pages.clone().answer(request, peer)
        });
        Ok((progress, answering))
    }
}

async fn open_admin() -> std::io::Result<Admin> {
    let at = |ip: IpAddr| Admin::bind(SocketAddr::new(ip, ADMIN_PORT));
    match at(Ipv6Addr::UNSPECIFIED.into()).await {
        Err(error) if no_ipv6(&error) => at(Ipv4Addr::UNSPECIFIED.into()).await,
        bound => bound,
    }
}
