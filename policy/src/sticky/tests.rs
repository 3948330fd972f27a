//! Which tenants keep what, and which ones move.
//!
//! Claims: calls-57

use std::cell::Cell;

use super::*;
use crate::name::ServiceId;

fn backends(weights: &[(&str, u32)]) -> Vec<Backend> {
    let make = |(name, weight): &(&str, u32)| {
        Backend::new(
            ServiceId::new("shop", *name),
            80,
            *weight,
            format!("endpoints/shop/{name}:80"),
        )
    };
    weights.iter().map(make).collect()
}

fn tenants() -> Vec<Key> {
    (0..1000)
        .map(|n| Key::of(format!("tenant-{n}").as_bytes()))
        .collect()
}

fn name(backends: &[Backend], key: Key) -> String {
    backend(backends, key).unwrap().service.name.to_string()
}

/// Point 10.
#[test]
fn shifting_tenth_moves_100_of_1000_tenants_none_back() {
    let (before, after) = (
        backends(&[("v1", 90), ("v2", 10)]),
        backends(&[("v1", 80), ("v2", 20)]),
    );
    let (mut moved, mut canary) = (0, 0);
    for key in tenants() {
        let (from, to) = (name(&before, key), name(&after, key));
        canary += usize::from(from == "v2");
        if from != to {
            assert_eq!((&*from, &*to), ("v1", "v2"), "moved back");
            moved += 1;
        }
    }
    assert!((70..=130).contains(&moved), "{moved}");
    assert!((70..=130).contains(&canary), "{canary}");
}

#[test]
fn callers_agree_regardless_of_weight_order_and_unit() {
    let one = backends(&[("v1", 90), ("v2", 10), ("v3", 0)]);
    let other = backends(&[("v2", 100), ("v1", 900)]);
    for key in tenants() {
        assert_eq!(name(&one, key), name(&other, key));
    }
}

#[test]
fn rollout_from_0_to_100_moves_each_tenant_once() {
    for key in tenants() {
        let steps: Vec<String> = [0, 1, 10, 50, 99, 100]
            .map(|share| name(&backends(&[("v1", 100 - share), ("v2", share)]), key))
            .to_vec();
        assert_eq!((&*steps[0], &*steps[5]), ("v1", "v2"));
        assert!(steps.is_sorted(), "{steps:?}");
    }
}

#[test]
fn only_growing_backend_of_three_gains_tenants() {
    let before = backends(&[("a", 50), ("b", 30), ("c", 20)]);
    let after = backends(&[("a", 50), ("b", 30), ("c", 40)]);
    for key in tenants() {
        let (from, to) = (name(&before, key), name(&after, key));
        assert!(from == to || to == "c", "{from} to {to}");
    }
}

#[test]
fn split_without_weight_chooses_no_backend() {
    assert_eq!(backend(&backends(&[("v1", 0)]), Key::of(b"x")), None);
    assert_eq!(backend(&[], Key::of(b"x")), None);
}

#[test]
fn tenants_spread_and_only_those_of_lost_endpoint_move() {
    let seeds: Vec<u64> = (0..10)
        .map(|n| seed(format!("10.0.0.{n}:80").parse().unwrap()))
        .collect();
    let chosen =
        |key, usable: &dyn Fn(usize) -> bool| endpoint(key, 10, |at| seeds[at], usable, Some);
    let at = |key, usable: &dyn Fn(usize) -> bool| chosen(key, usable).unwrap();
    let mut counts = [0; 10];
    for key in tenants() {
        let first = at(key, &|_| true);
        counts[first] += 1;
        let next = at(key, &|index| index != 3);
        if first == 3 {
            assert_ne!(next, 3);
        } else {
            assert_eq!(next, first);
        }
    }
    assert!(counts.iter().all(|n| (65..=135).contains(n)), "{counts:?}");
    assert_eq!(chosen(Key::of(b"x"), &|_| false), None);
}

/// In an outage a pick passes over hundreds, on the one thread that serves.
#[test]
fn sticky_successor_is_highest_remaining_within_two_looks_each() {
    for len in [1, 2, 100, 1000] {
        for key in &tenants()[..5] {
            let rank = |at: usize| mix(key.0 ^ (at as u64 % 97));
            let usable = |at: usize| at % 7 != 3;
            let (looks, mut order) = (Cell::new(0), Vec::new());
            let counted = |at: usize| {
                looks.set(looks.get() + 1);
                rank(at)
            };
            let taken = highest(len, counted, usable, |at| {
                order.push(at);
                None::<()>
            });
            assert_eq!(taken, None);
            assert!(looks.get() <= 2 * len, "{} of {len}", looks.get());
            // Each asked for anew, without those before.
            let mut left: Vec<usize> = (0..len).filter(|at| usable(*at)).collect();
            for at in order {
                let next = left.iter().copied().max_by_key(|at| rank(*at));
                assert_eq!(next, Some(at));
                left.retain(|other| *other != at);
            }
            assert!(left.is_empty());
        }
    }
    let third = |at: usize| (at < 2).then_some(at);
    assert_eq!(highest(4, |at| at, |_| true, third), Some(1));
}

#[test]
fn a_restart_and_another_version_agree() {
    // Fixed by what was once released: a change of this moves every tenant.
    let split = backends(&[("v1", 50), ("v2", 50)]);
    let chosen: Vec<String> = (0..8)
        .map(|n| name(&split, Key::of(format!("tenant-{n}").as_bytes())))
        .collect();
    assert_eq!(chosen.join(" "), FIXED);
    let seeds: Vec<u64> = (0..10)
        .map(|n| seed(format!("10.0.0.{n}:80").parse().unwrap()))
        .collect();
    let chosen: Vec<usize> = tenants()[..8]
        .iter()
        .filter_map(|key| endpoint(*key, 10, |at| seeds[at], |_| true, Some))
        .collect();
    assert_eq!(chosen, FIXED_ENDPOINTS);
    let v4 = seed("10.0.0.1:80".parse().unwrap());
    let v6 = seed("[fd00::1]:80".parse().unwrap());
    assert_ne!(v4, v6);
    assert_ne!(v4, seed("10.0.0.1:81".parse().unwrap()));
}

const FIXED: &str = "v1 v2 v1 v2 v1 v2 v1 v1";

/// Of 10.0.0.0 to 10.0.0.9.
const FIXED_ENDPOINTS: [usize; 8] = [4, 0, 7, 3, 7, 8, 8, 2];

#[test]
fn session_is_renewed_by_timely_calls_else_replaced() {
    let (start, limit) = (Instant::now(), Duration::from_secs(30));
    let mut session = Session::default();
    let mut at = |seconds: u64| session.call(start + Duration::from_secs(seconds), limit);
    assert_eq!(at(0), 0);
    assert_eq!(at(30), 0, "each call renews it");
    assert_eq!(at(60), 0);
    assert_eq!(at(91), 1);
    assert_eq!(at(121), 1);
    assert_eq!(at(400), 2, "however long ago");
    // Clocks of two threads may cross.
    assert_eq!(at(399), 2);
}

#[test]
fn what_two_versions_must_agree_on_does_not_change() {
    assert_eq!(hash(b""), mix(0xcbf2_9ce4_8422_2325));
    // FNV-1a's own test vector, before mixing.
    assert_eq!(hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
    assert_eq!(hash(b"foobar"), mix(0x8594_4171_f739_67e8));
    // The first numbers of splitmix64 from 0.
    assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    assert_eq!(mix(STEP), 0x6e78_9e6a_a1b9_65f4);
}

#[test]
fn backend_named_twice_gets_tenants_by_both_weights() {
    let service = ServiceId::new("shop", "v1");
    let both = [(80, 50), (90, 50)].map(|(port, weight)| {
        let endpoints = format!("endpoints/shop/v1:{port}");
        Backend::new(service.clone(), port, weight, endpoints)
    });
    let at_first = |key| backend(&both, key).unwrap().port == 80;
    let first = tenants().into_iter().filter(|key| at_first(*key)).count();
    assert!((420..=580).contains(&first), "{first}");
}
