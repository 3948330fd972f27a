//! Everything the controller knows about the cluster, as one immutable value.
//!
//! Each fact is a small struct of our own, trimmed to what compiling needs, so
//! that ten thousand pods cost megabytes and not their full manifests, and so
//! that a pod whose status only ticks does not look changed.
//!
//! Taking a snapshot costs one reference per store: the maps sit behind `Arc`
//! and are copied only when they change while an older World is still in use.
//!
//! May import nothing else of this crate.

mod facts;
mod key;
mod smi;

use std::{collections::BTreeMap, sync::Arc};

pub use facts::{
    Appearance, EndpointFacts, NamespaceFacts, NodeFacts, Owner, PodFacts, Proxy, ServiceFacts,
    ServicePort, SliceFacts, SlicePort,
};
pub use key::ObjectKey;
pub(crate) use key::{named, object, origin};
pub use smi::{
    BindingFacts, GroupFacts, Meta, SplitFacts, TargetFacts, TcpRouteFacts, UdpRouteFacts,
};

/// One kind's facts by name.
pub type Store<T> = Arc<BTreeMap<ObjectKey, Arc<T>>>;

/// What was true of the cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// Pods.
    pub pods: Store<PodFacts>,
    /// Services.
    pub services: Store<ServiceFacts>,
    /// EndpointSlices of both address families.
    pub slices: Store<SliceFacts>,
    /// Namespaces; the key's namespace is empty.
    pub namespaces: Store<NamespaceFacts>,
    /// Nodes; the key's namespace is empty.
    pub nodes: Store<NodeFacts>,
    /// TrafficTargets.
    pub targets: Store<TargetFacts>,
    /// TrafficSplits.
    pub splits: Store<SplitFacts>,
    /// HTTPRouteGroups.
    pub groups: Store<GroupFacts>,
    /// TCPRoutes.
    pub tcp_routes: Store<TcpRouteFacts>,
    /// UDPRoutes.
    pub udp_routes: Store<UdpRouteFacts>,
    /// IdentityBindings.
    pub bindings: Store<BindingFacts>,
}

impl World {
    /// Facts of a namespace, if it exists.
    pub fn namespace(&self, name: &str) -> Option<&NamespaceFacts> {
        self.namespaces
            .get(&ObjectKey::new("", name))
            .map(Arc::as_ref)
    }

    /// Zone of a node; empty when the node or its zone is unknown.
    pub fn zone(&self, node: &str) -> &str {
        self.nodes
            .get(&ObjectKey::new("", node))
            .map_or("", |node| node.zone.as_ref())
    }
}
