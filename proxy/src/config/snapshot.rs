//! What the proxy knows, as one immutable value.
//!
//! A batch from the controller makes a new snapshot out of the old one. A
//! resource that cannot be used is refused with a reason, and what it would
//! have replaced stays: a bad change never takes down more than itself, and
//! never allows more than before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use policy::access::{Access, Ports, Rule};
use policy::mode::{Enforcement, MtlsMode};
use policy::name::{ServiceId, SpiffeId};
use policy::protocol::Protocol;
use policy::split::{Backend, Split};
use prost::Message as _;
use wire::v1;

use crate::endpoints::registry::{Affinity, Endpoint, EndpointSet, Registry};

/// What stands at an address.
#[derive(Debug)]
pub enum Destination {
    /// Name of a service resource.
    Service(Arc<str>),
    Pod(PodTarget),
    /// Outside the mesh.
    External,
    /// The Service has no such port.
    Refused(String),
}

#[derive(Debug)]
pub struct PodTarget {
    pub endpoint: Arc<Endpoint>,
    pub protocol: Protocol,
    /// Service resources that mean this pod when the request names a host.
    pub headless: Vec<(Vec<String>, Arc<str>)>,
}

#[derive(Debug)]
pub struct Service {
    pub id: ServiceId,
    /// `namespace/name`, for metrics.
    pub label: Arc<str>,
    pub port: u16,
    pub protocol: Protocol,
    /// Session affinity, if the Service asks for it.
    pub affinity: Option<Arc<Affinity>>,
    pub splits: Vec<Split>,
    /// How each of [`Self::splits`] and its backends are called where calls are counted.
    pub split_labels: Vec<SplitLabels>,
    /// Name of the endpoints resource of the Service itself.
    pub endpoints: Arc<str>,
}

impl Service {
    /// `namespace/name` of one of [`Self::splits`] and of one of its backends.
    #[must_use]
    pub fn labels(&self, split: &Split, backend: &Backend) -> (Arc<str>, Arc<str>) {
        let at = self.splits.iter().position(|one| std::ptr::eq(one, split));
        let Some(labels) = at.and_then(|at| self.split_labels.get(at)) else {
            return Default::default();
        };
        let at = split
            .backends
            .iter()
            .position(|one| std::ptr::eq(one, backend));
        let backend = at.and_then(|at| labels.backends.get(at));
        (
            Arc::clone(&labels.split),
            backend.map(Arc::clone).unwrap_or_default(),
        )
    }
}

/// `namespace/name` of a split, and of each of its backends in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitLabels {
    split: Arc<str>,
    backends: Vec<Arc<str>>,
}

impl SplitLabels {
    fn of(split: &Split) -> Self {
        Self {
            split: format!("{}/{}", split.origin.namespace, split.origin.name).into(),
            backends: split
                .backends
                .iter()
                .map(|backend| backend.service.to_string().into())
                .collect(),
        }
    }
}

/// What the controller says of the proxy's own pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub identity: SpiffeId,
    pub enforcement: Enforcement,
    pub mtls: MtlsMode,
    pub ports: Vec<(u16, u16, Protocol)>,
    pub zone: String,
}

impl Workload {
    #[must_use]
    pub fn protocol(&self, port: u16) -> Protocol {
        self.ports
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&port))
            .map_or(Protocol::Detect, |(_, _, protocol)| *protocol)
    }
}

/// Everything that a connection or request asks for its decisions.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub workload: Option<Arc<Workload>>,
    pub access: Arc<Access>,
    pub destinations: HashMap<SocketAddr, Arc<Destination>>,
    pub services: HashMap<Arc<str>, Arc<Service>>,
    pub endpoints: HashMap<Arc<str>, Arc<EndpointSet>>,
    /// DER, empty until the controller sent some.
    pub roots: Vec<Vec<u8>>,
    rules: BTreeMap<String, Rule>,
    versions: HashMap<String, Version>,
    /// Ports of the own pod that somebody declared.
    declared: Arc<BTreeSet<u16>>,
    /// Counts changes of the own policy, so that open connections look again.
    pub policy_revision: u64,
}

/// Ports of the own pod that count as declared; more are told apart only once they
/// are served.
const DECLARED_PORTS: usize = 256;
/// Longer ranges say how ports are to be treated, not which there are.
const DECLARED_RANGE: u16 = 64;

/// What is held of a resource beside its content.
#[derive(Clone, Debug)]
struct Version {
    version: String,
    /// As it came.
    bytes: usize,
}

/// Knows nothing, and allows nothing.
impl Default for Snapshot {
    fn default() -> Self {
        Self {
            workload: None,
            access: Arc::new(Access {
                enforcement: Enforcement::Enforce,
                rules: Vec::new(),
            }),
            destinations: HashMap::new(),
            services: HashMap::new(),
            endpoints: HashMap::new(),
            roots: Vec::new(),
            rules: BTreeMap::new(),
            versions: HashMap::new(),
            declared: Arc::default(),
            policy_revision: 0,
        }
    }
}

impl Snapshot {
    /// Ready to serve: the own policy is known.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.workload.is_some()
    }

    /// A pod of which nothing is known yet counts as strict.
    #[must_use]
    pub fn mtls(&self) -> MtlsMode {
        self.workload
            .as_ref()
            .map_or(MtlsMode::Strict, |workload| workload.mtls)
    }

    #[must_use]
    pub fn held(&self) -> HashMap<String, String> {
        let held = self.versions.iter();
        held.map(|(name, held)| (name.clone(), held.version.clone()))
            .collect()
    }

    /// Whether a port of the own pod was declared: by a Service, a container, an
    /// annotation or a rule.
    #[must_use]
    pub fn declares(&self, port: u16) -> bool {
        self.declared.contains(&port)
    }

    /// A meshed endpoint at this address, of whatever Service.
    #[must_use]
    pub fn meshed_at(&self, addr: SocketAddr) -> Option<&Arc<Endpoint>> {
        let sets = self.endpoints.values();
        sets.flat_map(|set| &set.endpoints)
            .find(|endpoint| endpoint.addr == addr && endpoint.meshed())
    }

    /// Bytes of what is held for the sake of an address, without what `counted` names,
    /// which grows.
    pub fn bytes_for<'a>(&'a self, addr: SocketAddr, counted: &mut HashSet<&'a str>) -> usize {
        let own = wire::names::destination(addr.ip(), addr.port());
        let mut bytes = self.versions.get(&own).map_or(0, |held| held.bytes);
        let Some(destination) = self.destinations.get(&addr) else {
            return bytes;
        };
        let mut services: Vec<&str> = Vec::new();
        match &**destination {
            Destination::Service(name) => services.push(name),
            Destination::Pod(pod) => services.extend(pod.headless.iter().map(|(_, name)| &**name)),
            Destination::External | Destination::Refused(_) => {}
        }
        let mut count = |name: &'a str| {
            if let Some((name, held)) = self.versions.get_key_value(name)
                && counted.insert(name)
            {
                bytes += held.bytes;
            }
        };
        for name in services {
            count(name);
            let Some(service) = self.services.get(name) else {
                continue;
            };
            count(&service.endpoints);
            for backend in service.splits.iter().flat_map(|split| &split.backends) {
                count(&backend.endpoints);
            }
        }
        bytes
    }

    #[must_use]
    pub fn endpoints_of(&self, name: &str) -> Option<&Arc<EndpointSet>> {
        self.endpoints.get(name)
    }

    /// The snapshot after `batch`, and what of it was refused.
    #[must_use]
    pub fn after(&self, batch: v1::Batch, registry: &Registry) -> (Self, Vec<v1::Nack>) {
        let mut next = self.clone();
        let mut nacks = Vec::new();
        let before = (next.workload.clone(), next.rules_fingerprint());
        if batch.full {
            let kept: HashSet<&str> = batch
                .unchanged
                .iter()
                .map(String::as_str)
                .chain(batch.set.iter().map(|resource| resource.name.as_str()))
                .collect();
            let gone: Vec<String> = next
                .versions
                .keys()
                .filter(|name| !kept.contains(name.as_str()))
                .cloned()
                .collect();
            for name in gone {
                next.remove(&name);
            }
        }
        for name in &batch.remove {
            next.remove(name);
        }
        for resource in batch.set {
            let (name, version) = (resource.name.clone(), resource.version.clone());
            let bytes = resource.encoded_len();
            match next.set(resource, registry) {
                Ok(()) => {
                    next.versions.insert(name, Version { version, bytes });
                }
                Err(reason) => nacks.push(v1::Nack {
                    name,
                    version,
                    reason,
                }),
            }
        }
        if before != (next.workload.clone(), next.rules_fingerprint()) {
            next.policy_revision += 1;
            next.access = Arc::new(Access {
                enforcement: next
                    .workload
                    .as_ref()
                    .map_or(Enforcement::Enforce, |workload| workload.enforcement),
                rules: next.rules.values().cloned().collect(),
            });
            next.declared = Arc::new(next.declared_ports());
        }
        next.note_meshed_services(registry);
        (next, nacks)
    }

    fn declared_ports(&self) -> BTreeSet<u16> {
        let workload = self.workload.iter().flat_map(|workload| &workload.ports);
        let ranges =
            workload.filter(|(first, last, _)| last.saturating_sub(*first) < DECLARED_RANGE);
        let rules = self.rules.values();
        let rules = rules.flat_map(|rule| rule.ports.iter().chain(&rule.limit));
        let mut ports = BTreeSet::new();
        for port in ranges
            .flat_map(|(first, last, _)| *first..=*last)
            .chain(rules.flat_map(|ports| {
                match ports {
                    Ports::Any => &[],
                    Ports::Only(ports) => ports.as_slice(),
                }
                .iter()
                .copied()
            }))
        {
            if ports.len() == DECLARED_PORTS {
                break;
            }
            ports.insert(port);
        }
        ports
    }

    /// An address of a Service is meshed when one of its endpoints is: whoever calls it
    /// in plaintext may be led there.
    fn note_meshed_services(&self, registry: &Registry) {
        for (addr, destination) in &self.destinations {
            let Destination::Service(name) = &**destination else {
                continue;
            };
            let service = self.services.get(name);
            let set = service.and_then(|service| self.endpoints.get(&service.endpoints));
            // Without endpoints nothing new is said.
            if let Some(set) = set.filter(|set| !set.endpoints.is_empty()) {
                let meshed = set.endpoints.iter().any(|endpoint| endpoint.meshed());
                registry.note_meshed(*addr, meshed);
            }
        }
    }

    fn rules_fingerprint(&self) -> Vec<(String, Option<String>)> {
        self.rules
            .keys()
            .map(|name| {
                let held = self.versions.get(name);
                (name.clone(), held.map(|held| held.version.clone()))
            })
            .collect()
    }

    fn remove(&mut self, name: &str) {
        self.versions.remove(name);
        if is_rule(name) {
            self.rules.remove(name);
        } else if let Some(addr) = address_in(name) {
            self.destinations.remove(&addr);
        } else if name.starts_with("service/") {
            self.services.remove(name);
        } else if name.starts_with("endpoints/") {
            self.endpoints.remove(name);
        }
        // The own workload and the roots are never taken away: without them
        // nothing could be decided.
    }

    fn set(&mut self, resource: v1::Resource, registry: &Registry) -> Result<(), String> {
        let name = resource.name;
        match resource
            .content
            .ok_or("the resource has a kind that this proxy does not know")?
        {
            v1::resource::Content::Bundle(bundle) => {
                if bundle.roots.is_empty() {
                    return Err("a trust bundle without roots".to_owned());
                }
                self.roots = bundle.roots;
            }
            v1::resource::Content::Workload(workload) => {
                self.workload = Some(Arc::new(workload_of(&workload)?));
            }
            v1::resource::Content::Rule(rule) | v1::resource::Content::ExtendedRule(rule) => {
                let rule = Rule::try_from(&rule).map_err(|error| error.to_string())?;
                self.rules.insert(name, rule);
            }
            v1::resource::Content::Destination(destination) => {
                let addr = address_in(&name).ok_or_else(|| format!("{name} names no address"))?;
                let destination = destination_of(destination, registry)?;
                match &destination {
                    Destination::Pod(pod) => {
                        registry.note_meshed(pod.endpoint.addr, pod.endpoint.meshed());
                    }
                    Destination::External => registry.note_meshed(addr, false),
                    // Its endpoints tell, or nothing is there.
                    Destination::Service(_) | Destination::Refused(_) => {}
                }
                self.destinations.insert(addr, Arc::new(destination));
            }
            v1::resource::Content::Service(service) => {
                let service = service_of(&name, &service, registry)?;
                self.services.insert(name.into(), Arc::new(service));
            }
            v1::resource::Content::Endpoints(endpoints) => {
                let endpoints = endpoints
                    .endpoints
                    .iter()
                    .map(|endpoint| endpoint_of(endpoint, registry))
                    .collect::<Result<Vec<_>, String>>()?;
                for endpoint in &endpoints {
                    registry.note_meshed(endpoint.addr, endpoint.meshed());
                }
                self.endpoints
                    .insert(name.into(), Arc::new(EndpointSet { endpoints }));
            }
        }
        Ok(())
    }
}

fn is_rule(name: &str) -> bool {
    use wire::names::Name;
    matches!(
        wire::names::parse(name),
        Some(Name::Rule { .. } | Name::ExtendedRule { .. })
    )
}

/// The address that a destination resource is named after.
fn address_in(name: &str) -> Option<SocketAddr> {
    match wire::names::parse(name)? {
        wire::names::Name::Destination { ip, port } => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

fn port_of(raw: u32) -> Result<u16, String> {
    u16::try_from(raw)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{raw} is no port"))
}

fn protocol_of(raw: i32) -> Protocol {
    // A protocol that a newer controller knows is found out by looking.
    v1::Protocol::try_from(raw).map_or(Protocol::Detect, Into::into)
}

fn workload_of(workload: &v1::Workload) -> Result<Workload, String> {
    let identity = SpiffeId::try_from(workload.identity.as_str())
        .map_err(|error| format!("identity: {error}"))?;
    let ports = workload
        .ports
        .iter()
        .map(|port| {
            Ok((
                port_of(port.first)?,
                port_of(port.last)?,
                protocol_of(port.protocol),
            ))
        })
        .collect::<Result<_, String>>()?;
    Ok(Workload {
        identity,
        enforcement: v1::Enforcement::try_from(workload.enforcement)
            .map_or(Enforcement::Enforce, Into::into),
        mtls: v1::MtlsMode::try_from(workload.mtls).map_or(MtlsMode::Strict, Into::into),
        ports,
        zone: workload.zone.clone(),
    })
}

fn destination_of(
    destination: v1::Destination,
    registry: &Registry,
) -> Result<Destination, String> {
    Ok(
        match destination.target.ok_or("a destination of unknown kind")? {
            v1::destination::Target::Service(name) => Destination::Service(name.into()),
            v1::destination::Target::Pod(pod) => {
                let endpoint = pod.endpoint.as_ref().ok_or("a pod without an address")?;
                Destination::Pod(PodTarget {
                    endpoint: endpoint_of(endpoint, registry)?,
                    protocol: protocol_of(pod.protocol),
                    headless: pod
                        .headless
                        .into_iter()
                        .map(|headless| (headless.hosts, headless.service.into()))
                        .collect(),
                })
            }
            v1::destination::Target::External(_) => Destination::External,
            v1::destination::Target::Refused(refused) => Destination::Refused(refused.reason),
        },
    )
}

fn service_of(name: &str, service: &v1::Service, registry: &Registry) -> Result<Service, String> {
    let splits: Vec<Split> = service
        .splits
        .iter()
        .map(|split| Split::try_from(split).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    Ok(Service {
        id: ServiceId {
            namespace: service.namespace.as_str().into(),
            name: service.name.as_str().into(),
        },
        label: format!("{}/{}", service.namespace, service.name).into(),
        port: port_of(service.port)?,
        protocol: protocol_of(service.protocol),
        affinity: registry.affinity(name, service.affinity_seconds),
        split_labels: splits.iter().map(SplitLabels::of).collect(),
        splits,
        endpoints: service.endpoints.as_str().into(),
    })
}

fn endpoint_of(endpoint: &v1::Endpoint, registry: &Registry) -> Result<Arc<Endpoint>, String> {
    let ip: IpAddr = endpoint
        .ip
        .parse()
        .map_err(|_| format!("{:?} is no address", endpoint.ip))?;
    let identity = match endpoint.identity.as_str() {
        "" => None,
        id => Some(SpiffeId::try_from(id).map_err(|error| format!("identity of {ip}: {error}"))?),
    };
    let pod = match endpoint.pod.as_str() {
        "" => String::new(),
        pod => format!("{}/{pod}", endpoint.namespace),
    };
    Ok(registry.at(
        SocketAddr::new(ip, port_of(endpoint.port)?),
        identity,
        &pod,
        endpoint.opaque,
    ))
}
