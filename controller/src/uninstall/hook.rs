//! `weft-controller leave`: runs before the chart is deleted.
//!
//! It changes the SMI definitions so that they need no conversion, marks every trust bundle as
//! leaving, so that proxies that start without a controller relay instead of waiting for one, opens
//! the gates of pods that wait for a release, and then names the pods that still have a proxy with
//! the commands that restart them.
//!
//! Only the first step can stop the uninstall: objects that no client could read any more would be
//! lost. Nothing else may: it must not hang on a mesh that is already half gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crds::item::Item;
use crds::labels::POD_TEMPLATE_HASH;
use crds::objects::{GATEWAY_CONTAINER, PROXY_CONTAINER};
use crds::restart::Owner;
use futures::{StreamExt as _, stream};
use gateway_api::gateway::NAME_LABEL;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::timeout;

use super::definitions::{Refusal, serve_storage_only};
use super::pages::{AT_ONCE, NAMED, PATIENCE, each_page};
use crate::trust_bundle::copy::{LEAVE_MANAGER, LEAVING_KEY, NAME};

/// Prepares the mesh in `namespace` for its end and returns the message for the person who
/// uninstalls.
///
/// # Errors
/// When objects would become unreadable; then nothing was changed for good.
pub async fn leave(client: Client, namespace: &str) -> Result<String, Refusal> {
    let mut report = String::new();
    let definitions = serve_storage_only(&client, namespace).await?;
    let _ = writeln!(
        report,
        "{definitions} SMI definitions serve their storage version only, until a mesh that converts is installed."
    );
    super::api_services::delete_all(&client, &mut report).await;
    match mark(&client).await {
        Ok(outcome) => {
            let _ = writeln!(
                report,
                "{} trust bundles marked: new proxies no longer wait.",
                outcome.marked
            );
            for failure in outcome.failed.iter().take(NAMED) {
                let _ = writeln!(report, "  not marked: {failure}");
            }
            if outcome.failed.len() > NAMED {
                let more = outcome.failed.len() - NAMED;
                let _ = writeln!(report, "  not marked: {more} more");
            }
        }
        Err(error) => {
            let _ = writeln!(report, "The trust bundles could not be listed: {error}");
        }
    }
    super::gates::open_all(&client, &mut report).await;
    match carriers(&client).await {
        Ok(carriers) => carriers.describe(&mut report),
        Err(error) => {
            let _ = writeln!(report, "The pods with a proxy could not be listed: {error}");
        }
    }
    Ok(report)
}

#[derive(Debug, Default)]
struct Marked {
    marked: usize,
    failed: Vec<String>,
}

/// Marks every bundle that has no mark yet, so that a second run goes on where the first
/// one ended.
async fn mark(client: &Client) -> Result<Marked, kube::Error> {
    let all: Api<Item<ConfigMap>> = Api::all(client.clone());
    let params = ListParams::default().fields(&format!("metadata.name={NAME}"));
    let mut outcome = Marked::default();
    let mut tried = BTreeSet::new();
    each_page(&all, params, async |maps: Vec<ConfigMap>| {
        let namespaces = maps.into_iter().filter_map(|map| {
            let data = map.data.unwrap_or_default();
            let namespace = map.metadata.namespace.unwrap_or_default();
            let is_new = tried.insert(namespace.clone());
            if is_new && data.get(LEAVING_KEY).is_some_and(|mark| mark == "true") {
                outcome.marked += 1;
                return None;
            }
            is_new.then_some(namespace)
        });
        let namespaces: Vec<String> = namespaces.collect();
        let writes = namespaces
            .into_iter()
            .map(|namespace| mark_one(client.clone(), namespace));
        let mut writes = stream::iter(writes).buffer_unordered(AT_ONCE);
        while let Some(written) = writes.next().await {
            match written {
                Ok(true) => outcome.marked += 1,
                Ok(false) => {}
                Err(failure) => outcome.failed.push(failure),
            }
        }
    })
    .await?;
    Ok(outcome)
}

/// False when there is no bundle, or no namespace, any more.
async fn mark_one(client: Client, namespace: String) -> Result<bool, String> {
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let params = PatchParams {
        field_manager: Some(LEAVE_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"data": {LEAVING_KEY: "true"}}));
    match timeout(PATIENCE, api.patch(NAME, &params, &patch)).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Ok(false),
        Ok(Err(error)) => Err(format!("{namespace}: {error}")),
        Err(_) => Err(format!("{namespace}: no answer in time")),
    }
}

/// Pods that still carry a proxy, or are one, by namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Carriers {
    pods: usize,
    /// Namespace to `deployment/web` and the like.
    restartable: BTreeMap<String, BTreeSet<String>>,
    /// Namespace to pods that no controller makes anew on a restart.
    alone: BTreeMap<String, BTreeSet<String>>,
    /// Namespace to Gateways, with which their pods go.
    gateways: BTreeMap<String, BTreeSet<String>>,
}

async fn carriers(client: &Client) -> Result<Carriers, kube::Error> {
    let api: Api<Item<Pod>> = Api::all(client.clone());
    let mut carriers = Carriers::default();
    let mut seen = BTreeSet::new();
    each_page(&api, ListParams::default(), async |pods: Vec<Pod>| {
        for pod in pods {
            if seen.insert(pod.metadata.uid.clone().or(pod.metadata.name.clone())) {
                carriers.add(&pod);
            }
        }
    })
    .await?;
    Ok(carriers)
}

impl Carriers {
    fn add(&mut self, pod: &Pod) {
        let spec = pod.spec.as_ref();
        let init = spec.and_then(|spec| spec.init_containers.as_deref());
        let carries = is_among(init, PROXY_CONTAINER);
        let own = spec.map(|spec| spec.containers.as_slice());
        let is_gateway = !carries && is_among(own, GATEWAY_CONTAINER);
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if !(carries || is_gateway) || matches!(phase, Some("Succeeded" | "Failed")) {
            return;
        }
        self.pods += 1;
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let labels = pod.metadata.labels.as_ref().filter(|_| is_gateway);
        if let Some(gateway) = labels.and_then(|labels| labels.get(NAME_LABEL)) {
            let gateways = self.gateways.entry(namespace).or_default();
            gateways.insert(gateway.clone());
            return;
        }
        match restartable(pod) {
            Some(owner) => self.restartable.entry(namespace).or_default().insert(owner),
            None => {
                let name = pod.metadata.name.clone().unwrap_or_default();
                self.alone.entry(namespace).or_default().insert(name)
            }
        };
    }

    fn describe(&self, report: &mut String) {
        if self.pods == 0 {
            report.push_str("No pod carries a proxy any more.\n");
            return;
        }
        let _ = writeln!(
            report,
            "{} pods still carry a proxy. They go on working; this takes it out of them once the chart is gone:",
            self.pods
        );
        for (namespace, owners) in &self.restartable {
            let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
            let _ = writeln!(
                report,
                "  kubectl -n {namespace} rollout restart {}",
                owners.join(" ")
            );
        }
        for (namespace, pods) in &self.alone {
            let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
            let _ = writeln!(
                report,
                "  in {namespace}, to be deleted or to finish: {}",
                pods.join(" ")
            );
        }
        for (namespace, gateways) in &self.gateways {
            let gateways: Vec<&str> = gateways.iter().map(String::as_str).collect();
            let _ = writeln!(
                report,
                "  of Gateways: kubectl -n {namespace} delete gateways.gateway.networking.k8s.io {}",
                gateways.join(" ")
            );
        }
    }
}

fn is_among(containers: Option<&[Container]>, name: &str) -> bool {
    let mut containers = containers.into_iter().flatten();
    containers.any(|container| container.name == name)
}

/// What `kubectl rollout restart` calls the owner of a pod, if it can restart it.
fn restartable(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let labels = pod.metadata.labels.as_ref();
    let hash = labels.and_then(|labels| labels.get(POD_TEMPLATE_HASH));
    let owner = Owner {
        api_version: &owner.api_version,
        kind: &owner.kind,
        name: &owner.name,
        template_hash: hash.map(String::as_str),
    };
    owner.restartable()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::api_server::FakeApi;
    use crate::uninstall::pages::PAGE;
    use serde_json::Value;

    const MESH: &str = "weft-system";

    fn pod(name: &str, owner: Option<(&str, &str)>, proxy: bool) -> Value {
        let containers = if proxy {
            json!([{"name": PROXY_CONTAINER}])
        } else {
            json!([])
        };
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"pod-template-hash": "7f9"}},
            "spec": {"containers": [{"name": "app"}], "initContainers": containers},
        });
        if let Some((kind, owner)) = owner {
            pod["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": "1", "controller": true
            }]);
        }
        pod
    }

    fn with_pods(pods: &[Value]) -> FakeApi {
        let api = FakeApi::default();
        for pod in pods {
            let name = pod["metadata"]["name"].as_str().unwrap();
            api.put(&format!("/api/v1/namespaces/shop/pods/{name}"), pod.clone());
        }
        api
    }

    #[tokio::test]
    async fn every_bundle_is_marked() {
        let api = FakeApi::default();
        let path = |namespace: &str| format!("/api/v1/namespaces/{namespace}/configmaps/{NAME}");
        for namespace in ["shop", "bank"] {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": NAME, "namespace": namespace}, "data": {"ca.crt": "pem"}});
            api.put(&path(namespace), map);
        }
        let report = leave(api.client(), MESH).await.unwrap();
        assert!(report.contains("2 trust bundles marked"), "{report}");
        for namespace in ["shop", "bank"] {
            let data = &api.read(&path(namespace)).unwrap()["data"];
            assert_eq!(data[LEAVING_KEY], json!("true"));
            assert_eq!(data["ca.crt"], json!("pem"));
        }
    }

    fn bundle(namespace: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": namespace}, "data": {"ca.crt": "pem"}})
    }

    fn bundle_path(number: usize) -> String {
        format!("/api/v1/namespaces/n{number}/configmaps/{NAME}")
    }

    // Claims: C4
    #[tokio::test(start_paused = true)]
    async fn thousand_bundles_are_marked_within_job_time() {
        let api = FakeApi::default();
        for number in 0..1000 {
            api.put(&bundle_path(number), bundle(&format!("n{number}")));
        }
        // The API server forgets the list once.
        api.forget_a_list();
        let started = tokio::time::Instant::now();
        let client = api.slow_client(Duration::from_millis(200));
        let outcome = mark(&client).await.unwrap();
        assert_eq!((outcome.marked, outcome.failed.len()), (1000, 0));
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
        for number in 0..1000 {
            let stored = api.read(&bundle_path(number)).unwrap();
            assert_eq!(stored["data"][LEAVING_KEY], "true", "{number}");
        }
        assert!(
            api.largest_list() <= PAGE as usize,
            "{}",
            api.largest_list()
        );
    }

    // Claims: C4
    #[tokio::test]
    async fn second_run_goes_on_where_the_first_one_ended() {
        let api = FakeApi::default();
        for number in 0..40 {
            let mut map = bundle(&format!("n{number}"));
            if number < 30 {
                map["data"][LEAVING_KEY] = json!("true");
            }
            api.put(&bundle_path(number), map);
        }
        let outcome = mark(&api.client()).await.unwrap();
        assert_eq!(outcome.marked, 40);
        assert_eq!(
            api.writes().len(),
            10,
            "what is marked is not written again"
        );
    }

    #[tokio::test]
    async fn owners_are_named_in_one_command_per_namespace() {
        let api = with_pods(&[
            pod("web-7f9-a", Some(("ReplicaSet", "web-7f9")), true),
            pod("web-7f9-b", Some(("ReplicaSet", "web-7f9")), true),
            pod("db-0", Some(("StatefulSet", "db")), true),
            pod("plain", None, false),
        ]);
        let report = leave(api.client(), MESH).await.unwrap();
        assert!(report.contains("3 pods still carry a proxy"), "{report}");
        assert!(
            report.contains("kubectl -n shop rollout restart deployment/web statefulset/db\n"),
            "{report}"
        );
    }

    #[tokio::test]
    async fn pods_without_an_owner_that_restarts_are_named() {
        let mut clone = pod("clone-0", Some(("StatefulSet", "clone")), true);
        clone["metadata"]["ownerReferences"][0]["apiVersion"] = json!("apps.example/v1");
        let api = with_pods(&[
            pod("bare", None, true),
            clone,
            pod("forged", Some(("StatefulSet", "db; id")), true),
            pod("task-x", Some(("Job", "task")), true),
        ]);
        let report = leave(api.client(), MESH).await.unwrap();
        assert!(
            report.contains("in shop, to be deleted or to finish: bare clone-0 forged task-x"),
            "{report}"
        );
    }

    #[tokio::test]
    async fn gateways_are_named_whose_pods_run() {
        let of = |name: &str, gateway: &str| {
            let mut pod = pod(name, Some(("ReplicaSet", "edge-weft-7f9")), false);
            pod["spec"]["containers"] = json!([{"name": GATEWAY_CONTAINER}]);
            pod["metadata"]["labels"][NAME_LABEL] = json!(gateway);
            pod
        };
        let mut ended = of("other-weft-7f9-a", "other");
        ended["status"]["phase"] = json!("Failed");
        let api = with_pods(&[
            of("edge-weft-7f9-a", "edge"),
            of("edge-weft-7f9-b", "edge"),
            ended,
            pod("bare", None, true),
        ]);
        let report = leave(api.client(), MESH).await.unwrap();
        for words in [
            "3 pods still carry a proxy",
            "in shop, to be deleted or to finish: bare\n",
            "of Gateways: kubectl -n shop delete gateways.gateway.networking.k8s.io edge\n",
        ] {
            assert!(report.contains(words), "{words}: {report}");
        }
        assert!(!report.contains("rollout restart"), "{report}");
    }

    #[tokio::test]
    async fn no_proxy_left_is_said() {
        let report = leave(with_pods(&[]).client(), MESH).await.unwrap();
        assert!(
            report.contains("No pod carries a proxy any more"),
            "{report}"
        );
    }
}
