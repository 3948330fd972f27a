//! The TrafficPolicies in force, by Service port.
//!
//! Callers and pods of a port get their sections from the same winners, so the two cannot
//! disagree.

mod merged;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use policy::{
    name::ObjectRef,
    origin::Origin,
    traffic::{
        EffectivePolicy,
        call::TcpTarget,
        part::{Part, Parts},
        pod::{GuardPort, PodGuard},
    },
};

pub(crate) use self::merged::Overridden;

use self::merged::{GuardBuilder, Ranks};
use super::{
    faults::Faults,
    published::EncodedResource,
    service_ports::{Served, has_shared_port},
};
use crate::world::ObjectKey;

/// Every TrafficPolicy that decides something.
#[derive(Debug, Default)]
pub struct Policies {
    /// By Service and port.
    pub ports: BTreeMap<(ObjectKey, u16), Arc<PortPolicies>>,
    /// Services that get copies from mirrors with `ReadOnly`, with what all of those allow.
    pub(crate) copies: BTreeMap<ObjectKey, Copies>,
    /// Services of whose pods more is known than where they are, and what that was.
    pub(crate) watched: BTreeMap<ObjectKey, ServicePodFacts>,
    /// Runs of FaultExperiments, whose rules are in `ports`.
    pub faults: Faults,
}

/// What is known about the pods of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServicePodFacts {
    /// Some of them have no proxy.
    pub(crate) plain: bool,
    /// Some of them serve another Service, too.
    pub(crate) shared: bool,
    /// Some of them are of another namespace, and get nothing.
    pub(crate) foreign: bool,
    /// There are none, whether ready or not.
    pub(crate) empty: bool,
}

/// What pods may open that get nothing but copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Copies {
    pub(crate) allow_tcp: Vec<TcpTarget>,
    pub(crate) origins: Vec<(ObjectRef, i64)>,
}

/// What policies say of one port of a Service.
#[derive(Debug, Default)]
pub struct PortPolicies {
    pub traffic: EffectivePolicy,
    /// The policies in it, each with the objects that it was made from.
    pub origins: BTreeMap<Origin, Vec<(ObjectRef, i64)>>,
    /// Where each of them stands beside those of another Service that leads to the same pods.
    pub(crate) ranks: Ranks,
    /// Services that calls may be sent to instead.
    pub leads_to: BTreeSet<ObjectKey>,
    /// What callers get, encoded at the first query; `None` if nothing.
    pub resource: OnceLock<Option<Arc<EncodedResource>>>,
    /// The objects behind what callers and what pods get, computed at the first query.
    pub(crate) of_callers: OnceLock<RequiredParts>,
    pub(crate) of_pods: OnceLock<RequiredParts>,
}

/// Objects, with the generation that is in force, and what carrying them out takes.
pub(crate) type RequiredParts = BTreeMap<(ObjectRef, i64), Parts>;

impl PortPolicies {
    /// Whether the two say the same, whatever was encoded of them so far.
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.traffic == other.traffic
            && self.origins == other.origins
            && self.ranks == other.ranks
            && self.leads_to == other.leads_to
    }

    /// The objects behind these rules.
    fn needs<'a>(&'a self, rules: impl Iterator<Item = (&'a Origin, Parts)>) -> RequiredParts {
        // A limit has its own name, and belongs to its policy.
        let named = |origin: &Origin| {
            Origin::new(
                origin.kind(),
                origin.namespace().clone(),
                origin.name().clone(),
            )
        };
        let mut needs = RequiredParts::new();
        for (rule, parts) in rules {
            for object in self.origins.get(&named(rule)).into_iter().flatten() {
                let all = needs.entry(object.clone()).or_default();
                *all = all.and(parts);
            }
        }
        needs
    }

    /// The objects behind what pods get.
    pub(crate) fn pod_needs(&self) -> &RequiredParts {
        self.of_pods
            .get_or_init(|| self.needs(self.traffic.pod_needs()))
    }

    /// Those behind what a pod gets that received this from all its Services: another one may
    /// decide there what is said here, and the pod cannot have what it is not sent.
    fn needs_within(&self, received: &GuardPort) -> Cow<'_, RequiredParts> {
        // Each section that pods get has parts of its own, so these name the section.
        let received: BTreeSet<(&Origin, Parts)> = received.pod_needs().collect();
        if self
            .traffic
            .pod_needs()
            .all(|need| received.contains(&need))
        {
            return Cow::Borrowed(self.pod_needs());
        }
        let sent = self.traffic.pod_needs();
        Cow::Owned(self.needs(sent.filter(|need| received.contains(need))))
    }

    /// The objects behind what callers get.
    pub(crate) fn caller_needs(&self) -> &RequiredParts {
        self.of_callers
            .get_or_init(|| self.needs(self.traffic.caller_needs()))
    }
}

/// What a pod gets about requests to it, and from which objects that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Guard {
    pub(crate) guard: PodGuard,
    pub(crate) needs: RequiredParts,
}

impl Guard {
    fn need(&mut self, object: &(ObjectRef, i64), parts: Parts) {
        let all = self.needs.entry(object.clone()).or_default();
        *all = all.and(parts);
    }

    /// What the pod's proxy is sent; `None` if nothing.
    pub(crate) fn sent(&self) -> Option<PodGuard> {
        let ports = self.guard.ports.iter();
        let ports = ports.map(|(number, port)| (*number, port.for_pods()));
        let sent = PodGuard {
            ports: ports
                .filter(|(_, port)| *port != GuardPort::default())
                .collect(),
            read_only: self.guard.read_only.clone(),
        };
        (sent != PodGuard::default()).then_some(sent)
    }
}

impl Policies {
    /// Whether no policy says anything.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.copies.is_empty()
    }

    pub fn of(&self, service: &ObjectKey, port: u16) -> Option<&Arc<PortPolicies>> {
        // Most meshes have none.
        if self.ports.is_empty() {
            return None;
        }
        self.ports.get(&(service.clone(), port))
    }

    /// Ports of a Service that policies speak of.
    pub(crate) fn ports_of<'a>(
        &'a self,
        service: &ObjectKey,
    ) -> impl Iterator<Item = &'a Arc<PortPolicies>> {
        let all = (service.clone(), 0)..=(service.clone(), u16::MAX);
        self.ports.range(all).map(|(_, port)| port)
    }

    /// What a pod that serves these gets; `None` if nothing.
    pub(crate) fn guard(&self, serves: &[Served]) -> Option<Guard> {
        if self.is_empty() {
            return None;
        }
        let merged = self.merged(serves).into_iter();
        let merged = merged.map(|(own, merged)| (own, merged.guard_port()));
        let ports: BTreeMap<u16, GuardPort> = merged.collect();
        let mut guard = Guard::default();
        for (service, number, own) in serves {
            if let (Some(port), Some(received)) = (self.of(service, *number), ports.get(own)) {
                for (object, parts) in port.needs_within(received).iter() {
                    guard.need(object, *parts);
                }
            }
            if let Some(copies) = self.copies.get(service) {
                guard.guard.read_only = Some(copies.allow_tcp.clone());
                for object in &copies.origins {
                    guard.need(object, Parts::of(&[Part::ReadOnly]));
                }
            }
        }
        let configured = ports.into_iter();
        let configured = configured.filter(|(_, port)| *port != GuardPort::default());
        guard.guard.ports = configured.collect();
        (guard.guard != PodGuard::default()).then_some(guard)
    }

    /// By container port what all Services say of it.
    fn merged<'a>(&'a self, serves: &'a [Served]) -> BTreeMap<u16, GuardBuilder<'a>> {
        let mut ports: BTreeMap<u16, GuardBuilder<'a>> = BTreeMap::new();
        for (service, number, own) in serves {
            let port = self.of(service, *number);
            let says = port.map(|port| (&port.traffic, &port.ranks));
            ports.entry(*own).or_default().add((service, *number), says);
        }
        ports
    }

    /// Sections that a pod which serves these does not get, because by another Service another
    /// policy decides them there.
    pub(crate) fn overridden(&self, serves: &[Served]) -> Vec<Overridden> {
        // Most meshes have no policy, and most pods one Service for each port.
        if self.ports.is_empty() || !has_shared_port(serves) {
            return Vec::new();
        }
        let merged = self.merged(serves);
        merged.values().flat_map(GuardBuilder::overridden).collect()
    }

    /// The objects from which a pod that serves these gets something, each at a port of its own.
    pub(crate) fn origins_apart<'a>(
        &'a self,
        serves: &'a [Served],
    ) -> impl Iterator<Item = &'a ObjectRef> {
        serves.iter().flat_map(|(service, number, _)| {
            let port = self.of(service, *number).into_iter();
            let copies = self.copies.get(service).into_iter();
            let configured = port.flat_map(|port| port.pod_needs().keys());
            let copied = copies.flat_map(|copies| &copies.origins);
            configured.chain(copied).map(|(object, _)| object)
        })
    }

    /// Whether what a pod that serves these gets is plainly the same as before: made of the very
    /// same parts.
    pub(crate) fn shares_guard(&self, before: &Self, serves: &[Served]) -> bool {
        self.copies == before.copies
            && serves.iter().all(|(service, number, _)| {
                match (self.of(service, *number), before.of(service, *number)) {
                    (None, None) => true,
                    (Some(now), Some(then)) => Arc::ptr_eq(now, then),
                    _ => false,
                }
            })
    }

    /// Takes over what is as it was, and returns the Services whose callers get something else.
    pub(crate) fn take_over(&mut self, before: &Self) -> BTreeSet<ObjectKey> {
        let gone = before
            .ports
            .keys()
            .filter(|at| !self.ports.contains_key(*at));
        let mut changed: BTreeSet<ObjectKey> = gone.map(|(key, _)| key.clone()).collect();
        for (at, port) in &mut self.ports {
            match before.ports.get(at) {
                Some(old) if old.same(port) => *port = Arc::clone(old),
                _ => drop(changed.insert(at.0.clone())),
            }
        }
        changed
    }
}
