//! Decides which proxies need an object, for its condition `Programmed`.
//!
//! A policy is needed by the pods that it protects, whether or not their proxies are connected. A
//! split is needed by the callers of its root; a Model does not know callers, but it knows the
//! destinations that lead there, and `observe` knows which proxies use those.
//!
//! Invariant: a pod of which this says that it needs an object has the object among the
//! origins of its resources, so that it can acknowledge it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use policy::{
    mode::Enforcement,
    name::{Kind, ObjectRef},
    subset::PeerPosition,
    traffic::part::Part,
};

use super::{
    Index, Model, PodEntry, PodId, Served, Target,
    dependents::{Dependents, DependentsByObject, Running, is_running},
    has_shared_port,
    peers::{self, Peers, Workload},
    service_routes::{Audience, PortRoutes},
    traffic::Guard,
};
use crate::world::{ObjectKey, PodFacts};

impl Model {
    /// The pods with a running proxy whose own policy is made from this object.
    pub fn protected_by(&self, object: &ObjectRef) -> BTreeSet<PodId> {
        let index = &self.index;
        // Every proxy refuses what it revokes.
        if object.kind == Kind::Revocation {
            let all = self
                .running_pods()
                .filter(|_| index.revocations.has(object));
            return all.cloned().collect();
        }
        let Some(dependents) = index.dependents().0.get(object) else {
            return BTreeSet::new();
        };
        let running = index.running();
        let of_accounts = dependents.accounts.iter().filter_map(|at| running.get(at));
        let all = (!dependents.namespaces.is_empty()).then(|| running.iter());
        let of_namespaces = all
            .into_iter()
            .flatten()
            .filter(|(account, _)| dependents.namespaces.contains(&account.namespace));
        let of_namespaces = of_namespaces.flat_map(|(_, pods)| pods);
        let pods = of_accounts.flatten().chain(of_namespaces);
        let pods = pods.chain(&dependents.pods);
        pods.filter(|pod| {
            let facts = self.running_pod(pod);
            facts.is_some_and(|facts| index.policy_is_made_from(object, pod, facts))
        })
        .cloned()
        .collect()
    }

    /// Pods of an account whose proxies run.
    pub fn running_pods_of(&self, namespace: &str, account: &str) -> &[PodId] {
        let at = ObjectKey::new(namespace, account);
        self.index.running().get(&at).map_or(&[], Vec::as_slice)
    }

    /// All pods whose proxies run, but for those that are revoked for good: no controller serves
    /// these, so nothing of them is waited for.
    pub fn running_pods(&self) -> impl Iterator<Item = &PodId> {
        self.index.running().values().flatten()
    }

    /// Uid of a pod whose proxy runs.
    pub fn running_uid(&self, pod: &PodId) -> Option<&Arc<str>> {
        Some(&self.running_pod(pod)?.uid)
    }

    fn running_pod(&self, pod: &PodId) -> Option<&PodFacts> {
        let facts = self.index.world.pods.get(pod)?;
        self.index.is_served(facts).then_some(facts)
    }
}

impl Index {
    /// Whether controllers serve the proxy of a pod.
    fn is_served(&self, facts: &PodFacts) -> bool {
        is_running(facts) && !self.revocations.has_ended(&facts.uid)
    }

    /// The addresses and ports whose callers get this object.
    pub(crate) fn called_at(&self, object: &ObjectRef) -> impl Iterator<Item = (IpAddr, u16)> {
        let dependents = self.dependents().0.get(object);
        let roots = dependents
            .into_iter()
            .flat_map(|dependents| &dependents.roots);
        let roots = roots.flat_map(|root| self.addresses_of(root, None));
        let ports = dependents
            .into_iter()
            .flat_map(|dependents| &dependents.ports);
        let ports = ports.flat_map(|(service, port)| self.addresses_of(service, Some(*port)));
        roots.chain(ports)
    }

    fn dependents(&self) -> &DependentsByObject {
        self.dependents.get_or_init(|| {
            let mut dependents: HashMap<ObjectRef, Dependents> = HashMap::new();
            for (target, about) in self.targets.about() {
                let rule = target.rule.iter().flat_map(|rule| &rule.origins);
                let origins: BTreeSet<&ObjectRef> = rule
                    .chain([&target.origin])
                    .map(|(object, _)| object)
                    .collect();
                for object in origins {
                    let this = dependents.entry(object.clone()).or_default();
                    this.accounts
                        .extend(about.accounts.iter().copied().cloned());
                    this.pods.extend(about.pods.iter().copied().cloned());
                }
            }
            for entry in &self.externals.entries {
                let this = dependents.entry(entry.origin.0.clone()).or_default();
                let namespaces = entry.callers.namespaces();
                this.namespaces.extend(namespaces.into_iter().cloned());
                let services = entry.gateway.as_ref().map(Self::service_of_gateway);
                // The account has the name of the Service.
                this.accounts.extend(services);
            }
            for (account, object) in self.gateway_origins() {
                let this = dependents.entry(object.clone()).or_default();
                this.accounts.insert(account);
            }
            for (root, entry) in &self.services {
                for (object, _) in entry.splits.iter().flat_map(|split| &split.origins) {
                    let this = dependents.entry(object.clone()).or_default();
                    this.roots.insert(root.clone());
                }
                for (port, table) in entry.all_routed() {
                    for (object, _) in &table.origins {
                        let this = dependents.entry(object.clone()).or_default();
                        this.ports.insert((root.clone(), port));
                    }
                }
            }
            let mut callers: HashMap<&(ObjectKey, u16), BTreeSet<ObjectRef>> = HashMap::new();
            for at in self.ports_with_policies() {
                for at_port in self.policies_at(&at) {
                    let origins = callers.entry(at_port).or_insert_with(|| {
                        let policies = self.policies.ports.get(at_port).into_iter();
                        let needs = policies.flat_map(|policies| policies.caller_needs());
                        needs.map(|((object, _), _)| object.clone()).collect()
                    });
                    for object in &*origins {
                        let this = dependents.entry(object.clone()).or_default();
                        this.ports.insert(at.clone());
                    }
                }
            }
            for (pod, entry) in self.pods.iter() {
                for object in self.guard_origins(entry) {
                    let this = dependents.entry(object.clone()).or_default();
                    this.pods.insert(pod.clone());
                }
            }
            DependentsByObject(dependents)
        })
    }

    /// The Service ports whose callers get something from policies.
    fn ports_with_policies(&self) -> BTreeSet<(ObjectKey, u16)> {
        if self.policies.ports.is_empty() {
            return BTreeSet::new();
        }
        let mut ports: BTreeSet<_> = self.policies.ports.keys().cloned().collect();
        for (root, entry) in &self.services {
            for (backend, _) in entry.splits.iter().flat_map(|split| &split.backends) {
                let of_backend = entry
                    .ports
                    .keys()
                    .filter(|port| self.policies.of(backend, **port).is_some());
                ports.extend(of_backend.map(|port| (root.clone(), *port)));
            }
            for (port, table) in entry.all_routed() {
                let mut to = table.leads_to.iter();
                if to.any(|at| self.policies.ports.contains_key(at)) {
                    ports.insert((root.clone(), port));
                }
            }
        }
        ports
    }

    /// The ports whose policies some callers of this one get.
    fn policies_at(&self, at: &(ObjectKey, u16)) -> BTreeSet<&(ObjectKey, u16)> {
        let (service, port) = at;
        let mut found = self.policies_for_callers(at, Audience::Direct);
        let entry = self.services.get(service);
        let tables = entry.and_then(|entry| entry.routes.as_ref()?.0.get(port));
        let tables = tables.into_iter().flat_map(PortRoutes::tables);
        let to = tables.flat_map(|(_, table)| &table.leads_to);
        found.extend(to.filter_map(|at| self.at_with_policies(at)));
        found
    }

    /// The ports whose policies callers of this one get, as `Resolving::service_named` adds them:
    /// its own, those of the backends that it is routed or split to, and those of wherever else its
    /// own lead.
    pub(super) fn policies_for_callers(
        &self,
        (service, port): &(ObjectKey, u16),
        audience: Audience<'_>,
    ) -> BTreeSet<&(ObjectKey, u16)> {
        let entry = self.services.get(service);
        let own = self.policies.of(service, *port).into_iter();
        let others = own.flat_map(|at_port| &at_port.leads_to);
        let all = [service].into_iter().chain(others);
        let found = all.filter_map(|key| self.at_with_policies(&(key.clone(), *port)));
        let mut found: BTreeSet<&(ObjectKey, u16)> = found.collect();
        match entry.and_then(|entry| entry.routed(*port, audience)) {
            Some(table) => {
                let to = table.leads_to.iter();
                found.extend(to.filter_map(|at| self.at_with_policies(at)));
            }
            None => {
                let splits = entry.into_iter().flat_map(|entry| &entry.splits);
                let backends = splits.flat_map(|split| &split.backends);
                found.extend(
                    backends.filter_map(|(key, _)| self.at_with_policies(&(key.clone(), *port))),
                );
            }
        }
        found
    }

    fn at_with_policies(&self, at: &(ObjectKey, u16)) -> Option<&(ObjectKey, u16)> {
        self.policies.ports.get_key_value(at).map(|(at, _)| at)
    }

    fn running(&self) -> &Running {
        self.running.get_or_init(|| {
            let mut running = Running::new();
            for (pod, facts) in self
                .world
                .pods
                .iter()
                .filter(|(_, facts)| self.is_served(facts))
            {
                let account = ObjectKey {
                    namespace: pod.namespace.clone(),
                    name: facts.service_account.clone(),
                };
                running.entry(account).or_default().push(pod.clone());
            }
            running
        })
    }

    /// What a pod gets about requests to it; `None` if nothing.
    pub(crate) fn guard_of<'a>(&self, entry: &'a PodEntry) -> Option<&'a Guard> {
        let guard = entry
            .guard
            .get_or_init(|| self.policies.guard(&entry.serves));
        guard.as_ref()
    }

    /// The objects that it gets something from.
    fn guard_origins<'a>(&'a self, entry: &'a PodEntry) -> impl Iterator<Item = &'a ObjectRef> {
        // Only where Services share one of its ports may it get less than they say. For most pods
        // nothing has to be merged for this, and kept, before their proxies connect.
        let shared = has_shared_port(&entry.serves);
        let merged = shared.then(|| self.guard_of(entry)).flatten();
        let merged = merged.into_iter().flat_map(|guard| guard.needs.keys());
        let apart: &[Served] = if shared { &[] } else { &entry.serves };
        let merged = merged.map(|(object, _)| object);
        merged.chain(self.policies.origins_apart(apart))
    }

    /// Whether the object is an origin of the pod's own resources.
    fn policy_is_made_from(&self, object: &ObjectRef, pod: &ObjectKey, facts: &PodFacts) -> bool {
        let mut entry = self.pods.get(pod).into_iter();
        if entry.any(|entry| self.guard_origins(entry).any(|origin| origin == object)) {
            return true;
        }
        let gateway = self.gateway_of(pod, facts);
        if gateway.is_some_and(|(_, gateway)| self.gateway_is_made_from(object, gateway)) {
            return true;
        }
        if object.kind == Kind::ExternalService {
            let gateway = self.gateway_of(pod, facts).map(|(gateway, _)| gateway);
            let mut given = self.sent_externals(gateway, pod, facts);
            return given.any(|entry| entry.origin.0 == *object);
        }
        let targets: Vec<&Target> = self.targets.of(pod, facts).collect();
        if object.kind == Kind::TrafficTarget {
            return targets.iter().any(|target| target.origin.0 == *object);
        }
        // The others are origins of rules, and an open workload is sent none.
        self.enforcement(pod, facts, &targets) != Enforcement::Open
            && targets.iter().any(|target| {
                let rule = target.rule.iter().flat_map(|rule| &rule.origins);
                rule.map(|(origin, _)| origin)
                    .any(|origin| origin == object)
            })
    }

    /// The addresses and ports that lead to a Service, or to one port of it: its own, and where it is headless
    /// its pods', as [`Self::destination`] reads them.
    fn addresses_of(&self, key: &ObjectKey, only: Option<u16>) -> Vec<(IpAddr, u16)> {
        let Some(entry) = self.services.get(key) else {
            return Vec::new();
        };
        let cluster = entry.facts.cluster_ips.iter();
        let cluster = cluster.filter(|ip| self.services_by_ip.get(ip) == Some(key));
        let outer = entry.facts.outer_ips.iter();
        let ports = entry.ports.iter();
        let ports = ports.filter(|(port, _)| only.is_none_or(|only| only == **port));
        let mut addresses: Vec<(IpAddr, u16)> = ports
            .clone()
            .map(|(port, _)| port)
            .flat_map(|port| {
                let outer = outer
                    .clone()
                    .filter(|ip| self.services_by_outer.get(&(**ip, *port)) == Some(key));
                cluster.clone().chain(outer).map(|ip| (*ip, *port))
            })
            .collect();
        if entry.facts.headless {
            let candidates = ports.flat_map(|(_, port)| &port.candidates);
            for endpoint in candidates.map(|candidate| &candidate.endpoint) {
                let pod = endpoint
                    .pod
                    .as_ref()
                    .and_then(|pod| self.world.pods.get(pod));
                let ips = pod.into_iter().flat_map(|facts| &facts.ips);
                addresses.extend(ips.map(|ip| (*ip, endpoint.port)));
            }
        }
        addresses
    }
}

impl Index {
    /// Whether callers of a Service are configured to use a part of it.
    pub(crate) fn is_used_in_part(&self, service: &ObjectKey) -> bool {
        let mut ports = self.policies.ports_of(service);
        ports.any(|port| {
            let mut needs = port.caller_needs().values();
            needs.any(|parts| parts.has(Part::Subset))
        })
    }

    /// Which of its workload's proxies that of a pod is: among all, and among those of its
    /// zone. `None` while it does not run.
    pub(crate) fn positions(&self, pod: &PodId, facts: &PodFacts) -> Option<[PeerPosition; 2]> {
        peers::positions(self.peers(), pod, facts)
    }

    /// Those of these workloads that are larger or smaller by much than they were; all of them
    /// where no query came before.
    pub(crate) fn resized(
        &self,
        workloads: &HashSet<Workload>,
        before: &Self,
    ) -> HashSet<Workload> {
        match before.peers.get() {
            Some(then) if !workloads.is_empty() => peers::resized(workloads, self.peers(), then),
            _ => workloads.clone(),
        }
    }

    /// The proxies that run.
    pub(crate) fn peers(&self) -> &Peers {
        self.peers.get_or_init(|| peers::of_world(&self.world))
    }
}
