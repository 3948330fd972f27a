//! Graphs of the tests: a small shop with a split, a refused call and a caller in plaintext, one
//! that is large, and one whose names are hostile.

use serde_json::{Value, json};

fn node(namespace: &str, name: &str, pods: u32, meshed: u32) -> Value {
    json!({"id": format!("{namespace}/Deployment/{name}"), "kind": "Deployment", "namespace": namespace, "name": name,
        "accounts": [format!("spiffe://cluster.local/ns/{namespace}/sa/{name}")], "pods": pods, "meshed": meshed,
        "access": "auto", "mtls": "permissive", "services": [format!("{namespace}/{name}")]})
}

fn edge(id: &str, from: &str, to: &str, requests: u64, failure: u64) -> Value {
    let success = requests - failure;
    let minutes: Vec<Value> = (0..30)
        .map(|at| json!({"start": format!("2026-11-02T08:{:02}:00Z", 30 + at), "requests": requests + 7 * (at % 5), "failure": failure, "p95": 4.1}))
        .collect();
    json!({"id": id, "from": format!("shop/Deployment/{from}"), "to": format!("shop/Deployment/{to}"),
        "service": format!("shop/{to}"), "port": 80, "backend": format!("shop/{to}"), "protocol": "http1",
        "requests": requests, "success": success, "failure": failure, "attempts": requests, "mtls": 1.0,
        "ms": {"p50": 1.9, "p95": 4.1, "p99": 9.0}, "identities": [format!("spiffe://cluster.local/ns/shop/sa/{from}")],
        "firstSeen": "2026-11-02T08:00:00Z", "lastSeen": "2026-11-02T09:00:00Z", "history": minutes})
}

/// Of a window that ends now, as controllers send it if nothing was lost.
fn metadata() -> Value {
    json!({"end": "2026-11-02T09:00:00Z", "windowSeconds": 60, "complete": false, "unsettled": true,
        "incomplete": "reports of the last seconds may still come"})
}

/// The shop of the demo; of the calls to the catalog so many of 600 go to version 2.
pub(super) fn shop(second: u64) -> Value {
    let mut split = [
        edge("e2", "web", "catalog-v1", 600 - second, 0),
        edge("e3", "web", "catalog-v2", second, 0),
    ];
    for edge in &mut split {
        edge["service"] = json!("shop/catalog");
        edge["split"] = json!("shop/catalog");
    }
    let [first, second] = split;
    let mut refused = edge("e4", "web", "payments", 37, 37);
    refused["refused"] = json!({"not-allowed": 37});
    let mut allowed = edge("e5", "cart", "payments", 120, 0);
    allowed["allowedBy"] = json!(["shop/cart-to-payments"]);
    let mut outside = edge("e6", "web", "web", 60, 0);
    outside["from"] = json!("Outside/10.0.0.9");
    outside["mtls"] = json!(0.0);
    let mut external = edge("e7", "payments", "bank", 60, 2);
    external["to"] = json!("External/bank.example");
    external["protocol"] = json!("tls");
    external["port"] = json!(443);
    external["service"] = json!("");
    external["mtls"] = json!(0.0);
    let mut web = node("shop", "web", 3, 3);
    web["routes"] = json!([{"route": "pages", "requests": 50, "failure": 1, "ms": {"p50": 1.0, "p95": 3.0, "p99": 4.0}}]);
    json!({"apiVersion": "observe.weft.dev/v1alpha1", "kind": "Graph", "metadata": metadata(),
        "nodes": [web, node("shop", "cart", 2, 2), node("shop", "catalog-v1", 2, 2), node("shop", "catalog-v2", 1, 1),
            node("shop", "payments", 2, 1),
            {"id": "Outside/10.0.0.9", "kind": "Outside", "name": "10.0.0.9", "unproven": true},
            {"id": "External/bank.example", "kind": "External", "name": "bank.example"}],
        "edges": [edge("e1", "web", "cart", 604, 4), first, second, refused, allowed, outside, external]})
}

/// 200 workloads that call each other in 1000 ways, and what they call is the same each time.
pub(super) fn large() -> Value {
    let nodes: Vec<Value> = (0..200)
        .map(|at| node("shop", &format!("service-{at:03}"), 2, 2))
        .collect();
    let edges: Vec<Value> = (0..1000_u64)
        .map(|at| {
            let from = at % 200;
            let to = (from + 1 + (at / 200) * 37 + from * from % 11) % 200;
            edge(
                &format!("e{at}"),
                &format!("service-{from:03}"),
                &format!("service-{to:03}"),
                600 + at,
                at % 13,
            )
        })
        .collect();
    json!({"metadata": metadata(), "nodes": nodes, "edges": edges})
}

/// The shop, and three workloads of another namespace that call it.
pub(super) fn neighbours() -> Value {
    let mut graph = shop(60);
    for at in 0..3 {
        let teller = node("bank", &format!("teller-{at}"), 1, 1);
        let mut call = edge(&format!("n{at}"), "", "web", 60, 0);
        call["from"] = teller["id"].clone();
        graph["nodes"].as_array_mut().unwrap().push(teller);
        graph["edges"].as_array_mut().unwrap().push(call);
    }
    graph
}

/// The shop, and a call that was made hours ago.
pub(super) fn persisted() -> Value {
    let mut graph = shop(60);
    let mut quiet = edge("q1", "cart", "catalog-v1", 0, 0);
    quiet["quiet"] = json!(true);
    quiet["lastSeen"] = json!("2026-11-02T06:00:00Z");
    for unknown in ["mtls", "ms"] {
        quiet[unknown] = Value::Null;
    }
    graph["edges"].as_array_mut().unwrap().push(quiet);
    graph
}

/// So many workloads; each of the first `callers` calls the `fan` that follow it, and all
/// calls of number 450 fail.
pub(super) fn wide(workloads: u64, callers: u64, fan: u64) -> Value {
    let name = |at: u64| format!("service-{:03}", at % workloads);
    let nodes: Vec<Value> = (0..workloads)
        .map(|at| node("shop", &name(at), 2, 2))
        .collect();
    let calls = (0..callers).flat_map(|from| (1..=fan).map(move |step| (from, from + step)));
    let edges: Vec<Value> = calls
        .map(|(from, to)| {
            let failure = if to == 450 { 600 } else { 0 };
            let id = format!("e{from}-{to}");
            edge(&id, &name(from), &name(to), 600, failure)
        })
        .collect();
    json!({"metadata": metadata(), "nodes": nodes, "edges": edges})
}

/// So many workloads, as of a real mesh: each of the first two thirds calls up to three that
/// follow it, some have long names, some fail, and the last third is idle.
pub(super) fn tiers(workloads: u64) -> Value {
    let name = |at: u64| match at % 5 {
        0 => format!("service-with-a-rather-long-name-{at}-backend"),
        _ => format!("service-{at}"),
    };
    let nodes: Vec<Value> = (0..workloads)
        .map(|at| node("shop", &name(at), 2, 2))
        .collect();
    let calls = (1..workloads * 2 / 3).flat_map(|to| {
        let second = (to % 3 == 0).then_some((to / 2, to));
        [Some(((to - 1) / 3, to)), second].into_iter().flatten()
    });
    let edges: Vec<Value> = calls
        .map(|(from, to)| {
            let requests = 60 + to * 37 % 900;
            let failure = match (to % 11, to % 13) {
                (4, _) => requests / 4,
                (_, 5) => requests / 60,
                _ => 0,
            };
            let id = format!("e{from}-{to}");
            edge(&id, &name(from), &name(to), requests, failure)
        })
        .collect();
    json!({"metadata": metadata(), "nodes": nodes, "edges": edges})
}

/// Markup, an end of a script, and what terminals act upon.
pub(super) const HOSTILE: &str =
    "<img src=x onerror=\"window.hit=1\"></script><script>window.hit=1</script>\u{1b}[2J\u{202e}";

pub(super) fn hostile() -> Value {
    let mut graph = shop(60);
    graph["nodes"][0]["name"] = json!(HOSTILE);
    graph["nodes"][0]["accounts"] = json!([HOSTILE]);
    graph["nodes"][0]["routes"] = json!([{"route": HOSTILE, "requests": 1}]);
    graph["edges"][3]["refused"] = json!({HOSTILE: 3});
    graph["edges"][3]["allowedBy"] = json!([HOSTILE]);
    graph["edges"][6]["to"] = json!(format!("External/{HOSTILE}"));
    graph["nodes"][6] =
        json!({"id": format!("External/{HOSTILE}"), "kind": "External", "name": HOSTILE});
    graph["metadata"]["unsettled"] = json!(false);
    graph["metadata"]["incomplete"] = json!(HOSTILE);
    graph
}

pub(super) fn proxy(name: &str, connected: bool) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "uid": name}, "status": {
        "workload": "Deployment/web", "identity": "spiffe://cluster.local/ns/shop/sa/web", "version": "0.1.0",
        "connected": connected, "acknowledged": 4, "needed": 4, "memory": 9_961_472,
        "certificate": {"serial": "1", "notAfter": "2126-11-02T09:00:00Z", "issuer": "weft"}}})
}

/// The explanation of web's calls to payments, as the demo's mesh gives it.
pub(super) fn refusal() -> Value {
    json!({"verdict": "Refused", "reason": "not-allowed", "httpStatus": 403, "owner": "shop",
        "refusedBy": ["Deployment shop/payments"],
        "steps": [
            {"step": "who", "text": "shop/web, 3 pods, meshed"},
            {"step": "route", "text": "Service shop/payments: 2 of 2 endpoints ready"},
            {"step": "wire", "text": "mutual TLS, HTTP/1.1"},
            {"step": "access", "text": "auto, closed by TrafficTarget shop/cart-to-payments", "objects": ["TrafficTarget shop/cart-to-payments"]},
            {"step": "rule", "text": "shop/cart-to-payments: source web is none of its sources (cart)", "objects": ["TrafficTarget shop/cart-to-payments"]}],
        "seen": {"windowSeconds": 300, "requests": 185, "failure": 185, "refused": {"not-allowed": 185}},
        "programmed": {"proxies": 2, "of": 2},
        "fix": {"objects": [
            {"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup", "metadata": {"name": "web-to-payments", "namespace": "shop"},
                "spec": {"matches": [{"name": "call", "pathRegex": "^/pay$", "methods": ["POST"]}]}},
            {"apiVersion": "access.smi-spec.io/v1alpha4", "kind": "TrafficTarget", "metadata": {"name": "web-to-payments", "namespace": "shop"},
                "spec": {"destination": {"kind": "ServiceAccount", "name": "payments", "namespace": "shop"},
                    "sources": [{"kind": "ServiceAccount", "name": "web", "namespace": "shop"}],
                    "rules": [{"kind": "HTTPRouteGroup", "name": "web-to-payments", "matches": ["call"]}]}}]}})
}
