//! Finds pods that several Services lead to, and reports the policy sections that another
//! Service's policy overrides there.
//!
//! What is reported follows from the Service ports that a pod serves. A Deployment has many pods
//! that serve the same, so each such set of ports is evaluated once, however many pods have it:
//! one pod more or less changes nothing of what is reported, unless it is the first or the last of
//! its kind.

use std::collections::{BTreeMap, BTreeSet};

use policy::{origin::Origin, traffic::Section};

use super::candidate::Named;
use crate::{
    model::{
        Index, Served, has_shared_port, passes_proxy,
        traffic::{Overridden, Policies},
    },
    world::{ObjectKey, PodFacts},
};

/// Sections that decide nothing at some pods, by policy, each with the first of the winners there
/// of another Service.
pub(super) fn overridden(
    named: &Named<'_>,
    policies: &Policies,
) -> BTreeMap<Origin, BTreeMap<Section, Overridden>> {
    let mut served = ServedSets::default();
    for (key, entry) in named.pods {
        if !has_shared_port(&entry.serves) {
            continue;
        }
        if let Some(facts) = named.world.pods.get(key) {
            served.add(facts, &entry.serves);
        }
    }
    let mut first: BTreeMap<Origin, BTreeMap<Section, Overridden>> = BTreeMap::new();
    for one in served.overridden(policies) {
        let sections = first.entry(one.loser.clone()).or_default();
        match sections.get(&one.section) {
            Some(known) if *known <= one => {}
            _ => drop(sections.insert(one.section, one)),
        }
    }
    first
}

/// What the pods around a change served before it and serve after it.
#[derive(Debug)]
pub(in crate::compile) struct SharedPods<'a> {
    before: &'a Index,
    was: ServedSets,
    now: ServedSets,
}

impl<'a> SharedPods<'a> {
    pub(in crate::compile) fn new(before: &'a Index) -> Self {
        Self {
            before,
            was: ServedSets::default(),
            now: ServedSets::default(),
        }
    }

    /// Notes what one of them served before.
    pub(in crate::compile) fn note_was(&mut self, facts: &PodFacts, serves: &[Served]) {
        if self.counts(serves) {
            self.was.add(facts, serves);
        }
    }

    /// Notes what one of them serves now.
    pub(in crate::compile) fn note_now(&mut self, facts: &PodFacts, serves: &[Served]) {
        if self.counts(serves) {
            self.now.add(facts, serves);
        }
    }

    fn counts(&self, serves: &[Served]) -> bool {
        !self.before.policies.is_empty() && has_shared_port(serves)
    }

    /// Whether the report of all pods is the same as before, if all that have changed are noted.
    /// `around`: those that are noted.
    pub(in crate::compile) fn reports_alike(&self, around: &BTreeSet<ObjectKey>) -> bool {
        if self.was == self.now {
            return true;
        }
        let policies = &self.before.policies;
        let was: BTreeSet<Overridden> = self.was.overridden(policies).collect();
        let now: BTreeSet<Overridden> = self.now.overridden(policies).collect();
        let mut differing = was.symmetric_difference(&now);
        differing.all(|one| self.is_reported_of_others(one, around))
    }

    /// Whether this is reported because of other pods as well. Those all serve the winner's port.
    fn is_reported_of_others(&self, one: &Overridden, around: &BTreeSet<ObjectKey>) -> bool {
        let Index {
            world,
            services,
            pods,
            policies,
            ..
        } = self.before;
        let entry = services.get(&one.service);
        let port = entry.and_then(|entry| entry.ports.get(&one.port));
        let candidates = port.into_iter().flat_map(|port| &port.candidates);
        let candidates = candidates.filter_map(|candidate| candidate.endpoint.pod.as_ref());
        let mut served = ServedSets::default();
        for key in candidates.filter(|key| !around.contains(*key)) {
            if let (Some(facts), Some(entry)) = (world.pods.get(key), pods.get(key)) {
                served.add(facts, &entry.serves);
            }
        }
        served.overridden(policies).any(|other| other == *one)
    }
}

/// What pods serve whose proxies enforce policies on it, each set of Service ports once.
#[derive(Debug, Default, PartialEq, Eq)]
struct ServedSets(BTreeSet<Vec<Served>>);

impl ServedSets {
    /// Adds what a pod serves by way of its proxy. What passes that by, or a pod without one, is
    /// enforced by no proxy, so no policy is overridden there.
    fn add(&mut self, facts: &PodFacts, serves: &[Served]) {
        let enforced = serves.iter().filter(|(.., own)| passes_proxy(facts, *own));
        let enforced: Vec<Served> = enforced.cloned().collect();
        if has_shared_port(&enforced) {
            self.0.insert(enforced);
        }
    }

    fn overridden(&self, policies: &Policies) -> impl Iterator<Item = Overridden> {
        let sets = self.0.iter();
        sets.flat_map(move |serves| policies.overridden(serves))
    }
}
