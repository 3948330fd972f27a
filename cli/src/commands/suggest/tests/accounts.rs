//! A rule names an account and a port, so it lets pass what any workload of that account calls
//! there, by whatever Service and protocol.
//!
//! Claims: observe-9

use crds::observe::Graph;
use serde_json::{Value, json};

use super::{edge, judged, ports, route, rules, suggested, suggested_of};
use crate::commands::suggest::observed_calls::Calls;
use crate::traffic::IndexedGraph;

const SHARED: &str = "spiffe://cluster.local/ns/shop/sa/shared";

/// By account `shared`, from any workload.
fn shared(from: &str, port: u16, mut more: Value) -> Value {
    more["identities"] = json!([SHARED]);
    edge(from, "cart", port, more)
}

/// Five calls that no rule allowed.
fn refused() -> Value {
    json!({"success": 0, "failure": 5, "refused": {"not-allowed": 5}})
}

fn with(mut one: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        one[key] = value.clone();
    }
    one
}

/// Called by its own address.
fn own_address() -> Value {
    json!({"service": "", "backend": ""})
}

#[test]
fn port_refused_to_one_workload_blocks_its_account() {
    let served = shared("web", 80, json!({}));
    let earlier = json!({"history": [{"start": "2026-11-02T09:40:00Z", "requests": 3, "mtls": 1.0,
        "proven": true, "refused": true}]});
    let by_its_address = with(refused(), &own_address());
    let by_http2 = with(refused(), &json!({"protocol": "http2"}));
    for (other, named, why) in [
        (
            shared("job", 80, refused()),
            "deploy/job to deploy/cart port 80 of svc/cart (http1)",
            "5 of its calls were not allowed",
        ),
        // The port behind the Service's.
        (
            shared("job", 8080, by_its_address),
            "deploy/job to deploy/cart port 8080 (http1)",
            "5 of its calls were not allowed",
        ),
        // The same caller.
        (
            shared("web", 80, by_http2),
            "deploy/web to deploy/cart port 80 of svc/cart (http2)",
            "5 of its calls were not allowed",
        ),
        (
            shared("job", 80, earlier),
            "deploy/job to deploy/cart port 80 of svc/cart (http1)",
            "some calls by its port before the last 300 s were not allowed",
        ),
        (
            shared("job", 80, json!({"historyLeftOut": true})),
            "deploy/job to deploy/cart port 80 of svc/cart (http1)",
            "no room",
        ),
    ] {
        for edges in [
            [served.clone(), other.clone()],
            [other.clone(), served.clone()],
        ] {
            let (objects, calls) = suggested(&edges, false);
            assert_eq!(objects, [] as [Value; 0], "{other}");
            assert_eq!(calls.left.len(), 2, "{:?}", calls.left);
            let start = "deploy/web to deploy/cart port 80 of svc/cart: a rule for its port is \
                         for all calls of account shop/shared";
            let mut left = calls.left.iter();
            let reported = left.find(|one| one.starts_with(start)).unwrap();
            assert!(
                reported.contains(named) && reported.contains(why),
                "{reported}"
            );
        }
    }
}

#[test]
fn refusal_of_other_account_or_port_blocks_no_rule() {
    let served = shared("web", 80, json!({}));
    let (alone, _) = suggested(std::slice::from_ref(&served), false);
    judged(&alone);
    assert_eq!(alone.len(), 2);
    for other in [
        // The account of `job` is its own.
        edge("job", "cart", 80, refused()),
        shared("job", 9090, with(refused(), &own_address())),
        shared("job", 80, json!({"success": 4, "failure": 1})),
        edge(
            "job",
            "db",
            5432,
            with(refused(), &json!({"identities": [SHARED]})),
        ),
    ] {
        let (objects, calls) = suggested(&[served.clone(), other.clone()], false);
        let of_web = objects.iter().filter(|one| alone.contains(one)).count();
        assert_eq!(of_web, 2, "{other}: {objects:?}");
        let left = &calls.left;
        assert!(
            left.iter().all(|one| one.starts_with("deploy/job")),
            "{left:?}"
        );
    }
}

/// `--to` chooses what is suggested, and not what a rule lets pass.
#[test]
fn refusal_on_unselected_edge_also_blocks_rule() {
    let edges = [
        shared("web", 80, json!({})),
        shared("job", 8080, with(refused(), &own_address())),
    ];
    let traffic = IndexedGraph::of(graph(&[("web", "web"), ("job", "job")], &edges));
    let asked = traffic.edges().iter().take(1);
    let calls = Calls::of(&traffic, asked, &ports(), Some("shop"), false);
    assert_eq!(super::super::objects_of(&calls), [] as [Value; 0]);
    assert_eq!(calls.left.len(), 1, "{:?}", calls.left);
    assert!(calls.left[0].contains("deploy/job"), "{:?}", calls.left);
}

#[test]
fn refusal_on_one_selected_route_blocks_rule_by_route() {
    let by = |name: &str| json!({"routes": [route(name, 5, 0)]});
    let served = shared("web", 80, by("cart/read"));
    let other = |name: &str| shared("job", 80, with(refused(), &by(name)));

    let of_all = json!([route("cart/read", 5, 0), route("cart/write", 5, 5)]);
    let (objects, calls) = suggested_of(&[served.clone(), other("cart/write")], &of_all, true);
    assert_eq!(rules(&objects)[1]["matches"], json!(["read"]), "{calls:?}");
    assert_eq!(calls.left.len(), 1, "{:?}", calls.left);

    let of_all = json!([route("cart/read", 10, 5)]);
    // The last one reports no routes of its calls.
    for other in [other("cart/read"), shared("job", 80, refused())] {
        let (objects, calls) = suggested_of(&[served.clone(), other], &of_all, true);
        assert_eq!(objects, [] as [Value; 0]);
        let mut left = calls.left.iter();
        let reported = left.find(|one| one.starts_with("deploy/web")).unwrap();
        for part in [
            "a rule for its routes, of which one may have been refused there",
            "deploy/job",
        ] {
            assert!(reported.contains(part), "{reported}");
        }
    }
}

#[test]
fn unknown_port_is_dash_and_may_match_unserviced_port() {
    let without_port = shared("job", 0, with(refused(), &own_address()));
    let by_service = shared("web", 80, json!({}));
    let (objects, calls) = suggested(&[by_service, without_port.clone()], false);
    assert_eq!(objects.len(), 2, "what a Service leads to has a number");
    for words in [&calls.left, &calls.refused] {
        let [one] = &words[..] else {
            panic!("{words:?}")
        };
        let start = "deploy/job to deploy/cart port -: ";
        assert!(one.starts_with(start), "{one}");
    }
    let by_address = shared("web", 8080, own_address());
    let (objects, calls) = suggested(&[by_address, without_port], false);
    assert_eq!(objects, [] as [Value; 0]);
    assert_eq!(calls.left.len(), 2, "{:?}", calls.left);
}

#[test]
fn calls_by_two_services_stay_separate() {
    let unproven = |service: &str, backend: &str| {
        let more = json!({"service": service, "backend": backend, "mtls": 0.0});
        edge("web", "cart", 80, more)
    };
    let edges = [
        unproven("shop/cart", ""),
        unproven("shop/cart", "shop/cart-v2"),
        unproven("bank/cart", "bank/cart"),
    ];
    let (_, calls) = suggested(&edges, false);
    let named = ["svc/cart", "svc/cart by svc/cart-v2", "svc/cart.bank"];
    assert_eq!(calls.left.len(), named.len());
    for (left, named) in calls.left.iter().zip(named) {
        let start = format!("deploy/web to deploy/cart port 80 of {named}: no mutual TLS");
        assert!(left.starts_with(&start), "{left}");
    }
}

/// Deployments of the shop, each with its account.
fn graph(nodes: &[(&str, &str)], edges: &[Value]) -> Graph {
    let nodes = nodes.iter().chain(&[("cart", "cart")]);
    let nodes = nodes.map(|(name, account)| {
        json!({"id": format!("shop/Deployment/{name}"), "kind": "Deployment",
            "namespace": "shop", "name": name,
            "accounts": [format!("spiffe://cluster.local/ns/shop/sa/{account}")]})
    });
    let nodes: Vec<Value> = nodes.collect();
    let graph = json!({
        "metadata": {"end": "2026-11-02T10:00:00Z", "windowSeconds": 300, "sides": true},
        "nodes": nodes, "edges": edges,
    });
    serde_json::from_value(graph).unwrap()
}

#[test]
fn only_account_shared_by_workloads_lists_them() {
    let shares = |account: &str| {
        let edges = [shared("web", 80, json!({}))];
        let nodes = [("web", "shared"), ("idle", account)];
        let traffic = IndexedGraph::of(graph(&nodes, &edges));
        let edges = traffic.edges().iter();
        Calls::of(&traffic, edges, &ports(), Some("shop"), false)
    };
    let calls = shares("shared");
    assert_eq!(
        calls.shared().into_iter().collect::<Vec<_>>(),
        ["shop/shared"]
    );
    let words = calls.sharing.words("shop/shared");
    let start = "shop/shared is the account of 2 workloads (deploy/idle and deploy/web)";
    assert!(words.starts_with(start), "{words}");
    // That it never called is no matter; that its account is another one is.
    assert!(shares("idle").shared().is_empty());
}
