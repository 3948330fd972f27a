//! Reports that an uninstall has removed parts of the mesh although its chart is still installed.
//!
//! The Job does its work before anything of the chart is deleted, and helm may have timed out by
//! then. The reconciler of trust bundles removes their marks. APIServices and versions of SMI
//! kinds are the chart's, which only helm can restore, so the Lease holder names them and the
//! command.

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use super::{api_services, definitions};
use crate::apiserver::events::{About, Event, EventRecorder, EventType};

/// Between two looks, while there is something to look for.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What the Lease holder runs.
#[derive(Clone)]
pub(crate) struct Unfinished {
    /// To the API server.
    pub client: Client,
    /// The mesh's own.
    pub namespace: String,
    /// Where it is reported.
    pub events: EventRecorder,
    /// Whether this installation is here after an uninstall ended.
    pub stayed: watch::Receiver<bool>,
}

opaque_debug!(Unfinished);

impl Unfinished {
    /// Looks for as long as the mesh has stayed and something is missing.
    pub(crate) async fn report(mut self) {
        loop {
            if self.stayed.wait_for(|stayed| *stayed).await.is_err() {
                return;
            }
            // A pod of the job that failed may be followed by another one, which goes on.
            sleep(LOOK_EVERY).await;
            if !*self.stayed.borrow() {
                continue;
            }
            let is_complete = match self.missing().await {
                Ok(missing) if missing.is_empty() => true,
                Ok(missing) => {
                    self.record(&missing);
                    false
                }
                Err(error) => {
                    warn!(error, "what an uninstall took away is not known");
                    false
                }
            };
            if is_complete && self.stayed.wait_for(|stayed| !*stayed).await.is_err() {
                return;
            }
        }
    }

    /// In words.
    async fn missing(&self) -> Result<Vec<String>, String> {
        let apis = api_services::missing(&self.client).await;
        let apis = apis.map_err(|error| error.to_string())?;
        let definitions = definitions::serving_storage_only(&self.client).await;
        let definitions = definitions.map_err(|error| error.to_string())?;
        let apis = apis
            .into_iter()
            .map(|name| format!("there is no APIService {name}"));
        let definitions = definitions
            .into_iter()
            .map(|name| format!("{name} is not served in older versions"));
        Ok(apis.chain(definitions).collect())
    }

    /// The recorder does not repeat it within the hour.
    fn record(&self, missing: &[String]) {
        self.events.record(Event {
            about: About {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                namespace: self.namespace.clone(),
                name: "weft-controller".to_owned(),
                uid: String::new(),
            },
            event_type: EventType::Warning,
            reason: "UninstallUnfinished",
            action: "Uninstall",
            text: format!(
                "this mesh was to be removed and is still here: {}. To keep it: helm rollback \
                 weft REVISION -n {}, with the revision that `helm history` shows; else run \
                 helm uninstall again",
                missing.join(", "),
                self.namespace
            ),
        });
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use serde_json::{Value, json};

    use super::*;
    use crate::storage_migration::tests::{MESH, TARGETS, definition};
    use crate::testing::api_server::FakeApi;

    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/weft-system/events/";
    const SERVICES: [&str; 3] = [
        "v1alpha1.metrics.smi-spec.io",
        "v1alpha1.observe.weft.dev",
        "v1alpha2.metrics.smi-spec.io",
    ];

    fn put(api: &FakeApi, name: &str) {
        let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}");
        let service = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": name},
            "spec": {"groupPriorityMinimum": 100, "versionPriority": 100},
        });
        api.put(&path, service);
    }

    /// Events after two minutes in which the mesh has stayed, or has not.
    async fn events(api: &FakeApi, stayed: bool) -> Vec<Value> {
        let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
        let (_sender, stayed) = watch::channel(stayed);
        let unfinished = Unfinished {
            client: api.client(),
            namespace: MESH.to_owned(),
            events,
            stayed,
        };
        let reporting = tokio::spawn(unfinished.report());
        let writing = tokio::spawn(writer.run(std::future::pending()));
        sleep(3 * LOOK_EVERY).await;
        reporting.abort();
        writing.abort();
        api.below(EVENTS)
    }

    // Claims: attack-97
    #[tokio::test(start_paused = true)]
    async fn removed_parts_of_surviving_mesh_are_reported_with_rollback() {
        let api = FakeApi::default();
        put(&api, SERVICES[0]);
        definition(&api, TARGETS, "weft-injector", &["v1alpha4"]);
        definitions::serve_storage_only(&api.client(), MESH)
            .await
            .unwrap();
        assert_eq!(events(&api, false).await, [] as [Value; 0]);
        let published = events(&api, true).await;
        assert_eq!(published.len(), 1, "{published:?}");
        assert_eq!(published[0]["reason"], "UninstallUnfinished");
        let text = published[0]["note"].as_str().unwrap();
        for part in [
            SERVICES[1],
            SERVICES[2],
            "traffictargets.access.smi-spec.io",
            "helm rollback weft REVISION -n weft-system",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains(SERVICES[0]), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn complete_surviving_mesh_gets_no_uninstall_event() {
        let api = FakeApi::default();
        SERVICES.iter().for_each(|name| put(&api, name));
        definition(&api, TARGETS, "weft-injector", &["v1alpha4"]);
        assert_eq!(events(&api, true).await, [] as [Value; 0]);
    }
}
