//! Maps the ports written in a TrafficTarget to container ports of each pod, and reports those
//! that do not fit.

use std::collections::{BTreeMap, BTreeSet};

use crds::smi::validation::PortLimit;
use policy::{access, protocol::Protocol};

use super::{
    AllowedTraffic, Reading,
    destination::Destination,
    ports::{Ports, port_set},
};
use crate::{
    model::Mapped,
    problem::{Reason, few},
    world::{ObjectKey, PodFacts},
};

impl Reading<'_> {
    /// `destination.port` of the oldest versions: nothing is allowed on another port,
    /// and nothing is allowed by it alone.
    pub(super) fn limit_to_destination_port(&self, traffic: &mut AllowedTraffic) {
        let destination = self.facts.spec.destination.as_ref();
        traffic.limit = match destination.map(|to| to.limit).unwrap_or_default() {
            PortLimit::Any => return,
            PortLimit::Only(port) => Some(Ports::Only(BTreeSet::from([port]))),
            PortLimit::Nothing => Some(Ports::Only(BTreeSet::new())),
        };
    }

    /// The container ports for those pods on which a written port is a Service's.
    pub(super) fn mapped(
        &mut self,
        to: &Destination,
        traffic: &AllowedTraffic,
    ) -> BTreeMap<ObjectKey, Mapped> {
        let mut mapped = BTreeMap::new();
        let mut reported = BTreeSet::new();
        for (pod, facts) in self.pods.of(to) {
            let ports = self.own_ports(
                pod,
                facts,
                traffic.ports.as_ref(),
                &mut reported,
                "spec.rules",
            );
            let limit = self.own_ports(
                pod,
                facts,
                traffic.limit.as_ref(),
                &mut reported,
                "spec.destination.port",
            );
            if (&ports, &limit) != (&traffic.ports, &traffic.limit) {
                let ports = ports.as_ref().map(port_set);
                let limit = limit.as_ref().map(port_set);
                mapped.insert(pod.clone(), Mapped { ports, limit });
            }
        }
        mapped
    }

    /// Written ports as the container ports of one pod.
    fn own_ports(
        &mut self,
        pod: &ObjectKey,
        facts: &PodFacts,
        written: Option<&Ports>,
        reported: &mut BTreeSet<(u16, &'static str)>,
        field: &'static str,
    ) -> Option<Ports> {
        let Some(Ports::Only(written)) = written else {
            return written.cloned();
        };
        let mut ports = BTreeSet::new();
        for port in written {
            let own = self.pods.container_ports(pod, facts, *port);
            if own != [*port] && reported.insert((*port, field)) {
                let message = format!(
                    "{port} is a Service port; taken for container port {}",
                    few(own.iter().map(ToString::to_string))
                );
                self.about.warn(Reason::ServicePortMapped, field, message);
            }
            ports.extend(own);
        }
        Some(Ports::Only(ports))
    }

    /// A target with rules of both kinds needs to see requests, and on a port without a
    /// declaration, or declared as HTTP and as TLS, what is no HTTP never satisfies it.
    pub(super) fn warn_of_undeclared(
        &mut self,
        to: &Destination,
        traffic: &AllowedTraffic,
        mapped: &BTreeMap<ObjectKey, Mapped>,
    ) {
        let (Some(_), Some(ports)) = (&traffic.http, &traffic.ports) else {
            return;
        };
        let ports = port_set(ports);
        let limit = traffic.limit.as_ref().map(port_set);
        let holds =
            |set: Option<&access::Ports>, port: u16| set.is_none_or(|set| set.contains(port));
        let (mut undeclared, mut beside_tls) = (BTreeSet::new(), BTreeSet::new());
        for (pod, facts) in self.pods.of(to) {
            let (ports, limit) = match mapped.get(pod) {
                Some(own) => (own.ports.as_ref(), own.limit.as_ref()),
                None => (Some(&ports), limit.as_ref()),
            };
            let mut meant: BTreeSet<u16> = match ports {
                Some(access::Ports::Only(ports)) => ports.iter().copied().collect(),
                Some(access::Ports::Any) => self.pods.named_ports(pod, facts),
                None => BTreeSet::new(),
            };
            let detected =
                |port: &u16| self.named.protocols.of_pod_port(pod, *port) == Protocol::Detect;
            meant.retain(|port| holds(limit, *port) && detected(port));
            let declared_twice = |port: &u16| self.named.protocols.is_http_beside_tls(pod, *port);
            let (twice, never): (Vec<u16>, Vec<u16>) = meant.into_iter().partition(declared_twice);
            beside_tls.extend(twice);
            undeclared.extend(never);
        }
        if !beside_tls.is_empty() {
            let message = format!(
                "port {} of {} is declared as HTTP and as TLS: beside an HTTPRouteGroup no TLS \
                 passes there; allow it by a second TrafficTarget with the TCPRoute alone, or \
                 give it a container port of its own",
                few(beside_tls.iter().map(ToString::to_string)),
                to.name
            );
            self.about
                .warn(Reason::ProtocolConflict, "spec.rules", message);
        }
        if !undeclared.is_empty() {
            let message = format!(
                "port {} of {} is not declared: beside an HTTPRouteGroup nothing but HTTP passes \
                 there; declare it in a Service (appProtocol, or the port's name) as http, or as \
                 tcp for the TCPRoute alone to decide",
                few(undeclared.iter().map(ToString::to_string)),
                to.name
            );
            self.about
                .warn(Reason::ProtocolNotDeclared, "spec.rules", message);
        }
    }

    pub(super) fn warn_of_skipped(&mut self, to: &Destination) {
        let skipped: BTreeSet<String> = self
            .pods
            .of(to)
            .filter_map(|(_, facts)| facts.proxy.as_ref())
            .flat_map(|proxy| proxy.skip_inbound_ports.iter().map(ToString::to_string))
            .collect();
        if !skipped.is_empty() {
            let message = format!(
                "pods of {} skip port {}: no rule applies there",
                to.name,
                few(skipped)
            );
            self.about.warn(Reason::PortSkipped, "", message);
        }
    }
}
