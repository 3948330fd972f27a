//! IdentityBinding: who a workload is, said in other ways than by its account.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{kinds::smi_kind, without_defaults};

smi_kind! {
    /// Gives workloads of its namespace a name that TrafficTargets refer to.
    IdentityBinding, spec IdentityBindingSpec, kind IdentityBinding
}

/// Which workloads an IdentityBinding means.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["schemes"]), transform = without_defaults)]
pub struct IdentityBindingSpec {
    /// Ways to know a workload; it belongs when one of them fits.
    #[serde(default)]
    pub schemes: IdentitySchemes,
}

/// Ways to know a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    extend("minProperties" = 1),
    extend("x-kubernetes-validations" = [{
        "rule": "!(has(self.podLabelSelector) && has(self.serviceAccount))",
        "message": "podLabelSelector and serviceAccount exclude each other"
    }]),
    transform = without_defaults
)]
pub struct IdentitySchemes {
    /// The pods of this namespace that have all these labels. Not together with
    /// `serviceAccount`. No pod when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_label_selector: Option<PodLabels>,
    /// SPIFFE ids such as `spiffe://cluster.local/ns/shop/sa/web`, with or without
    /// `spiffe://` in front, at most 64. None when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 2048)))]
    pub spiffe_identities: Option<Vec<String>>,
    /// A service account of this namespace, for all pods that run as it. Not together
    /// with `podLabelSelector`. None when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account: Option<String>,
}

/// Labels of pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["matchLabels"]), transform = without_defaults)]
pub struct PodLabels {
    /// Label names with their values; a pod must have every one of them.
    #[serde(default)]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    pub match_labels: BTreeMap<String, String>,
}
