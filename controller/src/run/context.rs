//! The clients, settings and state that the parts of one replica share.

use std::sync::Arc;

use crds::smi::validation::Cluster;
use kube::Client;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    apiserver::{
        events::{EventRecorder, Writer},
        lease::{LeaderElector, Leadership},
    },
    authority::Authority,
    fleet::Fleet,
    grants::Grants,
    inventory::Inventory,
    latest_model::LatestModel,
    metrics::Metrics,
    observe::{
        acknowledged::Observed, early::EarlyCounts, live_queries::LiveQueries, reports::Reports,
    },
    settings::Settings,
    shares::ShareRegistry,
    trust_bundle::{progress::Progress, uninstalling::Uninstallation},
};

/// Name of the Lease and of the Service of all replicas.
pub(super) const NAME: &str = "weft-controller";

/// What a part is started with.
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) client: Client,
    pub(super) metrics: Metrics,
    pub(super) leadership: Leadership,
    pub(super) events: EventRecorder,
    /// Newest model, once there is one.
    pub(super) latest: LatestModel,
    pub(super) authority: Authority,
    pub(super) observed: Observed,
    pub(super) reports: Reports,
    pub(super) early: EarlyCounts,
    pub(super) inventory: Arc<RwLock<Inventory>>,
    pub(super) live_queries: LiveQueries,
    pub(super) fleet: Fleet,
    pub(super) share_registry: ShareRegistry,
    /// Runs of FaultExperiments that may harm calls.
    pub(super) grants: Grants,
    pub(super) uninstallation: Uninstallation,
    /// How far the trust bundles are.
    pub(super) bundle_progress: watch::Sender<Progress>,
    /// Says true when the process ends.
    pub(super) stopping: watch::Receiver<bool>,
}

impl Context {
    /// Also returns what stands for election, and what writes the Events.
    pub(super) fn new(
        settings: Settings,
        client: Client,
        metrics: Metrics,
        latest: LatestModel,
        stopping: watch::Receiver<bool>,
    ) -> (Self, LeaderElector, Writer) {
        let (elector, leadership) = LeaderElector::new(
            client.clone(),
            &settings.namespace,
            NAME,
            &settings.pod_name,
        );
        // No client whose silence gives the Lease up: an Event is not worth that.
        let (events, writer) = EventRecorder::new(
            client.clone(),
            &settings.pod_name,
            metrics.events_dropped.clone(),
        );
        let context = Self {
            uninstallation: Uninstallation::new(client.clone(), &settings.namespace),
            authority: Authority::new(&settings.identity),
            observed: Observed::new(metrics.observed.clone(), settings.caps.destinations),
            reports: Reports::with_capacity(metrics.reports.clone(), settings.caps.report_edges),
            early: EarlyCounts::new(metrics.limits.counter("early-reports")),
            inventory: Arc::default(),
            live_queries: LiveQueries::new(metrics.live_queries.clone(), &metrics.limits),
            share_registry: ShareRegistry::default(),
            grants: Grants::default(),
            bundle_progress: watch::Sender::default(),
            fleet: Fleet::new(latest.clone(), metrics.limits.counter("breakers")),
            settings,
            client,
            metrics,
            leadership,
            events,
            latest,
            stopping,
        };
        (context, elector, writer)
    }

    /// By which objects are judged.
    pub(super) fn cluster(&self) -> Cluster {
        Cluster {
            domain: self.settings.cluster_domain.as_str().into(),
            mesh_namespace: self.settings.namespace.as_str().into(),
        }
    }

    /// A client for what only the Lease holder does.
    pub(super) fn leading_client(&self, name: &'static str) -> Client {
        self.leadership.client(name, &self.client)
    }

    /// Starts what only the Lease holder does.
    pub(super) fn while_leading<F>(
        &self,
        name: &'static str,
        work: impl FnMut() -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        runtime::task::spawn(name, self.leadership.clone().while_leading(work));
    }
}
