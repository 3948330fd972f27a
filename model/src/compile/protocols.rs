//! Resolves the protocol of each port, from annotations, Services and the list of opaque ports.
//!
//! For a port of a pod: the pod's annotation, else what Services declare, else the list of opaque
//! ports (the namespace's annotation and the default list). For a port of a Service: its pods'
//! annotations, else its own declaration where its pods have room for it, else what its pods have,
//! else the list.
//!
//! Services may declare different things for one container port. Versions of HTTP do not contradict
//! each other. HTTP and TLS do, but in both the client sends first and its first bytes distinguish
//! them: so such a port is detected, and each Service port keeps its own protocol at the callers.
//! Opaque traffic cannot be distinguished from anything, so against that the oldest declaration
//! decides, for both sides of a call.
//!
//! Invariant: a port that some Service declares as HTTP becomes opaque only by an older
//! Service or by the pod's own annotation. Otherwise a Service that comes later would
//! take the HTTP rules off the port.

use std::{collections::BTreeMap, sync::Arc};

use policy::{name::Kind, protocol::Protocol};

use super::findings::Findings;
use super::slices::{ByPort, SliceEndpoint};
use crate::{
    model::{
        PodEntry, Served, has_say,
        protocols::{declaration, holds, opaque_list, ranges, spoken},
    },
    problem::Reason,
    world::{ObjectKey, ServiceFacts, World, object},
};

/// A Service's claim on a port of a pod; the least one comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: i64,
    service: ObjectKey,
    number: u16,
    protocol: Protocol,
}

impl Claim {
    /// What a Service declares for one of its ports, if it does.
    fn of(key: &ObjectKey, service: &ServiceFacts, number: u16) -> Option<Self> {
        let (protocol, _) = declaration(service, number)?;
        Some(Self {
            created: service.created,
            service: key.clone(),
            number,
            protocol,
        })
    }

    /// Whether not both can hold.
    fn contradicts(&self, other: &Self) -> bool {
        let one_family = self.protocol.is_http() && other.protocol.is_http();
        self.protocol != other.protocol && !one_family
    }

    /// Why this one decides against another.
    fn precedence(&self, other: &Self) -> String {
        if self.service == other.service {
            format!("port {} has the lower number", self.number)
        } else if self.created == other.created {
            format!("Service {} comes first by name", self.service)
        } else {
            format!("Service {} is older", self.service)
        }
    }
}

/// What the claims on a port come to. They are in order.
fn decided(claims: &[Claim]) -> Option<Protocol> {
    let first = claims.first()?.protocol;
    let claimed = |of: fn(Protocol) -> bool| claims.iter().any(|claim: &Claim| of(claim.protocol));
    let both = claimed(Protocol::is_http) && claimed(|protocol| protocol == Protocol::Tls);
    if both && first != Protocol::Opaque {
        return Some(Protocol::Detect);
    }
    Some(first)
}

/// What becomes of a claim that contradicts the first one, and the way out.
fn contradiction(port: u16, first: &Claim, other: &Claim, decided: Protocol) -> String {
    let lead = format!(
        "port {} ({}) and port {} ({}) of Service {} lead to container port {port}",
        other.number,
        spoken(other.protocol),
        first.number,
        spoken(first.protocol),
        first.service,
    );
    if decided == Protocol::Detect && other.protocol != Protocol::Opaque {
        return format!(
            "{lead}, which is taken for what its first bytes say: HTTP rules hold there, and \
             beside them TLS passes only by a TrafficTarget without an HTTPRouteGroup"
        );
    }
    format!(
        "{lead}, which is taken for {}, since {}: declare the same at both, or give each a \
         container port of its own",
        spoken(decided),
        first.precedence(other),
    )
}

/// What Services declare for the ports of every pod; `Detect` is HTTP beside TLS. What
/// contradicts the first claim on a port becomes a problem of its Service.
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
        let Some(claim) = Claim::of(key, service, *number) else {
            continue;
        };
        for found in found {
            let Some(pod) = found.pod.as_ref().filter(|pod| has_say(key, pod)) else {
                continue;
            };
            claims
                .entry((pod.clone(), found.port))
                .or_default()
                .push(claim.clone());
        }
    }
    let mut declared: BTreeMap<ObjectKey, BTreeMap<u16, Protocol>> = BTreeMap::new();
    for ((pod, port), mut claims) in claims {
        claims.sort();
        let (Some(first), Some(protocol)) = (claims.first(), decided(&claims)) else {
            continue;
        };
        for other in claims.iter().filter(|claim| claim.contradicts(first)) {
            let generation = world
                .services
                .get(&other.service)
                .map_or(0, |service| service.generation);
            findings
                .about(&object(Kind::Service, &other.service), generation)
                .warn(
                    Reason::ProtocolConflict,
                    &format!("spec.ports[{}]", other.number),
                    contradiction(port, first, other, protocol),
                );
        }
        declared.entry(pod).or_default().insert(port, protocol);
    }
    declared
}

/// What Services that count for a pod declare for its ports; `None` if they contradict each other,
/// which must be reported.
pub(super) fn declared_for_pod(
    world: &World,
    served: &[Served],
) -> Option<BTreeMap<u16, Protocol>> {
    let mut claims: BTreeMap<u16, Vec<Claim>> = BTreeMap::new();
    for (key, number, port) in served {
        let service = world.services.get(key);
        let claim = service.and_then(|service| Claim::of(key, service, *number));
        if let Some(claim) = claim {
            claims.entry(*port).or_default().push(claim);
        }
    }
    let mut declared = BTreeMap::new();
    for (port, mut claims) in claims {
        claims.sort();
        let first = claims.first()?;
        if claims.iter().any(|claim| claim.contradicts(first)) {
            return None;
        }
        declared.insert(port, decided(&claims)?);
    }
    Some(declared)
}

/// Whether a Service port keeps what it declares where its pods' port is this.
fn has_room_for(declared: Protocol, pods: Protocol) -> bool {
    declared == pods
        || declared.is_http() && pods.is_http()
        || declared != Protocol::Opaque && pods == Protocol::Detect
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
        if holds(&ranges(facts.annotations.opaque_ports.as_deref()), port) {
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

    /// Whether Services declare a container port as HTTP and as TLS.
    pub(super) fn is_http_beside_tls(&self, pod: &ObjectKey, port: u16) -> bool {
        self.declared(pod, port) == Some(Protocol::Detect)
            && self.of_pod_port(pod, port) == Protocol::Detect
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
            let list = facts.and_then(|facts| facts.annotations.opaque_ports.as_deref());
            holds(&ranges(list), port)
        };
        if pods.clone().any(says_opaque) {
            return Protocol::Opaque;
        }
        // If Services disagree per pod, the most opaque result works for all of them.
        let of_pods = pods
            .filter_map(|(pod, port)| self.declared(pod, port))
            .max();
        let own = declaration(service, number).map(|(protocol, _)| protocol);
        match (own, of_pods) {
            (Some(own), Some(of_pods)) if has_room_for(own, of_pods) => return own,
            (_, Some(of_pods)) => return of_pods,
            (Some(own), None) => return own,
            (None, None) => {}
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
