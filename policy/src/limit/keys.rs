//! Bounds the keys of a rate limit that have a bucket, and chooses the bucket that is dropped when
//! there is no room.
//!
//! Callers choose the values of headers, so a caller that makes up many keys must gain nothing and
//! take nothing from others.
//!
//! A full bucket is dropped first: a new one is the same. Then the caller with the most keys loses
//! one, and never for a caller with as many. It loses the key whose bucket will be full soonest,
//! and what that bucket lacked becomes the caller's floor, at which its new keys start. All keys
//! that it still has lack as much or more. So a key that comes back finds no more tokens than it
//! left, whatever was dropped in between, and all keys of a caller together get no more than a
//! bucket for each place they ever had at once.
//!
//! That is how the Space-Saving algorithm counts what is most frequent in a stream (Metwally,
//! Agrawal, El Abbadi 2005): a new key starts with the count of the least frequent.
//!
//! Invariant: no bucket of a caller is full before the caller's floor.

use std::collections::{BTreeSet, HashMap};

/// What a place takes at most, in bytes. A key and a caller take one each; the costliest are
/// keys with a caller each, after there were only keys. Hash maps are half full after they
/// grew, nodes of B-trees hold five entries of eleven: of a key 57 bytes in a map, then 67 in
/// a tree, and of a caller 75 in a map and 45 in each of two trees, for half of the places.
pub(super) const BYTES_PER_ENTRY: usize = 57 + (67 + 75 + 2 * 45) / 2;

/// When a bucket was empty, in nanoseconds of its table's clock. The sooner, the sooner it is
/// full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bucket(pub(super) u64);

/// A key: hashes of its caller and of the value that separates it from that caller's
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) caller: u64,
    pub(super) value: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Caller {
    /// Keys.
    in_use: u32,
    /// The first of them to be full.
    soonest: Bucket,
    /// Where new keys begin: no forgotten bucket lacked more.
    floor: Bucket,
}

/// The keys of one limit. Every call takes logarithmic time in their number.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Places for keys and callers.
    most: usize,
    buckets: HashMap<Entry, Bucket>,
    /// Those that have keys.
    callers: HashMap<u64, Caller>,
    /// Caller, bucket and value of each key.
    order: BTreeSet<(u64, Bucket, u64)>,
    /// Callers, the one with the bucket that is full soonest first.
    soonest: BTreeSet<(Bucket, u64)>,
    /// Callers, the one that holds most last.
    largest: BTreeSet<(u32, u64)>,
}

impl Keys {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    /// Keys that have a bucket.
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    pub(super) fn bucket(&self, entry: Entry) -> Option<Bucket> {
        self.buckets.get(&entry).copied()
    }

    /// Where a key of this caller begins.
    pub(super) fn floor(&self, caller: u64) -> Bucket {
        let known = self.callers.get(&caller);
        known.map(|known| known.floor).unwrap_or_default()
    }

    /// Whether a key of this caller may have a bucket, at the cost of what was empty by `full`,
    /// and so is full, or of a caller that holds more. Only a caller without any may find no room.
    pub(super) fn has_room(&mut self, full: u64, caller: u64) -> bool {
        // A key needs two places at most, and each that is forgotten leaves one at least.
        for _ in 0..2 {
            if self.taken() + 2 > self.most {
                self.forget_full(full);
            }
        }
        let largest = self.largest.last().map_or(0, |(in_use, _)| *in_use);
        self.callers.contains_key(&caller) || self.taken() + 2 <= self.most || largest > 2
    }

    /// Sets the bucket of a key, for which there [is room](Self::has_room). Whether that cost
    /// another one that was not empty by `full`.
    pub(super) fn set(&mut self, full: u64, entry: Entry, bucket: Bucket) -> bool {
        let former = self.buckets.insert(entry, bucket);
        if let Some(former) = former {
            self.order.remove(&(entry.caller, former, entry.value));
        }
        self.order.insert((entry.caller, bucket, entry.value));
        let in_use = self.in_use(entry.caller) + u32::from(former.is_none());
        self.settle(entry.caller, in_use);
        let mut lacking = false;
        while former.is_none() && self.taken() > self.most {
            let Some(forgotten) = self.forget_for(entry.caller) else {
                break;
            };
            lacking |= forgotten.0 > full;
        }
        lacking
    }

    /// Another number of places. Callers that have more than one key lose those they have no
    /// place for.
    pub(super) fn set_most(&mut self, most: usize) {
        let former = std::mem::replace(&mut self.most, most);
        while self.taken() > most
            && let Some((in_use, caller)) = self.largest.last().copied()
            && in_use > 1
        {
            self.forget_of(caller);
        }
        if most < former {
            self.buckets.shrink_to(most);
            self.callers.shrink_to(most);
        }
    }

    /// Moves all buckets, none of them past another one.
    pub(super) fn move_all(&mut self, to: impl Fn(Bucket) -> Bucket) {
        for bucket in self.buckets.values_mut() {
            *bucket = to(*bucket);
        }
        for caller in self.callers.values_mut() {
            caller.soonest = to(caller.soonest);
            caller.floor = to(caller.floor);
        }
        let order = self.buckets.iter();
        let order = order.map(|(entry, bucket)| (entry.caller, *bucket, entry.value));
        self.order = order.collect();
        let soonest = self.callers.iter();
        self.soonest = soonest.map(|(id, caller)| (caller.soonest, *id)).collect();
    }

    /// Places in use.
    fn taken(&self) -> usize {
        self.buckets.len() + self.callers.len()
    }

    fn in_use(&self, caller: u64) -> u32 {
        self.callers.get(&caller).map_or(0, |known| known.in_use)
    }

    /// Forgets the bucket that is full soonest, if it is.
    fn forget_full(&mut self, full: u64) {
        if let Some((bucket, caller)) = self.soonest.first().copied()
            && bucket.0 <= full
        {
            self.forget_of(caller);
        }
    }

    /// Forgets a bucket of the caller with most, or of this one if no other holds more. `None`
    /// if all hold one, which is all there is.
    fn forget_for(&mut self, caller: u64) -> Option<Bucket> {
        let (most, largest) = self.largest.last().copied()?;
        let own = self.in_use(caller);
        let giver = if most > own { largest } else { caller };
        if most < 2 {
            return None;
        }
        self.forget_of(giver)
    }

    /// Forgets the bucket of this caller that is full soonest; with its last one the caller,
    /// whose floor is passed as well when that one is full.
    fn forget_of(&mut self, caller: u64) -> Option<Bucket> {
        let (_, bucket, value) = self.first_of(caller)?;
        self.order.remove(&(caller, bucket, value));
        self.buckets.remove(&Entry { caller, value });
        self.settle(caller, self.in_use(caller).saturating_sub(1));
        if let Some(known) = self.callers.get_mut(&caller) {
            known.floor = known.floor.max(bucket);
        }
        Some(bucket)
    }

    fn first_of(&self, caller: u64) -> Option<(u64, Bucket, u64)> {
        let first = self.order.range((caller, Bucket(0), 0)..).next().copied();
        first.filter(|(of, ..)| *of == caller)
    }

    /// Brings what is known of a caller up to date, after one of its keys changed and `in_use`
    /// are left.
    fn settle(&mut self, id: u64, in_use: u32) {
        let before = self.callers.get(&id).copied();
        let after = self.first_of(id).map(|(_, soonest, _)| Caller {
            in_use,
            soonest,
            ..before.unwrap_or_default()
        });
        let ranks = |caller: Option<Caller>| caller.map(|caller| (caller.in_use, caller.soonest));
        if ranks(before) == ranks(after) {
            return;
        }
        if let Some(before) = before {
            self.largest.remove(&(before.in_use, id));
            self.soonest.remove(&(before.soonest, id));
        }
        if let Some(after) = after {
            self.largest.insert((after.in_use, id));
            self.soonest.insert((after.soonest, id));
            self.callers.insert(id, after);
        } else {
            self.callers.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
