//! Translates SMI objects and TrafficPolicies. It never fails: an error in an object becomes a part of its fact.

use crds::smi::{
    HttpRouteGroupSpec, IdentityBindingSpec, TcpRouteSpec, TrafficSplitSpec, TrafficTargetSpec,
    UdpRouteSpec,
    validation::{self, Cluster, Validate},
};
use crds::weft::TrafficPolicySpec;
use kube::core::DynamicObject;

use super::metadata::{created, text};
use crate::world::{
    BindingFacts, GroupFacts, Meta, PolicyFacts, SplitFacts, TargetFacts, TcpRouteFacts,
    UdpRouteFacts,
};

/// Validates the object. Its status is what Weft itself has written, and decides nothing.
pub(super) fn validated<S: Validate>(
    object: &DynamicObject,
    cluster: &Cluster,
) -> (Meta, S::Validated) {
    let metadata = &object.metadata;
    let at = cluster.around(metadata.namespace.as_deref().unwrap_or_default());
    let (spec, mistakes) = validation::spec::<S>(object.data.get("spec"), &at);
    let meta = Meta {
        generation: metadata.generation.unwrap_or(0),
        created: created(metadata),
        uid: text(metadata.uid.as_deref()),
        mistakes,
    };
    (meta, spec)
}

/// A TrafficPolicy.
pub fn traffic_policy(object: &DynamicObject, cluster: &Cluster) -> PolicyFacts {
    let (meta, spec) = validated::<TrafficPolicySpec>(object, cluster);
    PolicyFacts { meta, spec }
}

/// A TrafficTarget.
pub fn target(object: &DynamicObject, cluster: &Cluster) -> TargetFacts {
    let (meta, spec) = validated::<TrafficTargetSpec>(object, cluster);
    TargetFacts { meta, spec }
}

/// A TrafficSplit.
pub fn split(object: &DynamicObject, cluster: &Cluster) -> SplitFacts {
    let (meta, spec) = validated::<TrafficSplitSpec>(object, cluster);
    SplitFacts { meta, spec }
}

/// An HTTPRouteGroup.
pub fn group(object: &DynamicObject, cluster: &Cluster) -> GroupFacts {
    let (meta, spec) = validated::<HttpRouteGroupSpec>(object, cluster);
    GroupFacts { meta, spec }
}

/// A TCPRoute.
pub fn tcp_route(object: &DynamicObject, cluster: &Cluster) -> TcpRouteFacts {
    let (meta, ports) = validated::<TcpRouteSpec>(object, cluster);
    TcpRouteFacts { meta, ports }
}

/// A UDPRoute.
pub fn udp_route(object: &DynamicObject, cluster: &Cluster) -> UdpRouteFacts {
    let (meta, ports) = validated::<UdpRouteSpec>(object, cluster);
    UdpRouteFacts { meta, ports }
}

/// An IdentityBinding.
pub fn binding(object: &DynamicObject, cluster: &Cluster) -> BindingFacts {
    let (meta, spec) = validated::<IdentityBindingSpec>(object, cluster);
    BindingFacts { meta, spec }
}
