//! Finds the pods that IdentityBindings select by labels.
//!
//! Computed while targets are compiled, and not kept: the source of a target names the workloads
//! that it is about. A bit for each pod of the namespace, because as many bindings as a namespace
//! can hold may each select all of its pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bindings::has_all;
use crate::world::{ObjectKey, PodFacts, World};

/// For each binding with labels, which pods of its namespace carry them.
#[derive(Default)]
pub(super) struct Members<'a> {
    /// The pods of every namespace with such a binding, by name.
    pods: BTreeMap<&'a str, Vec<(&'a ObjectKey, &'a PodFacts)>>,
    of: BTreeMap<&'a ObjectKey, Bits>,
}

impl<'a> Members<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let mut members = Self::default();
        for (key, facts) in world.bindings.iter() {
            // No label at all means no pod, and not every pod.
            let labels = facts.spec.labels.as_ref();
            let Some(labels) = labels.filter(|labels| !labels.is_empty()) else {
                continue;
            };
            let pods = members.pods.entry(&key.namespace);
            let pods = pods.or_insert_with(|| pods_of(world, &key.namespace));
            let meant = |(_, facts): &(_, &PodFacts)| !facts.ended && has_all(facts, labels);
            members.of.insert(key, Bits::of(pods.iter().map(meant)));
        }
        members
    }

    /// The pods that a binding means by their labels, in the order of their names.
    pub(super) fn of(&self, binding: &ObjectKey) -> impl Iterator<Item = &'a ObjectKey> {
        let pods = self.pods.get(&*binding.namespace);
        let bits = self.of.get(binding);
        bits.into_iter()
            .flat_map(Bits::indices)
            .filter_map(move |index| Some(pods?.get(index)?.0))
    }
}

fn pods_of<'a>(world: &'a World, namespace: &str) -> Vec<(&'a ObjectKey, &'a PodFacts)> {
    world
        .pods
        .range(ObjectKey::new(namespace, "")..)
        .take_while(|(key, _)| &*key.namespace == namespace)
        .map(|(key, facts): (_, &Arc<PodFacts>)| (key, facts.as_ref()))
        .collect()
}

/// A set of places.
struct Bits(Box<[u64]>);

impl Bits {
    /// The places at which it is so.
    fn of(each: impl ExactSizeIterator<Item = bool>) -> Self {
        let mut words = vec![0; each.len().div_ceil(64)];
        for (index, _) in each.enumerate().filter(|(_, meant)| *meant) {
            words[index / 64] |= 1 << (index % 64);
        }
        Self(words.into())
    }

    fn indices(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let lowest = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(at * 64 + lowest)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::BindingFacts;

    #[test]
    fn places_are_found_again_whichever_they_are() {
        for number in [0, 1, 63, 64, 65, 1000] {
            for step in [1, 2, 63, 64, 65] {
                let set: Vec<usize> = (0..number).step_by(step).collect();
                let bits = Bits::of((0..number).map(|index| index % step == 0));
                assert_eq!(bits.indices().collect::<Vec<_>>(), set, "{number} {step}");
            }
        }
        assert_eq!(Bits::of([false; 100].into_iter()).indices().count(), 0);
    }

    /// With the names of the pods they were 320 MB for ten times as many bindings.
    #[test]
    fn bindings_cost_one_bit_per_pod() {
        const PODS: usize = 1000;
        const BINDINGS: usize = 1000;
        let labels = BTreeMap::from([("app".into(), "api".into())]);
        let pods = (0..PODS).map(|number| {
            let facts = PodFacts {
                labels: labels.clone(),
                ended: number == 7,
                ..PodFacts::default()
            };
            (
                ObjectKey::new("shop", &format!("pod-{number:04}")),
                facts.into(),
            )
        });
        let bindings = (0..BINDINGS).map(|number| {
            let mut facts = BindingFacts::default();
            facts.spec.labels = Some(labels.clone());
            (ObjectKey::new("shop", &format!("b-{number}")), facts.into())
        });
        let mut world = World {
            pods: Arc::new(pods.collect()),
            bindings: Arc::new(bindings.collect()),
            ..World::default()
        };
        let elsewhere = (ObjectKey::new("bank", "pod"), world.pods.values().next());
        let elsewhere = (elsewhere.0, Arc::clone(elsewhere.1.unwrap()));
        Arc::make_mut(&mut world.pods).extend([elsewhere]);

        let members = Members::new(&world);
        let bytes: usize = members.of.values().map(|bits| size_of_val(&*bits.0)).sum();
        assert_eq!(bytes, BINDINGS * PODS.div_ceil(64) * 8);
        assert_eq!(members.pods.len(), 1, "one list for all of a namespace");
        for binding in world.bindings.keys() {
            assert_eq!(members.of(binding).count(), PODS - 1, "{binding}");
        }
        assert_eq!(members.of(&ObjectKey::new("shop", "none")).count(), 0);
    }
}
