//! What a change means, by the Models before and after it.
//!
//! Claims: observe-108, observe-109

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::fixtures::{
    Cluster, annotate, binding, endpoint, group, http_route, namespace, pod, rule_below, rule_over,
    service, set, shop, slice, split, target, tcp_route,
};

/// `client` of account `web` calls port 80 of Service `api`.
fn calls() -> Calls {
    Calls {
        from: CallerSet::Pods(vec![PodId::new("shop", "client")]),
        service: Some(ObjectKey::new("shop", "api")),
        port: 80,
        to: vec![PodId::new("shop", "api-1")],
        http: true,
    }
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn meaning(before: &Cluster, after: &Cluster, calls: &Calls) -> Option<Meaning> {
    let (before, _) = before.compile();
    let (after, _) = after.compile();
    ModelComparison::new(&before, &after, later()).of(calls)
}

fn effect(before: &Cluster, after: &Cluster) -> (Effect, Option<Reason>) {
    let meaning = meaning(before, after, &calls()).unwrap();
    assert_eq!(meaning.rerouted, None);
    (meaning.effect, meaning.reason)
}

fn reads() -> Value {
    group(
        "routes",
        json!([{"name": "read", "pathRegex": "/items", "methods": ["GET"]}]),
    )
}

fn by_routes() -> Value {
    json!([{"kind": "HTTPRouteGroup", "name": "routes"}])
}

fn by_port() -> Value {
    json!([{"kind": "TCPRoute", "name": "port"}])
}

/// `shop` with a Service `canary` beside `api`.
fn with_canary() -> Cluster {
    shop()
        .with(pod("canary-1", "10.0.0.13", "canary"))
        .with(service("canary", "10.96.0.3", &[("http", 80)]))
        .with(slice(
            "canary-x",
            "canary",
            &[("http", 8080)],
            &[endpoint("canary-1", "10.0.0.13")],
        ))
}

#[test]
fn access_is_compared_without_guessing_what_requests_ask() {
    let open = shop();
    let all =
        shop()
            .with(tcp_route("port", &[8080]))
            .with(target("all", "api", &["web"], by_port()));
    let some = shop()
        .with(reads())
        .with(target("read", "api", &["web"], by_routes()));
    let others = shop()
        .with(reads())
        .with(target("read", "api", &["other"], by_routes()));
    let refused = (Effect::Refused, Some(Reason::NotAllowed));
    for (before, after, expected) in [
        (&open, &open, (Effect::Kept, None)),
        (&open, &all, (Effect::Kept, None)),
        (&open, &some, (Effect::Depends, None)),
        (&open, &others, refused),
        (&some, &others, refused),
        (&some, &some, (Effect::Kept, None)),
        (&others, &some, (Effect::Depends, None)),
        (&others, &all, (Effect::Allowed, None)),
    ] {
        assert_eq!(effect(before, after), expected);
    }
}

#[test]
fn caller_without_identity_is_refused_and_podless_account_evaluated() {
    let before = shop();
    let after =
        shop()
            .with(tcp_route("port", &[8080]))
            .with(target("all", "api", &["web"], by_port()));
    let of = |from: CallerSet| {
        let calls = Calls { from, ..calls() };
        meaning(&before, &after, &calls).map(|meaning| (meaning.effect, meaning.reason))
    };
    let outside = Some((Effect::Refused, Some(Reason::NoIdentity)));
    assert_eq!(of(CallerSet::Outside), outside);
    let account = |name: &str| CallerSet::Account(ObjectKey::new("shop", name));
    assert_eq!(of(account("web")), Some((Effect::Kept, None)));
    let other = Some((Effect::Refused, Some(Reason::NotAllowed)));
    assert_eq!(of(account("other")), other);
    assert_eq!(of(CallerSet::Pods(vec![PodId::new("shop", "gone")])), None);
    // Nothing is said of what Kubernetes does not know.
    let mut nowhere = calls();
    nowhere.port = 81;
    assert_eq!(meaning(&before, &after, &nowhere), None);
}

#[test]
fn proxy_ports_are_judged_by_no_rule() {
    let endpoints = [endpoint("api-1", "10.0.0.11")];
    let before = shop()
        .with(service("metrics", "10.96.0.9", &[("http", 9090)]))
        .with(slice(
            "metrics-x",
            "metrics",
            &[("http", 15190)],
            &endpoints,
        ));
    let after = before.clone().with(tcp_route("port", &[8080])).with(target(
        "all",
        "api",
        &["other"],
        by_port(),
    ));
    let of = |service: Option<&str>, port: u16| {
        let service = service.map(|name| ObjectKey::new("shop", name));
        let calls = Calls {
            service,
            port,
            ..calls()
        };
        meaning(&before, &after, &calls).unwrap().effect
    };
    assert_eq!(of(Some("metrics"), 9090), Effect::Kept);
    assert_eq!(of(None, 15190), Effect::Kept);
    assert_eq!(of(Some("api"), 80), Effect::Refused, "control");
    assert_eq!(of(None, 8080), Effect::Refused, "control");
}

/// The client may not learn which pods an account has, and so nothing of what a rule by pod means.
#[test]
fn account_effect_of_pod_rule_depends_on_pods() {
    let sources = json!([{"kind": "IdentityBinding", "name": "first"}]);
    let by_pod = set(
        target("some", "api", &[], by_port()),
        "/spec/sources",
        sources,
    );
    let first = json!({"podLabelSelector": {"matchLabels": {"first": "yes"}}});
    let client = || {
        let labels = json!({"first": "yes"});
        set(pod("client", "10.0.0.1", "web"), "/metadata/labels", labels)
    };
    let before = || {
        shop()
            .with(tcp_route("port", &[8080]))
            .with(binding("first", first.clone()))
            .with(by_pod.clone())
            .with(client())
    };
    let other = || target("other", "api", &["other"], by_port());
    let after = shop()
        .with(tcp_route("port", &[8080]))
        .with(binding("first", first.clone()))
        .with(client())
        .with(other());
    let of = |after: &Cluster| {
        let web = CallerSet::Account(ObjectKey::new("shop", "web"));
        let calls = Calls {
            from: web,
            ..calls()
        };
        meaning(&before(), after, &calls).unwrap().effect
    };
    assert_eq!(of(&after), Effect::Depends);
    // Control: pods are distinguished, and what stays is no change.
    assert_eq!(
        effect(&before(), &after),
        (Effect::Refused, Some(Reason::NotAllowed)),
        "this one was let in"
    );
    assert_eq!(of(&before()), Effect::Kept);
}

#[test]
fn rerouted_call_reports_shares_and_evaluates_new_destination() {
    let before = with_canary();
    let half = with_canary().with(split("s", "api", &[("api", 1), ("canary", 1)]));
    let compared = meaning(&before, &half, &calls()).unwrap();
    let share = |name: &str, share: f64| Share {
        service: ObjectKey::new("shop", name),
        share,
    };
    let shares = [
        vec![share("api", 1.0)],
        vec![share("api", 0.5), share("canary", 0.5)],
    ];
    assert_eq!(
        (compared.effect, compared.rerouted),
        (Effect::Kept, Some(shares))
    );

    // The canary admits no caller.
    let closed = with_canary()
        .with(split("s", "api", &[("api", 1), ("canary", 1)]))
        .with(tcp_route("port", &[8080]))
        .with(target("none", "canary", &["absent"], by_port()));
    let compared = meaning(&before, &closed, &calls()).unwrap();
    assert_eq!(compared.effect, Effect::Refused);
    assert_eq!(compared.reason, Some(Reason::NotAllowed));

    let dead = with_canary().with(split("s", "api", &[("api", 0), ("canary", 0)]));
    let compared = meaning(&before, &dead, &calls()).unwrap();
    assert_eq!(compared.effect, Effect::Refused);
    assert_eq!(compared.reason, Some(Reason::NoBackend));

    // Some requests only.
    let matching = set(
        split("s", "api", &[("api", 0), ("canary", 1)]),
        "/spec/matches",
        json!([{"kind": "HTTPRouteGroup", "name": "routes"}]),
    );
    let some = with_canary().with(reads()).with(matching);
    let compared = meaning(&before, &some, &calls()).unwrap();
    assert_eq!(compared.effect, Effect::Depends);
}

#[test]
fn equal_pods_are_evaluated_once_within_time_limit() {
    let before = shop()
        .with(reads())
        .with(target("read", "api", &["web"], by_routes()));
    let (before, _) = before.compile();
    let (after, _) = with_canary()
        .with(reads())
        .with(target("read", "api", &["web"], by_routes()))
        .with(target("none", "canary", &["absent"], by_routes()))
        .compile();
    let mut comparison = ModelComparison::new(&before, &after, later());
    for _ in 0..2 {
        assert_eq!(comparison.of(&calls()).unwrap().effect, Effect::Kept);
    }
    let same: Vec<(&str, bool)> = comparison
        .same
        .iter()
        .map(|(pod, same)| (&*pod.name, *same))
        .collect();
    assert_eq!(same, [("api-1", true), ("api-2", true)]);

    let mut late = ModelComparison::new(&before, &after, Instant::now());
    assert!(late.is_late() && late.of(&calls()).is_none());
}

#[test]
fn namespaces_mode_alone_is_a_change() {
    let closed = {
        let mut cluster = Cluster::default();
        for object in shop().objects() {
            let object = object.clone();
            cluster = cluster.with(match object["kind"].as_str() {
                Some("Namespace") => annotate(object, "weft.dev/access", "deny"),
                _ => object,
            });
        }
        cluster
    };
    let refused = (Effect::Refused, Some(Reason::NotAllowed));
    assert_eq!(effect(&shop(), &closed), refused);
    assert_eq!(effect(&closed, &shop()), (Effect::Allowed, None));
}

/// Whether a change opens pod `api-1` to every caller.
fn opens(before: &Cluster, after: &Cluster) -> bool {
    let (before, after) = (before.compile().0, after.compile().0);
    let api = PodId::new("shop", "api-1");
    ModelComparison::new(&before, &after, later()).opens(&api)
}

#[test]
fn change_opens_what_it_leaves_without_protection() {
    let rules = json!([
        {"kind": "HTTPRouteGroup", "name": "routes"},
        {"kind": "TCPRoute", "name": "port"},
    ]);
    let read = || target("read", "api", &["web"], rules.clone());
    let route = || tcp_route("port", &[8080]);
    let closed = shop().with(reads()).with(route()).with(read());
    // What a target names and is gone stands for nothing, never for everything.
    assert!(!opens(&closed, &shop().with(route()).with(read())));
    assert!(!opens(&closed, &shop().with(reads()).with(read())));
    assert!(!opens(&closed, &shop().with(read())));
    let other = target("read", "web", &["api"], rules.clone());
    assert!(opens(&closed, &shop().with(other)));
    let udp = json!([{"kind": "UDPRoute", "name": "port"}]);
    let of_udp = target("read", "api", &["web"], udp);
    assert!(opens(&closed, &shop().with(of_udp)));
    let by_binding = || {
        let to = json!({"kind": "IdentityBinding", "name": "apis"});
        shop().with(set(read(), "/spec/destination", to))
    };
    let bound = by_binding().with(binding("apis", json!({"serviceAccount": "api"})));
    assert!(opens(&bound, &by_binding()));
    let mode = |mode: &str| annotate(namespace("shop"), "weft.dev/access", mode);
    for (after, expected) in [
        ("auto", true),
        ("open", true),
        ("audit", true),
        ("deny", false),
    ] {
        let after = shop().with(mode(after));
        assert_eq!(opens(&shop().with(mode("deny")), &after), expected);
    }
    let protected = closed.clone().with(mode("deny"));
    assert!(!opens(&protected, &closed), "a target keeps it closed");
}

#[test]
fn route_reroutes_calls_and_depends_on_requests_it_selects() {
    let before = with_canary();
    let routed = |rules: Value| with_canary().with(http_route("web", "api", rules));
    let share = |name: &str, share: f64| Share {
        service: ObjectKey::new("shop", name),
        share,
    };
    let half = routed(json!([rule_over(&[("api", 1), ("canary", 1)])]));
    let compared = meaning(&before, &half, &calls()).unwrap();
    let shares = [
        vec![share("api", 1.0)],
        vec![share("api", 0.5), share("canary", 0.5)],
    ];
    assert_eq!(
        (compared.effect, compared.rerouted),
        (Effect::Kept, Some(shares))
    );
    let some = routed(json!([rule_below("/a", "canary"), rule_below("/", "api")]));
    let compared = meaning(&before, &some, &calls()).unwrap();
    assert_eq!(compared.effect, Effect::Depends);
    let others_nowhere = routed(json!([rule_below("/a", "canary")]));
    let compared = meaning(&before, &others_nowhere, &calls()).unwrap();
    assert_eq!((compared.effect, compared.reason), (Effect::Depends, None));

    // Of another namespace: none of this caller's.
    let mut elsewhere = http_route("web", "api", json!([rule_over(&[("canary", 1)])]));
    elsewhere["metadata"]["namespace"] = json!("other");
    assert_eq!(
        effect(&before, &with_canary().with(elsewhere)),
        (Effect::Kept, None)
    );
}
