//! Which protocol a port speaks, as far as somebody has said so.
//!
//! For a port of a pod: the pod's annotation, else the oldest Service that
//! declares it, else the list of opaque ports (the namespace's annotation and the
//! default list). For a port of a Service: what its pods' annotations say, else
//! the declaration, else the list. Both sides of a call must agree, so a Service
//! that lost to an older one takes over what the older one says.

use std::{collections::BTreeMap, sync::Arc};

use policy::{name::Kind, protocol::Protocol};

use super::findings::Findings;
use super::slices::{ByPort, SliceEndpoint};
use crate::{
    model::{
        PodEntry, Served, has_say,
        protocols::{declaration, holds, opaque_list, ranges},
    },
    problem::Reason,
    world::{ObjectKey, ServiceFacts, World, object},
};

/// A Service's claim on a port of a pod; the least one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: i64,
    service: ObjectKey,
    number: u16,
    protocol: Protocol,
}

/// What Services declare for the ports of every pod. The oldest wins; a younger
/// one that says something else is told.
pub(super) fn declared_for_pods(
    world: &World,
    found: &ByPort,
    findings: &mut Findings,
) -> BTreeMap<ObjectKey, BTreeMap<u16, Protocol>> {
    let mut claims: BTreeMap<(ObjectKey, u16), Vec<Claim>> = BTreeMap::new();
    for ((key, number), found) in found {
        let Some(service) = world.services.get(key) else {
            continue;
        };
        let Some((protocol, _)) = declaration(service, *number) else {
            continue;
        };
        for found in found {
            let Some(pod) = found.pod.as_ref().filter(|pod| has_say(key, pod)) else {
                continue;
            };
            claims
                .entry((pod.clone(), found.port))
                .or_default()
                .push(Claim {
                    created: service.created,
                    service: key.clone(),
                    number: *number,
                    protocol,
                });
        }
    }
    let mut declared: BTreeMap<ObjectKey, BTreeMap<u16, Protocol>> = BTreeMap::new();
    for ((pod, port), mut claims) in claims {
        claims.sort();
        let Some((winner, others)) = claims.split_first() else {
            continue;
        };
        for loser in others
            .iter()
            .filter(|claim| claim.protocol != winner.protocol)
        {
            let generation = world
                .services
                .get(&loser.service)
                .map_or(0, |s| s.generation);
            findings.about(&object(Kind::Service, &loser.service), generation).warn(
                Reason::ProtocolConflict,
                &format!("spec.ports[{}]", loser.number),
                format!(
                    "declares another protocol for container port {port} than the older Service \
                     {}, which decides",
                    winner.service
                ),
            );
        }
        declared
            .entry(pod)
            .or_default()
            .insert(port, winner.protocol);
    }
    declared
}

/// What Services with a say over a pod declare for its ports; `None` if they contradict each
/// other, which somebody has to be told.
pub(super) fn declared_for_pod(
    world: &World,
    served: &[Served],
) -> Option<BTreeMap<u16, Protocol>> {
    let mut declared: BTreeMap<u16, Protocol> = BTreeMap::new();
    for (key, number, port) in served {
        let Some(service) = world.services.get(key) else {
            continue;
        };
        if let Some((protocol, _)) = declaration(service, *number)
            && *declared.entry(*port).or_insert(protocol) != protocol
        {
            return None;
        }
    }
    Some(declared)
}

/// Reads protocols once the pods' are known.
#[derive(Debug)]
pub(super) struct Protocols<'a> {
    pub(super) world: &'a World,
    pub(super) pods: &'a BTreeMap<ObjectKey, Arc<PodEntry>>,
}

impl Protocols<'_> {
    /// The protocol of a container port.
    pub(super) fn of_pod_port(&self, pod: &ObjectKey, port: u16) -> Protocol {
        let Some(facts) = self.world.pods.get(pod) else {
            return Protocol::Detect;
        };
        if holds(&ranges(facts.appearance.opaque_ports.as_deref()), port) {
            return Protocol::Opaque;
        }
        if let Some(declared) = self.declared(pod, port) {
            return declared;
        }
        let list = opaque_list(self.world.namespace(&pod.namespace));
        if holds(&list, port) {
            Protocol::Opaque
        } else {
            Protocol::Detect
        }
    }

    fn declared(&self, pod: &ObjectKey, port: u16) -> Option<Protocol> {
        self.pods.get(pod)?.declared.get(&port).copied()
    }

    /// The protocol of a Service port with these endpoints.
    pub(super) fn of_service_port(
        &self,
        key: &ObjectKey,
        service: &ServiceFacts,
        number: u16,
        found: &[SliceEndpoint],
    ) -> Protocol {
        let pods = found
            .iter()
            .filter_map(|found| Some((found.pod.as_ref()?, found.port)));
        let says_opaque = |(pod, port): (&ObjectKey, u16)| {
            let facts = self.world.pods.get(pod);
            let list = facts.and_then(|facts| facts.appearance.opaque_ports.as_deref());
            holds(&ranges(list), port)
        };
        if pods.clone().any(says_opaque) {
            return Protocol::Opaque;
        }
        // If Services disagree per pod, the most opaque answer works for all of them.
        let declared = pods
            .filter_map(|(pod, port)| self.declared(pod, port))
            .max();
        if let Some(protocol) = declared {
            return protocol;
        }
        if let Some((protocol, _)) = declaration(service, number) {
            return protocol;
        }
        let list = opaque_list(self.world.namespace(&key.namespace));
        let listed = holds(&list, number) || found.iter().any(|found| holds(&list, found.port));
        if listed {
            Protocol::Opaque
        } else {
            Protocol::Detect
        }
    }
}
