//! What is suggested allows what was proven and served, and nothing else.
//!
//! Claims: observe-19, observe-5

use crds::observe::Graph;
use crds::smi::validation::{Cluster, Severity};
use serde_json::{Value, json};

use super::called::Ports;
use super::observed_calls::Calls;
use crate::traffic::IndexedGraph;

mod accounts;
mod protocols;
mod reported;
mod splits;

pub(super) fn ports() -> Ports {
    let services = json!([
        {"metadata": {"namespace": "shop", "name": "cart"}, "spec": {"ports": [{"name": "http", "port": 80}]}},
        {"metadata": {"namespace": "shop", "name": "cart-v2"}, "spec": {"ports": [{"name": "http", "port": 80}]}},
        {"metadata": {"namespace": "shop", "name": "db"}, "spec": {"ports": [{"port": 5432}]}},
    ]);
    let slices = json!([
        {"metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
         "addressType": "IPv4", "endpoints": [], "ports": [{"name": "http", "port": 8080}]},
        {"metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "cart-v2"}},
         "addressType": "IPv4", "endpoints": [], "ports": [{"name": "http", "port": 9090}]},
        {"metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
         "addressType": "IPv4", "endpoints": [], "ports": [{"name": "", "port": 15432}]},
    ]);
    let services: Vec<_> = serde_json::from_value(services).unwrap();
    let slices: Vec<_> = serde_json::from_value(slices).unwrap();
    Ports::of(&services, &slices)
}

/// As the called side alone reported it.
#[expect(
    clippy::needless_pass_by_value,
    reason = "keeps the tests' json! plain"
)]
pub(super) fn edge(from: &str, to: &str, port: u16, more: Value) -> Value {
    let mut edge = json!({
        "id": format!("{from}{to}{port}"), "from": format!("shop/Deployment/{from}"),
        "to": format!("shop/Deployment/{to}"), "service": format!("shop/{to}"),
        "port": port, "protocol": "http1", "requests": 5, "success": 5, "mtls": 1.0,
        "callerSilent": true, "identities": [format!("spiffe://cluster.local/ns/shop/sa/{from}")],
    });
    for (key, value) in more.as_object().unwrap() {
        edge[key] = value.clone();
    }
    edge
}

fn suggested(edges: &[Value], by_route: bool) -> (Vec<Value>, Calls) {
    suggested_of(edges, &json!([]), by_route)
}

/// With what `cart` served by route, for all callers, in the five minutes before ten.
fn suggested_of(edges: &[Value], served: &Value, by_route: bool) -> (Vec<Value>, Calls) {
    let calls = suggested_by(&indexed(edges, served), by_route);
    (super::objects_of(&calls), calls)
}

/// The graph of these edges, where `cart` served this by route.
pub(super) fn indexed(edges: &[Value], served: &Value) -> IndexedGraph {
    let node = |name: &str| {
        let mut node = json!({"id": format!("shop/Deployment/{name}"), "kind": "Deployment",
            "namespace": "shop", "name": name,
            "accounts": [format!("spiffe://cluster.local/ns/shop/sa/{name}")]});
        match name {
            "cart" => node["routes"] = served.clone(),
            "over" => node["accounts"] = json!([]),
            _ => {}
        }
        node
    };
    let graph = json!({
        "metadata": {"end": "2026-11-02T10:00:00Z", "windowSeconds": 300, "sides": true},
        "nodes": [node("web"), node("cart"), node("db"), node("job"), node("over")],
        "edges": edges,
    });
    let graph: Graph = serde_json::from_value(graph).unwrap();
    IndexedGraph::of(graph)
}

/// By the ports of the shop.
pub(super) fn suggested_by(traffic: &IndexedGraph, by_route: bool) -> Calls {
    let edges = traffic.edges().iter();
    Calls::of(traffic, edges, &ports(), Some("shop"), by_route)
}

/// Every suggestion is one that the webhook takes.
fn judged(objects: &[Value]) {
    let cluster = Cluster::default();
    let at = cluster.around("shop");
    for object in objects {
        let group = object["apiVersion"]
            .as_str()
            .unwrap()
            .split('/')
            .next()
            .unwrap();
        let kind = object["kind"].as_str().unwrap();
        let mistakes = crds::validate::object(group, kind, object.get("spec"), &at).unwrap();
        let refused = mistakes.iter().find(|one| one.severity == Severity::Refuse);
        assert_eq!(refused, None, "{object}");
    }
}

// Claims: observability-15
#[test]
fn callers_share_target_only_with_identical_calls() {
    let (objects, _) = suggested(
        &[
            edge("web", "cart", 80, json!({})),
            edge("job", "cart", 80, json!({})),
            edge("web", "db", 5432, json!({"protocol": "tcp"})),
        ],
        false,
    );
    judged(&objects);
    let targets: Vec<&Value> = objects
        .iter()
        .filter(|one| one["kind"] == "TrafficTarget")
        .collect();
    assert_eq!(targets.len(), 2);
    let cart = targets
        .iter()
        .find(|one| one["spec"]["destination"]["name"] == "cart")
        .unwrap();
    assert_eq!(cart["spec"]["sources"].as_array().unwrap().len(), 2);
    let ports: Vec<&Value> = objects
        .iter()
        .filter(|one| one["kind"] == "TCPRoute")
        .map(|one| &one["spec"]["matches"]["ports"])
        .collect();
    assert_eq!(
        ports,
        [&json!([8080]), &json!([15432])],
        "ports of containers"
    );

    let (objects, _) = suggested(
        &[
            edge("web", "cart", 80, json!({})),
            edge("web", "db", 5432, json!({})),
            edge(
                "job",
                "db",
                5432,
                json!({"identities": ["spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/job"]}),
            ),
        ],
        false,
    );
    let targets: Vec<&Value> = objects
        .iter()
        .filter(|one| one["kind"] == "TrafficTarget")
        .collect();
    let allowed = |account: &str| {
        targets
            .iter()
            .filter(|one| one["spec"]["sources"].to_string().contains(account))
            .count()
    };
    assert_eq!((allowed("web"), allowed("job")), (2, 1));
}

// Claims: observability-15
#[test]
fn unproven_or_unserved_calls_become_comments_with_reason() {
    for (more, why) in [
        (json!({"mtls": 0.0}), "no mutual TLS"),
        (json!({"mtls": null}), "no mutual TLS"),
        (json!({"success": 0, "failure": 5}), "was not served"),
        (
            json!({"success": 2, "failure": 3, "refused": {"not-allowed": 3}}),
            "3 of its calls were not allowed",
        ),
        (
            json!({"success": 0, "cancelled": 5, "history": [
                {"start": "2026-11-02T09:40:00Z", "requests": 3, "failure": 1, "cancelled": 2, "mtls": 1.0}]}),
            "was not served",
        ),
        (
            json!({"requests": 0, "success": 0, "quiet": true, "lastSeen": "2026-11-02T09:00:00Z"}),
            "only persisted",
        ),
        (json!({"port": 81}), "which container port"),
    ] {
        let (objects, calls) = suggested(&[edge("web", "cart", 80, more.clone())], false);
        assert_eq!(objects, [] as [Value; 0], "{more}");
        assert!(
            calls.left.len() == 1 && calls.left[0].contains(why),
            "{:?}",
            calls.left
        );
    }
    let partly = edge("web", "cart", 80, json!({"mtls": 0.5}));
    let (objects, calls) = suggested(&[partly], false);
    assert_eq!(objects.len(), 2, "what was proven is suggested");
    assert!(calls.left[0].contains("plaintext"), "{:?}", calls.left);
    // Within the hour, as the controller reports it: of a window without calls no share.
    let earlier = |history: Value| {
        let quiet = json!({"requests": 0, "success": 0, "quiet": true, "mtls": null,
            "history": history});
        suggested(&[edge("web", "cart", 80, quiet)], false)
    };
    let minute = |mtls: Value| json!({"requests": 3, "mtls": mtls, "proven": mtls == json!(1.0)});
    let (objects, calls) = earlier(json!([minute(json!(1.0))]));
    assert_eq!(
        (objects.len(), calls.left.len()),
        (2, 0),
        "{:?}",
        calls.left
    );
    let (objects, calls) = earlier(json!([minute(json!(1.0)), minute(json!(0.0))]));
    assert_eq!(objects.len(), 2);
    assert!(calls.left[0].contains("plaintext"), "{:?}", calls.left);
    for unproven in [json!(0.0), json!(null)] {
        let (objects, calls) = earlier(json!([minute(unproven)]));
        assert_eq!(objects.len(), 0);
        assert!(calls.left[0].contains("no mutual TLS"), "{:?}", calls.left);
    }
}

#[test]
fn unknown_account_of_finished_pods_blocks_suggestion() {
    let unidentified = json!({"identities": []});
    let plaintext = json!({"identities": [], "mtls": 0.0});
    let own_address = json!({"service": ""});
    for (edge, why) in [
        (
            edge("over", "cart", 80, unidentified),
            "meshed pod of the caller",
        ),
        (edge("over", "cart", 80, plaintext), "no mutual TLS"),
        (
            edge("web", "over", 80, own_address),
            "meshed pod of the called",
        ),
    ] {
        let (objects, calls) = suggested(&[edge], false);
        assert_eq!(objects, [] as [Value; 0], "{why}");
        let left = &calls.left;
        assert!(left.len() == 1 && left[0].contains(why), "{why}: {left:?}");
    }
}

#[test]
fn failures_before_window_prevent_rule_for_port() {
    let minute = |start: &str, failure: u64| {
        let start = format!("2026-11-02T{start}:00Z");
        json!({"start": start, "requests": 9, "failure": failure, "mtls": 1.0})
    };
    // DELETE was refused twenty minutes ago, and GET goes on.
    let refused = json!({"history": [minute("09:40", 2), minute("09:41", 1), minute("09:56", 0)]});
    for by_route in [false, true] {
        let edges = [edge("web", "cart", 80, refused.clone())];
        let (objects, calls) = suggested(&edges, by_route);
        assert_eq!(objects, [] as [Value; 0]);
        assert_eq!(calls.by_port, [] as [String; 0]);
        let left = &calls.left;
        let words = [
            "3 of its calls before the last 300 s failed, and some may have been refused",
            "--since 300s",
        ];
        assert!(
            left.len() == 1 && words.iter().all(|word| left[0].contains(word)),
            "{left:?}"
        );
    }
    // Of the window reasons are reported, and there is none of them here.
    let history = [minute("09:40", 0), minute("09:56", 1)];
    let known = json!({"success": 4, "failure": 1, "history": history});
    let (objects, calls) = suggested(&[edge("web", "cart", 80, known)], false);
    assert_eq!((objects.len(), calls.left.len()), (2, 0), "{calls:?}");
}

/// Edges report how many requests took a route, and workloads how many of all failed.
fn route(name: &str, requests: u64, failure: u64) -> Value {
    json!({"route": name, "requests": requests, "failure": failure})
}

/// Rules of the only target of these objects.
fn rules(objects: &[Value]) -> &[Value] {
    judged(objects);
    let mut targets = objects.iter().filter(|one| one["kind"] == "TrafficTarget");
    let target = targets.next().unwrap();
    assert_eq!(targets.next(), None);
    target["spec"]["rules"].as_array().unwrap()
}

#[test]
fn suggestion_by_route_allows_served_routes_and_port() {
    let routes = json!([route("cart/read", 4, 0), route("cart/write", 1, 0)]);
    let failed = json!({"success": 4, "failure": 1, "routes": routes});
    let of_all = json!([route("cart/read", 9, 0), route("cart/write", 2, 2)]);
    let (objects, calls) = suggested_of(&[edge("web", "cart", 80, failed)], &of_all, true);
    assert_eq!(calls.words().count(), 0);
    let [port, group] = rules(&objects) else {
        panic!("{objects:?}")
    };
    assert_eq!(port["kind"], "TCPRoute", "the port limits it");
    assert_eq!(group["matches"], json!(["read"]), "what failed is left out");

    // Failures of others mean nothing for an edge without failures, and of the numbers of both
    // sides those of the called one count.
    let beside = json!({"requests": 7, "success": 5, "failure": 2, "routes": routes,
        "server": {"requests": 5, "failure": 0}});
    let (objects, _) = suggested_of(&[edge("web", "cart", 80, beside)], &of_all, true);
    assert_eq!(rules(&objects)[1]["matches"], json!(["read", "write"]));

    let streaming = json!([route("cart/read", 5, 0), route("cart/watch", 0, 0)]);
    let streaming = json!({"open": 1, "routes": streaming});
    let (objects, _) = suggested_of(&[edge("web", "cart", 80, streaming)], &json!([]), true);
    assert_eq!(rules(&objects)[1]["matches"], json!(["read", "watch"]));
}

#[test]
fn edge_with_incomplete_routes_is_allowed_by_port() {
    let read = json!([route("cart/read", 5, 0)]);
    let minute = |start: &str, failure: u64| {
        let start = format!("2026-11-02T{start}:00Z");
        json!({"start": start, "requests": 3, "failure": failure, "mtls": 1.0,
            "proven": failure < 3})
    };
    let failing = json!({"start": "2026-11-02T09:40:00Z", "requests": 3, "failure": 1,
        "cancelled": 2, "mtls": 1.0});
    let with = |minute: Value| json!({"routes": read, "history": [minute]});
    let counted = |by_route: u64| {
        json!({"requests": 100, "success": 100, "routes": [route("cart/read", by_route, 0)],
            "server": {"requests": by_route, "failure": 0}})
    };
    for by_route in [
        with(minute("09:55", 0)),
        with(minute("09:40", 3)),
        with(failing),
        // The two sides count in slots of their own.
        counted(95),
    ] {
        let (objects, calls) = suggested(&[edge("web", "cart", 80, by_route)], true);
        assert_eq!(rules(&objects).len(), 2, "{:?}", calls.by_port);
    }
    let served = json!([route("cart/read", 4, 0), route("cart/write", 1, 0)]);
    let ambiguous = json!({"success": 4, "failure": 1, "routes": served});
    let nameless = json!([route("cart/read", 4, 0), route("", 1, 0)]);
    for (more, why) in [
        // In use still, and the route of its calls twenty minutes ago is not known.
        (with(minute("09:40", 0)), "--since 300s"),
        (json!({"routes": nameless}), "no route"),
        (json!({}), "not known"),
        // One of several pods reports no routes,
        (
            json!({"routes": read, "server": {"requests": 6, "failure": 0}}),
            "not known",
        ),
        // or reports nothing to any controller.
        (counted(94), "some called pods report no routes"),
        (ambiguous, "it is not known of which route"),
    ] {
        // Another caller's calls of `write` were served, one was not.
        let of_all = json!([route("cart/read", 9, 0), route("cart/write", 2, 1)]);
        let (objects, calls) =
            suggested_of(&[edge("web", "cart", 80, more.clone())], &of_all, true);
        let [port] = rules(&objects) else {
            panic!("{more}: {objects:?}")
        };
        assert_eq!(port["kind"], "TCPRoute", "{more}");
        assert_eq!(calls.left, [] as [String; 0]);
        assert!(
            calls.by_port.len() == 1 && calls.by_port[0].contains(why),
            "{:?}",
            calls.by_port
        );
    }
}

#[test]
fn route_is_allowed_only_on_its_called_port() {
    let called =
        |service: &str, name: &str| json!({"service": service, "routes": [route(name, 5, 0)]});
    let edges = [
        edge("web", "cart", 80, called("shop/cart", "cart/read")),
        edge("web", "cart", 5432, called("shop/db", "cart/write")),
    ];
    let (objects, calls) = suggested(&edges, true);
    judged(&objects);
    assert_eq!(calls.words().count(), 0);
    let targets = objects.iter().filter(|one| one["kind"] == "TrafficTarget");
    let mut allowed: Vec<[&Value; 2]> = targets
        .map(|target| {
            let rules = &target["spec"]["rules"];
            let routes = objects.iter().filter(|one| one["kind"] == "TCPRoute");
            let mut named = routes.filter(|one| one["metadata"]["name"] == rules[0]["name"]);
            let ports = &named.next().unwrap()["spec"]["matches"]["ports"];
            [ports, &rules[1]["matches"]]
        })
        .collect();
    allowed.sort_by_key(|one| one[0].to_string());
    assert_eq!(
        allowed,
        [
            [&json!([15432]), &json!(["write"])],
            [&json!([8080]), &json!(["read"])]
        ],
        "{objects:?}"
    );
}

#[test]
fn an_account_that_everybody_has_is_named() {
    let identity = json!({"identities": ["spiffe://cluster.local/ns/shop/sa/default"]});
    let (_, calls) = suggested(&[edge("web", "cart", 80, identity)], false);
    assert!(
        calls.shared().contains("shop/default"),
        "{:?}",
        calls.shared()
    );
}

#[test]
fn call_to_pod_address_is_suggested_by_port() {
    let own = json!({"service": "", "backend": ""});
    let (objects, calls) = suggested(&[edge("web", "db", 15432, own)], false);
    assert_eq!(calls.left, [] as [String; 0]);
    assert_eq!(objects[0]["spec"]["matches"]["ports"], json!([15432]));
    judged(&objects);
}

#[test]
fn similarly_named_accounts_and_ports_get_separate_objects() {
    let mut calls = Calls::default();
    for (account, ports) in [("web", vec![80, 8080]), ("web-80", vec![8080])] {
        let of = |name: &str| ("shop".to_owned(), name.to_owned());
        let traffics = super::observed_calls::Traffics {
            ports: ports.into_iter().collect(),
            ..super::observed_calls::Traffics::default()
        };
        calls.facts.insert((of(account), of("job"), None), traffics);
    }
    let objects = super::objects_of(&calls);
    let routes = objects.iter().filter(|one| one["kind"] == "TCPRoute");
    let mut ports: Vec<&Value> = routes.map(|one| &one["spec"]["matches"]["ports"]).collect();
    ports.sort_by_key(|ports| ports.to_string());
    assert_eq!(ports, [&json!([80, 8080]), &json!([8080])]);
    assert_eq!(
        objects,
        super::objects_of(&calls),
        "the same names in every run"
    );
}
