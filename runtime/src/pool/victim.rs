//! Chooses the holder that loses a share when the pool is full.
//!
//! The largest holder does, and among equals one that is idle. Where no holder proves an identity,
//! many holders with a share each are a flood as well, and an honest one may have the oldest share
//! or one more than they. Its work distinguishes it: flooding holders complete none. So a holder
//! that completed work is spared, as long as it has little. Its idle shares go when there are no
//! others to take from, the longest idle first, and those in use only while it keeps more than the
//! new holder. From a holder without completed work the new one takes what it lacks, though that
//! has less.
//!
//! Work can be faked. So spared holders may have half of the pool at most: else they could shut out
//! an honest one that comes for the first time.

use std::hash::Hash;
use std::iter::once;

use super::{Holder, PoolState};

impl<K: Clone + Ord + Hash> PoolState<K> {
    /// The share that goes for `holder`, which will have `wanted` of `total`. A holder that
    /// completed work is spared while it has at most `spared`.
    pub(super) fn victim(
        &self,
        holder: &K,
        wanted: usize,
        spared: usize,
        total: usize,
    ) -> Option<K> {
        let spares =
            move |in_use: usize, other: &K| in_use <= spared && self.worked.last(other).is_some();
        // Those with most first, of equal ones that with the oldest share.
        let others = move |least: usize| {
            let order = self.order.iter().rev();
            order
                .take_while(move |(in_use, _, _)| *in_use >= least)
                .map(|(in_use, _, other)| (*in_use, other))
                .filter(move |(_, other)| *other != holder)
        };
        let stranger = || {
            let least = if spares(wanted, holder) { 1 } else { wanted };
            let strangers = others(least).filter(move |(in_use, other)| !spares(*in_use, other));
            self.first_idle(strangers)
        };
        let known = || {
            let known = others(wanted).filter(move |(in_use, other)| spares(*in_use, other));
            let longest_idle = self.longest_idle(known.clone());
            longest_idle.or_else(|| self.with_more_than(wanted, known))
        };
        let all = self.order.iter();
        let known_hold: usize = all
            .filter(|(in_use, _, other)| spares(*in_use, other))
            .map(|(in_use, _, _)| *in_use)
            .sum();
        let victim = if known_hold <= total / 2 {
            stranger().or_else(known)
        } else {
            // More than half would shut out an honest one that comes for the first time, though
            // all that they hold be in use.
            let first = || others(wanted).map(|(_, other)| other).next();
            known().or_else(stranger).or_else(first)
        };
        victim.cloned()
    }

    /// The first of those with most that has an idle share, else the first.
    fn first_idle<'a>(&self, mut others: impl Iterator<Item = (usize, &'a K)>) -> Option<&'a K>
    where
        K: 'a,
    {
        let (most, first) = others.next()?;
        let equals = others.take_while(|(in_use, _)| *in_use == most);
        let mut equals = once(first).chain(equals.map(|(_, other)| other));
        let idle = equals.find(|other| self.idle_of(other).is_some());
        Some(idle.unwrap_or(first))
    }

    /// The one whose idle share has neither come nor worked for the longest.
    fn longest_idle<'a>(&self, others: impl Iterator<Item = (usize, &'a K)>) -> Option<&'a K>
    where
        K: 'a,
    {
        let longest_idle = others.filter_map(|(_, other)| {
            let came = self.idle_of(other)?;
            let worked = self.worked.last(other).unwrap_or(0);
            Some((worked.max(came), other))
        });
        longest_idle
            .min_by_key(|(since, _)| *since)
            .map(|(_, other)| other)
    }

    /// The first that keeps more than `wanted` without its oldest share.
    fn with_more_than<'a>(
        &self,
        wanted: usize,
        mut others: impl Iterator<Item = (usize, &'a K)>,
    ) -> Option<&'a K>
    where
        K: 'a,
    {
        let keeps = |in_use: usize, other: &K| {
            let holder = self.holders.get(other);
            let oldest = holder.and_then(|holder| holder.shares.values().next());
            oldest.is_some_and(|entry| in_use - entry.amount > wanted)
        };
        let found = others.find(|(in_use, other)| keeps(*in_use, other));
        found.map(|(_, other)| other)
    }

    fn idle_of(&self, holder: &K) -> Option<u64> {
        self.holders.get(holder).and_then(Holder::idle)
    }
}
