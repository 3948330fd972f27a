//! How traffic is shared out.

use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::sticky::{STEP, mix};

fn backends(weights: &[u32]) -> Vec<Backend> {
    weights
        .iter()
        .enumerate()
        .map(|(index, weight)| {
            let service = ServiceId::new("shop", format!("v{index}"));
            Backend::new(service, 80, *weight, format!("endpoints/shop/v{index}:80"))
        })
        .collect()
}

fn rule(name: &str, when: Match) -> Rule<Forward> {
    Rule {
        origin: Origin::new("TrafficSplit", "shop", name),
        when,
        then: Forward::split(backends(&[1])),
    }
}

fn with_path(name: &str, path: &str) -> Rule<Forward> {
    let one = HttpMatch::new("m", Some(path), &[] as &[&str], &[] as &[(&str, &str)]);
    rule(name, Match::AnyOf(vec![one.unwrap()]))
}

/// Which rule decides; `None` when it is the root.
fn decides(rules: &[Rule<Forward>], request: Option<&RequestFacts<'_>>) -> Option<String> {
    let table = Table {
        rules: rules.to_vec(),
        otherwise: Forward::Root,
    };
    let (forward, origin) = table.decide(request);
    assert_eq!(*forward == Forward::Root, origin.is_none());
    let at = table.position(request);
    assert_eq!(at.map(|at| &table.rules[at].origin), origin);
    origin.map(|origin| origin.name().to_string())
}

/// Counts per backend over points that are spread evenly with a random offset.
fn shares(backends: &[Backend], draws: u64) -> Vec<u64> {
    let mut taken = vec![0; backends.len()];
    let mut state = 1u64;
    for _ in 0..draws {
        let chosen = choose(backends, mix(state)).unwrap();
        state = state.wrapping_add(STEP);
        let index = backends
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
        for (taken, weight) in shares(&backends(weights), draws).iter().zip(weights) {
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
fn reported_shares_equal_drawn_shares_and_sum_to_one() {
    for weights in [&[90, 10][..], &[1, 0, 3], &[0, 7]] {
        let all = backends(weights);
        let taken = shares(&all, 10_000);
        let mut sum = 0.0_f64;
        let mut taking = super::shares(&all);
        for (backend, taken) in all.iter().zip(taken).filter(|(_, taken)| *taken > 0) {
            let (named, share) = taking.next().unwrap();
            assert_eq!(named, backend, "{weights:?}");
            assert!(
                (taken as f64 / 10_000.0 - share).abs() < 0.03,
                "{weights:?}"
            );
            sum += share;
        }
        assert_eq!(taking.next(), None, "{weights:?}");
        assert!((sum - 1.0).abs() < 1e-9, "{weights:?}");
    }
    for weights in [&[][..], &[0, 0]] {
        assert_eq!(super::shares(&backends(weights)).count(), 0);
    }
}

#[test]
fn weight_zero_takes_nothing_and_the_rest_everything() {
    assert_eq!(shares(&backends(&[100, 0]), 1000), [1000, 0]);
    assert_eq!(shares(&backends(&[0, 100]), 1000), [0, 1000]);
}

#[test]
fn without_any_weight_there_is_no_backend() {
    for weights in [&[][..], &[0], &[0, 0]] {
        for point in [0, 1, u64::MAX] {
            assert_eq!(choose(&backends(weights), point), None);
            assert_eq!(
                Forward::split(backends(weights)),
                Forward::Refuse(Reason::NoBackend),
                "a refusal, and no way back to the root"
            );
        }
    }
}

#[test]
fn the_largest_weights_do_not_overflow() {
    let both = backends(&[u32::MAX, u32::MAX]);
    assert_eq!(choose(&both, 0), Some(&both[0]));
    assert_eq!(choose(&both, u64::MAX / 2), Some(&both[0]));
    assert_eq!(choose(&both, u64::MAX / 2 + 2), Some(&both[1]));
    assert_eq!(choose(&both, u64::MAX), Some(&both[1]));
}

#[test]
fn the_first_split_that_applies_decides() {
    let rules = [
        with_path("a", "/a"),
        with_path("any", "/"),
        rule("all", Match::Always),
    ];
    let headers = HeaderMap::new();
    let at = |path| RequestFacts {
        method: &Method::GET,
        path,
        query: None,
        headers: &headers,
    };
    assert_eq!(decides(&rules, Some(&at("/a"))).unwrap(), "a");
    assert_eq!(decides(&rules, Some(&at("/b"))).unwrap(), "any");
    assert_eq!(
        decides(&rules[..1], Some(&at("/b"))),
        None,
        "what does not match goes to the root"
    );
}

#[test]
fn a_split_with_matches_never_takes_opaque_bytes() {
    let rules = [with_path("any", ".*"), rule("all", Match::Always)];
    assert_eq!(decides(&rules, None).unwrap(), "all");
    assert_eq!(decides(&rules[..1], None), None);
    let may_fit = |rule: &Rule<Forward>| [true, false].map(|asked| rule.when.may_fit(asked));
    assert_eq!(may_fit(&rules[0]), [true, false], "before it is read");
    assert_eq!(may_fit(&rules[1]), [true, true]);
}

#[test]
fn last_rule_of_routes_refuses_requests_not_bytes() {
    let rules = [
        with_path("a", "/a"),
        Rule {
            then: Forward::Refuse(Reason::NoRoute),
            ..rule("last", Match::every_request())
        },
    ];
    let headers = HeaderMap::new();
    for (method, path) in [(Method::GET, "/b"), (Method::OPTIONS, "*")] {
        let request = RequestFacts {
            method: &method,
            path,
            query: None,
            headers: &headers,
        };
        assert_eq!(decides(&rules, Some(&request)).unwrap(), "last");
    }
    assert_eq!(decides(&rules, None), None, "bytes go to the root");
}

#[test]
fn invalid_backend_keeps_its_share_of_calls() {
    let both = vec![
        Backend::new(ServiceId::new("shop", "v1"), 80, 1, "endpoints/shop/v1:80"),
        Backend::invalid(ServiceId::new("shop", "gone"), 0, 3),
    ];
    assert!(!choose(&both, 0).unwrap().invalid);
    assert!(choose(&both, u64::MAX).unwrap().invalid);
    let parts: Vec<f64> = super::shares(&both).map(|(_, share)| share).collect();
    assert_eq!(parts, [0.25, 0.75]);
    let alone = vec![Backend::invalid(ServiceId::new("shop", "gone"), 0, 1)];
    assert!(matches!(Forward::split(alone), Forward::Split(_)));
}

#[test]
fn a_split_whose_matches_are_empty_applies_to_nothing() {
    let rules = [rule("none", Match::AnyOf(vec![]))];
    let headers = HeaderMap::new();
    let request = RequestFacts {
        method: &Method::GET,
        path: "/",
        query: None,
        headers: &headers,
    };
    assert_eq!(decides(&rules, Some(&request)), None);
    assert_eq!(decides(&rules, None), None);
}

proptest! {
    #[test]
    fn backend_is_chosen_exactly_when_weight_is_positive(
        weights in proptest::collection::vec(prop_oneof![Just(0), any::<u32>()], 0..6),
        point: u64,
    ) {
        let all = backends(&weights);
        let chosen = choose(&all, point);
        prop_assert_eq!(chosen.is_some(), weights.iter().any(|w| *w > 0));
        prop_assert!(chosen.is_none_or(|backend| backend.weight > 0));
    }
}
