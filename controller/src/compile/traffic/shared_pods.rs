//! Pods that several Services lead to, and whose sections are overridden there.
//!
//! What is said of these pods follows from what they serve alone. A Deployment has many that
//! serve the same, so each such set of Service ports is asked once, however many pods have it.

use std::collections::{BTreeMap, BTreeSet};

use policy::{origin::Origin, traffic::Section};

use super::candidate::Named;
use crate::{
    model::{
        Served, passes_proxy,
        traffic::{Overridden, Policies},
    },
    world::PodFacts,
};

/// Sections that decide nothing at some pods, by policy, each with the first of those who do
/// there by another Service.
pub(super) fn overridden(
    named: &Named<'_>,
    policies: &Policies,
) -> BTreeMap<Origin, BTreeMap<Section, Overridden>> {
    let mut served = ServedSets::default();
    for (key, entry) in named.pods {
        if is_one(&entry.serves) {
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

/// What pods serve whose proxies enforce what policies say of it, each set of Service ports once.
#[derive(Debug, Default, PartialEq, Eq)]
struct ServedSets(BTreeSet<Vec<Served>>);

impl ServedSets {
    /// Adds what a pod serves by way of its proxy. What passes that by, or a pod without one, is
    /// enforced by nobody, so nobody is overridden there.
    fn add(&mut self, facts: &PodFacts, serves: &[Served]) {
        let enforced = serves.iter().filter(|(.., own)| passes_proxy(facts, *own));
        let enforced: Vec<Served> = enforced.cloned().collect();
        if !is_one(&enforced) {
            self.0.insert(enforced);
        }
    }

    fn overridden(&self, policies: &Policies) -> impl Iterator<Item = Overridden> {
        let sets = self.0.iter();
        sets.flat_map(move |serves| policies.overridden(serves))
    }
}

/// Nobody else speaks of what has one Service port, as most pods have, or none.
fn is_one(serves: &[Served]) -> bool {
    serves.len() < 2
}
