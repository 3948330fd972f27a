//! The Model: every resource that any proxy may request, and what each proxy needs.
//!
//! A Model is made from a World in one go (`compile`) and never changes. Resources are encoded at
//! the first request and then shared, so the cost of a Model grows with what proxies use and not
//! with what the cluster holds.
//!
//! Invariant: the same World gives the same bytes, whatever happened before.
//!
//! May import `problem` and `world`, and never what makes it (`compile`) or reads it.

pub mod bindings;
pub mod changes;
pub mod compiled;
mod defaults;
mod dependents;
pub(crate) mod external;
pub(crate) mod externals;
pub mod faults;
mod gateway_pods;
pub(crate) mod gateways;
pub mod modes;
mod need;
pub(crate) mod peers;
pub mod protocols;
pub mod published;
mod release_sets;
mod releases;
pub mod revoked;
pub(crate) mod route_names;
mod routes;
mod service_ports;
pub(crate) mod service_routes;
mod targets;
pub(crate) mod telemetry;
pub(crate) mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use policy::{
    mode::{AccessMode, Enforcement},
    name::{ObjectRef, SpiffeId},
    protocol::Protocol,
    route::Match,
};

pub use self::defaults::Defaults;
pub use self::peers::owner_above;
pub(crate) use self::published::EncodedResource;
pub(crate) use self::releases::{CandidateShare, ReleasedPods, Releases};
pub(crate) use self::service_ports::{Served, by_say, has_say, has_shared_port};
pub(crate) use self::service_routes::Audience;
pub use self::targets::Target;
pub(crate) use self::targets::{Mapped, TargetRule, Targets};
use self::{
    bindings::Bindings,
    externals::Externals,
    gateways::Gateways,
    published::SharedResources,
    revoked::{EndedBy, RevocationSet},
    route_names::RouteNames,
    service_routes::ServiceRoutes,
    traffic::{Guard, Policies},
};
use crate::world::{ObjectKey, PodFacts, ServiceFacts, TopologyHints, World};

/// Namespace and name of a pod.
pub type PodId = ObjectKey;

/// The facts about a pod that serving it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRecord {
    /// Unique id, as the pod's certificate carries it.
    pub uid: Arc<str>,
    /// Service account.
    pub service_account: Arc<str>,
    /// Node, for Services with local traffic policy.
    pub node: Arc<str>,
    /// Whether it carries a proxy.
    pub meshed: bool,
    /// Whether its proxy runs now.
    pub proxy_running: bool,
    /// Whether it has ended.
    pub ended: bool,
}

/// See the module header. Cloning costs one reference.
#[derive(Clone, Debug)]
pub struct Model {
    pub index: Arc<Index>,
}

impl Model {
    /// What is known about a pod; `None` if there is no such pod.
    pub fn pod(&self, pod: &PodId) -> Option<PodRecord> {
        let facts = self.index.world.pods.get(pod)?;
        Some(PodRecord {
            uid: facts.uid.clone(),
            service_account: facts.service_account.clone(),
            node: facts.node.clone(),
            meshed: facts.proxy.is_some(),
            proxy_running: facts.proxy.as_ref().is_some_and(|proxy| proxy.running),
            ended: facts.ended,
        })
    }

    /// The pods that carry a proxy.
    pub fn meshed_pods(&self) -> impl Iterator<Item = &PodId> {
        let pods = self.index.world.pods.iter();
        pods.filter(|(_, facts)| facts.proxy.is_some() && !facts.ended)
            .map(|(id, _)| id)
    }

    /// The access mode in force for a pod; `None` if there is no such pod.
    pub fn access_mode(&self, pod: &PodId) -> Option<AccessMode> {
        let facts = self.index.world.pods.get(pod)?;
        let namespace = self.index.world.namespace(&pod.namespace);
        let mode = modes::access(&self.index.defaults, namespace, &facts.annotations);
        Some(mode)
    }

    /// Pods with a proxy that some TrafficTarget closes in mode auto.
    pub fn protected_pods(&self) -> BTreeSet<PodId> {
        let pods = self.index.world.pods.iter();
        pods.filter(|(_, facts)| facts.proxy.is_some() && !facts.ended)
            .filter(|(pod, facts)| {
                let mut targets = self.index.targets.of(pod, facts);
                targets.any(|target| target.protects)
            })
            .map(|(pod, _)| pod.clone())
            .collect()
    }

    /// Whether the TrafficTargets are the very same as in `before`.
    pub fn has_targets_of(&self, before: &Self) -> bool {
        Arc::ptr_eq(&self.index.targets, &before.index.targets)
    }

    /// How many inbound ports reach applications past their proxies, by namespace: ports that
    /// traffic capture leaves alone, added up over pods. Namespaces without any are skipped.
    pub fn skipped_ports(&self) -> BTreeMap<Arc<str>, u64> {
        let mut skipped: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        let pods = self.index.world.pods.iter();
        for (pod, facts) in pods.filter(|(_, facts)| !facts.ended) {
            // A Gateway has no application behind it.
            let proxies = facts.proxy.iter().filter(|proxy| !proxy.is_gateway);
            let ranges = proxies.flat_map(|proxy| &proxy.skip_inbound_ports);
            let ports: u64 = ranges
                .map(|range| u64::from(range.last()) - u64::from(range.first()) + 1)
                .sum();
            if ports > 0 {
                *skipped.entry(pod.namespace.clone()).or_default() += ports;
            }
        }
        skipped
    }
}

/// Everything that compiling worked out.
/// Parts are shared with the Index before where nothing changed.
#[derive(Debug)]
pub struct Index {
    pub world: World,
    pub defaults: Defaults,
    /// Pods by address, without those that share their node's.
    pub pods_by_ip: Arc<HashMap<IpAddr, ObjectKey>>,
    /// Services by cluster address.
    pub services_by_ip: Arc<HashMap<IpAddr, ObjectKey>>,
    /// Services by external or load balancer address and port.
    pub services_by_outer: Arc<HashMap<(IpAddr, u16), ObjectKey>>,
    /// Addresses of nodes, and of the API server, which often runs beside them.
    pub(crate) machine_ips: Arc<HashSet<IpAddr>>,
    pub services: BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    pub pods: Arc<BTreeMap<ObjectKey, Arc<PodEntry>>>,
    pub targets: Arc<Targets>,
    pub bindings: Arc<Bindings>,
    pub policies: Arc<Policies>,
    pub names: Arc<RouteNames>,
    pub releases: Arc<Releases>,
    pub(crate) externals: Arc<Externals>,
    /// Whose certificates are refused.
    pub revocations: Arc<RevocationSet>,
    pub(crate) gateways: Arc<Gateways>,
    /// Which pods and callers each object concerns, computed at the first query.
    pub(crate) dependents: Arc<OnceLock<dependents::DependentsByObject>>,
    /// Pods with a running proxy by account, computed at the first query.
    pub(crate) running: Arc<OnceLock<dependents::Running>>,
    /// The same by workload.
    pub(crate) peers: Arc<OnceLock<peers::Peers>>,
    /// What is encoded at the first request, and the same for all requests.
    pub shared: Arc<SharedResources>,
}

/// A Service and what its ports lead to.
#[derive(Debug)]
pub struct ServiceEntry {
    pub facts: Arc<ServiceFacts>,
    pub ports: BTreeMap<u16, PortEntry>,
    /// In order of precedence.
    pub splits: Vec<Split>,
    /// Routes of the Gateway API, which decide before splits.
    pub(crate) routes: Option<Arc<ServiceRoutes>>,
    /// Where a release shares its calls out: see [`Index::backend`].
    pub(crate) sets: Option<Box<Sets>>,
}

/// The two sets of a Service.
#[derive(Debug)]
pub(crate) struct Sets {
    pub(crate) stable: Arc<ServiceEntry>,
    pub(crate) candidate: Arc<ServiceEntry>,
}

/// One port of a Service.
#[derive(Debug)]
pub struct PortEntry {
    pub protocol: Protocol,
    pub candidates: Vec<EndpointState>,
    /// With its splits.
    pub(crate) service: OnceLock<Arc<EncodedResource>>,
    /// With its routes, by the namespace whose callers get it; empty for everyone. Each is encoded
    /// at its first query: many namespaces may have routes, and few of them call.
    pub(crate) routed: OnceLock<BTreeMap<Arc<str>, OnceLock<Arc<EncodedResource>>>>,
    /// By node for a Service with local traffic policy; else only under "".
    pub(crate) endpoints: OnceLock<BTreeMap<Arc<str>, Arc<EncodedResource>>>,
    /// What a node without endpoints of a local Service gets.
    pub(crate) nothing: OnceLock<Arc<EncodedResource>>,
}

/// Where a port is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
    /// See [`identity_at`].
    pub identity: String,
    /// The pod behind the address, if any.
    pub pod: Option<ObjectKey>,
    /// Uid of that pod; empty without one.
    pub pod_uid: Arc<str>,
    pub(crate) zone: String,
    /// Since when it is ready, in seconds since 1970; 0 where no condition has it.
    pub(crate) ready_since: u64,
    /// Whether bytes are relayed without looking at them.
    pub(crate) opaque: bool,
}

/// An endpoint that may be published, depending on the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointState {
    pub endpoint: Endpoint,
    pub node: Arc<str>,
    pub ready: bool,
    /// Not ready, but would answer while it terminates.
    pub(crate) last_resort: bool,
    /// Whose callers it is meant for.
    pub(crate) hints: Option<Arc<TopologyHints>>,
    /// It has a hostname of its own.
    pub named: bool,
    /// Its pod has the gate of releases and would be ready without: since when, in seconds since
    /// 1970, or 0.
    pub(crate) gated: Option<u64>,
}

/// What is known about a pod beyond its facts.
#[derive(Debug, Default)]
pub struct PodEntry {
    /// Protocols that Services declare for its ports; `Detect` is HTTP beside TLS.
    pub(crate) declared: BTreeMap<u16, Protocol>,
    /// Headless Services that it serves: own port, Service, Service port.
    pub(crate) headless: Vec<(u16, ObjectKey, u16)>,
    /// Services of its own namespace that it serves.
    pub serves: Vec<Served>,
    /// Those of other namespaces that lead to it all the same. They have no say over it.
    pub elsewhere: Vec<Served>,
    pub(crate) workload: OnceLock<Vec<Arc<EncodedResource>>>,
    /// What policies say of requests to it.
    pub(crate) guard: OnceLock<Option<Guard>>,
    /// The same, encoded.
    pub(crate) guard_resource: OnceLock<Option<Arc<EncodedResource>>>,
    /// How requests to it are named.
    pub(crate) routes: OnceLock<Option<Arc<EncodedResource>>>,
}

/// A TrafficSplit or a rule of a CanaryRelease that is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    pub origin: ObjectRef,
    /// The split and the groups that it refers to.
    pub origins: Vec<(ObjectRef, i64)>,
    pub created: i64,
    pub(crate) when: Match,
    /// Without repetition, in the order of the object. The weights of a release's sets follow
    /// from the pods that serve, for each port.
    pub backends: Vec<(ObjectKey, u32)>,
    /// Of a release.
    pub(crate) release: Option<CandidateShare>,
}

impl PortEntry {
    pub(crate) const fn new(protocol: Protocol, candidates: Vec<EndpointState>) -> Self {
        Self {
            protocol,
            candidates,
            service: OnceLock::new(),
            routed: OnceLock::new(),
            endpoints: OnceLock::new(),
            nothing: OnceLock::new(),
        }
    }
}

impl PodEntry {
    /// All that leads to it, whether or not it has a say over it.
    pub fn led_to_by(&self) -> impl Iterator<Item = &Served> {
        self.serves.iter().chain(&self.elsewhere)
    }

    /// Whether the same leads to both.
    pub(crate) fn serves_same(&self, other: &Self) -> bool {
        self.serves == other.serves && self.elsewhere == other.elsewhere
    }
}

impl Index {
    /// SPIFFE id of a pod.
    pub fn identity(&self, pod: &ObjectKey, facts: &PodFacts) -> String {
        identity(&self.defaults, pod, facts)
    }

    /// What revokes a pod for good.
    pub(crate) fn ended_by(&self, pod: &ObjectKey) -> Option<EndedBy> {
        let facts = self.world.pods.get(pod)?;
        if !self.revocations.has_ended(&facts.uid) {
            return None;
        }
        let id = self.identity(pod, facts);
        let id = SpiffeId::try_from(id.as_str()).ok()?;
        self.revocations.ended_by(&id, Some((pod, &**facts)))
    }

    /// The HTTPRouteGroups after which requests to a pod that serves these are named.
    pub fn route_groups(
        &self,
        pod: &ObjectKey,
        facts: &PodFacts,
        serves: &[Served],
    ) -> BTreeSet<ObjectKey> {
        let targets = self.targets.of(pod, facts);
        self.names.groups_of(serves, targets)
    }

    /// What the proxy of a pod with these targets does about refusals.
    pub fn enforcement(
        &self,
        key: &ObjectKey,
        facts: &PodFacts,
        targets: &[&Target],
    ) -> Enforcement {
        let namespace = self.world.namespace(&key.namespace);
        let access = modes::access(&self.defaults, namespace, &facts.annotations);
        let protected = targets.iter().any(|target| target.protects);
        access.enforcement(protected)
    }
}

/// SPIFFE id of a pod.
pub(crate) fn identity(defaults: &Defaults, pod: &ObjectKey, facts: &PodFacts) -> String {
    let account = &facts.service_account;
    format!(
        "spiffe://{}/ns/{}/sa/{account}",
        defaults.trust_domain, pod.namespace
    )
}

/// Whether what comes to a port of a pod passes its proxy. What comes to the proxy's own
/// admin port does not: capture leaves it alone, so a scrape by a meshed Prometheus reaches
/// it directly or not at all.
pub(crate) fn passes_proxy(facts: &PodFacts, port: u16) -> bool {
    let proxy = facts.proxy.as_ref();
    proxy.is_some_and(|proxy| port != policy::well_known::ADMIN_PORT && !proxy.skips(port))
}

/// The identity to expect at a port of a pod: empty when it speaks plaintext there, since
/// that passes no proxy.
pub(crate) fn identity_at(
    defaults: &Defaults,
    pod: &ObjectKey,
    facts: &PodFacts,
    port: u16,
) -> String {
    if passes_proxy(facts, port) {
        identity(defaults, pod, facts)
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests;
