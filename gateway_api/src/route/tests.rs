//! Tests of routes by themselves: defaults, and what becomes of rules that cannot be served.

mod filters;
mod matches;

use std::time::Duration;

use http::{HeaderMap, Method};
use policy::http_match::RequestFacts;
use policy::traffic::call::Retry;
use serde_json::{Value, json};

use super::*;
use crate::conditions::Reason;

/// An HTTPRoute with these rules.
#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn http(rules: Value) -> Route {
    let parents = json!([{"group": "", "kind": "Service", "name": "cart"}]);
    let spec = json!({"parentRefs": parents, "rules": rules});
    Route::read_http(&HTTPRoute::new("shop", "web", spec))
}

/// The only rule of an HTTPRoute.
#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn rule(rule: Value) -> RouteRule {
    http(json!([rule])).rules.remove(0)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn grpc(rules: Value) -> Route {
    Route::read_grpc(&GRPCRoute::new("shop", "web", json!({"rules": rules})))
}

/// What is wrong with a rule, as it is reported.
fn broken(rule: &RouteRule) -> String {
    rule.broken
        .as_ref()
        .map_or(String::new(), Broken::to_string)
}

fn fits(rule: &RouteRule, method: &Method, target: &str) -> bool {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let facts = RequestFacts {
        method,
        path,
        query,
        headers: &HeaderMap::new(),
    };
    rule.matches.iter().any(|one| one.http.matches(&facts))
}

#[test]
fn rule_without_fields_fits_every_request_and_goes_nowhere() {
    for rules in [
        json!([{}]),
        json!([]),
        json!(null),
        json!([{"matches": []}]),
    ] {
        let route = http(rules);
        let [rule] = &*route.rules else {
            panic!("{route:?}");
        };
        assert!(fits(rule, &Method::DELETE, "/a?b") && fits(rule, &Method::OPTIONS, "*"));
        assert_eq!((broken(rule).as_str(), rule.backends.len()), ("", 0));
        assert_eq!((rule.timeouts, &rule.retry), (None, &None));
    }
    assert!(grpc(json!(null)).rules.is_empty());
}

#[test]
fn parent_reference_gets_defaults_of_the_api() {
    let spec = json!({"parentRefs": [
        {"name": "gate"},
        {"group": "", "kind": "Service", "name": "cart", "namespace": "shop", "port": 80},
        {"group": "", "kind": "Service", "name": "cart", "port": 80, "sectionName": ""},
        {"group": "", "kind": "Service", "name": "cart", "sectionName": "http"},
        {"kind": "Service", "name": "cart"},
        {"group": "", "kind": "Service", "name": "cart", "port": 70_000},
        {"group": "", "kind": "Service"},
        "cart",
    ]});
    let route = Route::read_http(&HTTPRoute::new("shop", "web", spec));
    let [gate, whole, short, named, foreign, wrong] = &*route.parents else {
        panic!("{route:?}");
    };
    assert_eq!((&*gate.group, &*gate.kind), (GROUP_OF_ROUTES, "Gateway"));
    assert_eq!((gate.service(), foreign.service()), (None, None));
    assert_eq!(whole.service().unwrap().to_string(), "shop/cart");
    assert!(whole.means(short) && !whole.means(named));
    assert_ne!(whole.written, short.written);
    assert_eq!(named.section_name.as_deref(), Some("http"));
    assert_eq!(wrong.port, Some(0), "no Service has it");
}

const GROUP_OF_ROUTES: &str = "gateway.networking.k8s.io";

#[test]
fn backend_gets_defaults_of_the_api() {
    let rule = rule(json!({"backendRefs": [
        {"name": "cart", "port": 80},
        {"name": "items", "namespace": "stock", "port": 81, "weight": 0},
        {"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "cart", "port": 80},
        {"name": "cart", "weight": 1_000_000},
    ]}));
    assert_eq!(broken(&rule), "");
    let [cart, items, import, bare] = &*rule.backends else {
        panic!("{rule:?}");
    };
    let (service, port) = cart.target.service().unwrap();
    assert_eq!(
        (service.to_string().as_str(), port, cart.weight),
        ("shop/cart", 80, 1)
    );
    let (service, _) = items.target.service().unwrap();
    assert_eq!(
        (service.to_string().as_str(), items.weight),
        ("stock/items", 0)
    );
    let reason = |backend: &BackendRef| backend.target.service().unwrap_err().reason;
    assert_eq!(reason(import), Reason::InvalidKind);
    assert_eq!(reason(bare), Reason::BackendNotFound);
    assert_eq!(bare.target.path, "spec.rules[0].backendRefs[3]");
}

#[test]
fn broken_rule_keeps_its_matches_and_leaves_others_alone() {
    let bad = json!({
        "matches": [{"path": {"value": "/a"}}],
        "filters": [{"type": "ExtensionRef", "extensionRef": {"name": "x"}}],
        "backendRefs": [{"name": "cart", "port": 80}],
    });
    let route = http(json!([bad, {"backendRefs": [{"name": "cart", "port": 80}]}]));
    let [bad, good] = &*route.rules else {
        panic!("{route:?}");
    };
    assert!(fits(bad, &Method::GET, "/a/b") && !fits(bad, &Method::GET, "/b"));
    let why = broken(bad);
    assert!(
        why.starts_with("spec.rules[0].filters[0]: is of type \"ExtensionRef\""),
        "{why}"
    );
    assert!(bad.backends.is_empty());
    assert_eq!((broken(good).as_str(), good.backends.len()), ("", 1));
}

#[test]
fn rule_of_unknown_shape_is_broken_at_its_field() {
    for (written, path) in [
        (json!("x"), "spec.rules[0]"),
        (json!({"name": 3}), "spec.rules[0].name"),
        (
            json!({"sessionPersistence": {}}),
            "spec.rules[0].sessionPersistence",
        ),
        (json!({"matches": {}}), "spec.rules[0].matches"),
        (
            json!({"backendRefs": [{}]}),
            "spec.rules[0].backendRefs[0].name",
        ),
        (
            json!({"backendRefs": [{"name": ""}]}),
            "spec.rules[0].backendRefs[0].name",
        ),
        (
            json!({"backendRefs": [{"name": "a", "port": 0}]}),
            "spec.rules[0].backendRefs[0].port",
        ),
        (
            json!({"backendRefs": [{"name": "a", "weight": -1}]}),
            "spec.rules[0].backendRefs[0].weight",
        ),
        (
            json!({"backendRefs": [{"name": "a", "weight": 1_000_001}]}),
            "spec.rules[0].backendRefs[0].weight",
        ),
        (
            json!({"backendRefs": [{"name": "a", "zone": "b"}]}),
            "spec.rules[0].backendRefs[0].zone",
        ),
        (
            json!({"timeouts": {"request": "1d"}}),
            "spec.rules[0].timeouts.request",
        ),
        (
            json!({"timeouts": {"idle": "1s"}}),
            "spec.rules[0].timeouts.idle",
        ),
        (
            json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}),
            "spec.rules[0].timeouts.backendRequest",
        ),
        (
            json!({"retry": {"attempts": 11}}),
            "spec.rules[0].retry.attempts",
        ),
        (
            json!({"retry": {"attempts": 0}}),
            "spec.rules[0].retry.attempts",
        ),
        (
            json!({"retry": {"codes": [503, 200]}}),
            "spec.rules[0].retry.codes[1]",
        ),
        (
            json!({"retry": {"backoff": "11s"}}),
            "spec.rules[0].retry.backoff",
        ),
    ] {
        let rule = rule(written.clone());
        let at = rule.broken.as_ref().map(|broken| broken.path.as_str());
        assert_eq!(at, Some(path), "{written}");
    }
    let unnamed = rule(json!({"name": 3, "matches": [{"path": {"value": "/a"}}]}));
    assert!(fits(&unnamed, &Method::GET, "/a") && unnamed.broken.is_some());
    let route = http(json!({"matches": []}));
    assert_eq!(route.rules[0].broken.as_ref().unwrap().path, "spec.rules");
    assert!(
        fits(&route.rules[0], &Method::GET, "/"),
        "nothing falls through"
    );
}

#[test]
fn timeouts_and_retry_are_read_with_their_defaults() {
    let timeouts = |written: Value| rule(json!({"timeouts": written})).timeouts.unwrap();
    let both = timeouts(json!({"request": "1h30m", "backendRequest": "250ms"}));
    assert_eq!(both.request, Some(Duration::from_secs(5400)));
    assert_eq!(both.backend_request, Some(Duration::from_millis(250)));
    let none = timeouts(json!({"request": "0s", "backendRequest": "5s"}));
    assert_eq!(none.request, Some(Duration::ZERO), "no limit is below 0s");
    assert_eq!(timeouts(json!({})).request, None);

    let retry = |written: Value| rule(json!({"retry": written})).retry.unwrap();
    let all = retry(json!({"codes": [500, 503, 500], "attempts": 3, "backoff": "10ms"}));
    assert_eq!((all.attempts, &*all.codes), (3, &[500, 503][..]));
    assert_eq!(all.backoff, Some(Duration::from_millis(10)));
    let none = retry(json!({}));
    assert_eq!(
        (none.attempts, none.backoff),
        (Retry::DEFAULT.attempts, None)
    );
    assert!(none.codes.is_empty(), "lost connections alone");
}

#[test]
fn tcp_route_has_backends_and_nothing_else() {
    let tcp = |rules: Value| Route::read_tcp(&TCPRoute::new("shop", "db", json!({"rules": rules})));
    let route = tcp(json!([{"backendRefs": [
        {"name": "a", "port": 1, "weight": 9}, {"name": "b", "port": 1},
    ]}]));
    let weights = route.rules[0].backends.iter().map(|backend| backend.weight);
    assert_eq!(weights.collect::<Vec<_>>(), [9, 1]);
    assert!(route.rules[0].matches.is_empty() && route.rules[0].broken.is_none());
    for (rules, path) in [
        (json!([{"matches": [{}]}]), "spec.rules[0].matches"),
        (
            json!([{"backendRefs": [{"name": "a", "port": 1, "filters": []}]}]),
            "spec.rules[0].backendRefs[0].filters",
        ),
    ] {
        let route = tcp(rules);
        assert_eq!(route.rules[0].broken.as_ref().unwrap().path, path);
    }
}
