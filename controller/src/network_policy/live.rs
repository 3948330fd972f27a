//! The NetworkPolicies that exist in the API server.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use model::world::ObjectKey;

use super::selector::{Labels, picks};

/// Field manager of the policies.
pub(super) const MANAGER: &str = "weft-network-policy";
/// How the names of all policies of ours begin.
pub(super) const PREFIX: &str = "weft-udp-";
/// Label that says whose a policy is.
pub(super) const OWNER_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "weft");

/// One policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Live {
    /// Whether this mesh wrote it.
    pub(crate) ours: bool,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    /// Uids of the objects that it goes with.
    pub(crate) owners: Vec<String>,
    pub(crate) spec: NetworkPolicySpec,
}

/// Policies by namespace and name.
pub(crate) type Lives = BTreeMap<ObjectKey, Arc<Live>>;

impl From<NetworkPolicy> for Live {
    fn from(policy: NetworkPolicy) -> Self {
        let meta = policy.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let (label, value) = OWNER_LABEL;
        let labels = meta.labels.as_ref();
        let labelled = labels
            .and_then(|labels| labels.get(label))
            .map(String::as_str);
        // Either mark is enough: taking one away must not turn a policy of ours into a
        // foreign one that keeps ours off for ever.
        let written = meta
            .managed_fields
            .iter()
            .flatten()
            .any(|entry| entry.manager.as_deref() == Some(MANAGER));
        let owners = meta.owner_references.into_iter().flatten();
        Self {
            ours: is_our_name(name) && (labelled == Some(value) || written),
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            owners: owners.map(|owner| owner.uid).collect(),
            spec: policy.spec.unwrap_or_default(),
        }
    }
}

impl Live {
    /// Whether it limits which pods may call a pod with these labels.
    pub(crate) fn limits_ingress(&self, labels: &Labels) -> bool {
        // Without a list every policy is about ingress.
        let types = self.spec.policy_types.as_deref().unwrap_or_default();
        let ingress = types.is_empty() || types.iter().any(|one| one == "Ingress");
        ingress && picks(self.spec.pod_selector.as_ref(), labels)
    }
}

/// `weft-udp-` and one or two groups of 16 hex digits.
fn is_our_name(name: &str) -> bool {
    let is_hash = |part: &str| part.len() == 16 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let mut parts = rest.split('-');
    parts.next().is_some_and(is_hash) && parts.next().is_none_or(is_hash) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn live(name: &str, metadata: &Value) -> Live {
        let mut policy = json!({"metadata": metadata, "spec": {"podSelector": {}}});
        policy["metadata"]["name"] = name.into();
        Live::from(serde_json::from_value::<NetworkPolicy>(policy).unwrap())
    }

    #[test]
    fn network_policy_ownership_needs_name_and_one_mark() {
        let ours = "weft-udp-0123456789abcdef";
        let label = json!({"labels": {"app.kubernetes.io/managed-by": "weft"}});
        let manager = json!({"managedFields": [{"manager": MANAGER}]});
        for mark in [&label, &manager] {
            assert!(live(ours, mark).ours);
            assert!(live(&format!("{ours}-0123456789abcdef"), mark).ours);
            for name in [
                "weft-udp-x",
                "mine",
                "weft-udp-",
                "xweft-udp-0123456789abcdef",
            ] {
                assert!(!live(name, mark).ours, "{name}");
            }
        }
        assert!(!live(ours, &json!({})).ours);
    }

    #[test]
    fn only_an_egress_policy_says_so() {
        let types = |types: Value| {
            let spec = json!({"spec": {"podSelector": {}, "policyTypes": types}});
            Live::from(serde_json::from_value::<NetworkPolicy>(spec).unwrap())
        };
        let none = Labels::new();
        assert!(types(Value::Null).limits_ingress(&none));
        assert!(types(json!(["Egress", "Ingress"])).limits_ingress(&none));
        assert!(!types(json!(["Egress"])).limits_ingress(&none));
    }
}
