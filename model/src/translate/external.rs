//! Translates objects of kind ExternalService.

use crds::smi::validation::Cluster;
use crds::weft::ExternalServiceSpec;
use kube::core::DynamicObject;

use super::smi::validated;
use crate::world::ExternalFacts;

/// An ExternalService.
pub fn external_service(object: &DynamicObject, cluster: &Cluster) -> ExternalFacts {
    let (meta, spec) = validated::<ExternalServiceSpec>(object, cluster);
    ExternalFacts { meta, spec }
}
