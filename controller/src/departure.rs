//! Whether this installation is being removed.
//!
//! The sign is a pod of service account `weft-leave` in the controller's own
//! namespace: Helm makes both when the chart is deleted, and only then. Marks
//! elsewhere prove nothing, because whoever may edit ConfigMaps can write one;
//! nobody but an administrator of the mesh can make that pod.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use tracing::info;

use crate::compiled::Latest;
use crate::world::{PodFacts, Store, World};

/// Service account of the job that runs before the chart is deleted.
const ACCOUNT: &str = "weft-leave";

/// Remembers the sign for as long as the process lives: the pod is gone as soon
/// as its work is done. Clones are the same memory.
#[derive(Clone)]
pub struct Departure {
    client: Client,
    namespace: Arc<str>,
    seen: Arc<AtomicBool>,
}

opaque_debug!(Departure);

impl Departure {
    /// `namespace`: the controller's own.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.into(),
            seen: Arc::default(),
        }
    }

    /// Looks for the sign in every World until they end. Every replica does, so
    /// that the next Lease holder knows too.
    pub async fn follow(self, mut latest: Latest) {
        let mut pods: Store<PodFacts> = Store::default();
        loop {
            let compiled = latest.borrow_and_update().clone();
            let news = compiled.filter(|compiled| !Arc::ptr_eq(&compiled.world.pods, &pods));
            if let Some(compiled) = news {
                if self.shows(&compiled.world) {
                    self.note();
                    return;
                }
                pods = compiled.world.pods.clone();
            }
            if latest.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether the sign has been seen, asking the API server if it has not: what
    /// the job wrote may arrive here before its pod does.
    ///
    /// # Errors
    /// When the API server does not answer; then nothing is known.
    pub async fn is_under_way(&self) -> Result<bool, kube::Error> {
        if self.seen.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let field = format!("spec.serviceAccountName={ACCOUNT}");
        let pods = api.list(&ListParams::default().fields(&field)).await?;
        let ours = |pod: &Pod| {
            let account = pod.spec.as_ref()?.service_account_name.as_deref();
            Some(account == Some(ACCOUNT))
        };
        let found = pods.items.iter().any(|pod| ours(pod) == Some(true));
        if found {
            self.note();
        }
        Ok(found)
    }

    fn shows(&self, world: &World) -> bool {
        let mut pods = world.pods.iter();
        pods.any(|(pod, facts)| {
            pod.namespace == self.namespace && &*facts.service_account == ACCOUNT
        })
    }

    fn note(&self) {
        if !self.seen.swap(true, Ordering::Relaxed) {
            info!("this installation is being removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::compiled::Compiled;
    use crate::fake_api::FakeApi;
    use crate::fixture::{self, Cluster};
    use crate::model::{Defaults, Model};

    fn job(namespace: &str) -> serde_json::Value {
        let pod = fixture::plain_pod("weft-leave-x", "10.0.0.9", ACCOUNT);
        fixture::in_namespace(pod, namespace)
    }

    async fn known_after(cluster: Cluster) -> bool {
        let departure = Departure::new(FakeApi::default().client(), "weft-system");
        let world = Arc::new(cluster.world());
        let (model, problems) = Model::compile(&world, &Defaults::default());
        let compiled = Compiled::new(world, model, problems);
        let (models, latest) = watch::channel(Some(Arc::new(compiled)));
        drop(models);
        departure.clone().follow(latest).await;
        departure.is_under_way().await.unwrap()
    }

    #[tokio::test]
    async fn the_job_in_the_controllers_namespace_is_remembered_after_it_is_gone() {
        assert!(known_after(fixture::shop().with(job("weft-system"))).await);
    }

    #[tokio::test]
    async fn a_pod_of_that_account_elsewhere_is_no_sign() {
        assert!(!known_after(fixture::shop().with(job("shop"))).await);
    }

    #[tokio::test]
    async fn a_job_that_the_watch_has_not_shown_yet_is_found_by_asking() {
        let api = FakeApi::default();
        let departure = Departure::new(api.client(), "weft-system");
        assert!(!departure.is_under_way().await.unwrap());
        let path = "/api/v1/namespaces/weft-system/pods/weft-leave-x";
        api.put(path, job("weft-system"));
        assert!(departure.is_under_way().await.unwrap());
        api.remove(path);
        assert!(departure.is_under_way().await.unwrap());
    }
}
