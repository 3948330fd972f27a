//! The endpoints of a Service port, encoded once for each node that gets others.

use std::{collections::BTreeMap, sync::Arc};

use policy::traffic::endpoint::Locality;
use wire::{convert, names, v1};

use crate::model::published::EncodedResource;
use crate::model::{Endpoint, EndpointState, PortEntry, ServiceEntry};
use crate::world::ObjectKey;

/// The endpoints resource that a proxy on `node` gets.
pub(super) fn endpoints(
    key: &ObjectKey,
    entry: &ServiceEntry,
    port: u16,
    at: &PortEntry,
    node: &Arc<str>,
) -> Arc<EncodedResource> {
    let preferred = Some(entry.facts.locality).filter(|at| *at != Locality::None);
    let locality = convert::locality_message(preferred).into();
    let publish = |endpoints: Vec<v1::Endpoint>| {
        let content = v1::Endpoints {
            endpoints,
            locality,
        };
        Arc::new(EncodedResource::new(
            names::endpoints(&key.namespace, &key.name, port),
            v1::resource::Content::Endpoints(content),
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
    }
}

impl PortEntry {
    /// The endpoints to use among those on a node: the ready ones, or if none is,
    /// those that still serve while they terminate.
    fn usable(&self, on: impl Fn(&Arc<str>) -> bool) -> Vec<v1::Endpoint> {
        let pick = |wanted: fn(&EndpointState) -> bool| -> Vec<v1::Endpoint> {
            let here = self
                .candidates
                .iter()
                .filter(|candidate| on(&candidate.node));
            here.filter(|c| wanted(c))
                .map(|candidate| message(&candidate.endpoint, &candidate.node))
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
