//! The sets `stable` and `candidate` of a Service's endpoints, between which a release shares its
//! calls out.
//!
//! A set is a backend with a name of its own (`web@candidate`) and the facts of its Service. It is
//! part of that Service's entry, so a Service and its sets change together, and nothing that lists
//! Services lists sets.

use std::sync::Arc;

use policy::release::{Limit, ReleaseSet, weight};

use super::{Index, PodEntry, PortEntry, ServiceEntry, Sets};
use crate::world::ObjectKey;

impl Sets {
    pub(crate) const fn entry(&self, set: ReleaseSet) -> &Arc<ServiceEntry> {
        match set {
            ReleaseSet::Stable => &self.stable,
            ReleaseSet::Candidate => &self.candidate,
        }
    }

    /// The candidate's part of the calls to a port, in percent.
    pub(super) fn weight(&self, limit: Limit, port: u16) -> u8 {
        let at = |set| self.entry(set).ports.get(&port);
        let [candidate, stable] = [ReleaseSet::Candidate, ReleaseSet::Stable].map(at);
        let count =
            |counts: fn(&PortEntry) -> usize| [candidate, stable].map(|at| at.map_or(0, counts));
        let [candidate, stable] = match count(PortEntry::ready) {
            // As a Service without ready endpoints is served by those that end.
            [0, 0] => count(PortEntry::last_resorts),
            ready => ready,
        };
        weight(limit, candidate, stable)
    }
}

impl ServiceEntry {
    /// The sets of this Service, if a release shares its calls out, each with its name.
    pub(crate) fn sets<'a>(
        &'a self,
        key: &'a ObjectKey,
    ) -> impl Iterator<Item = (ObjectKey, &'a Arc<Self>)> {
        let sets = self.sets.as_deref().into_iter();
        sets.flat_map(move |sets| {
            ReleaseSet::ALL.map(|set| {
                let name = ObjectKey::new(&key.namespace, &set.of(&key.name));
                (name, sets.entry(set))
            })
        })
    }
}

impl PortEntry {
    fn ready(&self) -> usize {
        self.candidates.iter().filter(|one| one.ready).count()
    }

    fn last_resorts(&self) -> usize {
        let endpoints = self.candidates.iter();
        endpoints.filter(|one| one.last_resort).count()
    }
}

impl Index {
    /// What stands behind the name of a backend: a Service, or one of the sets of one.
    pub fn backend(&self, key: &ObjectKey) -> Option<&Arc<ServiceEntry>> {
        let Some((_, set)) = ReleaseSet::parse(&key.name) else {
            return self.services.get(key);
        };
        let sets = self.services.get(&*key.service())?.sets.as_ref()?;
        Some(sets.entry(set))
    }

    /// Whether the proxy of a pod reports each second.
    pub(crate) fn counts_early(&self, entry: &PodEntry) -> bool {
        let counted = &self.releases.counted;
        let mut serves = entry.serves.iter();
        !counted.is_empty() && serves.any(|(service, ..)| counted.contains(service))
    }
}
