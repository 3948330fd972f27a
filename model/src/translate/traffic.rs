//! Translates TrafficPolicies. It never fails: an error in a policy becomes a part of its fact.

use crds::{smi::validation::Cluster, weft::TrafficPolicySpec};
use kube::core::DynamicObject;

use super::smi::validated;
use crate::world::PolicyFacts;

/// A TrafficPolicy.
pub fn traffic_policy(object: &DynamicObject, cluster: &Cluster) -> PolicyFacts {
    let (meta, spec) = validated::<TrafficPolicySpec>(object, cluster);
    PolicyFacts { meta, spec }
}
