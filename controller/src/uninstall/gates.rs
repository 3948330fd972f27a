//! Opens the gates of pods that wait for a release: with the chart goes what would open them.
//!
//! A pod whose gate cannot be opened serves no caller until it is made anew, which the report names
//! with its command. The injector gates no pod in a namespace whose trust bundle is marked as leaving,
//! which comes first: a gate that opens lets a rollout make the next pods.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crds::item::Item;
use crds::labels::RELEASED_CONDITION;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::timeout;

use super::pages::{AT_ONCE, NAMED, PATIENCE, each_page};

/// Reason of the condition.
const REASON: &str = "MeshUninstalled";

/// Opens all of them, and reports that.
pub(super) async fn open_all(client: &Client, report: &mut String) {
    match open(client).await {
        Ok(outcome) if outcome == Opened::default() => {}
        Ok(outcome) => {
            let _ = writeln!(
                report,
                "{} pods no longer wait for a release.",
                outcome.opened
            );
            for failure in outcome.failed.iter().take(NAMED) {
                let _ = writeln!(report, "  still waits, kubectl delete pod {failure}");
            }
            if outcome.failed.len() > NAMED {
                let more = outcome.failed.len() - NAMED;
                let _ = writeln!(report, "  still wait: {more} more");
            }
        }
        Err(error) => {
            let _ = writeln!(
                report,
                "The pods that wait for a release could not be listed: {error}"
            );
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Opened {
    opened: usize,
    failed: Vec<String>,
}

async fn open(client: &Client) -> Result<Opened, kube::Error> {
    let all: Api<Item<Pod>> = Api::all(client.clone());
    let mut outcome = Opened::default();
    let mut tried = BTreeSet::new();
    each_page(&all, ListParams::default(), async |pods: Vec<Pod>| {
        let waiting = pods.into_iter().filter(is_shut).filter_map(|pod| {
            let metadata = pod.metadata;
            let waiting = Waiting {
                namespace: metadata.namespace?,
                name: metadata.name?,
                uid: metadata.uid.unwrap_or_default(),
            };
            let key = format!("{}/{}", waiting.namespace, waiting.name);
            tried.insert(key).then_some(waiting)
        });
        let waiting: Vec<Waiting> = waiting.collect();
        let writes = waiting.into_iter().map(|pod| open_one(client.clone(), pod));
        let mut writes = stream::iter(writes).buffer_unordered(AT_ONCE);
        while let Some(written) = writes.next().await {
            match written {
                Ok(true) => outcome.opened += 1,
                Ok(false) => {}
                Err(failure) => outcome.failed.push(failure),
            }
        }
    })
    .await?;
    Ok(outcome)
}

/// A pod whose gate is shut.
struct Waiting {
    namespace: String,
    name: String,
    uid: String,
}

/// False when the pod is gone.
async fn open_one(client: Client, pod: Waiting) -> Result<bool, String> {
    let Waiting {
        namespace,
        name,
        uid,
    } = pod;
    let api: Api<Item<Pod>> = Api::namespaced(client, &namespace);
    // The list is merged by type. Another pod of this name has another uid, which is a conflict.
    let patch = Patch::Strategic(json!({
        "metadata": { "uid": uid },
        "status": { "conditions": [{
            "type": RELEASED_CONDITION,
            "status": "True",
            "reason": REASON,
            "message": "The mesh is being uninstalled.",
            "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }] },
    }));
    match timeout(
        PATIENCE,
        api.patch_status(&name, &PatchParams::default(), &patch),
    )
    .await
    {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() || status.is_conflict() => {
            Ok(false)
        }
        Ok(Err(error)) => Err(format!("-n {namespace} {name}: {error}")),
        Err(_) => Err(format!("-n {namespace} {name}: no answer in time")),
    }
}

fn is_shut(pod: &Pod) -> bool {
    let mut gates = pod
        .spec
        .iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten());
    if !gates.any(|gate| gate.condition_type == RELEASED_CONDITION) {
        return false;
    }
    let status = pod.status.as_ref();
    let ended = status.and_then(|status| status.phase.as_deref());
    let mut conditions = status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let is_open = conditions.any(|one| one.type_ == RELEASED_CONDITION && one.status == "True");
    !is_open && !matches!(ended, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::api_server::FakeApi;

    fn path(name: &str) -> String {
        format!("/api/v1/namespaces/shop/pods/{name}")
    }

    fn put(api: &FakeApi, name: &str, gate: &str, conditions: &Value) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"containers": [{"name": "app"}], "readinessGates": [{"conditionType": gate}]},
            "status": {"phase": "Running", "conditions": conditions},
        });
        api.put(&path(name), pod);
    }

    fn condition(status: &str) -> Value {
        json!([{"type": RELEASED_CONDITION, "status": status}])
    }

    #[tokio::test]
    async fn every_shut_gate_opens_and_nothing_else_changes() {
        let api = FakeApi::default();
        put(&api, "new", RELEASED_CONDITION, &json!([]));
        put(&api, "shut", RELEASED_CONDITION, &condition("False"));
        put(&api, "open", RELEASED_CONDITION, &condition("True"));
        put(&api, "other", "example.com/balanced", &json!([]));
        let mut report = String::new();
        open_all(&api.client(), &mut report).await;
        assert_eq!(report, "2 pods no longer wait for a release.\n");
        let written: BTreeSet<String> = api.writes().into_iter().map(|(_, path)| path).collect();
        assert_eq!(written, BTreeSet::from([path("new"), path("shut")]));
        for name in ["new", "shut"] {
            let pod = api.read(&path(name)).unwrap();
            let condition = &pod["status"]["conditions"][0];
            assert_eq!(condition["type"], "weft.dev/released");
            assert_eq!(condition["status"], "True");
            assert_eq!(condition["reason"], REASON);
        }
        let mut again = String::new();
        open_all(&api.client(), &mut again).await;
        assert_eq!(again, "", "a second run has nothing to do");
    }

    #[tokio::test]
    async fn pod_that_cannot_be_written_is_reported_with_command() {
        let api = FakeApi::default();
        put(&api, "web", RELEASED_CONDITION, &json!([]));
        api.refuse(&path("web"));
        let mut report = String::new();
        open_all(&api.client(), &mut report).await;
        assert!(
            report.contains("kubectl delete pod -n shop web: "),
            "{report}"
        );
    }
}
