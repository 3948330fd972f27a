//! TrafficSplits as routes of the Gateway API.

use crds::smi::TrafficSplit;
use serde_json::Value;

/// What a TrafficSplit may name, and what else there is.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// HTTPRouteGroups.
    pub groups: Vec<crds::smi::HTTPRouteGroup>,
    /// Services.
    pub services: Vec<k8s_openapi::api::core::v1::Service>,
    /// All TrafficSplits, the one that is converted among them or not.
    pub splits: Vec<TrafficSplit>,
}

/// What a TrafficSplit becomes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Converted {
    /// HTTPRoutes and TCPRoutes, as they are applied; one for each port of the Service at most.
    pub objects: Vec<Value>,
    /// What cannot be said exactly, each as `FIELD: why`.
    pub unsaid: Vec<String>,
}

/// The routes that do what a split does.
#[must_use]
pub fn from_split(split: &TrafficSplit, around: &Around) -> Converted {
    let _ = (split, around);
    Converted::default()
}
