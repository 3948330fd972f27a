//! Tests of conversion: what is written, and what cannot be said.

use serde_json::json;

use super::*;

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn service(name: &str, ports: Value) -> Service {
    let metadata = json!({"name": name, "namespace": "shop"});
    serde_json::from_value(json!({"metadata": metadata, "spec": {"ports": ports}})).unwrap()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn split(spec: Value) -> TrafficSplit {
    let metadata = json!({"name": "half", "namespace": "shop"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// The Service `cart` and two versions of it, with a port for HTTP.
fn around() -> Around {
    let http = json!([{"port": 80, "name": "http"}]);
    Around {
        cluster_domain: "cluster.local".to_owned(),
        services: ["cart", "v1", "v2"]
            .map(|name| service(name, http.clone()))
            .to_vec(),
        ..Around::default()
    }
}

fn half() -> Value {
    json!({"service": "cart", "backends": [
        {"service": "v1", "weight": 90}, {"service": "v2", "weight": 10},
    ]})
}

fn refs() -> Value {
    json!([
        {"name": "v1", "port": 80, "weight": 90},
        {"name": "v2", "port": 80, "weight": 10},
    ])
}

fn conditional() -> (TrafficSplit, Around) {
    let mut around = around();
    let metadata = json!({"name": "canary", "namespace": "shop"});
    let matches = json!([
        {"name": "a", "pathRegex": "/a", "methods": ["GET", "PUT"]},
        {"name": "b", "headers": {"x-user": "admin"}},
    ]);
    let group = json!({"metadata": metadata, "spec": {"matches": matches}});
    around.groups.push(serde_json::from_value(group).unwrap());
    let mut spec = half();
    spec["matches"] = json!([{"kind": "HTTPRouteGroup", "name": "canary"}]);
    (split(spec), around)
}

#[test]
fn split_without_matches_becomes_one_rule() {
    let converted = from_split(&split(half()), &around());
    assert_eq!(
        converted.objects,
        [json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "half", "namespace": "shop"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "cart", "port": 80}],
                "rules": [{"backendRefs": refs()}],
            },
        })]
    );
    assert!(converted.unsaid.is_empty(), "{:?}", converted.unsaid);
}

#[test]
fn split_with_matches_ends_with_a_rule_to_its_root() {
    let (split, around) = conditional();
    let converted = from_split(&split, &around);
    assert!(converted.unsaid.is_empty(), "{:?}", converted.unsaid);
    let path = json!({"type": "RegularExpression", "value": "(?:/a).*"});
    let each = "(?:admin)(?:,(?:admin))*";
    let header = json!({"type": "RegularExpression", "name": "x-user", "value": each});
    let all = json!({"type": "RegularExpression", "value": ".*"});
    assert_eq!(
        converted.objects[0]["spec"]["rules"],
        json!([
            {
                "matches": [
                    {"path": path, "method": "GET"},
                    {"path": path, "method": "PUT"},
                    {"headers": [header]},
                ],
                "backendRefs": refs(),
            },
            {"matches": [{"path": all}], "backendRefs": [{"name": "cart", "port": 80}]},
        ])
    );
}

#[test]
fn every_port_has_a_route_of_its_protocol() {
    let mut around = around();
    let ports = json!([
        {"port": 80, "name": "http"}, {"port": 90, "name": "tcp-db"},
        {"port": 53, "name": "dns", "protocol": "UDP"},
    ]);
    around.services[0] = service("cart", ports.clone());
    around.services[1] = service("v1", ports);
    let routes = from_split(&split(half()), &around).objects;
    let text = |at: usize, pointer: &str| routes[at].pointer(pointer).cloned().unwrap();
    assert_eq!(routes.len(), 2);
    assert_eq!(text(0, "/kind"), "HTTPRoute");
    assert_eq!(text(0, "/metadata/name"), "half-80");
    assert_eq!(text(1, "/kind"), "TCPRoute");
    assert_eq!(text(1, "/metadata/name"), "half-90");
    let there = json!([{"name": "v1", "port": 90, "weight": 90}]);
    assert_eq!(
        text(1, "/spec/rules/0/backendRefs"),
        there,
        "v2 has no such port"
    );

    let (split, mut with_matches) = conditional();
    with_matches.services = around.services;
    let routes = from_split(&split, &with_matches).objects;
    assert_eq!(routes.len(), 1, "bytes fit no match");
    assert_eq!(routes[0]["metadata"]["name"], "half");
}

#[test]
fn split_without_any_share_answers_503_as_before() {
    let spec = json!({"service": "cart", "backends": [{"service": "v1", "weight": 0}]});
    let routes = from_split(&split(spec), &around()).objects;
    let refs = &routes[0]["spec"]["rules"][0]["backendRefs"];
    assert_eq!(*refs, json!([{"name": "v1", "port": 80, "weight": 0}]));
    let spec = json!({"service": "cart", "backends": [{"service": "gone", "weight": 5}]});
    let converted = from_split(&split(spec), &around());
    let refs = &converted.objects[0]["spec"]["rules"][0]["backendRefs"];
    assert_eq!(*refs, json!([{"name": "cart", "port": 80, "weight": 0}]));
    assert!(converted.unsaid[0].starts_with("spec.backends[0].service: gone"));
}

#[test]
fn large_weights_keep_their_ratio() {
    let weights = |one: u32, other: u32| {
        let backends = json!([
            {"service": "v1", "weight": one}, {"service": "v2", "weight": other},
        ]);
        let spec = json!({"service": "cart", "backends": backends});
        let converted = from_split(&split(spec), &around());
        let refs = converted.objects[0]["spec"]["rules"][0]["backendRefs"].clone();
        let weight = |at: usize| refs[at]["weight"].as_u64().unwrap();
        (weight(0), weight(1), converted.unsaid.len())
    };
    assert_eq!(weights(900_000_000, 100_000_000), (9, 1, 0));
    assert_eq!(weights(2_000_000_001, 1), (1_000_000, 1, 1));
    assert_eq!(weights(1_000_000, 0), (1_000_000, 0, 0));
}

#[test]
fn what_no_route_can_say_names_its_field() {
    type Change = fn(&mut TrafficSplit, &mut Around);
    let said = |change: Change| {
        let (mut split, mut around) = conditional();
        change(&mut split, &mut around);
        let converted = from_split(&split, &around);
        (converted.unsaid.join("\n"), converted.objects.len())
    };
    let cases: [(Change, &str, usize); 10] = [
        (
            |_, around| around.services.clear(),
            "spec.service: cart is not given",
            0,
        ),
        (
            |_, around| around.groups.clear(),
            "spec.matches[0].name: HTTPRouteGroup canary",
            0,
        ),
        (
            |split, _| split.spec.service = "cart.bank".into(),
            "spec.service: ",
            0,
        ),
        (
            |split, _| split.spec.backends[0].weight = -1,
            "spec.backends[0].weight: ",
            0,
        ),
        (
            |_, around| set_matches(around, json!([{"name": "a", "methods": ["BREW"]}])),
            "spec.matches[0]: match a of HTTPRouteGroup canary is for method BREW",
            0,
        ),
        (
            |_, around| {
                let headers = json!([{"x-a": "1"}, {"X-A": "2"}]);
                set_matches(
                    around,
                    json!([{"name": "a"}, {"name": "b", "headers": headers}]),
                );
            },
            "spec.matches[0]: match b of HTTPRouteGroup canary names header X-A twice",
            1,
        ),
        (
            |_, around| {
                let long = format!("/{}", "a".repeat(1020));
                set_matches(
                    around,
                    json!([{"name": "a"}, {"name": "b", "pathRegex": long}]),
                );
            },
            "spec.matches[0]: match b of HTTPRouteGroup canary has a pathRegex",
            1,
        ),
        (
            |_, around| {
                let methods = ["GET", "PUT", "POST"];
                let one = |i: usize| json!({"name": format!("m{i}"), "methods": methods});
                set_matches(around, (0..43).map(one).collect());
            },
            "spec.matches: become 129 matches",
            0,
        ),
        (
            |split, around| {
                let mut other = split.clone();
                other.metadata.name = Some("other".to_owned());
                around.splits = vec![split.clone(), other];
            },
            "spec.service: cart is split by other too",
            1,
        ),
        (
            |split, around| {
                split.spec.matches = None;
                around.services[0] = service("cart", json!([{"port": 80}]));
            },
            "spec.service: port 80 declares no protocol",
            1,
        ),
    ];
    for (change, begins, objects) in cases {
        let (unsaid, count) = said(change);
        assert!(unsaid.starts_with(begins), "{begins}: {unsaid}");
        assert_eq!(count, objects, "{unsaid}");
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn set_matches(around: &mut Around, matches: Value) {
    around.groups[0].spec = serde_json::from_value(json!({"matches": matches})).unwrap();
}
