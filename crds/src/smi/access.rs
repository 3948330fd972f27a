//! TrafficTarget: who may call whom, and with what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{kinds::smi_kind, without_defaults};

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
