//! TrafficPolicies. Never fails: what is wrong with one becomes a fact that says so.

use crds::{smi::validation::Cluster, weft::TrafficPolicySpec};
use kube::core::DynamicObject;

use super::smi::validated;
use crate::world::PolicyFacts;

/// A TrafficPolicy.
pub fn traffic_policy(object: &DynamicObject, cluster: &Cluster) -> PolicyFacts {
    let (meta, spec) = validated::<TrafficPolicySpec>(object, cluster);
    PolicyFacts { meta, spec }
}
