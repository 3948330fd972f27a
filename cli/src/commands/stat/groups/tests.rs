//! Which rows there are, and what counts in them.
//!
//! Claims: observe-48

use serde_json::json;

use super::*;
use crate::traffic::select::ENDS;

const KINDS: &[ResourceKind] = &[
    ResourceKind::Deployment,
    ResourceKind::Service,
    ResourceKind::Namespace,
    ResourceKind::TrafficSplit,
    ResourceKind::Pod,
];

/// The query of `stat` with this argument in namespace `shop`, between these ends.
fn asked(text: &str, from: Option<&str>, to: Option<&str>) -> Asked {
    let end = |text: &str| Named::read(text, ENDS).unwrap();
    let named = Named::read(text, KINDS).unwrap();
    Asked::new(named, [from.map(end), to.map(end)], Some("shop"))
}

fn traffic(nodes: &Value, edges: &Value) -> IndexedGraph {
    let graph = json!({"nodes": nodes, "edges": edges});
    IndexedGraph::of(serde_json::from_value(graph).unwrap())
}

/// A Deployment of `shop` behind a Service of its name, with so many pods that have a proxy, of
/// so many; without pods it is gone.
fn node(name: &str, meshed: u32, pods: u32) -> Value {
    let mut node = json!({"id": name, "kind": "Deployment", "namespace": "shop", "name": name,
        "services": [format!("shop/{name}")]});
    if pods > 0 {
        node["meshed"] = json!(meshed);
        node["pods"] = json!(pods);
    }
    node
}

/// `web` and `job`, which is gone, call `cart`; `idle` does nothing and has no proxy, and `vault`
/// is of another namespace, which has no reports.
fn shop() -> IndexedGraph {
    let edge = |from: &str| {
        json!({"id": from, "from": from, "to": "cart", "service": "shop/cart", "port": 80,
            "requests": 3})
    };
    let mut vault = node("vault", 0, 0);
    vault["namespace"] = json!("bank");
    let nodes = json!([
        node("cart", 1, 2),
        node("idle", 0, 1),
        node("job", 0, 0),
        vault,
        node("web", 2, 2)
    ]);
    traffic(&nodes, &json!([edge("web"), edge("job")]))
}

/// Name, pods with a proxy, all pods and requests of each row of `shop`.
fn rows(text: &str, from: Option<&str>, to: Option<&str>) -> Vec<(String, u32, u32, u64)> {
    let groups = asked(text, from, to).rows(&shop(), &Weights::default());
    let rows = groups.into_iter();
    rows.map(|one| (one.name, one.meshed, one.pods, one.sums.requests))
        .collect()
}

fn row(name: &str, meshed: u32, pods: u32, requests: u64) -> (String, u32, u32, u64) {
    (name.to_owned(), meshed, pods, requests)
}

#[test]
fn workload_with_pods_has_row_even_without_calls() {
    let idle = row("idle", 0, 1, 0);
    let all = [row("cart", 1, 2, 6), idle.clone(), row("web", 2, 2, 0)];
    for kind in ["deploy", "svc"] {
        assert_eq!(rows(kind, None, None), all, "{kind}");
        let one = format!("{kind}/idle");
        assert_eq!(rows(&one, None, None), std::slice::from_ref(&idle), "{one}");
    }
    assert!(rows("deploy/job", None, None).is_empty(), "it is gone");
}

#[test]
fn stat_between_ends_lists_only_rows_with_calls() {
    let web = Some("deploy/web");
    for kind in ["deploy", "svc"] {
        assert_eq!(rows(kind, web, None), [row("cart", 1, 2, 3)], "{kind}");
    }
    let callers = [row("job", 0, 0, 3), row("web", 2, 2, 3)];
    assert_eq!(rows("deploy", None, Some("svc/cart")), callers);
    assert!(rows("deploy", web, Some("deploy/idle")).is_empty());
}

#[test]
fn namespace_row_sums_pods_of_all_workloads() {
    assert_eq!(rows("ns", None, None), [row("shop", 3, 5, 6)]);
    let web = Some("deploy/web");
    assert_eq!(rows("ns", web, None), [row("shop", 3, 5, 3)]);
}

/// The graph knows a pod only where nothing owns it.
#[test]
fn pod_rows_are_per_workload_unless_pod_is_named() {
    let web = Some("deploy/web");
    let cart = |requests| row("deploy/cart", 1, 2, requests);
    assert_eq!(rows("pod", web, None), [cart(3)]);
    let callers = [row("deploy/job", 0, 0, 3), row("deploy/web", 2, 2, 3)];
    assert_eq!(rows("pod", None, Some("svc/cart")), callers);
    let all = [
        cart(6),
        row("deploy/idle", 0, 1, 0),
        row("deploy/web", 2, 2, 0),
    ];
    assert_eq!(rows("pod", None, None), all);
    assert!(rows("pod/cart", web, None).is_empty(), "control");
    let part = asked("pod", web, None).part_of(shop());
    let ids: Vec<&str> = part.edges.iter().map(|edge| edge.id.as_str()).collect();
    assert_eq!(ids, ["web"]);
    assert!(
        asked("pod/cart", web, None)
            .part_of(shop())
            .edges
            .is_empty()
    );
}

/// TrafficSplit `cart` into three, of which one is called, and `quiet` into two.
fn splits() -> (IndexedGraph, Weights) {
    let split = |name: &str, backends: Value| -> DynamicObject {
        let object = json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": {"namespace": "shop", "name": name},
            "spec": {"service": name, "backends": backends}});
        serde_json::from_value(object).unwrap()
    };
    let backend = |service: &str, weight: u32| json!({"service": service, "weight": weight});
    let splits = [
        split(
            "cart",
            json!([backend("v1", 90), backend("v2", 10), backend("v3", 0)]),
        ),
        split("quiet", json!([backend("a", 1), backend("b", 1)])),
    ];
    let edge = json!({"id": "1", "from": "web", "to": "cart", "service": "shop/cart", "port": 80,
        "backend": "shop/v1", "split": "shop/cart", "requests": 9, "attempts": 9});
    let nodes = json!([node("cart", 2, 2), node("web", 2, 2)]);
    let traffic = traffic(&nodes, &json!([edge]));
    (traffic, Weights::read(splits.iter()))
}

#[test]
fn every_split_backend_has_row_even_without_calls() {
    let (traffic, weights) = splits();
    let rows = |asked: &Asked, weights: &Weights| -> Vec<(String, Option<f64>)> {
        let groups = asked.rows(&traffic, weights);
        let row = |one: &Group| {
            let name = format!("{} {}", one.name, one.backend);
            (name, one.share(&groups))
        };
        groups.iter().map(row).collect()
    };
    let row = |text: &str, share: Option<f64>| (text.to_owned(), share);
    let cart = [
        row("cart shop/v1", Some(1.0)),
        row("cart shop/v2", Some(0.0)),
        row("cart shop/v3", Some(0.0)),
    ];
    let quiet = [row("quiet shop/a", None), row("quiet shop/b", None)];
    let all = asked("ts", None, None);
    assert_eq!(rows(&all, &weights), [&cart[..], &quiet[..]].concat());
    assert_eq!(rows(&asked("ts/cart", None, None), &weights), cart);
    assert_eq!(rows(&asked("ts/quiet", None, None), &weights), quiet);
    // What `web` calls, and what has no calls.
    let web = Some("deploy/web");
    assert_eq!(rows(&asked("ts", web, None), &weights), cart);
    let cart_calls = asked("ts", Some("deploy/cart"), None);
    assert!(rows(&cart_calls, &weights).is_empty());
    // A user without the right to read the splits gets what was called.
    assert_eq!(rows(&all, &Weights::default()), cart[..1]);
}

// Claims: observe-50
#[test]
fn backend_calls_count_under_backend_name_when_queried() {
    let edges = json!([
        {"id": "1", "from": "a", "to": "web-v1", "service": "shop/web",
         "backend": "shop/web-v1", "split": "shop/web", "port": 80, "requests": 3},
        {"id": "2", "from": "a", "to": "web-v1", "service": "shop/web-v1", "port": 80,
         "requests": 4},
    ]);
    let traffic = traffic(&json!([node("web-v1", 0, 0)]), &edges);
    let rows = |text: &str| -> Vec<(String, u64)> {
        let groups = asked(text, None, None).rows(&traffic, &Weights::default());
        let rows = groups.into_iter();
        rows.map(|one| (one.name, one.sums.requests)).collect()
    };
    let row = |name: &str, requests: u64| (name.to_owned(), requests);
    assert_eq!(rows("svc/web-v1"), [row("web-v1", 7)]);
    assert_eq!(rows("svc/web"), [row("web", 3)]);
    assert_eq!(rows("svc"), [row("web", 3), row("web-v1", 4)]);
}
