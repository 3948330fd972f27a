//! Subsetting: the part of a large Service's endpoints that one caller uses.
//!
//! Without it, each of many callers keeps connections to each of many endpoints. Endpoints
//! lie on a ring in an order that all proxies agree on; the callers of one workload begin
//! at even distances on it, and each takes an arc. The arcs are whole multiples of the
//! distance, so every endpoint lies in the same number of arcs; where an arc begins or
//! ends within an endpoint, that one takes only this part of its share.
//!
//! In use: [`members`] when endpoints, the caller's replica index or the number of ejected
//! endpoints change, never per request; the draw is among its result, with its share times the
//! warm-up's. Sticky tenants need all endpoints and are not limited to a part.

use crate::traffic::endpoint::Subset;

/// Fewer endpoints than this for one caller would make two of them carry what a third one
/// drops.
pub const LEAST: usize = 20;
/// Above so many endpoints `-1` means a part.
pub(crate) const AUTOMATIC_ABOVE: usize = 100;

/// Which of its workload's proxies a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPosition {
    /// From 0.
    pub index: u32,
    /// One at least.
    pub peers: u32,
}

/// The same among all of them, and among those of its own zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPositions {
    pub all: PeerPosition,
    pub zone: PeerPosition,
}

/// An endpoint of the arc, by its index among all, and which part of its share it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    pub index: usize,
    pub share: f64,
}

/// The endpoints that this caller uses; `None`: all of them. `seeds` are those of
/// [`crate::sticky::seed`], with the `near` ones of the own zone first, 0 where that does
/// not matter; `ejected` widens the arc, to make up for those that are ejected.
#[must_use]
pub fn members(
    subset: Subset,
    seeds: &[u64],
    near: usize,
    positions: PeerPositions,
    ejected: usize,
) -> Option<Vec<Member>> {
    let least = match subset {
        Subset::All => return None,
        Subset::Automatic if seeds.len() <= AUTOMATIC_ABOVE => return None,
        Subset::Automatic => LEAST,
        Subset::Count(count) => count.max(1) as usize,
    };
    // The own zone, if it has enough for a caller: then those of it share it out among
    // themselves.
    let (len, position) = if near >= least {
        (near.min(seeds.len()), positions.zone)
    } else {
        (seeds.len(), positions.all)
    };
    if position.index >= position.peers {
        return None;
    }
    let arc = Arc::new(len, least, position, ejected);
    if arc.width >= len as f64 {
        return (len < seeds.len()).then(|| (0..len).map(whole).collect());
    }
    let mut ring: Vec<usize> = (0..len).collect();
    // Equal seeds are the same address, or a chance of one in 2^64.
    ring.sort_unstable_by_key(|index| (seeds[*index], *index));
    let member = |(at, index): (usize, &usize)| {
        let share = arc.part(at, len);
        (share > 0.0).then_some(Member {
            index: *index,
            share,
        })
    };
    Some(ring.iter().enumerate().filter_map(member).collect())
}

const fn whole(index: usize) -> Member {
    Member { index, share: 1.0 }
}

/// A part of a ring on which each endpoint is one long.
#[derive(Clone, Copy, Debug)]
struct Arc {
    from: f64,
    width: f64,
}

impl Arc {
    fn new(len: usize, least: usize, position: PeerPosition, ejected: usize) -> Self {
        let distance = len as f64 / f64::from(position.peers);
        // A hair less, lest 20 / 2.0 be eleven distances.
        let steps = ((least as f64 / distance) - 1e-9).ceil().max(1.0);
        Self {
            from: distance * f64::from(position.index),
            width: distance * steps + ejected as f64,
        }
    }

    /// How much of the endpoint at this place lies within.
    fn part(&self, at: usize, len: usize) -> f64 {
        let (at, len) = (at as f64, len as f64);
        let overlap = |from: f64, to: f64| (to.min(at + 1.0) - from.max(at)).max(0.0);
        let to = self.from + self.width;
        let part = overlap(self.from, to.min(len)) + overlap(0.0, to - len);
        // What is left of sums that should be whole.
        if part < 1e-6 { 0.0 } else { part.min(1.0) }
    }
}

#[cfg(test)]
mod tests;
