//! Resolves all resources of one proxy: its own policy, the destinations that it requested, and
//! whatever those refer to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use policy::{subset::PeerPosition, traffic::part::Parts};
use wire::{capability::Capabilities, names, v1};

use super::service::{RoutedResource, routed};
use super::{endpoints::endpoints, left_out::LeftOut, policy::PolicyResource};
use crate::model::changes::Interest;
use crate::model::peers::{self, Workload};
use crate::model::published::EncodedResource;
use crate::model::{Audience, Index, Model, PodId, PortEntry, ServiceEntry};
use crate::world::{ObjectKey, PodFacts};

/// What one proxy needs.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet {
    /// By name, without the trust bundle.
    pub resources: BTreeMap<String, Arc<EncodedResource>>,
    /// What is not among them because the proxy could not use it.
    pub left_out: Vec<LeftOut>,
}

impl Model {
    /// Every resource that the proxy of `pod` needs and can use. `destinations` are names of
    /// destination resources, and of hosts outside the mesh; one that is no such name is skipped.
    /// `None` when there is no such pod.
    pub fn resolve(
        &self,
        pod: &PodId,
        destinations: &BTreeSet<String>,
        capabilities: &Capabilities,
    ) -> Option<ResourceSet> {
        let index = &self.index;
        let facts = index.world.pods.get(pod)?;
        let mut set = CollectedResources {
            index,
            pod,
            node: &facts.node,
            capabilities,
            set: ResourceSet::default(),
            calls: false,
            uses_parts: false,
        };
        for resource in index.workload(pod, facts) {
            set.add(resource.clone());
        }
        if let Some(revocations) = index.revocations.published() {
            set.add(revocations);
        }
        set.add_policy(index.guard(pod, capabilities.parts()));
        if let Some(names) = index.routes(pod, facts) {
            set.add(names);
        }
        set.egress(facts, destinations);
        for name in destinations {
            let Some((ip, port)) = address(name) else {
                continue;
            };
            let destination = index.destination(ip, port);
            set.follow(&destination);
            let content = v1::resource::Content::Destination(destination);
            set.add(index.shared.of(name, content));
        }
        let positions = if set.uses_parts {
            index.positions(pod, facts)
        } else if set.calls {
            shared(index, pod, facts)
        } else {
            None
        };
        if let Some(positions) = positions {
            set.add(Arc::new(position(positions)));
        }
        Some(set.set)
    }

    /// What [`Self::resolve`] reads for this pod and these destinations.
    pub fn interest<'a>(
        &self,
        pod: &PodId,
        destinations: impl IntoIterator<Item = &'a String>,
    ) -> Interest {
        let (mut addresses, mut hosts) = (Vec::new(), Vec::new());
        for name in destinations {
            addresses.extend(address(name));
            hosts.extend(self.queried_host(pod, name));
        }
        Interest::of(&self.index, pod, addresses, hosts)
    }

    /// Brings what a pod's proxy has of some Services up to date, when nothing but the
    /// state of their endpoints changed. Returns the names of those resources.
    pub fn refresh<'a>(
        &self,
        pod: &PodId,
        services: impl IntoIterator<Item = &'a ObjectKey>,
        resources: &mut BTreeMap<String, Arc<EncodedResource>>,
    ) -> Vec<String> {
        let index = &self.index;
        let mut refreshed = Vec::new();
        let Some(facts) = index.world.pods.get(pod) else {
            return refreshed;
        };
        type New<'a> = &'a dyn Fn(&Arc<EncodedResource>) -> Arc<EncodedResource>;
        let mut replace = |name: String, new: New<'_>| {
            if let Some(current) = resources.get_mut(&name) {
                *current = new(current);
                refreshed.push(name);
            }
        };
        for key in services {
            let Some(entry) = index.services.get(key) else {
                continue;
            };
            for (port, at) in &entry.ports {
                replace(
                    names::service(&key.namespace, &key.name, *port),
                    &|current| match current.resource.content {
                        // No route depends on endpoints.
                        Some(v1::resource::Content::RoutedService(_)) => current.clone(),
                        _ => index.service(key, entry, *port, at).clone(),
                    },
                );
                let is_external = index.externals.of_service(key, *port).is_some();
                replace(
                    names::endpoints(&key.namespace, &key.name, *port),
                    // No address of a host depends on slices.
                    &|current| {
                        if is_external {
                            current.clone()
                        } else {
                            endpoints(key, entry, *port, at, &facts.node)
                        }
                    },
                );
            }
            for (key, set) in entry.sets(key) {
                for (port, at) in &set.ports {
                    replace(names::endpoints(&key.namespace, &key.name, *port), &|_| {
                        endpoints(&key, set, *port, at, &facts.node)
                    });
                }
            }
        }
        refreshed
    }
}

/// What a destination resource is about; `None` for another name.
fn address(name: &str) -> Option<(IpAddr, u16)> {
    match names::parse(name)? {
        names::Name::Destination { ip, port } => Some((ip, port)),
        _ => None,
    }
}

/// How many proxies a workload has, for one that uses no part of any Service; `None` for one
/// that is alone.
fn shared(index: &Index, pod: &PodId, facts: &PodFacts) -> Option<[PeerPosition; 2]> {
    let peers = peers::sharers(index.peers(), &Workload::of(pod, facts));
    let first = PeerPosition { index: 0, peers };
    (peers > 1).then_some([first; 2])
}

/// Which of its workload's proxies the receiving one is.
fn position([all, zone]: [PeerPosition; 2]) -> EncodedResource {
    let message = v1::Place {
        index: all.index,
        peers: all.peers,
        zone_index: zone.index,
        zone_peers: zone.peers,
    };
    let content = v1::resource::Content::Place(message);
    EncodedResource::new(names::PLACE.to_owned(), content, Vec::new())
}

pub(super) struct CollectedResources<'a> {
    pub(super) index: &'a Index,
    /// Whose proxy it is. Routes tell its namespace from others.
    pub(super) pod: &'a PodId,
    node: &'a Arc<str>,
    pub(super) capabilities: &'a Capabilities,
    pub(super) set: ResourceSet,
    /// It calls some Service.
    calls: bool,
    /// It is configured to use a part of one.
    uses_parts: bool,
}

impl CollectedResources<'_> {
    pub(super) fn add(&mut self, published: Arc<EncodedResource>) {
        let resource = &published.resource;
        if self.capabilities.suffice_for(resource) {
            self.set.resources.insert(resource.name.clone(), published);
        } else {
            self.leave_out(&published);
        }
    }

    fn leave_out(&mut self, published: &EncodedResource) {
        let origins = published.origins.iter().cloned();
        let left_out = origins.map(|(object, generation)| LeftOut {
            object,
            generation,
            lacks: Parts::NONE,
        });
        self.set.left_out.extend(left_out);
    }

    /// Adds what policies say.
    fn add_policy(&mut self, part: PolicyResource) {
        if let Some(resource) = part.resource {
            self.add(resource);
        }
        self.set.left_out.extend(part.left_out);
    }

    /// Adds what a destination refers to.
    fn follow(&mut self, destination: &v1::Destination) {
        use v1::destination::Target;
        match &destination.target {
            Some(Target::Service(name)) => self.service_named(name),
            Some(Target::Pod(pod)) => {
                for headless in &pod.headless {
                    self.service_named(&headless.service);
                }
            }
            Some(Target::External(_) | Target::Refused(_)) | None => {}
        }
    }

    fn service_named(&mut self, name: &str) {
        let Some(names::Name::Service {
            namespace,
            name: service,
            port,
        }) = names::parse(name)
        else {
            return;
        };
        let key = ObjectKey::new(namespace, service);
        let Some(entry) = self.index.services.get(&key) else {
            return;
        };
        let Some(port_entry) = entry.ports.get(&port) else {
            return;
        };
        if self.set.resources.contains_key(name) {
            return;
        }
        self.calls = true;
        let audience = Audience::Namespace(&self.pod.namespace);
        if let Some(routed) = routed(&key, entry, port, port_entry, audience) {
            if self.capabilities.suffice_for(&routed.resource.resource) {
                self.routed(&routed);
                self.endpoints(&key, entry, port, port_entry);
                self.policy(&key, port);
                return;
            }
            self.leave_out(routed.resource);
        }
        self.add(self.index.service(&key, entry, port, port_entry).clone());
        self.endpoints(&key, entry, port, port_entry);
        self.policy(&key, port);
        for (backend, _) in entry.splits.iter().flat_map(|split| &split.backends) {
            let Some(entry) = self.index.backend(backend) else {
                continue;
            };
            if let Some(port_entry) = entry.ports.get(&port) {
                self.endpoints(backend, entry, port, port_entry);
                self.policy_alone(backend, port);
            }
        }
    }

    /// A Service port with its routes, and where they lead.
    fn routed(&mut self, routed: &RoutedResource<'_>) {
        self.add(routed.resource.clone());
        for (backend, port) in &routed.table.leads_to {
            let entry = self.index.services.get(backend);
            if let Some((entry, at)) = entry.and_then(|entry| Some((entry, entry.ports.get(port)?)))
            {
                self.endpoints(backend, entry, *port, at);
                self.policy_alone(backend, *port);
            }
        }
    }

    /// What policies say of a port to its callers, and where else calls may go by it.
    fn policy(&mut self, key: &ObjectKey, port: u16) {
        let index = self.index;
        let Some(policies) = index.policies.of(key, port) else {
            return;
        };
        self.policy_alone(key, port);
        let goes_there = !self.capabilities.parts().is_empty();
        for other in &policies.leads_to {
            let entry = index.backend(other);
            let at = entry.and_then(|entry| Some((entry, entry.ports.get(&port)?)));
            let Some((entry, at)) = at else { continue };
            if goes_there {
                self.endpoints(other, entry, port, at);
            }
            // A proxy that may come to need a policy reports whether it can carry it out.
            self.policy_alone(other, port);
        }
    }

    /// What policies say of the endpoints of a Service that calls come to by another: where
    /// else those go is said by the other's.
    fn policy_alone(&mut self, key: &ObjectKey, port: u16) {
        let parts = self.capabilities.parts();
        if let Some(configured) = self.index.policies.of(key, port) {
            let part = configured.for_callers(key, port, parts);
            self.add_policy(part);
            self.uses_parts = self.uses_parts || self.index.is_used_in_part(key);
        }
    }

    fn endpoints(&mut self, key: &ObjectKey, entry: &ServiceEntry, port: u16, at: &PortEntry) {
        let outside = self.external_endpoints(key, port);
        self.add(outside.unwrap_or_else(|| endpoints(key, entry, port, at, self.node)));
    }
}

#[cfg(test)]
mod tests;
