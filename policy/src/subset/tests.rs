//! Arcs of a ring: whether many callers use all endpoints alike.
//!
//! Claims: calls-64

use proptest::prelude::*;

use super::*;
use crate::sticky::mix;

fn seeds(len: usize) -> Vec<u64> {
    (0..len as u64).map(mix).collect()
}

/// A caller whose zone holds all others.
const fn anywhere(position: PeerPosition) -> PeerPositions {
    PeerPositions {
        all: position,
        zone: position,
    }
}

/// The sum of shares per endpoint, and the most endpoints that one caller has.
fn covered(subset: Subset, len: usize, peers: u32, ejected: usize) -> (Vec<f64>, usize) {
    let (seeds, mut sums, mut most) = (seeds(len), vec![0.0; len], 0);
    for index in 0..peers {
        let position = PeerPosition { index, peers };
        let part = members(subset, &seeds, 0, anywhere(position), ejected).unwrap();
        most = most.max(part.len());
        for member in part {
            sums[member.index] += member.share;
        }
    }
    (sums, most)
}

fn all_near(sums: &[f64], expected: f64) -> bool {
    sums.iter().all(|sum| (sum - expected).abs() < 1e-3)
}

#[test]
fn ten_callers_share_two_hundred_endpoints_evenly() {
    let (sums, most) = covered(Subset::Automatic, 200, 10, 0);
    assert_eq!(most, 20);
    assert!(all_near(&sums, 1.0), "{sums:?}");
    // No whole number of endpoints for each: two of them share the ones at the ends.
    let (sums, most) = covered(Subset::Automatic, 200, 9, 0);
    assert!(most <= 24, "{most}");
    assert!(all_near(&sums, 1.0), "{sums:?}");
}

#[test]
fn caller_gets_at_least_twenty_endpoints_used_evenly() {
    // 101 endpoints, 30 callers: 3.4 for each would be too few.
    let (sums, most) = covered(Subset::Automatic, 101, 30, 0);
    assert!((20..=25).contains(&most), "{most}");
    assert!(all_near(&sums, 6.0), "{sums:?}");
    let (sums, most) = covered(Subset::Count(5), 40, 20, 0);
    assert_eq!(most, 6);
    assert!(all_near(&sums, 3.0), "{sums:?}");
    // Every endpoint must be used.
    let (sums, most) = covered(Subset::Count(5), 200, 10, 0);
    assert_eq!(most, 20);
    assert!(all_near(&sums, 1.0));
}

#[test]
fn an_arc_is_wider_by_as_many_as_rest() {
    assert_eq!(covered(Subset::Automatic, 200, 10, 3).1, 23);
}

#[test]
fn a_small_service_is_used_as_a_whole() {
    let position = PeerPosition {
        index: 0,
        peers: 10,
    };
    let of = |subset, len, near| members(subset, &seeds(len), near, anywhere(position), 0);
    assert_eq!(of(Subset::All, 1000, 0), None);
    assert_eq!(of(Subset::Automatic, 100, 0), None);
    assert!(of(Subset::Automatic, 101, 0).is_some());
    assert_eq!(of(Subset::Count(50), 40, 0), None);
    // Which of its peers it is is unknown.
    let lost = PeerPosition {
        index: 10,
        peers: 10,
    };
    assert_eq!(
        members(Subset::Automatic, &seeds(200), 0, anywhere(lost), 0),
        None
    );
    let none = PeerPosition { index: 0, peers: 0 };
    assert_eq!(
        members(Subset::Automatic, &seeds(200), 0, anywhere(none), 0),
        None
    );
}

#[test]
fn the_own_zone_is_enough_if_it_has_twenty() {
    let position = PeerPosition {
        index: 3,
        peers: 10,
    };
    let of = |near| members(Subset::Automatic, &seeds(300), near, anywhere(position), 0).unwrap();
    assert!(of(100).iter().all(|member| member.index < 100));
    assert_eq!(of(20).len(), 20);
    assert!(of(19).iter().any(|member| member.index >= 19));
}

/// Six callers in one zone and four in the other one, each with a hundred endpoints.
#[test]
fn zone_bound_callers_use_zone_endpoints_evenly() {
    let seeds = seeds(200);
    for peers in [6, 4] {
        let mut sums = vec![0.0; 100];
        for index in 0..peers {
            let positions = PeerPositions {
                all: PeerPosition {
                    index: index * 2,
                    peers: 10,
                },
                zone: PeerPosition { index, peers },
            };
            for member in members(Subset::Automatic, &seeds, 100, positions, 0).unwrap() {
                sums[member.index] += member.share;
            }
        }
        assert!(all_near(&sums, sums[0]) && sums[0] > 0.9, "{sums:?}");
    }
}

proptest! {
    #[test]
    fn every_endpoint_is_used_alike_whatever_the_numbers(len in 101usize..400, peers in 1u32..60) {
        let position = PeerPosition { index: 0, peers };
        prop_assume!(members(Subset::Automatic, &seeds(len), 0, anywhere(position), 0).is_some());
        let (sums, _) = covered(Subset::Automatic, len, peers, 0);
        let first = sums[0];
        prop_assert!(first >= 1.0 - 1e-3 && all_near(&sums, first), "{:?}", sums);
    }
}
