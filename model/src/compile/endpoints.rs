//! Compiles the endpoints of each Service port.

use std::{collections::BTreeMap, sync::Arc};

use policy::egress::ExternalProtocol;
use policy::protocol::Protocol;

use super::protocols;
use super::slices::{ByPort, SliceEndpoint, served_by_pod};
use crate::{
    model::{Endpoint, EndpointState, PodEntry, PortEntry, Served, by_say, revoked::RevocationSet},
    world::{ObjectKey, ServiceFacts, World},
};

/// The ports of one Service with their endpoints. Pods that are revoked for good get no calls.
pub(super) fn ports(
    (world, revocations): (&World, &RevocationSet),
    key: &ObjectKey,
    facts: &ServiceFacts,
    found: &ByPort,
    pods: &BTreeMap<ObjectKey, Arc<PodEntry>>,
) -> BTreeMap<u16, PortEntry> {
    if facts.external_name.is_some() {
        return BTreeMap::new();
    }
    let external = world.external_of(key);
    let port = |number: u16| {
        let at = (key.clone(), number);
        let found = found.get(&at).map_or(&[][..], Vec::as_slice);
        let protocols = protocols::Protocols { world, pods };
        let declared = protocols.of_service_port(key, facts, number, found);
        let outside = external.and_then(|external| {
            let mut ports = external.ports.iter();
            ports.find(|port| port.port == number)
        });
        PortEntry::new(
            outside.map_or(declared, |port| spoken_outside(declared, port.protocol)),
            found
                .iter()
                .map(|found| candidate(found, &protocols, revocations))
                .collect(),
        )
    };
    facts
        .ports
        .iter()
        .map(|facts| (facts.number, port(facts.number)))
        .collect()
}

/// What is spoken at the port of a Service that stands for a host outside: what the Service
/// declares, else what the object says.
const fn spoken_outside(declared: Protocol, outside: ExternalProtocol) -> Protocol {
    match (declared, outside) {
        (Protocol::Detect, ExternalProtocol::Tls) => Protocol::Tls,
        (Protocol::Detect, ExternalProtocol::Tcp) => Protocol::Opaque,
        (declared, _) => declared,
    }
}

fn candidate(
    found: &SliceEndpoint,
    protocols: &protocols::Protocols<'_>,
    revocations: &RevocationSet,
) -> EndpointState {
    let serves = !revocations.has_ended(&found.pod_uid);
    EndpointState {
        endpoint: Endpoint {
            ip: found.ip,
            port: found.port,
            identity: found.identity.clone(),
            pod: found.pod.clone(),
            pod_uid: found.pod_uid.clone(),
            zone: found.zone.clone(),
            ready_since: found.ready_since,
            opaque: found
                .pod
                .as_ref()
                .is_some_and(|pod| protocols.of_pod_port(pod, found.port).is_opaque()),
        },
        node: found.node.clone(),
        ready: found.ready && serves,
        last_resort: found.serving && found.terminating && serves,
        hints: found.hints.clone(),
        named: found.named,
        gated: found.gated.filter(|_| serves),
    }
}

/// Notes on every pod which Services it serves.
pub(super) fn note_services(
    world: &World,
    found: &ByPort,
    pods: &mut BTreeMap<ObjectKey, PodEntry>,
) {
    for (pod, served) in served_by_pod(found) {
        if let Some(entry) = pods.get_mut(pod) {
            entry.headless = headless(world, &served);
            (entry.serves, entry.elsewhere) = by_say(pod, served);
        }
    }
}

/// The headless Services among these: own port, Service, Service port.
pub(super) fn headless(world: &World, served: &[Served]) -> Vec<(u16, ObjectKey, u16)> {
    let headless = |service: &ObjectKey| {
        let facts = world.services.get(service);
        facts.is_some_and(|facts| facts.headless)
    };
    let served = served.iter().filter(|(service, ..)| headless(service));
    served
        .map(|(service, number, port)| (*port, service.clone(), *number))
        .collect()
}
