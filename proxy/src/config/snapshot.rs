//! `Snapshot`: the complete configuration of the proxy, as one immutable value.
//!
//! A batch from the controller makes a new snapshot out of the old one, in `apply`. A bad
//! change never takes down more than itself, and never allows more than before.
//!
//! Claims: calls-53

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::access::{Access, Rule};
use policy::access_log::AccessLog;
use policy::egress::Egress;
use policy::log_filter::LogFilter;
use policy::mode::{Enforcement, MtlsMode};
use policy::name::{ServiceId, SpiffeId};
use policy::origin::Origin;
use policy::protocol::{PortProtocols, PortRange, Protocol};
use policy::revoked::Revocations;
use policy::route::names::Names;
use policy::route::{Forward, Table};
use policy::share::Share;
use policy::subset::PeerPositions;
use policy::traffic::call::TcpTarget;
use policy::traffic::pod::PodGuard;

use crate::config::gateway::GatewayConfig;
use crate::config::guard::Guard;
use crate::config::policies::Policies;
use crate::config::shares::Shares;
use crate::config::vouched::Vouched;
use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::learned::now;
use crate::endpoints::location::Location;
use crate::endpoints::registry::Affinity;
use crate::endpoints::set::EndpointSet;
use crate::telemetry::trace::TracingConfig;

/// A pod that gets copies no longer may change nothing for this long: twice what the last
/// of them may take until its answer has ended.
const READ_ONLY_GRACE: Duration = Duration::from_secs(60);

/// What a pod may open that got nothing but copies until just now, and until when that
/// holds.
#[derive(Clone, Debug)]
struct ReadOnlyGrace {
    allowed: Vec<TcpTarget>,
    until: Instant,
}

/// What stands at an address.
#[derive(Debug)]
pub enum Destination {
    /// Name of a service resource.
    Service(Arc<str>),
    Pod(PodTarget),
    /// Outside the mesh.
    External {
        /// Of the cluster all the same, where a Gateway lets no call out to.
        inside: bool,
    },
    /// The Service has no such port.
    Refused {
        reason: String,
        /// `namespace/name`; empty from an older controller.
        service: Arc<str>,
    },
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
    /// Session affinity, if the Service has it.
    pub affinity: Option<Arc<Affinity>>,
    /// The rules of the splits and routes that are in force, in order of precedence.
    pub routes: Table<Forward>,
    /// By the place of a rule: its object, by which calls are counted. A route may have so many
    /// rules that they would be too many.
    pub objects: Vec<Origin>,
    /// Name of the endpoints resource of the Service itself.
    pub endpoints: Arc<str>,
    /// Those of all backends, also of such as take nothing now or only copies.
    pub backends: Vec<Arc<str>>,
}

/// The controller's configuration of the proxy's own pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub identity: SpiffeId,
    pub enforcement: Enforcement,
    pub mtls: MtlsMode,
    /// Where plaintext is taken although `mtls` is strict.
    pub permissive_ports: Vec<PortRange>,
    pub ports: PortProtocols,
    pub location: Location,
    /// The largest share of a FaultExperiment that may harm the own calls.
    pub fault_limit: Share,
}

/// Everything that a connection or request needs for its decisions.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub workload: Option<Arc<Workload>>,
    pub access: Arc<Access>,
    pub destinations: HashMap<SocketAddr, Arc<Destination>>,
    pub services: HashMap<Arc<str>, Arc<Service>>,
    pub endpoints: HashMap<Arc<str>, Arc<EndpointSet>>,
    /// The TrafficPolicies for calls to the Services.
    pub policies: Policies,
    /// What the own pod may call outside the mesh.
    pub(crate) egress: Arc<Egress>,
    /// What the own Gateway serves; `None` in the proxy of an application.
    pub gateway: Option<Arc<GatewayConfig>>,
    /// What this proxy is to log; `None`: what it was started with.
    pub log_filter: Option<LogFilter>,
    /// Which of its workload's proxies it is; `None`: not known.
    pub(super) positions: Option<PeerPositions>,
    /// Which requests it is to write down; `None`: as it was started.
    pub(crate) access_log: Option<AccessLog>,
    /// Which traces it records; `None`: none.
    pub(crate) tracing: Option<Arc<TracingConfig>>,
    /// Those for requests to the own pod.
    pub(crate) guard: Option<Arc<Guard>>,
    /// What the own pod may let through of limits that others keep with it.
    pub(super) shares: Shares,
    /// Whether the controller wants early reports. Apart from the workload, whose changes make open
    /// connections look again.
    pub(super) early_reports: bool,
    /// How requests to the own pod are named; `None` where no metric needs names.
    pub(crate) names: Option<Arc<Names>>,
    read_only_grace: Option<ReadOnlyGrace>,
    /// DER, empty until the controller sent some.
    pub roots: Vec<Vec<u8>>,
    /// How soon the own certificate is to be under the first root. Zero: that does not matter.
    pub(crate) renew_within: Duration,
    pub(crate) vouched: Vouched,
    /// Whose certificates are refused; `None`: none are.
    pub(crate) revocations: Option<Arc<Revocations>>,
    pub(super) rules: BTreeMap<String, Rule>,
    pub(super) versions: HashMap<String, Version>,
    /// Ports of the own pod that are declared.
    pub(super) declared: Arc<BTreeSet<u16>>,
    /// Counts changes of the own policy, so that open connections look again.
    pub policy_revision: u64,
    /// Counts control streams: each begins with a batch of everything.
    pub(crate) stream: u64,
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
            // What an older controller means, which sends none. Until there is a workload nothing
            // unknown may be called anyway.
            egress: Arc::default(),
            gateway: None,
            log_filter: None,
            positions: None,
            access_log: None,
            tracing: None,
            guard: None,
            shares: Shares::default(),
            early_reports: false,
            names: None,
            read_only_grace: None,
            roots: Vec::new(),
            renew_within: Duration::ZERO,
            vouched: Vouched::default(),
            revocations: None,
            rules: BTreeMap::new(),
            versions: HashMap::new(),
            declared: Arc::default(),
            policy_revision: 0,
            stream: 0,
        }
    }
}

impl Snapshot {
    /// Of the proxy of a Gateway.
    pub(super) fn of_gateway() -> Self {
        Self {
            gateway: Some(Arc::default()),
            ..Self::default()
        }
    }

    /// Ready to serve: the own policy is known.
    #[must_use]
    pub(crate) const fn is_complete(&self) -> bool {
        self.workload.is_some()
    }

    /// Nothing is known at this address that would be of the mesh.
    pub(super) fn is_outside(&self, addr: &SocketAddr) -> bool {
        let found = self.destinations.get(addr);
        found.is_none_or(|found| matches!(**found, Destination::External { .. }))
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

    /// Whether callers without an identity are served at this port of the own pod, as far as
    /// rules admit them.
    pub(crate) fn takes_plaintext(&self, port: u16) -> bool {
        self.workload.as_ref().is_some_and(|workload| {
            let mut excepted = workload.permissive_ports.iter();
            workload.mtls == MtlsMode::Permissive || excepted.any(|range| range.contains(port))
        })
    }

    /// What the own pod may open for opaque bytes, where it may change nothing: because it
    /// gets nothing but copies, or did until just now.
    pub(crate) fn read_only(&self) -> Option<&[TcpTarget]> {
        self.takes_copies().or_else(|| {
            let read_only_grace = self.read_only_grace.as_ref()?;
            (now() < read_only_grace.until).then_some(&*read_only_grace.allowed)
        })
    }

    /// The same while it may get such copies.
    pub(crate) fn takes_copies(&self) -> Option<&[TcpTarget]> {
        self.guard.as_ref()?.read_only()
    }

    /// Sets the policies for requests to the own pod.
    pub(super) fn set_guard(&mut self, configured: &PodGuard) {
        let current = self.guard.as_deref();
        if self.is_complete() {
            let is_there = |port, limit: &Origin| {
                current.is_some_and(|current| current.has_shared(port, limit))
            };
            self.shares.begin(configured, is_there);
        }
        let guard = Guard::after(current, configured, &self.shares, now());
        self.shares
            .keep(|port, limit| guard.has_shared(port, limit));
        self.guard = Some(Arc::new(guard));
    }

    /// What the own pod was held to `before` does not end with the copies.
    pub(super) fn extend_read_only(&mut self, before: &Self) {
        self.read_only_grace = match (self.takes_copies(), before.takes_copies()) {
            (Some(_), _) => None,
            (None, Some(allowed)) => Some(ReadOnlyGrace {
                allowed: allowed.to_vec(),
                until: now() + READ_ONLY_GRACE,
            }),
            (None, None) => before.read_only_grace.clone(),
        };
    }

    #[must_use]
    pub(crate) fn resource_versions(&self) -> HashMap<String, String> {
        let current = self.versions.iter();
        current
            .map(|(name, current)| (name.clone(), current.version.clone()))
            .collect()
    }

    /// A meshed endpoint at this address, of whatever Service.
    #[must_use]
    pub(crate) fn meshed_at(&self, addr: SocketAddr) -> Option<&Arc<Endpoint>> {
        let sets = self.endpoints.values();
        sets.flat_map(|set| &set.endpoints)
            .find(|endpoint| endpoint.addr == addr && endpoint.meshed())
    }

    /// Bytes of what is held for the sake of an address, without what `counted` names,
    /// which grows.
    pub(crate) fn bytes_for<'a>(
        &'a self,
        addr: SocketAddr,
        counted: &mut HashSet<&'a str>,
    ) -> usize {
        let own = wire::names::destination(addr.ip(), addr.port());
        let mut bytes = self.versions.get(&own).map_or(0, |current| current.bytes);
        let Some(destination) = self.destinations.get(&addr) else {
            return bytes;
        };
        let mut services: Vec<&str> = Vec::new();
        match &**destination {
            Destination::Service(name) => services.push(name),
            Destination::Pod(pod) => services.extend(pod.headless.iter().map(|(_, name)| &**name)),
            Destination::External { .. } | Destination::Refused { .. } => {}
        }
        let mut count = |name: &str| {
            if let Some((name, current)) = self.versions.get_key_value(name)
                && counted.insert(name)
            {
                bytes += current.bytes;
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
            for other in self.policies.leads_to(name) {
                let (namespace, name) = (&other.namespace, &other.name);
                count(&wire::names::endpoints(namespace, name, service.port));
            }
        }
        bytes
    }

    #[must_use]
    pub(crate) fn endpoints_of(&self, name: &str) -> Option<&Arc<EndpointSet>> {
        self.endpoints.get(name)
    }
}

/// A summary of the configuration: the pod, its modes, and the names and versions of all resources.
/// The admin port shows it, and a controller may query it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) identity: String,
    pub(crate) enforcement: String,
    pub(crate) mtls: String,
    pub(crate) draining: bool,
    /// Name and version of each resource, by name.
    pub(crate) resources: Vec<(String, String)>,
}

impl Summary {
    pub(crate) fn of(snapshot: &Snapshot, identity: &SpiffeId, draining: bool) -> Self {
        let mut resources: Vec<(String, String)> =
            snapshot.resource_versions().into_iter().collect();
        resources.sort();
        Self {
            identity: identity.as_str().to_owned(),
            enforcement: format!("{:?}", snapshot.access.enforcement).to_lowercase(),
            mtls: format!("{:?}", snapshot.mtls()).to_lowercase(),
            draining,
            resources,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(current: &Snapshot, read_only: bool) -> Snapshot {
        let configured = PodGuard {
            read_only: read_only.then(Vec::new),
            ..PodGuard::default()
        };
        let mut next = current.clone();
        next.guard = Some(Arc::new(Guard::after(
            None,
            &configured,
            &Shares::default(),
            now(),
        )));
        next.extend_read_only(current);
        next
    }

    #[tokio::test(start_paused = true)]
    async fn read_only_mode_outlasts_last_copy() {
        let is = |now: &Snapshot| (now.takes_copies().is_some(), now.read_only().is_some());
        let current = changed(&Snapshot::default(), true);
        assert_eq!(is(&current), (true, true));
        let released = changed(&current, false);
        assert_eq!(is(&released), (false, true));
        tokio::time::advance(READ_ONLY_GRACE - Duration::from_secs(1)).await;
        // What comes meanwhile makes it neither longer nor shorter.
        let later = changed(&released, false);
        assert_eq!(is(&later), (false, true));
        assert_eq!(is(&changed(&later, true)), (true, true));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(is(&later), (false, false));
        assert_eq!(is(&changed(&Snapshot::default(), false)), (false, false));
    }
}
