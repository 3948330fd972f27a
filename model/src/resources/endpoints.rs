//! The endpoints of a Service port, encoded once for each group of nodes that gets the same list.

use std::{collections::BTreeMap, sync::Arc};

use policy::traffic::endpoint::Locality;
use wire::{convert, names, v1};

use crate::model::published::EncodedResource;
use crate::model::{Endpoint, EndpointState, PortEntry, ServiceEntry};
use crate::world::{ObjectKey, TopologyHints};

/// The endpoints resource that a proxy on `node` gets.
pub(super) fn endpoints(
    key: &ObjectKey,
    entry: &ServiceEntry,
    port: u16,
    at: &PortEntry,
    node: &Arc<str>,
) -> Arc<EncodedResource> {
    let topology = Topology::of(entry, at);
    let own = Some(entry.facts.locality).filter(|at| *at != Locality::None);
    let locality = convert::locality_message(own.or(topology.locality())).into();
    let named = at.candidates.iter().any(|candidate| candidate.named);
    let alike = entry.facts.headless && !named;
    let publish = |endpoints: Vec<v1::Endpoint>| {
        let content = v1::Endpoints {
            endpoints,
            locality,
            alike,
            external: None,
        };
        Arc::new(EncodedResource::new(
            names::endpoints(&key.namespace, &key.name, port),
            v1::resource::Content::Endpoints(content),
            Vec::new(),
        ))
    };
    let by_node = at.endpoints.get_or_init(|| {
        let mut nodes = BTreeMap::from([("".into(), at.usable(|_| true, topology))]);
        if entry.facts.internal_local {
            nodes.clear();
            for node in at.candidates.iter().map(|candidate| &candidate.node) {
                if !nodes.contains_key(node) {
                    nodes.insert(node.clone(), at.usable(|other| other == node, topology));
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

/// An endpoint as a proxy reads it.
pub(super) fn message(endpoint: &Endpoint, node: &str) -> v1::Endpoint {
    let (namespace, pod) = endpoint.pod.as_ref().map_or_else(Default::default, |pod| {
        (pod.namespace.to_string(), pod.name.to_string())
    });
    v1::Endpoint {
        ip: endpoint.ip.to_string(),
        port: endpoint.port.into(),
        identity: endpoint.identity.clone(),
        namespace,
        pod,
        zone: endpoint.zone.clone(),
        opaque: endpoint.opaque,
        node: node.to_owned(),
        ready_since: endpoint.ready_since,
        pod_uid: endpoint.pod_uid.to_string(),
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    }
}

/// What the hints of a port's endpoints come to, read as kube-proxy reads them: those of one kind
/// count only if every ready endpoint has some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    /// Nothing.
    None,
    /// Each endpoint is meant for callers near it, which callers can see for themselves.
    Near(Locality),
    /// Callers are sent for which of them each endpoint is meant.
    Hinted { zones: bool, nodes: bool },
}

impl Topology {
    fn of(entry: &ServiceEntry, at: &PortEntry) -> Self {
        // On one node there is nothing to choose by topology.
        if entry.facts.internal_local {
            return Self::None;
        }
        let ready = || at.candidates.iter().filter(|candidate| candidate.ready);
        let all = |holds: fn(&EndpointState, &TopologyHints) -> bool| {
            ready().next().is_some()
                && ready().all(|one| one.hints.as_ref().is_some_and(|hints| holds(one, hints)))
        };
        let zones = all(|_, hints| !hints.zones.is_empty());
        let nodes = all(|_, hints| !hints.nodes.is_empty());
        let own_zone =
            || all(|one, hints| matches!(&*hints.zones, [zone] if **zone == *one.endpoint.zone));
        let own_node = || all(|one, hints| matches!(&*hints.nodes, [node] if *node == one.node));
        match (zones, nodes) {
            (false, false) => Self::None,
            (true, false) if own_zone() => Self::Near(Locality::PreferSameZone),
            (true, true) if own_zone() && own_node() => Self::Near(Locality::PreferSameNode),
            _ => Self::Hinted { zones, nodes },
        }
    }

    const fn locality(self) -> Option<Locality> {
        match self {
            Self::Near(locality) => Some(locality),
            Self::None | Self::Hinted { .. } => None,
        }
    }

    /// The ready endpoint with its hints, as far as they count.
    fn hinted(self, candidate: &EndpointState) -> v1::Endpoint {
        let plain = message(&candidate.endpoint, &candidate.node);
        let (Self::Hinted { zones, nodes }, Some(hints)) = (self, &candidate.hints) else {
            return plain;
        };
        let names = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
        v1::Endpoint {
            for_zones: if zones {
                names(&hints.zones)
            } else {
                Vec::new()
            },
            for_nodes: if nodes {
                names(&hints.nodes)
            } else {
                Vec::new()
            },
            ..plain
        }
    }
}

impl PortEntry {
    /// The endpoints to use among those on a node: the ready ones, or if none is,
    /// those that still serve while they terminate.
    fn usable(&self, on: impl Fn(&Arc<str>) -> bool, topology: Topology) -> Vec<v1::Endpoint> {
        let pick = |wanted: fn(&EndpointState) -> bool, topology: Topology| -> Vec<v1::Endpoint> {
            let here = self
                .candidates
                .iter()
                .filter(|candidate| on(&candidate.node));
            here.filter(|c| wanted(c))
                .map(|candidate| topology.hinted(candidate))
                .collect()
        };
        let ready = pick(|candidate| candidate.ready, topology);
        if ready.is_empty() {
            pick(|candidate| candidate.last_resort, Topology::None)
        } else {
            ready
        }
    }
}
