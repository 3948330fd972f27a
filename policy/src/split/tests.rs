//! How traffic is shared out.

use super::*;
use crate::name::Kind;
use http::{HeaderMap, Method};
use proptest::prelude::*;

fn split(weights: &[u32]) -> Split {
    Split {
        origin: ObjectRef::new(Kind::TrafficSplit, "shop", "web"),
        matches: None,
        backends: weights
            .iter()
            .enumerate()
            .map(|(index, weight)| Backend {
                service: ServiceId::new("shop", format!("v{index}")),
                weight: *weight,
                endpoints: format!("endpoints/shop/v{index}:80").into(),
            })
            .collect(),
    }
}

fn with_path(path: &str) -> Split {
    let matches =
        vec![HttpMatch::new("m", Some(path), &[] as &[&str], &[] as &[(&str, &str)]).unwrap()];
    Split {
        matches: Some(matches),
        ..split(&[1])
    }
}

/// Counts per backend over points that are spread evenly with a random offset.
fn shares(split: &Split, draws: u64) -> Vec<u64> {
    let mut taken = vec![0; split.backends.len()];
    let mut state = 1u64;
    for _ in 0..draws {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut point = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        point = (point ^ (point >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let chosen = split.choose(point ^ (point >> 31)).unwrap();
        let index = split
            .backends
            .iter()
            .position(|b| b.service == chosen.service)
            .unwrap();
        taken[index] += 1;
    }
    taken
}

#[test]
fn shares_are_within_five_sigma_of_the_weights() {
    for weights in [
        &[90, 10][..],
        &[1000, 500],
        &[1, 1, 1],
        &[99, 1],
        &[0, 3, 7],
    ] {
        let draws = 10_000;
        let total: u32 = weights.iter().sum();
        for (taken, weight) in shares(&split(weights), draws).iter().zip(weights) {
            let p = f64::from(*weight) / f64::from(total);
            let expected = p * draws as f64;
            let sigma = (expected * (1.0 - p)).sqrt();
            assert!(
                (*taken as f64 - expected).abs() <= 5.0 * sigma,
                "{weights:?}: {taken}"
            );
        }
    }
}

#[test]
fn weight_zero_takes_nothing_and_the_rest_everything() {
    assert_eq!(shares(&split(&[100, 0]), 1000), [1000, 0]);
    assert_eq!(shares(&split(&[0, 100]), 1000), [0, 1000]);
}

#[test]
fn without_any_weight_there_is_no_backend() {
    for weights in [&[][..], &[0], &[0, 0]] {
        for point in [0, 1, u64::MAX] {
            assert_eq!(split(weights).choose(point), None);
        }
    }
}

#[test]
fn the_largest_weights_do_not_overflow() {
    let split = split(&[u32::MAX, u32::MAX]);
    assert_eq!(split.choose(0), Some(&split.backends[0]));
    assert_eq!(split.choose(u64::MAX / 2), Some(&split.backends[0]));
    assert_eq!(split.choose(u64::MAX / 2 + 2), Some(&split.backends[1]));
    assert_eq!(split.choose(u64::MAX), Some(&split.backends[1]));
}

#[test]
fn the_first_split_that_applies_decides() {
    let splits = [with_path("/a"), with_path("/"), split(&[1])];
    let headers = HeaderMap::new();
    let at = |path| RequestFacts {
        method: &Method::GET,
        path,
        headers: &headers,
    };
    assert_eq!(first_match(&splits, Some(&at("/a"))), Some(&splits[0]));
    assert_eq!(first_match(&splits, Some(&at("/b"))), Some(&splits[1]));
    assert_eq!(
        first_match(&splits[..1], Some(&at("/b"))),
        None,
        "what does not match goes to the root"
    );
}

#[test]
fn a_split_with_matches_never_takes_opaque_bytes() {
    let splits = [with_path(".*"), split(&[1])];
    assert_eq!(first_match(&splits, None), Some(&splits[1]));
    assert_eq!(first_match(&splits[..1], None), None);
}

#[test]
fn a_split_whose_matches_are_empty_applies_to_nothing() {
    let splits = [Split {
        matches: Some(vec![]),
        ..split(&[1])
    }];
    let headers = HeaderMap::new();
    let request = RequestFacts {
        method: &Method::GET,
        path: "/",
        headers: &headers,
    };
    assert_eq!(first_match(&splits, Some(&request)), None);
}

proptest! {
    #[test]
    fn a_backend_is_chosen_exactly_when_one_has_a_weight(
        weights in proptest::collection::vec(prop_oneof![Just(0), any::<u32>()], 0..6),
        point: u64,
    ) {
        let split = split(&weights);
        let chosen = split.choose(point);
        prop_assert_eq!(chosen.is_some(), weights.iter().any(|w| *w > 0));
        prop_assert!(chosen.is_none_or(|backend| backend.weight > 0));
    }
}
