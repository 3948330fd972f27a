//! Facts of Kubernetes' own kinds, such as pods, Services and EndpointSlices.
//!
//! Claims: observe-44

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crds::label_syntax::is_object_name;
use ipnet::IpNet;
use policy::protocol::PortRange;
use policy::traffic::endpoint::Locality;

use super::{fact::Fact, key::ObjectKey};

/// Kinds whose objects own pods, or own what does, each with its group and version. Others have
/// kinds of the same names in groups of their own, which are none of these.
const WORKLOADS: [(&str, &str); 8] = [
    ("CronJob", "batch/v1"),
    ("DaemonSet", "apps/v1"),
    ("Deployment", "apps/v1"),
    ("Job", "batch/v1"),
    ("ReplicaSet", "apps/v1"),
    ("ReplicationController", "v1"),
    // Of Argo.
    ("Rollout", "argoproj.io/v1alpha1"),
    ("StatefulSet", "apps/v1"),
];

/// Group and version of a kind whose objects own pods, or own what does.
pub fn workload_version(kind: &str) -> Option<&'static str> {
    let mut known = WORKLOADS.iter();
    known.find(|known| known.0 == kind).map(|known| known.1)
}

/// The mesh's settings that a pod, Service or namespace may carry as annotations,
/// already split from the rest. Values are kept as written: what they mean, and
/// whether they mean anything, is decided in `compile`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// `weft.dev/access`.
    pub access: Option<Arc<str>>,
    /// `weft.dev/mtls`.
    pub mtls: Option<Arc<str>>,
    /// `weft.dev/egress`.
    pub egress: Option<Arc<str>>,
    /// `weft.dev/permissive-ports`.
    pub permissive_ports: Option<Arc<str>>,
    /// `weft.dev/opaque-ports`.
    pub opaque_ports: Option<Arc<str>>,
    /// `weft.dev/log-level`.
    pub log_level: Option<Arc<str>>,
    /// `weft.dev/access-log`.
    pub access_log: Option<Arc<str>>,
    /// `weft.dev/trace-sampling`.
    pub trace_sampling: Option<Arc<str>>,
    /// `resource.opentelemetry.io/service.name`.
    pub service_name: Option<Arc<str>>,
    /// `resource.opentelemetry.io/service.namespace`.
    pub service_namespace: Option<Arc<str>>,
    /// `weft.dev/faults`, which means something on a namespace only.
    pub faults: Option<Arc<str>>,
    /// `weft.dev/inject`, which means something as a label only.
    pub inject: Option<Arc<str>>,
}

/// The proxy that a pod carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `weft.dev/proxy-version`.
    pub version: Arc<str>,
    /// Whether its container runs now. A pod counts as meshed either way: its
    /// traffic is captured from the start, so plaintext would not get through.
    pub running: bool,
    /// It is the pod's application itself: a Gateway, beside which there is no other.
    pub is_gateway: bool,
    /// Ports that traffic capture leaves alone, read from the init container's
    /// own arguments: the annotation may have been edited since.
    pub skip_inbound_ports: Vec<PortRange>,
    /// Ports, and nets, to which its application's calls are not captured; the same.
    pub skip_outbound_ports: Vec<PortRange>,
    /// Nets.
    pub skip_outbound_nets: Vec<IpNet>,
}

/// The controlling owner of an object, in its own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Group and version.
    pub api_version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Owner {
    /// Its kind, if that is one of which is known what its objects own, and one of them may have
    /// this name: the API server takes any name of an owner, of any length.
    pub fn known_kind(&self) -> Option<&'static str> {
        let mut known = WORKLOADS.iter();
        let known = known.find(|known| **known == (&*self.kind, &*self.api_version))?;
        is_object_name(&self.name).then_some(known.0)
    }

    /// The group of its kind; empty for Kubernetes' first ones.
    pub fn group(&self) -> &str {
        let versioned = self.api_version.split_once('/');
        versioned.map_or("", |(group, _)| group)
    }
}

/// The readiness gate `weft.dev/released` of a pod, and what it holds back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// All containers are ready and the pod's other gates are open, so nothing but this one keeps
    /// the pod from being ready.
    pub containers_ready: bool,
    /// Since when, in seconds since 1970 by the clock of its node; 0 where they are not.
    pub ready_since: u64,
    /// The condition of the gate is true.
    pub released: bool,
    /// Restarts of all its containers together.
    pub restarts: u32,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Unique id of this incarnation.
    pub uid: Arc<str>,
    /// Addresses of both families.
    pub ips: Vec<IpAddr>,
    /// Whether it has ended (phase Succeeded or Failed); its addresses are free then.
    pub ended: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Service account; never empty.
    pub service_account: Arc<str>,
    /// Node it runs on, empty before scheduling.
    pub node: Arc<str>,
    /// Shares its node's addresses.
    pub host_network: bool,
    /// Since when it is ready, in seconds since 1970 by the clock of its node; 0 where it is
    /// not.
    pub ready_since: u64,
    /// It says itself that it is not ready. One without any statement is not this.
    pub unready: bool,
    /// Present where the pod has the readiness gate of releases.
    pub gate: Option<Gate>,
    /// What made it, if anything.
    pub owner: Option<Owner>,
    /// Labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// TCP ports that containers declare, by number; the name may be empty.
    pub ports: BTreeMap<u16, Arc<str>>,
    /// The mesh's annotations.
    pub annotations: Annotations,
    /// Present when the pod carries a proxy.
    pub proxy: Option<Proxy>,
    /// Creation time in seconds since 1970; decides which was first.
    pub created: i64,
}

impl PodFacts {
    /// Whether it has the gate of releases, and all its containers are ready.
    pub fn serves_gated(&self) -> bool {
        self.gate.is_some_and(|gate| gate.containers_ready)
    }
}

impl Fact for PodFacts {
    fn urgent(old: Option<&Self>, new: Option<&Self>) -> bool {
        let Some(old) = old else { return false };
        new.is_none_or(|new| {
            // Labels may decide the identity of a pod for others.
            new.annotations != old.annotations
                || new.labels != old.labels
                // One that was never ready is in no list.
                || (new.unready && old.ready_since > 0)
                || (old.serves_gated() && !new.serves_gated())
                || (new.terminating && !old.terminating)
                || (new.ended && !old.ended)
        })
    }
}

/// A TCP port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty only on a Service with one port.
    pub name: Arc<str>,
    /// Number.
    pub number: u16,
    /// `targetPort` as written; empty means the same number.
    pub target: Arc<str>,
    /// `appProtocol`.
    pub app_protocol: Option<Arc<str>>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Unique id.
    pub uid: Arc<str>,
    /// Cluster addresses of both families; empty when headless or ExternalName.
    pub cluster_ips: Vec<IpAddr>,
    /// External addresses, and those of load balancers that the nodes answer for.
    pub outer_ips: Vec<IpAddr>,
    /// TCP ports in order of declaration.
    pub ports: Vec<ServicePort>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// Present for type ExternalName.
    pub external_name: Option<Arc<str>>,
    /// Whether Kubernetes finds its endpoints by label.
    pub has_selector: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// Seconds of ClientIP affinity; 0 for none.
    pub affinity_seconds: u32,
    /// `trafficDistribution`: where callers prefer to go.
    pub locality: Locality,
    /// Publish endpoints that are not ready.
    pub publish_not_ready: bool,
    /// The mesh's annotations.
    pub annotations: Annotations,
    /// `weft.dev/routes`, as written.
    pub routes: Option<Arc<str>>,
    /// Creation time in seconds since 1970; decides which was first.
    pub created: i64,
    /// Generation, 0 where Kubernetes keeps none.
    pub generation: i64,
}

impl Fact for ServiceFacts {}

/// A port of an EndpointSlice: the number holds for every address in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port.
    pub name: Arc<str>,
    /// Number at the endpoints.
    pub number: u16,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFacts {
    /// Address. Slices carry one that counts.
    pub ip: IpAddr,
    /// Takes new traffic.
    pub ready: bool,
    /// Would answer even if it is terminating.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
    /// Pod that the slice claims is behind the address (namespace, name).
    pub pod: Option<ObjectKey>,
    /// Kubernetes itself keeps the slice, so the endpoint is ready only where its pod is. Another
    /// writer may mean something of its own by it.
    pub follows_pod: bool,
    /// Zone, may be empty.
    pub zone: Arc<str>,
    /// Node, may be empty.
    pub node: Arc<str>,
    /// The zones or nodes that it is meant for, where its slice names them.
    pub hints: Option<Arc<TopologyHints>>,
    /// It has a hostname of its own, by which DNS distinguishes it from the others.
    pub named: bool,
}

/// Whose callers an endpoint is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyHints {
    /// `forZones`.
    pub zones: Vec<Arc<str>>,
    /// `forNodes`.
    pub nodes: Vec<Arc<str>>,
}

/// An EndpointSlice with TCP ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceFacts {
    /// Name of the Service it belongs to, in its own namespace.
    pub service: Arc<str>,
    /// TCP ports.
    pub ports: Vec<SlicePort>,
    /// Endpoints.
    pub endpoints: Vec<EndpointFacts>,
}

impl Fact for SliceFacts {
    fn urgent(old: Option<&Self>, new: Option<&Self>) -> bool {
        let ready = |slice: &Self, ip| slice.endpoints.iter().any(|e| e.ip == ip && e.ready);
        let Some(old) = old else { return false };
        let mut were_ready = old.endpoints.iter().filter(|endpoint| endpoint.ready);
        were_ready.any(|endpoint| new.is_none_or(|new| !ready(new, endpoint.ip)))
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// Unique id.
    pub uid: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// The mesh's annotations.
    pub annotations: Annotations,
    /// Being deleted.
    pub terminating: bool,
}

impl Fact for NamespaceFacts {
    fn urgent(old: Option<&Self>, new: Option<&Self>) -> bool {
        old.map(|namespace| &namespace.annotations) != new.map(|namespace| &namespace.annotations)
    }
}

/// A service account. That it is there is all that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccountFacts;

impl Fact for ServiceAccountFacts {}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `topology.kubernetes.io/zone`, may be empty.
    pub zone: Arc<str>,
    /// Internal and external addresses.
    pub ips: Vec<IpAddr>,
}

impl Fact for NodeFacts {}

impl Proxy {
    /// Whether traffic to this port reaches the application past the proxy.
    pub fn skips(&self, port: u16) -> bool {
        self.skip_inbound_ports
            .iter()
            .any(|range| range.contains(port))
    }

    /// Whether what the application sends there leaves past the proxy.
    pub fn leaves_out(&self, mut to: impl Iterator<Item = IpAddr>, port: u16) -> bool {
        let net = |ip: IpAddr| self.skip_outbound_nets.iter().any(|net| net.contains(&ip));
        let mut ports = self.skip_outbound_ports.iter();
        ports.any(|range| range.contains(port)) || to.any(net)
    }
}

/// What tests keep of a ConfigMap.
#[cfg(any(test, feature = "fixtures"))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMapFacts {
    /// How many entries it has.
    pub entries: usize,
}

#[cfg(any(test, feature = "fixtures"))]
impl Fact for ConfigMapFacts {}
