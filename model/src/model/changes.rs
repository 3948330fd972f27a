//! The differences between two Models, and which proxies they concern.
//!
//! Most changes concern few proxies. A control stream that knows what its proxy's resources were
//! made from skips a Model whose changes touch none of it.
//!
//! Invariant: a change that is not reported is no change of any resource of the proxy. In doubt
//! more is reported.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use policy::egress::behind_nat64;

use super::{Index, PodId, peers::Workload, service_routes::Audience};
use crate::world::ObjectKey;

/// What of a model is not as it was in the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Nothing but the state of endpoints: every proxy needs resources of the same names
    /// as before.
    pub(crate) states_only: bool,
    /// Services with another port, endpoint, protocol, split or route, or none before or now.
    pub services: HashSet<ObjectKey>,
    /// Pods with another address, mode, protocol or rule, or none before or now.
    pub pods: HashSet<ObjectKey>,
    /// Addresses that lead elsewhere.
    pub addresses: HashSet<IpAddr>,
    /// Hosts outside the mesh with other addresses.
    pub(crate) hosts: HashSet<Arc<str>>,
    /// Workloads with other proxies, or in other zones.
    pub workloads: HashSet<Workload>,
    /// Those among them that are larger or smaller by much.
    pub(crate) resized: HashSet<Workload>,
    /// Certificates are refused that were not, or no more: this concerns all proxies.
    pub(crate) revocations: bool,
}

/// What the resources of one proxy were made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    services: HashSet<ObjectKey>,
    pods: HashSet<ObjectKey>,
    addresses: HashSet<IpAddr>,
    hosts: HashSet<Arc<str>>,
    /// Services of Gateways by which calls leave the mesh.
    gateways: HashSet<ObjectKey>,
    /// The pod's own.
    workload: Option<Workload>,
    /// Its proxy gets which of its workload's it is, not only how many there are.
    uses_parts: bool,
}

impl Changes {
    /// Pods that are not what they were.
    pub fn pods(&self) -> impl Iterator<Item = &ObjectKey> {
        self.pods.iter()
    }

    /// Whether a proxy with this interest may get something else now.
    pub(crate) fn concern(&self, interest: &Interest) -> bool {
        self.revocations
            || !(self.services.is_disjoint(&interest.services)
                && self.services.is_disjoint(&interest.gateways)
                && self.pods.is_disjoint(&interest.pods)
                && self.addresses.is_disjoint(&interest.addresses)
                && self.hosts.is_disjoint(&interest.hosts))
            || interest
                .workload
                .as_ref()
                .is_some_and(|own| self.concern_peers_in(own, interest.uses_parts))
    }

    fn concern_peers_in(&self, workload: &Workload, uses_parts: bool) -> bool {
        let concerned = if uses_parts {
            &self.workloads
        } else {
            &self.resized
        };
        concerned.contains(workload)
    }

    /// The Services among these whose endpoints' states are all that changed; `None` if
    /// there is more.
    pub(crate) fn states_of<'a>(
        &'a self,
        interest: &'a Interest,
    ) -> Option<impl Iterator<Item = &'a ObjectKey>> {
        (self.states_only && self.services.is_disjoint(&interest.gateways))
            .then(|| self.services.intersection(&interest.services))
    }
}

impl Interest {
    /// What the resources of this pod about what stands at these addresses, and about these hosts
    /// outside the mesh, are made from.
    pub fn of<'a>(
        index: &Index,
        pod: &PodId,
        addresses: impl IntoIterator<Item = (IpAddr, u16)>,
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut interest = Self {
            pods: HashSet::from([pod.clone()]),
            ..Self::default()
        };
        for (ip, port) in addresses {
            interest.add(index, &pod.namespace, ip, port);
        }
        if let Some(facts) = index.world.pods.get(pod)
            && let Some((_, gateway)) = index.gateway_of(pod, facts)
        {
            for (service, _) in &gateway.leads_to {
                interest.add_service(index, &pod.namespace, service);
            }
        }
        for host in index.hosts_of(pod) {
            interest.add_host(index, host.clone());
        }
        for host in hosts {
            interest.add_host(index, host.into());
        }
        interest.add_gateways(index, pod);
        if !interest.services.is_empty() {
            let facts = index.world.pods.get(pod);
            interest.workload = facts.map(|facts| Workload::of(pod, facts));
        }
        let mut services = interest.services.iter();
        interest.uses_parts =
            !index.policies.is_empty() && services.any(|service| index.is_used_in_part(service));
        interest
    }

    /// `from` is the pod's namespace, which routes tell apart.
    fn add(&mut self, index: &Index, from: &str, ip: IpAddr, port: u16) {
        self.addresses.insert(ip);
        // What is there makes an address outside the mesh one inside the cluster.
        self.addresses.extend(behind_nat64(ip));
        if let Some(service) = index.services_by_ip.get(&ip) {
            self.add_service(index, from, service);
        } else if let Some(pod) = index.pods_by_ip.get(&ip) {
            self.pods.insert(pod.clone());
            let headless = index
                .pods
                .get(pod)
                .into_iter()
                .flat_map(|pod| &pod.headless);
            for (_, service, _) in headless {
                self.add_service(index, from, service);
            }
        } else if let Some(service) = index.services_by_outer.get(&(ip, port)) {
            self.add_service(index, from, service);
        }
    }

    /// Whose pods are endpoints of calls that leave.
    fn add_gateways(&mut self, index: &Index, pod: &PodId) {
        let facts = index.world.pods.get(pod).into_iter();
        let admitted =
            facts.flat_map(|facts| index.externals.of(&pod.namespace, &facts.service_account));
        let standing = self.services.iter();
        let standing = standing.filter_map(|service| index.externals.behind(service));
        let gateways = admitted
            .chain(standing)
            .filter_map(|entry| entry.gateway.as_ref());
        let services: Vec<ObjectKey> = gateways.map(Index::service_of_gateway).collect();
        let entries = services.iter().filter_map(|key| index.services.get(key));
        let ports = entries.flat_map(|entry| entry.ports.values());
        let candidates = ports.flat_map(|port| &port.candidates);
        let pods = candidates.filter_map(|one| one.endpoint.pod.clone());
        self.pods.extend(pods);
        self.gateways.extend(services);
    }

    /// With the addresses that may not be called, too: what stands there now may leave.
    fn add_host(&mut self, index: &Index, host: Arc<str>) {
        let addresses = index.addresses_of_host(&host).iter().copied();
        self.addresses.extend(addresses.clone());
        self.addresses.extend(addresses.filter_map(behind_nat64));
        self.hosts.insert(host);
    }

    /// With its splits also where routes decide: a proxy that cannot carry these out gets those.
    fn add_service(&mut self, index: &Index, from: &str, service: &ObjectKey) {
        self.services.insert(service.clone());
        if let Some(entry) = index.services.get(service) {
            let backends = entry.splits.iter().flat_map(|split| &split.backends);
            self.services
                .extend(backends.map(|(backend, _)| backend.clone()));
            let routed = entry.routed_to(Audience::Namespace(from));
            self.services
                .extend(routed.map(|(backend, _)| backend.clone()));
        }
        let policies = index.policies.ports_of(service);
        let others = policies.flat_map(|port| &port.leads_to);
        self.services.extend(others.cloned());
        if index.externals.services.is_empty() {
            return;
        }
        let outside: Vec<Arc<str>> = self
            .services
            .iter()
            .filter_map(|service| index.externals.behind(service))
            .flat_map(|entry| entry.object.exact_hosts().take(1).cloned())
            .collect();
        for host in outside {
            self.add_host(index, host);
        }
    }
}
