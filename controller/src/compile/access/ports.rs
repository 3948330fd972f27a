//! The ports of a TrafficTarget: what their numbers mean on each pod.

use std::collections::{BTreeMap, BTreeSet};

use crds::smi::judge::PortLimit;
use policy::protocol::Protocol;
use wire::v1;

use super::{Destination, Reading, Traffic};
use crate::{
    compile::{endpoints::ByPort, few},
    model::{Mapped, Served, Target},
    problem::Reason,
    world::{ObjectKey, PodFacts, World},
};

/// Pods by account, and the ports that Services give them.
pub(super) struct Pods<'a> {
    world: &'a World,
    by_account: BTreeMap<ObjectKey, Vec<(&'a ObjectKey, &'a PodFacts)>>,
    /// Service port to container port, by pod.
    served: BTreeMap<&'a ObjectKey, BTreeSet<(u16, u16)>>,
}

impl<'a> Pods<'a> {
    /// The pods that a target is about, each once.
    fn of(
        &self,
        to: &Destination,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a PodFacts)> + use<'a> {
        let by_account = to
            .accounts
            .iter()
            .filter_map(|key| self.by_account.get(key));
        let by_label = to.pods.iter().filter_map(|key| {
            let (key, facts) = self.world.pods.get_key_value(key)?;
            Some((key, facts.as_ref()))
        });
        let pods: BTreeMap<_, _> = by_account.flatten().copied().chain(by_label).collect();
        pods.into_iter()
    }

    pub(super) fn new(world: &'a World, endpoints: &'a ByPort) -> Self {
        let mut by_account: BTreeMap<ObjectKey, Vec<_>> = BTreeMap::new();
        for (key, facts) in world.pods.iter().filter(|(_, facts)| !facts.ended) {
            let account = ObjectKey {
                namespace: key.namespace.clone(),
                name: facts.service_account.clone(),
            };
            by_account
                .entry(account)
                .or_default()
                .push((key, facts.as_ref()));
        }
        let mut served: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for ((service, number), found) in endpoints {
            for found in found {
                // A Service of another namespace has no say in what a port means.
                let Some(pod) = &found.pod else { continue };
                if pod.namespace == service.namespace {
                    served.entry(pod).or_default().insert((*number, found.port));
                }
            }
        }
        Self {
            world,
            by_account,
            served,
        }
    }

    /// The uid that a pod's certificate carries; none without a proxy, which could
    /// not call as anybody.
    pub(super) fn uid(&self, pod: &ObjectKey) -> Option<&'a str> {
        let facts = self.world.pods.get(pod)?;
        facts.proxy.as_ref().map(|_| &*facts.uid)
    }

    /// Every port of a pod that somebody has named.
    fn named_ports(&self, pod: &ObjectKey, facts: &PodFacts) -> BTreeSet<u16> {
        let served = self.served.get(pod).into_iter().flatten();
        let served = served.map(|(_, own)| *own);
        facts.ports.keys().copied().chain(served).collect()
    }

    /// The container ports that `number` means on a pod: itself, unless it is no
    /// container port and a Service gives the pod such a port.
    fn container_ports(&self, pod: &ObjectKey, facts: &PodFacts, number: u16) -> Vec<u16> {
        let served = self.served.get(pod);
        let pairs = served.into_iter().flatten();
        if is_own(facts, pairs.map(|(_, own)| *own), number) {
            return vec![number];
        }
        let through = served.into_iter().flatten().filter(|(at, _)| *at == number);
        let through: Vec<u16> = through.map(|(_, own)| *own).collect();
        if through.is_empty() {
            vec![number]
        } else {
            through
        }
    }
}

/// Whether a pod has this port, as it or a Service says.
fn is_own(facts: &PodFacts, mut served: impl Iterator<Item = u16>, number: u16) -> bool {
    facts.ports.contains_key(&number) || served.any(|own| own == number)
}

/// Whether targets say nothing about this pod but what is written in them: its ports mean
/// themselves, and it skips none.
pub(in crate::compile) fn as_written<'a>(
    targets: impl Iterator<Item = &'a Target>,
    pod: &ObjectKey,
    facts: &PodFacts,
    served: &[Served],
) -> bool {
    if facts.ended {
        return true;
    }
    let skips = facts.proxy.as_ref();
    let skips = skips.is_some_and(|proxy| !proxy.skip_inbound_ports.is_empty());
    let here = served
        .iter()
        .filter(|(key, ..)| key.namespace == pod.namespace);
    targets
        .filter_map(|target| target.rule.as_ref())
        .all(|rule| {
            !skips
                && rule.written().all(|port| {
                    let mut here = here.clone();
                    is_own(facts, here.clone().map(|(.., own)| *own), port)
                        || !here.any(|(_, number, _)| *number == port)
                })
        })
}

#[derive(Clone, PartialEq)]
pub(super) enum Ports {
    Any,
    Only(BTreeSet<u16>),
}

impl Ports {
    pub(super) fn add(&mut self, more: Option<&BTreeSet<u16>>) {
        match (&mut *self, more) {
            (Self::Only(ports), Some(more)) => ports.extend(more),
            (_, None) => *self = Self::Any,
            (Self::Any, Some(_)) => {}
        }
    }
}

pub(super) fn port_set(ports: &Ports) -> v1::PortSet {
    match ports {
        Ports::Any => v1::PortSet {
            any: true,
            ports: Vec::new(),
        },
        Ports::Only(ports) => v1::PortSet {
            any: false,
            ports: ports.iter().copied().map(u32::from).collect(),
        },
    }
}

impl Reading<'_> {
    /// `destination.port` of the oldest versions: nothing is allowed on another port,
    /// and nothing is allowed by it alone.
    pub(super) fn limit_to_destination_port(&self, traffic: &mut Traffic) {
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
        traffic: &Traffic,
    ) -> BTreeMap<ObjectKey, Mapped> {
        let mut mapped = BTreeMap::new();
        let mut told = BTreeSet::new();
        for (pod, facts) in self.pods.of(to) {
            let ports = self.own_ports(pod, facts, traffic.ports.as_ref(), &mut told, "spec.rules");
            let limit = self.own_ports(
                pod,
                facts,
                traffic.limit.as_ref(),
                &mut told,
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
        told: &mut BTreeSet<(u16, &'static str)>,
        field: &'static str,
    ) -> Option<Ports> {
        let Some(Ports::Only(written)) = written else {
            return written.cloned();
        };
        let mut ports = BTreeSet::new();
        for port in written {
            let own = self.pods.container_ports(pod, facts, *port);
            if own != [*port] && told.insert((*port, field)) {
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

    /// A target with rules of both kinds wants to see requests, and on a port that nobody
    /// declared what is no HTTP never satisfies it.
    pub(super) fn warn_of_undeclared(
        &mut self,
        to: &Destination,
        traffic: &Traffic,
        mapped: &BTreeMap<ObjectKey, Mapped>,
    ) {
        let (Some(_), Some(ports)) = (&traffic.http, &traffic.ports) else {
            return;
        };
        let ports = port_set(ports);
        let limit = traffic.limit.as_ref().map(port_set);
        let holds = |set: Option<&v1::PortSet>, port: u16| {
            set.is_none_or(|set| set.any || set.ports.contains(&port.into()))
        };
        let mut undeclared = BTreeSet::new();
        for (pod, facts) in self.pods.of(to) {
            let (ports, limit) = match mapped.get(pod) {
                Some(own) => (own.ports.as_ref(), own.limit.as_ref()),
                None => (Some(&ports), limit.as_ref()),
            };
            let written = ports.into_iter().filter(|set| !set.any);
            let written = written.flat_map(|set| &set.ports).copied();
            let mut meant: BTreeSet<u16> = written.filter_map(|p| u16::try_from(p).ok()).collect();
            if ports.is_some_and(|set| set.any) {
                meant = self.pods.named_ports(pod, facts);
            }
            let detected =
                |port: &u16| self.named.protocols.of_pod_port(pod, *port) == Protocol::Detect;
            meant.retain(|port| holds(limit, *port) && detected(port));
            undeclared.extend(meant);
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
