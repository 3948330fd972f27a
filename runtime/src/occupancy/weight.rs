//! Which holder makes room when memory runs out, and only then: the holder of most bytes loses
//! connections whatever they do, the largest first.

use std::collections::HashMap;
use std::sync::Arc;

use super::slot::{SHED, TrackedConnection};
use super::{Holder, Occupancy};

/// What the connections of one holder have the process hold, without those that were asked
/// to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    pub holder: Holder,
    /// In bytes, one for each connection, the largest last.
    pub connections: Vec<usize>,
}

impl Occupancy {
    /// What every holder has the process hold.
    #[must_use]
    pub fn weights(&self) -> Vec<Weights> {
        let table = self.table.lock();
        let of = |(holder, slots): (&Holder, &HashMap<u64, Arc<TrackedConnection>>)| {
            let weights = slots.values().map(|slot| slot.weight());
            let mut connections: Vec<_> = weights.filter(|weight| *weight > 0).collect();
            connections.sort_unstable();
            Weights {
                holder: holder.clone(),
                connections,
            }
        };
        table.holders.iter().map(of).collect()
    }

    /// Which holder has the process hold most bytes, and about how many. Connections that were
    /// asked to go do not count.
    #[must_use]
    pub fn heaviest(&self) -> Option<(usize, Holder)> {
        let table = self.table.lock();
        let heaviest = table
            .holders
            .iter()
            .map(|(holder, slots)| (slots.values().map(|slot| slot.weight()).sum(), holder))
            .max_by_key(|(weight, _): &(usize, _)| *weight)?;
        Some((heaviest.0, heaviest.1.clone()))
    }

    /// Notes of each holder what it has the process hold, and whether that is less than
    /// `bytes`.
    pub fn weigh(&self, bytes: usize) {
        let table = self.table.lock();
        for (holder, requests) in &table.requests {
            let slots = table.holders.get(holder).into_iter();
            let weight: usize = slots
                .flat_map(HashMap::values)
                .map(|slot| slot.weight())
                .sum();
            requests.note_weight(weight, weight < bytes);
        }
    }

    /// About what all connections have the process hold, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let table = self.table.lock();
        let slots = table.holders.values().flat_map(HashMap::values);
        slots.map(|slot| slot.weight()).sum()
    }

    /// Connections that were cut off by [`Self::shed`] and are not gone.
    #[must_use]
    pub fn leaving(&self) -> usize {
        let table = self.table.lock();
        let slots = table.holders.values().flat_map(HashMap::values);
        slots.filter(|slot| slot.is_shed()).count()
    }

    /// Cuts off connections of `holder`, the largest first, until they held `bytes`;
    /// gives how many.
    pub fn shed(&self, holder: &Holder, bytes: usize) -> usize {
        let table = self.table.lock();
        let slots = table.holders.get(holder).into_iter();
        let mut slots: Vec<_> = slots
            .flat_map(HashMap::values)
            .map(|slot| (slot.weight(), slot))
            .filter(|(weight, _)| *weight > 0)
            .collect();
        slots.sort_unstable_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let (mut freed, mut shed) = (0, 0);
        for (weight, slot) in slots {
            if freed >= bytes {
                break;
            }
            freed += weight;
            shed += 1;
            self.send(slot, SHED);
        }
        shed
    }
}
