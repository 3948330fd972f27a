//! What the proxy knows, as one immutable value.
//!
//! A batch from the controller makes a new snapshot out of the old one, in `apply`. A bad
//! change never takes down more than itself, and never allows more than before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use policy::access::{Access, Rule};
use policy::access_log::AccessLog;
use policy::log_filter::LogFilter;
use policy::mode::{Enforcement, MtlsMode};
use policy::name::{ServiceId, SpiffeId};
use policy::protocol::Protocol;
use policy::route::{Forward, Table};

use crate::config::guard::Guard;
use crate::config::policies::Policies;
use crate::endpoints::affinity::Affinity;
use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::set::EndpointSet;
use crate::telemetry::trace::Told;

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
    /// The splits that are in force, in order of precedence.
    pub routes: Table<Forward>,
    /// Name of the endpoints resource of the Service itself.
    pub endpoints: Arc<str>,
    /// Those of all backends, also of such as take nothing now.
    pub backends: Vec<Arc<str>>,
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
    /// What TrafficPolicies say of calls to the Services.
    pub policies: Policies,
    /// What this proxy is to log; `None`: what it was started with.
    pub log_filter: Option<LogFilter>,
    /// Which requests it is to write down; `None`: as it was started.
    pub(crate) access_log: Option<AccessLog>,
    /// Which traces it records; `None`: none.
    pub(crate) tracing: Option<Arc<Told>>,
    /// What they say of requests to the own pod.
    pub(crate) guard: Option<Arc<Guard>>,
    /// DER, empty until the controller sent some.
    pub roots: Vec<Vec<u8>>,
    pub(super) rules: BTreeMap<String, Rule>,
    pub(super) versions: HashMap<String, Version>,
    /// Ports of the own pod that somebody declared.
    pub(super) declared: Arc<BTreeSet<u16>>,
    /// Counts changes of the own policy, so that open connections look again.
    pub policy_revision: u64,
}

/// What is held of a resource beside its content.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(super) version: String,
    /// As it came.
    pub(super) bytes: usize,
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
            policies: Policies::default(),
            log_filter: None,
            access_log: None,
            tracing: None,
            guard: None,
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

    /// The own pod is the one of this uid, by its certificate.
    pub(super) fn prove_pod(&mut self, uid: Option<&str>) {
        let own = self.workload.as_ref().map(|own| &own.identity);
        self.policies.look_as_pod(uid, own);
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
        let mut count = |name: &str| {
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
            count(&wire::names::policy(
                &service.id.namespace,
                &service.id.name,
                service.port,
            ));
            count(&service.endpoints);
            for backend in &service.backends {
                count(backend);
            }
        }
        bytes
    }

    #[must_use]
    pub fn endpoints_of(&self, name: &str) -> Option<&Arc<EndpointSet>> {
        self.endpoints.get(name)
    }
}
