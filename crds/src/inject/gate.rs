//! The readiness gate of pods of a new revision: their Service has them only when the release opens
//! it.
//!
//! Pods of the stable revision get none, so that they need nothing of the mesh to become ready.
//! Which revision that is stands in the release's status: a release that no controller has seen yet
//! gates no pod. Where it cannot be read, pods of Deployments are gated: the controllers open within
//! seconds what no release holds, and without them no new pod gets its certificate either.

use serde_json::{Map, Value, json};

use super::pod;
use super::workload::workload;
use crate::labels::{POD_TEMPLATE_HASH, RELEASED_CONDITION};

/// Where the gates of a pod stand in its spec.
pub(super) const GATES: &str = "readinessGates";
const TYPE: &str = "conditionType";

/// What is known of the releases of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Releases {
    /// They gate no pod: releases are switched off, or a command injects.
    #[default]
    Ignored,
    /// Those that are in force.
    Known(Vec<StableRevision>),
    /// They could not be read.
    Unreadable,
}

/// The revision of a Deployment whose pods become ready without the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StableRevision {
    /// Name of the Deployment.
    pub deployment: String,
    /// `pod-template-hash` of its pods.
    pub revision: String,
}

/// Whether the pod is of a revision that a release holds back.
pub(super) fn is_due(pod: &Value, releases: &Releases) -> bool {
    let (kind, deployment) = workload(pod);
    // A pod with this owner has the label.
    let revision = &pod["metadata"]["labels"][POD_TEMPLATE_HASH];
    if kind != "Deployment" {
        return false;
    }
    match releases {
        Releases::Ignored => false,
        Releases::Unreadable => true,
        Releases::Known(stable) => {
            let mut stable = stable.iter();
            stable.any(|one| one.deployment == deployment && *revision != *one.revision)
        }
    }
}

/// Adds the gate, once.
pub(super) fn add(spec: &mut Map<String, Value>) {
    if pod::list(spec, GATES).any(is_ours) {
        return;
    }
    let gates = spec.entry(GATES).or_insert(Value::Null);
    if gates.is_null() {
        *gates = json!([]);
    }
    if let Some(gates) = gates.as_array_mut() {
        gates.push(json!({ TYPE: RELEASED_CONDITION }));
    }
}

/// Whether it is the one that a release opens.
pub(super) fn is_ours(gate: &Value) -> bool {
    gate[TYPE] == RELEASED_CONDITION
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(owner: &str, kind: &str, hash: &str) -> Value {
        json!({"metadata": {"labels": {"pod-template-hash": hash}, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": kind, "name": owner, "controller": true}]}})
    }

    fn known() -> Releases {
        Releases::Known(vec![StableRevision {
            deployment: "web".into(),
            revision: "aaa".into(),
        }])
    }

    #[test]
    fn only_other_revisions_of_released_deployment_are_gated() {
        let candidate = pod("web-bbb", "ReplicaSet", "bbb");
        assert!(is_due(&candidate, &known()));
        for (free, why) in [
            (pod("web-aaa", "ReplicaSet", "aaa"), "the stable revision"),
            (pod("cart-bbb", "ReplicaSet", "bbb"), "another Deployment"),
            (pod("web-bbb", "StatefulSet", "bbb"), "no Deployment"),
            (pod("web", "ReplicaSet", "bbb"), "a ReplicaSet without one"),
            (json!({"metadata": {"name": "web"}}), "no owner"),
        ] {
            assert!(!is_due(&free, &known()), "{why}");
        }
        assert!(!is_due(&candidate, &Releases::Ignored));
        assert!(!is_due(&candidate, &Releases::Known(vec![])));
    }

    #[test]
    fn unreadable_releases_gate_pods_of_deployments_only() {
        let revision = pod("web-bbb", "ReplicaSet", "bbb");
        assert!(is_due(&revision, &Releases::Unreadable));
        let set = pod("web-bbb", "StatefulSet", "bbb");
        assert!(!is_due(&set, &Releases::Unreadable));
    }

    #[test]
    fn gate_is_added_once_beside_others() {
        let ours = json!({"conditionType": "weft.dev/released"});
        let other = json!({"conditionType": "example.com/balanced"});
        for (before, after) in [
            (json!({}), json!([ours])),
            (json!({"readinessGates": null}), json!([ours])),
            (json!({"readinessGates": [other]}), json!([other, ours])),
        ] {
            let mut spec = before.as_object().unwrap().clone();
            add(&mut spec);
            add(&mut spec);
            assert_eq!(spec["readinessGates"], after);
        }
    }
}
