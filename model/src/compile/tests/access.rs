//! TrafficTargets become rules of the pods that they protect.

use policy::{
    access::{Access, Caller, EvaluatedTraffic},
    http_match::RequestFacts,
    mode::Enforcement,
    name::SpiffeId,
};
use serde_json::{Value, json};

use super::{failures, report};
use crate::{
    fixtures::*,
    problem::{
        ConditionType::{Accepted, ResolvedRefs},
        Problem, Reason,
    },
};

mod ports;

/// The policy of a pod as its proxy would hold it.
fn access(cluster: &Cluster, pod: &str) -> Access {
    let resolved = cluster.resolve(pod, &[]);
    let enforcement = wire::convert::enforcement(resolved.workload().enforcement);
    Access {
        enforcement,
        rules: resolved.rules(),
    }
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::of("cluster.local", "shop", account).unwrap()
}

/// Whether `caller` may send `METHOD /path` to port 8080 of `api-1`.
fn http(cluster: &Cluster, caller: &str, method: &str, path: &str) -> bool {
    http_at(cluster, caller, 8080, method, path)
}

fn http_at(cluster: &Cluster, caller: &str, port: u16, method: &str, path: &str) -> bool {
    let (method, headers) = (method.parse().unwrap(), http::HeaderMap::new());
    let request = RequestFacts {
        method: &method,
        path,
        query: None,
        headers: &headers,
    };
    access(cluster, "api-1")
        .decide(
            Caller::mesh(&id(caller)),
            port,
            EvaluatedTraffic::Http(&request),
        )
        .is_allowed()
}

/// Whether `caller` may open a connection of opaque bytes to port 8080.
fn admits(access: &Access, caller: Caller<'_>) -> bool {
    access
        .decide(caller, 8080, EvaluatedTraffic::Opaque)
        .is_allowed()
}

/// Whether `caller` may open a TCP connection to a port of `api-1`.
fn tcp(cluster: &Cluster, caller: &str, port: u16) -> bool {
    access(cluster, "api-1")
        .decide(Caller::mesh(&id(caller)), port, EvaluatedTraffic::Opaque)
        .is_allowed()
}

fn http_rule(matches: Option<&[&str]>) -> Value {
    let mut rule = json!({"kind": "HTTPRouteGroup", "name": "routes"});
    if let Some(matches) = matches {
        rule["matches"] = json!(matches);
    }
    rule
}

fn tcp_rule() -> Value {
    json!({"kind": "TCPRoute", "name": "ports"})
}

/// Problems other than that the fixture's sources name no namespace.
fn complaints(cluster: &Cluster) -> Vec<Problem> {
    let mut list = cluster.compile().1.list;
    list.retain(|problem| problem.reason != Reason::NamespaceDefaulted);
    list
}

/// Group `routes` with matches `api` and `metrics`, TCPRoute `ports` with 8080.
fn cluster() -> Cluster {
    let matches = json!([
        {"name": "api", "pathRegex": "/api", "methods": ["*"]},
        {"name": "metrics", "pathRegex": "/metrics", "methods": ["GET"]},
    ]);
    shop()
        .with(group("routes", matches))
        .with(tcp_route("ports", &[8080]))
}

// Claims: mesh-2a
#[test]
fn the_specs_worked_example_allows_exactly_what_it_lists() {
    let cluster = cluster()
        .with(target(
            "m",
            "api",
            &["prometheus"],
            json!([tcp_rule(), http_rule(Some(&["metrics"]))]),
        ))
        .with(target(
            "a",
            "api",
            &["website", "payments"],
            json!([tcp_rule(), http_rule(Some(&["api"]))]),
        ));
    for (caller, method, path, allowed) in [
        ("prometheus", "GET", "/metrics", true),
        ("prometheus", "POST", "/metrics", false),
        ("prometheus", "GET", "/api", false),
        ("website", "DELETE", "/api/x", true),
        ("payments", "GET", "/api", true),
        ("website", "GET", "/metrics", false),
        ("other", "GET", "/api", false),
    ] {
        assert_eq!(
            http(&cluster, caller, method, path),
            allowed,
            "{caller} {method} {path}"
        );
    }
    assert!(complaints(&cluster).is_empty());
}

#[test]
fn a_rule_without_matches_means_every_match() {
    let rules = json!([http_rule(None)]);
    let cluster = cluster().with(target("t", "api", &["web"], rules));
    assert!(http(&cluster, "web", "GET", "/api"));
    assert!(http(&cluster, "web", "GET", "/metrics"));
    assert!(!http(&cluster, "web", "GET", "/other"));
}

#[test]
fn rule_with_empty_matches_allows_nothing_and_is_reported() {
    let alone = json!([http_rule(Some(&[]))]);
    let limited = json!([http_rule(Some(&[])), tcp_rule()]);
    for (rules, raw_tcp) in [(alone, false), (limited, true)] {
        let cluster = cluster().with(target("t", "api", &["web"], rules));
        assert!(!http(&cluster, "web", "GET", "/api"));
        assert_eq!(tcp(&cluster, "web", 8080), raw_tcp);
        let (_, problems) = cluster.compile();
        let expected = [(Reason::Invalid, "spec.rules[0].matches")];
        assert_eq!(failures(&problems, Accepted), expected);
    }
    let rules = json!([http_rule(Some(&[])), http_rule(Some(&["api"]))]);
    let cluster = cluster().with(target("t", "api", &["web"], rules));
    assert!(http(&cluster, "web", "GET", "/api"));
    assert!(!http(&cluster, "web", "GET", "/metrics"));
}

#[test]
fn unsupported_destination_kind_is_protected_and_admits_no_caller() {
    let object = target("t", "api", &["web"], json!([tcp_rule()]));
    let cluster = cluster().with(set(object, "/spec/destination/kind", json!("Group")));
    assert!(!tcp(&cluster, "web", 8080));
    let (_, problems) = cluster.compile();
    let expected = [(Reason::UnsupportedKind, "spec.destination.kind")];
    assert_eq!(failures(&problems, Accepted), expected);
}

// Claims: mesh-2c
#[test]
fn missing_sources_or_rules_allow_nothing_and_are_reported() {
    let sources = cluster().with(target("t", "api", &[], json!([tcp_rule()])));
    let rules = cluster().with(target("t", "api", &["web"], json!([])));
    for (cluster, field) in [(sources, "spec.sources"), (rules, "spec.rules")] {
        assert_eq!(access(&cluster, "api-1").enforcement, Enforcement::Enforce);
        assert!(!tcp(&cluster, "web", 8080) && !http(&cluster, "web", "GET", "/api"));
        let (_, problems) = cluster.compile();
        assert_eq!(failures(&problems, Accepted), [(Reason::Invalid, field)]);
    }
}

#[test]
fn a_target_that_protects_another_namespace_has_no_effect() {
    let object = target("t", "api", &["web"], json!([tcp_rule()]));
    let foreign = set(object, "/spec/destination/namespace", json!("bank"));
    let cluster = cluster().with(foreign).with(namespace("bank"));
    assert_eq!(access(&cluster, "api-1").enforcement, Enforcement::Open);
    let (_, problems) = cluster.compile();
    let expected = [(Reason::ForeignDestination, "spec.destination.namespace")];
    assert_eq!(failures(&problems, Accepted), expected);
}

#[test]
fn a_destination_may_name_its_own_namespace() {
    let object = target("t", "api", &["web"], json!([tcp_rule()]));
    let cluster = cluster().with(set(object, "/spec/destination/namespace", json!("shop")));
    assert!(tcp(&cluster, "web", 8080));
}

#[test]
fn http_and_tcp_rules_of_target_must_both_match() {
    let both = json!([http_rule(Some(&["api"])), tcp_rule()]);
    let cluster = cluster().with(target("t", "api", &["web"], both));
    assert!(http(&cluster, "web", "GET", "/api"));
    assert!(
        !http(&cluster, "web", "GET", "/metrics"),
        "not every request on the port"
    );
    let elsewhere = cluster.with(tcp_route("ports", &[9090]));
    assert!(!http(&elsewhere, "web", "GET", "/api"), "not on any port");
}

#[test]
fn parts_of_two_targets_are_never_combined() {
    let matches = json!([{"name": "x", "pathRegex": "/x"}]);
    let other_rule = json!({"kind": "HTTPRouteGroup", "name": "other"});
    let other_port = json!({"kind": "TCPRoute", "name": "other"});
    let cluster = cluster()
        .with(group("other", matches))
        .with(tcp_route("other", &[9090]))
        .with(target(
            "a",
            "api",
            &["web"],
            json!([http_rule(Some(&["api"])), tcp_rule()]),
        ))
        .with(target(
            "b",
            "api",
            &["web"],
            json!([other_rule, other_port]),
        ));
    assert!(http(&cluster, "web", "GET", "/api"));
    assert!(!http(&cluster, "web", "GET", "/x"), "that one is for 9090");
}

#[test]
fn tcp_rule_covers_http_but_not_vice_versa() {
    let by_tcp = cluster().with(target("t", "api", &["web"], json!([tcp_rule()])));
    assert!(http(&by_tcp, "web", "GET", "/anything") && tcp(&by_tcp, "web", 8080));
    assert!(!tcp(&by_tcp, "web", 9090));
    let by_http = cluster().with(target("t", "api", &["web"], json!([http_rule(None)])));
    assert!(!tcp(&by_http, "web", 8080));
}

#[test]
fn dangling_reference_is_skipped_and_never_widens_access() {
    let ghost_http = json!({"kind": "HTTPRouteGroup", "name": "ghost"});
    let ghost_tcp = json!({"kind": "TCPRoute", "name": "ghost"});
    let ghost_match = http_rule(Some(&["ghost", "api"]));
    // The HTTP half leads nowhere: no request passes because of the TCP half.
    let cluster_a = cluster().with(target(
        "t",
        "api",
        &["web"],
        json!([ghost_http, tcp_rule()]),
    ));
    assert!(!http(&cluster_a, "web", "GET", "/api"));
    // The TCP half leads nowhere: the HTTP half passes on no port.
    let cluster_b = cluster().with(target(
        "t",
        "api",
        &["web"],
        json!([http_rule(None), ghost_tcp]),
    ));
    assert!(!http(&cluster_b, "web", "GET", "/api"));
    // One match leads nowhere: the others stay.
    let cluster_c = cluster().with(target("t", "api", &["web"], json!([ghost_match])));
    assert!(http(&cluster_c, "web", "GET", "/api"));
    assert!(!http(&cluster_c, "web", "GET", "/metrics"));
    for (cluster, field) in [
        (cluster_a, "spec.rules[0].name"),
        (cluster_b, "spec.rules[1].name"),
        (cluster_c, "spec.rules[0].matches[0]"),
    ] {
        let (_, problems) = cluster.compile();
        assert_eq!(
            failures(&problems, ResolvedRefs),
            [(Reason::RefNotFound, field)]
        );
        assert!(report(&problems, "TrafficTarget t").accepted.status);
    }
}

#[test]
fn a_rule_of_unknown_kind_leaves_the_known_ones() {
    let rules = json!([{"kind": "GraphRoute", "name": "x"}, tcp_rule()]);
    let cluster = cluster().with(target("t", "api", &["web"], rules));
    assert!(tcp(&cluster, "web", 8080));
    let (_, problems) = cluster.compile();
    assert_eq!(
        failures(&problems, Accepted),
        [(Reason::UnsupportedKind, "spec.rules[0].kind")]
    );
}

#[test]
fn a_bad_regular_expression_spoils_its_match_alone() {
    let long = "a".repeat(10 * 1024);
    for regex in ["(", long.as_str()] {
        let matches = json!([
            {"name": "bad", "pathRegex": regex},
            {"name": "api", "pathRegex": "/api"},
        ]);
        let cluster = cluster().with(group("routes", matches)).with(target(
            "t",
            "api",
            &["web"],
            json!([http_rule(None)]),
        ));
        assert!(http(&cluster, "web", "GET", "/api"));
        assert!(!http(&cluster, "web", "GET", "/other"));
        let (_, problems) = cluster.compile();
        let expected = [(Reason::Invalid, "spec.matches[0].pathRegex")];
        assert_eq!(failures(&problems, Accepted), expected);
        assert!(!report(&problems, "HTTPRouteGroup routes").accepted.status);
    }
}

#[test]
fn headers_match_in_both_shapes_and_invalid_shape_never() {
    let with = |headers: Value| {
        let matches = json!([{"name": "h", "headers": headers}]);
        let target = target("t", "api", &["web"], json!([http_rule(None)]));
        let resolved = cluster().with(group("routes", matches)).with(target);
        resolved
            .resolve("api-1", &[])
            .rule("rule/shop/t")
            .http
            .unwrap()
            .matches
    };
    assert_eq!(with(json!({"x": "1"})), with(json!([{"x": "1"}])));
    assert_eq!(with(json!({"x": "1"}))[0].headers.len(), 1);
    assert_eq!(with(json!("x: 1")), []);
}

#[test]
fn of_two_matches_with_one_name_the_first_counts() {
    let matches = json!([{"name": "m", "pathRegex": "/a"}, {"name": "m", "pathRegex": "/"}]);
    let cluster = cluster().with(group("routes", matches)).with(target(
        "t",
        "api",
        &["web"],
        json!([http_rule(Some(&["m"]))]),
    ));
    assert!(http(&cluster, "web", "GET", "/a") && !http(&cluster, "web", "GET", "/b"));
}

#[test]
fn source_defaults_to_target_namespace_and_may_name_another() {
    let object = target("t", "api", &["web", "web"], json!([tcp_rule()]));
    let object = set(object, "/spec/sources/1/namespace", json!("other"));
    let cluster = cluster().with(object);
    let other = SpiffeId::of("cluster.local", "other", "web").unwrap();
    let third = SpiffeId::of("cluster.local", "third", "web").unwrap();
    let access = access(&cluster, "api-1");
    assert!(admits(&access, Caller::mesh(&id("web"))));
    assert!(admits(&access, Caller::mesh(&other)));
    assert!(!admits(&access, Caller::mesh(&third)));
}

#[test]
fn a_source_without_a_namespace_is_mentioned_and_resolved() {
    let object = target("t", "api", &["web", "job"], json!([tcp_rule()]));
    let named = set(object.clone(), "/spec/sources/1/namespace", json!("shop"));
    let (_, problems) = cluster().with(named.clone()).compile();
    let resolved = &report(&problems, "TrafficTarget t").resolved_refs;
    assert_eq!(
        (resolved.status, resolved.reason),
        (true, "NamespaceDefaulted")
    );
    let message = &resolved.message;
    assert!(
        message.contains("web") && message.contains("shop"),
        "{message}"
    );
    assert!(!message.contains("job"), "{message}");
    let named = set(named, "/spec/sources/0/namespace", json!("shop"));
    let (_, problems) = cluster().with(named).compile();
    assert!(problems.list.is_empty(), "{:?}", problems.list);
}

#[test]
fn groups_of_callers_are_sources() {
    let with = |name: &str| {
        let object = target("t", "api", &["x"], json!([tcp_rule()]));
        let group = json!([{"kind": "Group", "name": name}]);
        access(
            &cluster().with(set(object, "/spec/sources", group)),
            "api-1",
        )
    };
    let mesh = with("system:authenticated");
    assert!(admits(&mesh, Caller::mesh(&id("anybody"))));
    assert!(!admits(&mesh, Caller::Outside));
    let outside = with("system:unauthenticated");
    assert!(admits(&outside, Caller::Outside));
    assert!(!admits(&outside, Caller::mesh(&id("anybody"))));
    let unknown = with("system:masters");
    assert!(!admits(&unknown, Caller::mesh(&id("anybody"))));
}

#[test]
fn a_source_that_is_no_source_is_skipped_alone() {
    let object = target("t", "api", &["web", "a/b"], json!([tcp_rule()]));
    let object = set(object, "/spec/sources/1/kind", json!("User"));
    let cluster = cluster().with(object);
    assert!(tcp(&cluster, "web", 8080));
    let (_, problems) = cluster.compile();
    let expected = [(Reason::UnsupportedKind, "spec.sources[1].kind")];
    assert_eq!(failures(&problems, Accepted), expected);
}

#[test]
fn rule_origins_list_every_object_with_generation() {
    let object = target("t", "api", &["web"], json!([tcp_rule(), http_rule(None)]));
    let cluster = cluster().with(set(object, "/metadata/generation", json!(7)));
    let resolved = cluster.resolve("api-1", &[]);
    let mut origins: Vec<String> = resolved
        .published("rule/shop/t")
        .origins
        .iter()
        .map(|(object, generation)| format!("{object} {generation}"))
        .collect();
    origins.sort();
    assert_eq!(
        origins,
        [
            "HTTPRouteGroup shop/routes 1",
            "TCPRoute shop/ports 1",
            "TrafficTarget shop/t 7"
        ]
    );
    assert_eq!(resolved.published("workload").origins[0].1, 7);
}

#[test]
fn repeated_matches_cost_once_and_are_bounded() {
    let long = format!("/{}", "a".repeat(1000));
    let matches: Vec<_> = (0..64)
        .map(|i| json!({"name": format!("m{i}"), "pathRegex": long, "headers": {"x": long}}))
        .collect();
    let rules: Vec<_> = (0..64)
        .map(|i| json!({"kind": "HTTPRouteGroup", "name": format!("g{}", i % 8)}))
        .collect();
    let mut cluster = shop().with(target("t", "api", &["web"], json!(rules)));
    for i in 0..8 {
        cluster = cluster.with(group(&format!("g{i}"), json!(matches)));
    }
    let rule = cluster.resolve("api-1", &[]).rule("rule/shop/t");
    let bytes = prost::Message::encoded_len(&rule);
    assert!((400_000..600_000).contains(&bytes), "{bytes}");
    let one =
        shop()
            .with(group("g0", json!(matches)))
            .with(target("t", "api", &["web"], json!(rules)));
    let rule = one.resolve("api-1", &[]).rule("rule/shop/t");
    assert_eq!(rule.http.unwrap().matches.len(), 64);
}

#[test]
fn matches_on_tcp_route_are_ignored_and_reported() {
    let mut rule = tcp_rule();
    rule["matches"] = json!(["api"]);
    let cluster = cluster().with(target("t", "api", &["web"], json!([rule])));
    assert!(tcp(&cluster, "web", 8080));
    let reported = complaints(&cluster);
    assert_eq!(reported.len(), 1, "{reported:?}");
    assert_eq!(reported[0].reason, Reason::FieldIgnored);
    assert_eq!(reported[0].field, "spec.rules[0].matches");
    assert!(
        reported[0].message.contains("leave the field out"),
        "{reported:?}"
    );
}
