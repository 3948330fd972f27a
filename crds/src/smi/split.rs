//! TrafficSplit: the share of a Service's traffic that each backend Service gets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{kinds::smi_kind, without_defaults};

smi_kind! {
    /// Shares the traffic of one Service out among several, by weight.
    TrafficSplit, spec TrafficSplitSpec, kind TrafficSplit
}

/// What a TrafficSplit asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["service", "backends"]), transform = without_defaults)]
pub struct TrafficSplitSpec {
    /// The root Service, which clients call. A Service of this namespace: `name`, or
    /// `name.namespace` up to the full cluster name.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub service: String,
    /// The Services that share the root's traffic. A Service of this list must have a
    /// port with the same number as the root's port, or it gets no traffic for that port.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub backends: Vec<SplitBackend>,
    /// HTTPRouteGroups of this namespace, at most 16. Only requests that match one of
    /// them are split; all other requests go to the root Service itself. Everything is
    /// split when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub matches: Option<Vec<SplitMatch>>,
}

/// One Service that takes a share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["service", "weight"]), transform = without_defaults)]
pub struct SplitBackend {
    /// A Service of the same namespace. It may not exist yet.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub service: String,
    /// The share, a whole number relative to the sum of all weights: 2 beside 1 is two
    /// thirds. 0 means no traffic.
    // Wider than a u32 on purpose: what another schema once stored must still be readable.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub weight: i64,
}

/// A reference to a group of HTTP matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["kind", "name"]), transform = without_defaults)]
pub struct SplitMatch {
    /// API group of the kind, `specs.smi-spec.io`; means the same when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub api_group: Option<String>,
    /// `HTTPRouteGroup`.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Name of the HTTPRouteGroup, in this namespace.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub name: String,
}
