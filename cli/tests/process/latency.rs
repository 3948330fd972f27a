//! Responses as large as the mesh is meant for are shown without a wait.
//!
//! Claims: observe-56

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::Server;
use super::{WEFT, run};

const OBSERVE: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop";
const WORKLOADS: usize = 1_000;
const EDGES: usize = 10_000;
/// As many as are listed beside what was sent to them.
const PODS: usize = 500;
/// Five times the promise of half a second, from the start of the process to its end; what the
/// API server and its plugin for credentials take is in it. The program of tests is not
/// optimised and has a busy machine; `e2e/tests/mesh/observe/latency.rs` holds the promise itself.
const WITHIN: Duration = Duration::from_millis(2500);
/// The median of these counts: other tests run beside this one, which less than half of them meet.
const RUNS: usize = 11;

fn workload(number: usize) -> String {
    format!("shop/Deployment/workload-{}", number % WORKLOADS)
}

/// Every field of an edge as a busy mesh fills it.
fn graph() -> Value {
    let ms = json!({"p50": 1.9, "p95": 4.1, "p99": 9.0});
    let node = |number: usize| {
        let name = format!("workload-{number}");
        json!({
            "id": workload(number), "kind": "Deployment", "namespace": "shop", "name": name,
            "accounts": [format!("spiffe://cluster.local/ns/shop/sa/{name}")], "pods": 2,
            "meshed": 2, "access": "auto", "mtls": "permissive", "services": [format!("shop/{name}")],
            "routes": [{"route": "read", "requests": 600, "failure": 3, "ms": ms}],
        })
    };
    let edge = |number: usize| {
        let (from, to) = (number, number * 7 + number / WORKLOADS + 1);
        let mut edge = json!({
            "id": format!("{number:016x}"), "from": workload(from), "to": workload(to),
            "service": "shop/cart",
            "port": 8080, "backend": "shop/cart-v1", "split": "shop/cart", "protocol": "http1",
            "requests": 604, "success": 600, "failure": 3, "cancelled": 1, "attempts": 606,
            "attemptFailures": 5, "clientErrors": 12, "refused": {"not-allowed": 3}, "audit": 0,
            "open": 2, "opened": 0, "sent": 0, "received": 81_234, "mtls": 1.0, "ms": ms,
        });
        edge["server"] = json!({"requests": 606, "failure": 3, "ms": ms});
        edge["identities"] = json!(["spiffe://cluster.local/ns/shop/sa/web"]);
        edge["allowedBy"] = json!(["shop/cart-read"]);
        for seen in ["firstSeen", "lastSeen"] {
            edge[seen] = json!("2026-11-02T09:00:00Z");
        }
        edge
    };
    json!({
        "apiVersion": "observe.weft.dev/v1alpha1", "kind": "Graph",
        "metadata": {"end": "2026-11-02T09:00:00Z", "windowSeconds": 60, "complete": true},
        "nodes": (0..WORKLOADS).map(node).collect::<Vec<Value>>(),
        "edges": (0..EDGES).map(edge).collect::<Vec<Value>>(),
    })
}

fn proxy(name: &str) -> Value {
    json!({
        "apiVersion": "observe.weft.dev/v1alpha1", "kind": "Proxy",
        "metadata": {"namespace": "shop", "name": name, "uid": name},
        "status": {
            "workload": "Deployment/web", "identity": "spiffe://cluster.local/ns/shop/sa/web",
            "version": "0.1.0", "connected": true, "acknowledged": 9, "needed": 9,
            "certificate": {"serial": "01", "notAfter": "2036-11-02T09:00:00Z", "issuer": "CN=weft"},
            "memory": 12_582_912, "draining": false, "clockAheadMs": 1,
        },
    })
}

fn pod(name: &str) -> Value {
    let container = |name: &str| {
        let limits = json!({"cpu": "100m", "memory": "64Mi"});
        json!({"name": name, "image": "registry.example/shop/web:1", "resources": {"limits": limits}})
    };
    json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": "web"}, "uid": name},
        "spec": {"containers": [container("web")], "initContainers": [container("weft-proxy")]},
        "status": {"phase": "Running", "podIP": "10.0.0.9"},
    })
}

/// What was sent to a pod, as the metrics API reports it.
fn metrics(name: &str) -> Value {
    let metric = |name: &str, value: &str| json!({"name": name, "unit": "ms", "value": value});
    json!({
        "resource": {"kind": "Pod", "namespace": "shop", "name": name}, "window": "60s",
        "metrics": [
            metric("p50_response_latency", "1900m"), metric("p90_response_latency", "3"),
            metric("p99_response_latency", "9"), metric("success_count", "600"),
            metric("failure_count", "3"),
        ],
    })
}

/// How long each run took, the quickest first.
async fn sorted_runs(arguments: &[&str], kubeconfig: &Path) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..RUNS {
        let started = Instant::now();
        let (code, out, err) = run(WEFT, arguments, kubeconfig).await;
        took.push(started.elapsed());
        assert_eq!(code, 0, "{arguments:?}: {err}");
        assert!(!out.is_empty(), "{arguments:?}: {err}");
    }
    took.sort();
    took
}

// Claims: observability-5
#[tokio::test]
async fn commands_show_10_000_edges_without_a_wait() {
    let server = Server::start().await;
    server.api.put(&format!("{OBSERVE}/graphs/live"), graph());
    for number in 0..WORKLOADS {
        let name = format!("web-{number:04}");
        server
            .api
            .put(&format!("{OBSERVE}/proxies/{name}"), proxy(&name));
    }
    let mut sent = Vec::new();
    for number in 0..PODS {
        let name = format!("web-{number:04}");
        let path = format!("/api/v1/namespaces/shop/pods/{name}");
        server.api.put(&path, pod(&name));
        sent.push(metrics(&name));
    }
    let metrics_path = "/apis/metrics.smi-spec.io/v1alpha2/namespaces/shop/pods";
    server.api.put(metrics_path, json!({ "items": sent }));
    let text = "source and port fit, method DELETE fits no match";
    let step = json!({"step": "rule", "text": text, "objects": ["TrafficTarget shop/a"]});
    let allowed = json!({"verdict": "Allowed", "owner": "shop", "steps": vec![step; 100]});
    let explanations_path = format!("{OBSERVE}/explanations");
    server.api.judge(&explanations_path, allowed);
    let kubeconfig = server.well();
    for arguments in [
        &["stat", "deploy"][..],
        &["stat", "pod"],
        &["edges"],
        &["routes", "deploy/workload-7"],
        &["proxies"],
        &["explain", "deploy/web", "svc/cart:8080", "GET", "/items/7"],
    ] {
        let took = sorted_runs(arguments, &kubeconfig).await;
        let median = took[RUNS / 2];
        println!("{arguments:?}: {median:?}");
        assert!(median < WITHIN, "{arguments:?}: {took:?}");
    }
}
