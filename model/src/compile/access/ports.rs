//! The ports of a TrafficTarget, resolved for each pod: a number is a container port or a
//! Service's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::access;

use super::destination::Destination;
use crate::{
    compile::slices::ByPort,
    model::{Served, Target, has_say},
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
    pub(super) fn of(
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
                let Some(pod) = &found.pod else { continue };
                if has_say(service, pod) {
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

    /// The uid that a pod's certificate carries; none without a proxy, which could call with no
    /// identity.
    pub(super) fn uid(&self, pod: &ObjectKey) -> Option<&'a Arc<str>> {
        let facts = self.world.pods.get(pod)?;
        facts.proxy.as_ref().map(|_| &facts.uid)
    }

    /// Every port of a pod that a pod, Service or target has named.
    pub(super) fn named_ports(&self, pod: &ObjectKey, facts: &PodFacts) -> BTreeSet<u16> {
        let served = self.served.get(pod).into_iter().flatten();
        let served = served.map(|(_, own)| *own);
        facts.ports.keys().copied().chain(served).collect()
    }

    /// The container ports that `number` means on a pod: itself, unless it is no
    /// container port and a Service gives the pod such a port.
    pub(super) fn container_ports(
        &self,
        pod: &ObjectKey,
        facts: &PodFacts,
        number: u16,
    ) -> Vec<u16> {
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

/// Whether a pod has this port, by its own declaration or a Service's.
fn is_own(facts: &PodFacts, mut served: impl Iterator<Item = u16>, number: u16) -> bool {
    facts.ports.contains_key(&number) || served.any(|own| own == number)
}

/// Whether targets mean for this pod exactly what is written in them: its ports mean themselves,
/// and it skips none.
pub(crate) fn as_written<'a>(
    targets: impl Iterator<Item = &'a Target>,
    facts: &PodFacts,
    served: &[Served],
) -> bool {
    if facts.ended {
        return true;
    }
    let skips = facts.proxy.as_ref();
    let skips = skips.is_some_and(|proxy| !proxy.skip_inbound_ports.is_empty());
    let here = served.iter();
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

pub(super) fn port_set(ports: &Ports) -> access::Ports {
    match ports {
        Ports::Any => access::Ports::Any,
        Ports::Only(ports) => access::Ports::only(ports.iter().copied()),
    }
}
