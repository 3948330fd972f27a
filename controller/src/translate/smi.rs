//! SMI objects. Never fails: what is wrong with one becomes a fact that says so.

use crds::smi::{
    HttpRouteGroupSpec, IdentityBindingSpec, TcpRouteSpec, TrafficSplitSpec, TrafficTargetSpec,
    UdpRouteSpec,
    judge::{self, Judge, Surroundings},
};
use kube::core::DynamicObject;

use super::metadata::{created, text};
use crate::world::{
    BindingFacts, GroupFacts, Meta, SplitFacts, TargetFacts, TcpRouteFacts, UdpRouteFacts,
};

/// Judges the object. Its status is what Weft itself has written, and decides nothing.
fn judged<S: Judge>(object: &DynamicObject, cluster_domain: &str) -> (Meta, S::Judged) {
    let metadata = &object.metadata;
    let at = Surroundings {
        namespace: metadata.namespace.as_deref().unwrap_or_default(),
        cluster_domain,
    };
    let (spec, mistakes) = judge::spec::<S>(object.data.get("spec"), &at);
    let meta = Meta {
        generation: metadata.generation.unwrap_or(0),
        created: created(metadata),
        uid: text(metadata.uid.as_deref()),
        mistakes,
    };
    (meta, spec)
}

/// A TrafficTarget.
pub fn target(object: &DynamicObject, cluster_domain: &str) -> TargetFacts {
    let (meta, spec) = judged::<TrafficTargetSpec>(object, cluster_domain);
    TargetFacts { meta, spec }
}

/// A TrafficSplit.
pub fn split(object: &DynamicObject, cluster_domain: &str) -> SplitFacts {
    let (meta, spec) = judged::<TrafficSplitSpec>(object, cluster_domain);
    SplitFacts { meta, spec }
}

/// An HTTPRouteGroup.
pub fn group(object: &DynamicObject, cluster_domain: &str) -> GroupFacts {
    let (meta, spec) = judged::<HttpRouteGroupSpec>(object, cluster_domain);
    GroupFacts { meta, spec }
}

/// A TCPRoute.
pub fn tcp_route(object: &DynamicObject, cluster_domain: &str) -> TcpRouteFacts {
    let (meta, ports) = judged::<TcpRouteSpec>(object, cluster_domain);
    TcpRouteFacts { meta, ports }
}

/// A UDPRoute.
pub fn udp_route(object: &DynamicObject, cluster_domain: &str) -> UdpRouteFacts {
    let (meta, ports) = judged::<UdpRouteSpec>(object, cluster_domain);
    UdpRouteFacts { meta, ports }
}

/// An IdentityBinding.
pub fn binding(object: &DynamicObject, cluster_domain: &str) -> BindingFacts {
    let (meta, spec) = judged::<IdentityBindingSpec>(object, cluster_domain);
    BindingFacts { meta, spec }
}
