//! TrafficTarget, which callers may call which pods with which requests; and IdentityBinding,
//! which identifies workloads otherwise than by their account.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kinds::smi_kind;
use super::without_defaults;

/// A subject or destination that is a service account.
pub(crate) const SUBJECT_SERVICE_ACCOUNT: &str = "ServiceAccount";
/// A subject that is a built-in group of callers.
pub(crate) const SUBJECT_GROUP: &str = "Group";
/// A subject or destination that an object describes.
pub(crate) const SUBJECT_IDENTITY_BINDING: &str = "IdentityBinding";
/// The group of every caller with an identity of this mesh.
pub(crate) const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// The group of callers outside the mesh.
pub(crate) const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// A rule that allows HTTP requests.
pub(crate) const RULE_HTTP_ROUTE_GROUP: &str = "HTTPRouteGroup";
/// A rule that allows TCP ports.
pub(crate) const RULE_TCP_ROUTE: &str = "TCPRoute";

smi_kind! {
    /// Allows some callers to reach one destination with some traffic.
    TrafficTarget, spec TrafficTargetSpec, kind TrafficTarget
}

/// What a TrafficTarget allows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["destination", "rules", "sources"]), transform = without_defaults)]
pub struct TrafficTargetSpec {
    /// Whose pods may be called: a service account of this namespace.
    #[serde(default)]
    pub destination: Subject,
    /// Who may call. Without a source nothing is allowed.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub sources: Vec<Subject>,
    /// What they may send. Any one of the rules is enough. Without a rule nothing is allowed.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub rules: Vec<RuleRef>,
}

/// A caller, or the destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["kind", "name"]), transform = without_defaults)]
pub struct Subject {
    /// API group of the kind: `access.smi-spec.io` for an IdentityBinding. May be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub group: Option<String>,
    /// `ServiceAccount`, `IdentityBinding`, or for a source also `Group`.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Name of the service account, the IdentityBinding or the group: `system:authenticated` (every identity
    /// of the mesh) or `system:unauthenticated` (callers outside the mesh).
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Namespace of the service account or IdentityBinding; this object's when it is left
    /// out. A destination must be in this object's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// The only port of the destination's containers that is allowed, not the Service port,
    /// which TrafficPolicies name; any when it is left out. From the oldest versions of the
    /// API, and without meaning for a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i64>,
}

/// A reference to what may be sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["kind", "name"]), transform = without_defaults)]
pub struct RuleRef {
    /// `HTTPRouteGroup`, `TCPRoute` or `UDPRoute`.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Name of the object, in this namespace.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Names of matches of the HTTPRouteGroup; every match when it is left out, and none
    /// when it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub matches: Option<Vec<String>>,
}

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
