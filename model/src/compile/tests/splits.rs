//! TrafficSplits become routes of the Service that is called.

use serde_json::{Value, json};

use super::{failures, heavy_group, report};
use crate::{
    fixtures::*,
    problem::{
        ConditionType::{Accepted, ResolvedRefs},
        Reason,
    },
};

/// Services api (80), v1 (80), v2 (80 and 90), each with a pod.
fn cluster() -> Cluster {
    shop()
        .with(service("v1", "10.96.0.11", &[("http", 80)]))
        .with(slice(
            "v1-x",
            "v1",
            &[("http", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ))
        .with(service("v2", "10.96.0.12", &[("http", 80), ("other", 90)]))
        .with(slice(
            "v2-x",
            "v2",
            &[("http", 8080)],
            &[endpoint("api-2", "10.0.0.12")],
        ))
}

fn splits(cluster: &Cluster) -> Vec<wire::v1::Split> {
    cluster
        .resolve("client", &["10.96.0.1:80"])
        .service("service/shop/api:80")
        .splits
}

/// Backends with weights of the only split.
fn shares(cluster: &Cluster) -> Vec<(String, u32)> {
    let splits = splits(cluster);
    assert_eq!(splits.len(), 1, "{splits:?}");
    splits[0]
        .backends
        .iter()
        .map(|b| (b.service.clone(), b.weight))
        .collect()
}

fn pairs(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected
        .iter()
        .map(|(name, weight)| ((*name).to_owned(), *weight))
        .collect()
}

fn with_matches(split: Value, groups: &[&str]) -> Value {
    let matches: Vec<Value> = groups
        .iter()
        .map(|name| json!({"kind": "HTTPRouteGroup", "name": name}))
        .collect();
    set(split, "/spec/matches", json!(matches))
}

#[test]
fn split_weights_pass_unchanged_with_backend_endpoints() {
    let cluster = cluster().with(split("s", "api", &[("v1", 1000), ("v2", 500)]));
    assert_eq!(shares(&cluster), pairs(&[("v1", 1000), ("v2", 500)]));
    let resolved = cluster.resolve("client", &["10.96.0.1:80"]);
    assert_eq!(
        resolved.addresses("endpoints/shop/v1:80"),
        ["10.0.0.11:8080"]
    );
    assert_eq!(
        resolved.addresses("endpoints/shop/v2:80"),
        ["10.0.0.12:8080"]
    );
    let (_, problems) = cluster.compile();
    let report = report(&problems, "TrafficSplit s");
    assert!(report.accepted.status && report.resolved_refs.status);
    assert_eq!(report.summary, "v1 1000, v2 500");
}

#[test]
fn a_weight_of_zero_stays_and_has_no_share() {
    let cluster = cluster().with(split("s", "api", &[("v1", 1), ("v2", 0)]));
    assert_eq!(shares(&cluster), pairs(&[("v1", 1), ("v2", 0)]));
}

#[test]
fn split_root_accepts_every_name_form_of_its_namespace() {
    for name in [
        "api",
        "api.shop",
        "api.shop.svc",
        "api.shop.svc.cluster.local",
        "api.shop.",
    ] {
        let cluster = cluster().with(split("s", name, &[("v1", 1)]));
        assert_eq!(shares(&cluster), pairs(&[("v1", 1)]), "{name}");
    }
    for name in [
        "",
        "api.other",
        "api.shop.svc.example.org",
        "api.shop.pod",
        ".shop",
        "foo.com",
    ] {
        let cluster = cluster().with(split("s", name, &[("v1", 1)]));
        assert!(splits(&cluster).is_empty(), "{name}");
        let (_, problems) = cluster.compile();
        assert_eq!(
            failures(&problems, Accepted),
            [(Reason::Invalid, "spec.service")],
            "{name}"
        );
    }
}

#[test]
fn unknown_split_root_is_missing_reference() {
    let (_, problems) = cluster().with(split("s", "ghost", &[("v1", 1)])).compile();
    assert_eq!(
        failures(&problems, ResolvedRefs),
        [(Reason::RefNotFound, "spec.service")]
    );
    assert!(report(&problems, "TrafficSplit s").accepted.status);
}

#[test]
fn root_as_own_backend_uses_own_endpoints() {
    let cluster = cluster().with(split("s", "api", &[("api", 9), ("v1", 1)]));
    let split = &splits(&cluster)[0];
    assert_eq!(split.backends[0].endpoints, "endpoints/shop/api:80");
    assert!(cluster.compile().1.list.is_empty());
}

#[test]
fn a_split_touches_only_its_root() {
    let cluster =
        cluster()
            .with(split("s", "api", &[("v1", 1)]))
            .with(split("t", "v1", &[("v2", 1)]));
    assert_eq!(
        shares(&cluster),
        pairs(&[("v1", 1)]),
        "not resolved further"
    );
    let resolved = cluster.resolve("client", &["10.96.0.12:80"]);
    assert!(resolved.service("service/shop/v2:80").splits.is_empty());
}

#[test]
fn missing_backend_leaves_its_share_to_others() {
    let cluster = cluster().with(split("s", "api", &[("v1", 100), ("v3", 10)]));
    assert_eq!(shares(&cluster), pairs(&[("v1", 100)]));
    let (_, problems) = cluster.compile();
    let expected = [(Reason::RefNotFound, "spec.backends[1].service")];
    assert_eq!(failures(&problems, ResolvedRefs), expected);
}

// Claims: C3
#[test]
fn missing_backend_of_weight_0_is_only_warning() {
    let about = |backends: &[(&str, i64)]| {
        let (_, problems) = cluster().with(split("s", "api", backends)).compile();
        let condition = report(&problems, "TrafficSplit s").resolved_refs.clone();
        (condition.status, condition.reason, condition.message)
    };
    let (status, reason, message) = about(&[("v1", 100), ("v3", 0)]);
    assert!(status, "{message}");
    assert_eq!(reason, "RefNotFound");
    assert!(
        message.contains("there is no Service v3; its weight is 0"),
        "{message}"
    );
    // Named twice, its weights are added.
    assert!(!about(&[("v1", 100), ("v3", 0), ("v3", 1)]).0);
    assert!(!about(&[("v1", 100), ("v3", 1)]).0);
    assert!(!about(&[("v3", 0)]).0, "no pod takes the port");
}

#[test]
fn backend_without_root_port_is_skipped_for_that_port() {
    let root = service("api", "10.96.0.1", &[("http", 80), ("other", 90)]);
    let cluster = cluster()
        .with(root)
        .with(split("s", "api", &[("v1", 1), ("v2", 1)]));
    let resolved = cluster.resolve("client", &["10.96.0.1:90", "10.96.0.1:80"]);
    let at = |name| resolved.service(name).splits[0].backends.len();
    assert_eq!(
        (at("service/shop/api:80"), at("service/shop/api:90")),
        (2, 1)
    );
    let (_, problems) = cluster.compile();
    let expected = [(Reason::PortNotFound, "spec.backends[0].service")];
    assert_eq!(failures(&problems, ResolvedRefs), expected);
}

#[test]
fn split_without_usable_backend_is_active_and_routes_nowhere() {
    for backends in [&[("v3", 1)][..], &[], &[("v1", 0), ("v2", 0)]] {
        let cluster = cluster().with(split("s", "api", backends));
        let total: u32 = shares(&cluster).iter().map(|(_, weight)| weight).sum();
        assert_eq!(total, 0);
        let (_, problems) = cluster.compile();
        let condition = &report(&problems, "TrafficSplit s").resolved_refs;
        assert_eq!(
            (condition.status, condition.reason),
            (false, "NoUsableBackend")
        );
    }
}

#[test]
fn a_backend_without_endpoints_keeps_its_share() {
    let cluster = cluster()
        .with(slice("v2-x", "v2", &[("http", 8080)], &[]))
        .with(split("s", "api", &[("v1", 1), ("v2", 1)]));
    assert_eq!(shares(&cluster), pairs(&[("v1", 1), ("v2", 1)]));
}

#[test]
fn a_backend_named_twice_has_both_weights() {
    let backends = [("v1", 1), ("v2", 1), ("v1.shop", 2)];
    let cluster = cluster().with(split("s", "api", &backends));
    assert_eq!(shares(&cluster), pairs(&[("v1", 3), ("v2", 1)]));
}

#[test]
fn a_weight_that_is_no_share_refuses_the_split() {
    for weight in [-1, i64::from(u32::MAX) + 1] {
        let cluster = cluster().with(split("s", "api", &[("v1", 1), ("v2", weight)]));
        assert!(splits(&cluster).is_empty());
        let (_, problems) = cluster.compile();
        let expected = [(Reason::Invalid, "spec.backends[1].weight")];
        assert_eq!(failures(&problems, Accepted), expected);
    }
}

#[test]
fn conditional_splits_come_first_by_age_and_unconditional_last() {
    let group = group("g", json!([{"name": "m", "pathRegex": "/x"}]));
    let conditional =
        |name, second| with_matches(created(split(name, "api", &[("v1", 1)]), second), &["g"]);
    let plain = |name, second| created(split(name, "api", &[("v2", 1)]), second);
    let cluster = cluster()
        .with(group)
        .with(plain("plain-young", 9))
        .with(plain("plain-old", 1))
        .with(conditional("b", 5))
        .with(conditional("a", 5))
        .with(conditional("old", 2));
    let names: Vec<String> = splits(&cluster)
        .into_iter()
        .map(|split| split.origin.unwrap().name)
        .collect();
    assert_eq!(names, ["old", "a", "b", "plain-old"]);
    let (_, problems) = cluster.compile();
    let loser = &report(&problems, "TrafficSplit plain-young").accepted;
    assert_eq!((loser.status, loser.reason), (false, "Conflicted"));
    let expected = "TrafficSplit plain-old splits this Service already, and is older";
    assert!(loser.message.contains(expected), "{}", loser.message);
    assert!(report(&problems, "TrafficSplit plain-old").accepted.status);
    assert!(report(&problems, "TrafficSplit a").accepted.status);
    let (_, problems) = cluster.with(plain("also-old", 1)).compile();
    let loser = &report(&problems, "TrafficSplit plain-old").accepted;
    let expected = "TrafficSplit also-old splits this Service already, and is as old and the \
                    first by name";
    assert!(loser.message.contains(expected), "{}", loser.message);
}

#[test]
fn expressions_beyond_the_bound_cost_the_youngest_split() {
    let with_group = |name: &str, group, second| {
        let split = with_matches(split(name, "api", &[("v1", 1)]), &[group]);
        created(split, second)
    };
    let heavy = (1..=5).map(|nth| with_group(&format!("s{nth}"), "heavy", 9 - nth));
    let cluster = heavy.fold(cluster(), Cluster::with);
    let cluster = cluster
        .with(heavy_group("heavy"))
        .with(group("light", json!([{"name": "m", "pathRegex": "/x"}])))
        .with(with_group("light", "light", 9))
        .with(created(split("always", "api", &[("v2", 1)]), 10));
    let names: Vec<String> = splits(&cluster)
        .into_iter()
        .map(|split| split.origin.unwrap().name)
        .collect();
    assert_eq!(names, ["s5", "s4", "s3", "s2", "light", "always"]);
    let (_, problems) = cluster.compile();
    let expected = [(Reason::Invalid, "spec.matches")];
    assert_eq!(failures(&problems, Accepted), expected);
    let lost = &report(&problems, "TrafficSplit s1").accepted;
    let words = "the expressions of TrafficSplit shop/s1 those of all splits of this Service take \
                 more than 16 MiB";
    assert!(lost.message.contains(words), "{}", lost.message);
}

#[test]
fn matches_beyond_the_bound_cost_the_youngest_split() {
    let path = "x".repeat(950);
    let long_group = |name: &str| {
        let one = |at: u8| json!({"name": format!("m{at}"), "pathRegex": format!("/{at}/{path}")});
        group(name, (0..64).map(one).collect())
    };
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let base = names.map(long_group);
    let base = base.into_iter().fold(cluster(), Cluster::with);
    let with_groups = |name, groups: &[&str], second| {
        created(
            with_matches(split(name, "api", &[("v1", 1)]), groups),
            second,
        )
    };
    let cluster = base
        .with(group("light", json!([{"name": "m", "pathRegex": "/x"}])))
        .with(with_groups("first", &names[..4], 1))
        .with(with_groups("second", &names[4..8], 2))
        .with(with_groups("third", &names[8..], 3))
        .with(with_groups("light", &["light"], 4));
    let kept = splits(&cluster).into_iter();
    let kept: Vec<String> = kept.map(|split| split.origin.unwrap().name).collect();
    assert_eq!(kept, ["first", "second", "light"]);
    let (_, problems) = cluster.compile();
    let expected = [(Reason::Invalid, "spec.matches")];
    assert_eq!(failures(&problems, Accepted), expected);
    let lost = &report(&problems, "TrafficSplit third").accepted;
    let words = "with the matches of TrafficSplit shop/third those of all splits of this Service \
                 are more than 512 KiB";
    assert!(lost.message.contains(words), "{}", lost.message);
}

/// 53 splits with as many backends as one may have, of the longest names, are as much as one
/// Service may have; the one without matches is not counted.
#[test]
fn backends_beyond_the_bound_cost_the_youngest_split() {
    let names: Vec<String> = (10..74)
        .map(|n| format!("b{n}{}", "x".repeat(60)))
        .collect();
    let mut cluster = cluster().with(group("light", json!([{"name": "m", "pathRegex": "/x"}])));
    for (nth, name) in names.iter().enumerate() {
        cluster = cluster.with(service(name, &format!("10.96.1.{nth}"), &[("http", 80)]));
    }
    let backends: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    for nth in 1..=54 {
        let one = split(&format!("s{nth}"), "api", &backends);
        cluster = cluster.with(created(with_matches(one, &["light"]), nth));
    }
    let cluster = cluster.with(created(split("always", "api", &backends), 55));
    let kept = splits(&cluster);
    assert_eq!(kept.len(), 54);
    assert_eq!(kept[53].origin.as_ref().unwrap().name, "always");
    let (_, problems) = cluster.compile();
    let expected = [(Reason::Invalid, "spec.backends")];
    assert_eq!(failures(&problems, Accepted), expected);
    assert!(!report(&problems, "TrafficSplit s54").accepted.status);
}

#[test]
fn unusable_split_conflicts_with_no_other() {
    let cluster = cluster()
        .with(created(split("bad", "api", &[("v1", -1)]), 1))
        .with(created(split("good", "api", &[("v2", 1)]), 2));
    assert_eq!(shares(&cluster), pairs(&[("v2", 1)]));
}

#[test]
fn matches_of_several_groups_are_one_list() {
    let cluster = cluster()
        .with(group("g", json!([{"name": "a", "pathRegex": "/a"}])))
        .with(group(
            "h",
            json!([{"name": "b", "methods": ["GET"]}, {"name": "c"}]),
        ))
        .with(with_matches(split("s", "api", &[("v1", 1)]), &["g", "h"]));
    let matches = splits(&cluster)[0].matches.clone().unwrap().matches;
    let names: Vec<&str> = matches.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let resolved = cluster.resolve("client", &["10.96.0.1:80"]);
    let origins: Vec<String> = resolved
        .published("service/shop/api:80")
        .origins
        .iter()
        .map(|(object, generation)| format!("{object} {generation}"))
        .collect();
    assert_eq!(
        origins,
        [
            "TrafficSplit shop/s 1",
            "HTTPRouteGroup shop/g 1",
            "HTTPRouteGroup shop/h 1"
        ]
    );
}

#[test]
fn a_missing_group_makes_the_split_inactive() {
    let cluster = cluster()
        .with(group("g", json!([{"name": "a"}])))
        .with(with_matches(
            split("s", "api", &[("v1", 1)]),
            &["g", "ghost"],
        ));
    assert!(splits(&cluster).is_empty());
    let (_, problems) = cluster.compile();
    let expected = [(Reason::RefNotFound, "spec.matches[1].name")];
    assert_eq!(failures(&problems, ResolvedRefs), expected);
}

#[test]
fn unmatchable_match_keeps_split_conditional() {
    let cluster = cluster()
        .with(group("g", json!([{"name": "a", "pathRegex": "("}])))
        .with(with_matches(split("s", "api", &[("v1", 1)]), &["g"]));
    assert_eq!(splits(&cluster)[0].matches.clone().unwrap().matches, []);
}

#[test]
fn external_name_is_neither_split_root_nor_backend() {
    let external = set(service("ext", "", &[]), "/spec/type", json!("ExternalName"));
    let cluster = cluster().with(external);
    let (_, problems) = cluster
        .clone()
        .with(split("s", "ext", &[("v1", 1)]))
        .compile();
    assert_eq!(
        failures(&problems, Accepted),
        [(Reason::UnsupportedService, "spec.service")]
    );
    let as_backend = cluster.with(split("s", "api", &[("v1", 1), ("ext", 1)]));
    assert_eq!(shares(&as_backend), pairs(&[("v1", 1)]));
}

#[test]
fn headless_root_is_split_where_named_with_warning() {
    let cluster = cluster()
        .with(service("db", "None", &[("http", 8080)]))
        .with(slice(
            "db-x",
            "db",
            &[("http", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ))
        .with(service("v3", "10.96.0.13", &[("http", 8080)]))
        .with(split("s", "db", &[("v3", 1)]));
    let resolved = cluster.resolve("client", &["10.0.0.11:8080"]);
    assert_eq!(resolved.service("service/shop/db:8080").splits.len(), 1);
    let (_, problems) = cluster.compile();
    let condition = &report(&problems, "TrafficSplit s").accepted;
    assert_eq!(
        (condition.status, condition.reason),
        (true, "UnsupportedService")
    );
}

#[test]
fn an_unreadable_split_has_no_effect() {
    let object = set(
        split("s", "api", &[("v1", 1)]),
        "/spec/backends",
        json!("v1"),
    );
    let cluster = cluster().with(object);
    assert!(splits(&cluster).is_empty());
    let (_, problems) = cluster.compile();
    assert_eq!(
        report(&problems, "TrafficSplit s").accepted.reason,
        "Unreadable"
    );
}
