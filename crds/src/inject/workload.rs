//! Finds the workload that owns a pod, as far as the pod itself proves it.

use serde_json::Value;

use crate::label_syntax::{is_dns_label, is_object_name};
use crate::labels::POD_TEMPLATE_HASH;

/// Kind and name of the pod's workload: `Deployment` and `web`. A pod that nothing
/// controls is its own, as is one whose owner has a name that no object can have: the API server
/// takes any, and it would be reported with everything that the proxy counts.
///
/// The ReplicaSet of a Deployment is named after it and the hash that every one of
/// its pods carries as a label; with both, the Deployment's name is certain. A kind of another
/// product may have such a name: it is taken as named, and is no ReplicaSet of Kubernetes.
pub(super) fn workload(pod: &Value) -> (String, String) {
    let metadata = &pod["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let owners = metadata["ownerReferences"].as_array();
    let controller = owners
        .into_iter()
        .flatten()
        .find(|owner| owner["controller"] == true)
        .filter(|owner| can_be(owner));
    let Some(controller) = controller else {
        // A pod that is being made may only have the name that it will begin with.
        let name = match metadata["name"].as_str() {
            Some(name) => name.to_owned(),
            None => text(&metadata["generateName"]).trim_end_matches('-').into(),
        };
        return ("Pod".into(), name);
    };
    let (kind, name) = (text(&controller["kind"]), text(&controller["name"]));
    let version = controller["apiVersion"].as_str();
    let of_apps = version.is_some_and(|version| version.starts_with("apps/"));
    let hash = metadata["labels"][POD_TEMPLATE_HASH].as_str();
    let deployment = hash
        .filter(|_| of_apps && kind == "ReplicaSet")
        .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
    match deployment {
        Some(deployment) => ("Deployment".into(), deployment.into()),
        None => (kind, name),
    }
}

/// Whether there can be a kind, and an object of it, as an owner is said to be.
fn can_be(owner: &Value) -> bool {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    is_object_name(text("name")) && is_dns_label(&text("kind").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn workload_is_controlling_owner_or_deployment_by_hash() {
        let pod_of = |version: &str, kind: &str, name: &str, labels: Value| {
            json!({"metadata": {"generateName": "x-", "labels": labels, "ownerReferences": [
                {"kind": "Node", "name": "other"},
                {"apiVersion": version, "kind": kind, "name": name, "controller": true}]}})
        };
        let pod = |kind: &str, name: &str, labels: Value| pod_of("apps/v1", kind, name, labels);
        let hash = json!({"pod-template-hash": "5d6f8c"});
        let rollout = json!({"rollouts-pod-template-hash": "5d6f8c"});
        for (pod, kind, name) in [
            (
                pod("ReplicaSet", "web-api-5d6f8c", hash.clone()),
                "Deployment",
                "web-api",
            ),
            (
                pod("ReplicaSet", "web-5d6f8c", rollout),
                "ReplicaSet",
                "web-5d6f8c",
            ),
            (
                pod("ReplicaSet", "plain", hash.clone()),
                "ReplicaSet",
                "plain",
            ),
            (
                pod_of("games.example/v1", "ReplicaSet", "web-5d6f8c", hash.clone()),
                "ReplicaSet",
                "web-5d6f8c",
            ),
            (
                pod_of("appsx/v1", "ReplicaSet", "web-5d6f8c", hash.clone()),
                "ReplicaSet",
                "web-5d6f8c",
            ),
            (
                pod("StatefulSet", "db-5d6f8c", hash),
                "StatefulSet",
                "db-5d6f8c",
            ),
            (json!({"metadata": {"name": "alone"}}), "Pod", "alone"),
            (json!({"metadata": {"generateName": "job-"}}), "Pod", "job"),
        ] {
            assert_eq!(workload(&pod), (kind.into(), name.into()), "{pod}");
        }
    }

    #[test]
    fn pod_with_invalid_owner_is_its_own_workload() {
        let pod = |kind: &str, name: &str| {
            json!({"metadata": {"name": "web-1", "ownerReferences": [
                {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "name": name, "controller": true}]}})
        };
        let long = "a".repeat(253);
        assert_eq!(workload(&pod("Rollout", &long)), ("Rollout".into(), long));
        let longer = "a".repeat(400_000);
        for (kind, name) in [
            ("Rollout", longer.as_str()),
            ("Rollout", "a b"),
            (longer.as_str(), "web"),
        ] {
            assert_eq!(workload(&pod(kind, name)), ("Pod".into(), "web-1".into()));
        }
    }
}
