//! Detects that this installation is being uninstalled.
//!
//! The sign is a pod of service account `weft-leave` in the controller's own namespace: Helm makes
//! both when the chart is deleted, and only then. Marks elsewhere prove nothing, because every user
//! who may edit ConfigMaps can write one; only an administrator of the mesh can make that pod.
//!
//! The pod is gone as soon as its work is done, so what it showed is kept, but not for ever: Helm
//! deletes this process moments later, and if it does not, the mesh stays. A pod that failed has
//! refused the uninstall, which leaves nothing behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use model::world::{ObjectKey, PodFacts, Store, World};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::apiserver::lease::Stage;
use crate::latest_model::LatestModel;

/// Service account of the job that runs before the chart is deleted.
const ACCOUNT: &str = "weft-leave";
/// How long after the job this process may still run if the chart is deleted: Helm
/// deletes at once, and the kubelet grants a pod 30 s.
const AFTERWARDS: Duration = Duration::from_secs(60);

/// What the job's pods show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HookState {
    Absent,
    Working,
    Succeeded,
    Failed,
}

/// Pods of the job, as a World shows them.
type JobPods = BTreeMap<ObjectKey, Arc<PodFacts>>;

/// Follows the sign. Clones are the same memory.
#[derive(Clone)]
pub(crate) struct Uninstallation {
    client: Client,
    namespace: Arc<str>,
    stage: Arc<watch::Sender<Stage>>,
    /// Whether this installation is here after an uninstall ended, until the next begins.
    stayed: Arc<watch::Sender<bool>>,
}

opaque_debug!(Uninstallation);

impl Uninstallation {
    /// `namespace`: the controller's own.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.into(),
            stage: Arc::new(watch::Sender::new(Stage::default())),
            stayed: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Notifies of every change.
    pub(crate) fn stages(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Notifies whether an uninstall ended, done or failed, and this installation is still here.
    /// Unlike the stage, it holds after the job is gone.
    pub(crate) fn stayed(&self) -> watch::Receiver<bool> {
        self.stayed.subscribe()
    }

    /// Looks for the sign in every World until they end. Every replica does, so
    /// that the next Lease holder knows too.
    pub(crate) async fn follow(self, mut latest: LatestModel) {
        let mut pods: Store<PodFacts> = Store::default();
        let mut looked_up = JobPods::new();
        let mut stages = self.stages();
        let mut until = Instant::now();
        loop {
            let compiled = latest.borrow_and_update().clone();
            let news = compiled.filter(|compiled| !Arc::ptr_eq(&compiled.world.pods, &pods));
            if let Some(compiled) = news {
                pods = compiled.world.pods.clone();
                if let Some(sight) = self.sight(&compiled.world, &mut looked_up).await {
                    self.saw(sight);
                }
            }
            if stages.has_changed().unwrap_or(false) && *stages.borrow_and_update() == Stage::Going
            {
                until = Instant::now() + AFTERWARDS;
            }
            let going = *stages.borrow() == Stage::Going;
            tokio::select! {
                changed = latest.changed() => if changed.is_err() {
                    return;
                },
                _ = stages.changed() => stages.mark_changed(),
                () = sleep_until(until), if going => {
                    info!("this installation was to be removed, and is still here");
                    self.set(Stage::Stayed);
                }
            }
        }
    }

    /// Whether the sign has been seen, querying the API server if it has not: what the job wrote
    /// may arrive here before its pod does.
    ///
    /// # Errors
    /// When the API server does not answer; then nothing is known.
    pub(crate) async fn is_under_way(&self) -> Result<bool, kube::Error> {
        let stage = *self.stage.borrow();
        if stage.is_under_way() {
            return Ok(true);
        }
        let sight = self.fetch().await?;
        let counts = match sight {
            HookState::Working => true,
            HookState::Succeeded => stage == Stage::Stays,
            HookState::Absent | HookState::Failed => false,
        };
        if counts {
            self.saw(sight);
        }
        Ok(counts)
    }

    /// What the World shows; how a pod ended is queried. None when nothing is known, or nothing new
    /// of the pods that were `looked_up` about.
    async fn sight(&self, world: &World, looked_up: &mut JobPods) -> Option<HookState> {
        let ours = world.pods.iter().filter(|(pod, facts)| {
            pod.namespace == self.namespace && &*facts.service_account == ACCOUNT
        });
        let ours: JobPods = ours
            .map(|(pod, facts)| (pod.clone(), Arc::clone(facts)))
            .collect();
        if ours.is_empty() {
            return Some(HookState::Absent);
        }
        if ours.values().any(|facts| !facts.ended) {
            return Some(HookState::Working);
        }
        // A job that has refused stays until a user removes it, and pods of others change all the
        // time.
        let is_settled = !self.stage.borrow().is_under_way();
        if is_settled && ours == *looked_up {
            return None;
        }
        match self.fetch().await {
            Ok(sight) => {
                *looked_up = ours;
                Some(sight)
            }
            Err(error) => {
                warn!(%error, "how the uninstall's job ended is not known");
                None
            }
        }
    }

    async fn fetch(&self) -> Result<HookState, kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let field = format!("spec.serviceAccountName={ACCOUNT}");
        let pods = api.list(&ListParams::default().fields(&field)).await?;
        let mut sight = HookState::Absent;
        for pod in pods.items {
            let account = pod.spec.and_then(|spec| spec.service_account_name);
            if account.as_deref() != Some(ACCOUNT) {
                continue;
            }
            let phase = pod.status.and_then(|status| status.phase);
            match phase.as_deref() {
                Some("Failed") if sight == HookState::Absent => sight = HookState::Failed,
                Some("Failed") => {}
                Some("Succeeded") => sight = HookState::Succeeded,
                // One that works decides: the job tries again.
                _ => return Ok(HookState::Working),
            }
        }
        Ok(sight)
    }

    fn saw(&self, sight: HookState) {
        let before = *self.stage.borrow();
        self.set(match (before, sight) {
            (_, HookState::Working) => Stage::Preparing,
            (_, HookState::Failed) => Stage::Stays,
            (Stage::Stays | Stage::Preparing, HookState::Succeeded) => Stage::Going,
            // Gone before its end was seen: Helm removes a job that succeeded.
            (Stage::Preparing, HookState::Absent) => Stage::Going,
            (Stage::Stayed, HookState::Absent) => Stage::Stays,
            (before, _) => before,
        });
        // What it did before it failed may not have been undone.
        if sight == HookState::Failed {
            self.stayed.send_replace(true);
        }
    }

    fn set(&self, stage: Stage) {
        let stayed = match stage {
            Stage::Stayed => Some(true),
            Stage::Preparing | Stage::Going => Some(false),
            Stage::Stays => None,
        };
        if let Some(stayed) = stayed {
            self.stayed.send_replace(stayed);
        }
        self.stage.send_if_modified(|current| {
            let before = std::mem::replace(current, stage);
            if before.is_under_way() != stage.is_under_way() {
                info!(?stage, "removal of this installation");
            }
            before != stage
        });
    }
}

#[cfg(test)]
mod tests {
    use model::compiled::Compiled;
    use model::{Defaults, Model};
    use tokio::sync::watch;

    use super::*;
    use crate::testing::api_server::FakeApi;
    use crate::testing::cluster;
    use crate::testing::cluster::Cluster;

    fn job(namespace: &str) -> serde_json::Value {
        let pod = cluster::plain_pod("weft-leave-x", "10.0.0.9", ACCOUNT);
        cluster::in_namespace(pod, namespace)
    }

    async fn known_after(cluster: Cluster) -> bool {
        let uninstallation = Uninstallation::new(FakeApi::default().client(), "weft-system");
        let world = Arc::new(cluster.world());
        let (model, problems) = Model::compile(&world, &Defaults::default());
        let compiled = Compiled::new(world, model, problems);
        let (models, latest) = watch::channel(Some(Arc::new(compiled)));
        drop(models);
        uninstallation.clone().follow(latest).await;
        uninstallation.is_under_way().await.unwrap()
    }

    #[tokio::test]
    async fn uninstall_job_is_known_after_it_is_gone() {
        assert!(known_after(cluster::shop().with(job("weft-system"))).await);
    }

    #[tokio::test]
    async fn a_pod_of_that_account_elsewhere_is_no_sign() {
        assert!(!known_after(cluster::shop().with(job("shop"))).await);
    }

    #[tokio::test]
    async fn uninstall_job_unseen_by_watch_is_found() {
        let api = FakeApi::default();
        let uninstallation = Uninstallation::new(api.client(), "weft-system");
        assert!(!uninstallation.is_under_way().await.unwrap());
        let path = "/api/v1/namespaces/weft-system/pods/weft-leave-x";
        api.put(path, job("weft-system"));
        assert!(uninstallation.is_under_way().await.unwrap());
        api.remove(path);
        assert!(uninstallation.is_under_way().await.unwrap());
    }

    const PATH: &str = "/api/v1/namespaces/weft-system/pods/weft-leave-x";

    struct Bench {
        api: FakeApi,
        uninstallation: Uninstallation,
        models: watch::Sender<Option<Arc<Compiled>>>,
    }

    impl Bench {
        fn new() -> Self {
            let api = FakeApi::default();
            let uninstallation = Uninstallation::new(api.client(), "weft-system");
            let (models, latest) = watch::channel(None);
            tokio::spawn(uninstallation.clone().follow(latest));
            Self {
                api,
                uninstallation,
                models,
            }
        }

        /// The job's pod in this phase, or none, as watch and API server show it.
        async fn show(&self, phase: Option<&str>) {
            let mut cluster = cluster::shop();
            self.api.remove(PATH);
            if let Some(phase) = phase {
                let mut pod = job("weft-system");
                pod["status"]["phase"] = phase.into();
                self.api.put(PATH, pod.clone());
                cluster = cluster.with(pod);
            }
            let world = Arc::new(cluster.world());
            let (model, problems) = Model::compile(&world, &Defaults::default());
            let compiled = Compiled::new(world, model, problems);
            self.models.send_replace(Some(Arc::new(compiled)));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        async fn is_under_way(&self) -> bool {
            self.uninstallation.is_under_way().await.unwrap()
        }
    }

    // Claims: C4
    #[tokio::test(start_paused = true)]
    async fn job_that_refuses_leaves_no_sign() {
        let bench = Bench::new();
        bench.show(Some("Running")).await;
        assert!(bench.is_under_way().await);
        bench.show(Some("Failed")).await;
        assert!(!bench.is_under_way().await, "helm keeps the failed job");
        bench.show(None).await;
        assert!(!bench.is_under_way().await);
        bench.show(Some("Running")).await;
        assert!(bench.is_under_way().await, "the next try");
    }

    // Claims: attack-94
    #[tokio::test(start_paused = true)]
    async fn foreign_pod_changes_after_refusal_cost_no_call() {
        const PODS: &str = "/api/v1/namespaces/weft-system/pods";
        let bench = Bench::new();
        bench.show(Some("Running")).await;
        bench.show(Some("Failed")).await;
        let looked_up = bench.api.reads(PODS);
        assert!(looked_up > 0, "how it ended was not asked");
        for _ in 0..20 {
            bench.show(Some("Failed")).await;
        }
        assert_eq!(bench.api.reads(PODS), looked_up);
        // The next try is seen, and so is its end.
        bench.show(Some("Running")).await;
        assert!(bench.is_under_way().await);
        bench.show(Some("Failed")).await;
        assert!(!bench.is_under_way().await);
    }

    // Claims: C4
    #[tokio::test(start_paused = true)]
    async fn mesh_remaining_after_uninstall_job_is_not_leaving() {
        for end in [Some("Succeeded"), None] {
            let bench = Bench::new();
            let mut stages = bench.uninstallation.stages();
            bench.show(Some("Running")).await;
            bench.show(end).await;
            assert_eq!(*stages.borrow_and_update(), Stage::Going);
            tokio::time::sleep(AFTERWARDS - Duration::from_secs(1)).await;
            assert!(bench.is_under_way().await);
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(!bench.is_under_way().await, "{end:?}");
            assert!(stages.has_changed().unwrap(), "a waiter is notified");
            // Later subscribers get it too, until the next try.
            bench.show(None).await;
            assert!(*bench.uninstallation.stayed().borrow(), "{end:?}");
            bench.show(Some("Running")).await;
            assert!(!*bench.uninstallation.stayed().borrow(), "{end:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_uninstall_may_have_removed_something() {
        let bench = Bench::new();
        bench.show(Some("Running")).await;
        assert!(!*bench.uninstallation.stayed().borrow());
        bench.show(Some("Failed")).await;
        assert!(!bench.is_under_way().await);
        assert!(*bench.uninstallation.stayed().borrow());
    }
}
