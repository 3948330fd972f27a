//! Answers one proxy: its own policy, the destinations it asked for, and
//! whatever those refer to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use wire::{names, v1};

use crate::model::{Index, Model, PodId, PortEntry, Published, ServiceEntry};
use crate::world::ObjectKey;

impl Model {
    /// Every resource that the proxy of `pod` needs, by name, without the trust
    /// bundle. `destinations` are names of destination resources; one that is no
    /// such name is left out of the answer. `None` when there is no such pod.
    pub fn resolve(
        &self,
        pod: &PodId,
        destinations: &BTreeSet<String>,
    ) -> Option<BTreeMap<String, Arc<Published>>> {
        let index = &self.index;
        let facts = index.world.pods.get(pod)?;
        let mut answer = Answer {
            index,
            node: &facts.node,
            resources: BTreeMap::new(),
        };
        for resource in index.workload(pod, facts) {
            answer.add(resource.clone());
        }
        for name in destinations {
            let Some(names::Name::Destination { ip, port }) = names::parse(name) else {
                continue;
            };
            let destination = index.destination(ip, port);
            answer.follow(&destination);
            answer.add(Arc::new(Published::new(
                name.clone(),
                v1::resource::Content::Destination(destination),
                Vec::new(),
            )));
        }
        Some(answer.resources)
    }
}

impl Model {
    /// Brings what a pod's proxy has of some Services up to date, when nothing but the
    /// state of their endpoints changed. Returns the names of those resources.
    pub fn refresh<'a>(
        &self,
        pod: &PodId,
        services: impl IntoIterator<Item = &'a ObjectKey>,
        resources: &mut BTreeMap<String, Arc<Published>>,
    ) -> Vec<String> {
        let index = &self.index;
        let mut refreshed = Vec::new();
        let Some(facts) = index.world.pods.get(pod) else {
            return refreshed;
        };
        let mut replace = |name: String, new: &dyn Fn() -> Arc<Published>| {
            if let Some(held) = resources.get_mut(&name) {
                *held = new();
                refreshed.push(name);
            }
        };
        for key in services {
            let Some(entry) = index.services.get(key) else {
                continue;
            };
            for (port, at) in &entry.ports {
                replace(names::service(&key.namespace, &key.name, *port), &|| {
                    index.service(key, entry, *port, at).clone()
                });
                replace(names::endpoints(&key.namespace, &key.name, *port), &|| {
                    endpoints(key, entry, *port, at, &facts.node)
                });
            }
        }
        refreshed
    }
}

struct Answer<'a> {
    index: &'a Index,
    node: &'a Arc<str>,
    resources: BTreeMap<String, Arc<Published>>,
}

impl Answer<'_> {
    fn add(&mut self, published: Arc<Published>) {
        self.resources
            .insert(published.resource.name.clone(), published);
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
        if self.resources.contains_key(name) {
            return;
        }
        self.add(self.index.service(&key, entry, port, port_entry).clone());
        self.endpoints(&key, entry, port, port_entry);
        for (backend, _) in entry.splits.iter().flat_map(|split| &split.backends) {
            let Some(entry) = self.index.services.get(backend) else {
                continue;
            };
            if let Some(port_entry) = entry.ports.get(&port) {
                self.endpoints(backend, entry, port, port_entry);
            }
        }
    }

    fn endpoints(&mut self, key: &ObjectKey, entry: &ServiceEntry, port: u16, at: &PortEntry) {
        self.add(endpoints(key, entry, port, at, self.node));
    }
}

/// The endpoints resource that a proxy on `node` gets.
fn endpoints(
    key: &ObjectKey,
    entry: &ServiceEntry,
    port: u16,
    at: &PortEntry,
    node: &Arc<str>,
) -> Arc<Published> {
    let publish = |endpoints: Vec<v1::Endpoint>| {
        Arc::new(Published::new(
            names::endpoints(&key.namespace, &key.name, port),
            v1::resource::Content::Endpoints(v1::Endpoints { endpoints }),
            Vec::new(),
        ))
    };
    let by_node = at.endpoints.get_or_init(|| {
        let mut nodes = BTreeMap::from([("".into(), at.usable(|_| true))]);
        if entry.facts.internal_local {
            nodes.clear();
            for node in at.candidates.iter().map(|candidate| &candidate.node) {
                if !nodes.contains_key(node) {
                    nodes.insert(node.clone(), at.usable(|other| other == node));
                }
            }
        }
        nodes
            .into_iter()
            .map(|(node, endpoints)| (node, publish(endpoints)))
            .collect()
    });
    let node: &str = if entry.facts.internal_local { node } else { "" };
    by_node
        .get(node)
        .unwrap_or_else(|| at.nothing.get_or_init(|| publish(Vec::new())))
        .clone()
}

impl PortEntry {
    /// The endpoints to use among those on a node: the ready ones, or if none is,
    /// those that still serve while they terminate.
    fn usable(&self, on: impl Fn(&Arc<str>) -> bool) -> Vec<v1::Endpoint> {
        let pick = |wanted: fn(&crate::model::Candidate) -> bool| -> Vec<v1::Endpoint> {
            let here = self
                .candidates
                .iter()
                .filter(|candidate| on(&candidate.node));
            here.filter(|c| wanted(c))
                .map(|candidate| candidate.endpoint.clone())
                .collect()
        };
        let ready = pick(|candidate| candidate.ready);
        if ready.is_empty() {
            pick(|candidate| candidate.last_resort)
        } else {
            ready
        }
    }
}

impl Index {
    fn service<'a>(
        &self,
        key: &ObjectKey,
        entry: &ServiceEntry,
        port: u16,
        at: &'a PortEntry,
    ) -> &'a Arc<Published> {
        at.service.get_or_init(|| {
            let splits = entry
                .splits
                .iter()
                .map(|split| self.split_at(split, port))
                .collect();
            let service = v1::Service {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                port: port.into(),
                protocol: v1::Protocol::from(at.protocol).into(),
                affinity_seconds: entry.facts.affinity_seconds,
                splits,
                endpoints: names::endpoints(&key.namespace, &key.name, port),
            };
            let origins = entry
                .splits
                .iter()
                .flat_map(|split| split.origins.clone())
                .collect();
            Arc::new(Published::new(
                names::service(&key.namespace, &key.name, port),
                v1::resource::Content::Service(service),
                origins,
            ))
        })
    }

    /// A split as one port sees it: a backend without that port has no share.
    fn split_at(&self, split: &crate::model::Split, port: u16) -> v1::Split {
        let has_port = |backend: &ObjectKey| {
            self.services
                .get(backend)
                .is_some_and(|entry| entry.ports.contains_key(&port))
        };
        let backends = split
            .backends
            .iter()
            .filter(|(backend, _)| has_port(backend));
        v1::Split {
            origin: Some((&split.origin).into()),
            matches: split
                .matches
                .clone()
                .map(|matches| v1::HttpMatches { matches }),
            backends: backends
                .map(|(backend, weight)| v1::Backend {
                    service: backend.name.to_string(),
                    weight: *weight,
                    endpoints: names::endpoints(&backend.namespace, &backend.name, port),
                })
                .collect(),
        }
    }
}
