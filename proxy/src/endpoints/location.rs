//! The zone and node of an endpoint, and how near it is to the own pod.
//!
//! Of zones and nodes only hashes are kept: the lists of large Services name each of them
//! thousands of times. Two names with the same hash, one pair in four billion, make an
//! endpoint count as near that is not, and nothing else.
//!
//! Claims: calls-64

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use policy::sticky::hash;
use policy::subset::PeerPositions;
use policy::traffic::endpoint::Locality;

/// Where something runs, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// 0: not known.
    zone: u32,
    node: u32,
}

/// From where the own pod sees endpoints: where it runs, and which of its workload's proxies it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalInfo {
    pub(crate) location: Location,
    /// `None`: not known.
    pub(crate) positions: Option<PeerPositions>,
}

/// How near an endpoint is, the nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    SameNode,
    SameZone,
    Elsewhere,
}

impl Nearness {
    /// Its name, also in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::SameNode => "same-node",
            Self::SameZone => "same-zone",
            Self::Elsewhere => "elsewhere",
        }
    }
}

impl Location {
    /// Of these names, which are empty where they are unknown.
    #[must_use]
    pub fn new(zone: &str, node: &str) -> Self {
        let [zone, node] = [zone, node].map(hash_of);
        Self { zone, node }
    }

    /// Seen from `own`.
    #[must_use]
    pub const fn from(self, own: Self) -> Nearness {
        if self.node != 0 && self.node == own.node {
            Nearness::SameNode
        } else if self.zone != 0 && self.zone == own.zone {
            Nearness::SameZone
        } else {
            Nearness::Elsewhere
        }
    }
}

/// Of a name; 0: empty.
fn hash_of(name: &str) -> u32 {
    match name {
        "" => 0,
        name => (hash(name.as_bytes()) as u32).max(1),
    }
}

/// Whose callers the endpoints of one Service port are meant for, as its EndpointSlices hint.
///
/// A kind of hints counts as it does for kube-proxy: if every endpoint has some, and one of them
/// names the own node, or else the own zone. Where none fits the own pod, any endpoint is as good
/// as any other.
#[derive(Debug, Default)]
pub(crate) struct TopologyHints(HashMap<SocketAddr, Hint>);

#[derive(Debug)]
struct Hint {
    zones: Vec<u32>,
    nodes: Vec<u32>,
}

impl TopologyHints {
    /// Of endpoints with the zones and nodes that their hints name.
    pub(crate) fn of<'a>(
        all: impl Iterator<Item = (SocketAddr, &'a [String], &'a [String])>,
    ) -> Self {
        let hashes = |names: &[String]| names.iter().map(|name| hash_of(name)).collect();
        let hinted = all.filter(|(_, zones, nodes)| !zones.is_empty() || !nodes.is_empty());
        let read = hinted.map(|(addr, zones, nodes)| {
            let hint = Hint {
                zones: hashes(zones),
                nodes: hashes(nodes),
            };
            (addr, hint)
        });
        Self(read.collect())
    }

    /// How near the endpoint must be meant to come first for a pod there; `None`: no hint fits
    /// it.
    pub(super) fn locality(
        &self,
        own: Location,
        endpoints: &(impl Iterator<Item = SocketAddr> + Clone),
    ) -> Option<Locality> {
        if self.0.is_empty() {
            return None;
        }
        let counts = |of: fn(&Hint) -> &[u32], own: u32| {
            let mut hints = endpoints
                .clone()
                .map(|addr| self.0.get(&addr).map_or(&[][..], of));
            let all = hints.clone().all(|names| !names.is_empty());
            all && own != 0 && hints.any(|names| names.contains(&own))
        };
        if counts(|hint| &hint.nodes[..], own.node) {
            Some(Locality::PreferSameNode)
        } else if counts(|hint| &hint.zones[..], own.zone) {
            Some(Locality::PreferSameZone)
        } else {
            None
        }
    }

    /// How near an endpoint counts as by them, where this is what they come to.
    pub(super) fn nearness(&self, at: SocketAddr, own: Location, by: Locality) -> Nearness {
        match self.0.get(&at) {
            Some(hint) if by == Locality::PreferSameNode && hint.nodes.contains(&own.node) => {
                Nearness::SameNode
            }
            Some(hint) if own.zone != 0 && hint.zones.contains(&own.zone) => Nearness::SameZone,
            Some(_) | None => Nearness::Elsewhere,
        }
    }
}

/// A [`Location`] that may be replaced.
#[derive(Debug, Default)]
pub(super) struct AtomicLocation(AtomicU64);

impl AtomicLocation {
    pub(super) fn set(&self, location: Location) {
        let both = (u64::from(location.zone) << 32) | u64::from(location.node);
        self.0.store(both, Relaxed);
    }

    pub(super) fn get(&self) -> Location {
        let both = self.0.load(Relaxed);
        Location {
            zone: (both >> 32) as u32,
            node: both as u32,
        }
    }
}

/// How many of a list of endpoints, the nearest first, are near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Near {
    node: usize,
    pub(super) zone: usize,
}

impl Near {
    /// Of locations in order, seen from the own one.
    pub(super) fn among(locations: impl Iterator<Item = Nearness>) -> Self {
        let mut near = Self::default();
        for location in locations {
            near.node += usize::from(location == Nearness::SameNode);
            near.zone += usize::from(location <= Nearness::SameZone);
        }
        near
    }

    /// How many come first, and how many before all others; 0: none do.
    pub(super) const fn preferred(self, locality: Locality) -> [usize; 2] {
        match locality {
            Locality::None => [0, 0],
            Locality::PreferSameNode => [self.node, self.zone],
            Locality::PreferSameZone => [0, self.zone],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_without_location_is_near_to_nothing() {
        let own = Location::new("a", "n1");
        for (zone, node, nearness) in [
            ("a", "n1", Nearness::SameNode),
            ("a", "n2", Nearness::SameZone),
            ("a", "", Nearness::SameZone),
            ("", "n1", Nearness::SameNode),
            ("b", "n2", Nearness::Elsewhere),
            ("", "", Nearness::Elsewhere),
        ] {
            assert_eq!(
                Location::new(zone, node).from(own),
                nearness,
                "{zone} {node}"
            );
        }
        let nowhere = Location::default();
        assert_eq!(nowhere.from(nowhere), Nearness::Elsewhere);
        // Names of the one are no names of the other.
        assert_eq!(Location::new("n1", "a").from(own), Nearness::Elsewhere);
    }

    #[test]
    fn the_own_node_is_preferred_before_the_own_zone() {
        use Nearness::{Elsewhere, SameNode, SameZone};
        let of = |locations: &[Nearness], locality| {
            Near::among(locations.iter().copied()).preferred(locality)
        };
        let all = [SameNode, SameZone, SameZone, Elsewhere];
        assert_eq!(of(&all, Locality::None), [0, 0]);
        assert_eq!(of(&all, Locality::PreferSameZone), [0, 3]);
        assert_eq!(of(&all, Locality::PreferSameNode), [1, 3]);
        assert_eq!(of(&all[1..], Locality::PreferSameNode), [0, 2]);
        assert_eq!(of(&all[3..], Locality::PreferSameNode), [0, 0]);
    }

    #[test]
    fn location_is_read_as_it_was_sent() {
        let atomic = AtomicLocation::default();
        assert_eq!(atomic.get(), Location::default());
        let location = Location::new("a", "n1");
        atomic.set(location);
        assert_eq!(atomic.get(), location);
    }
}
