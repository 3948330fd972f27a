//! Pods, which the graph counts under their workloads and the metrics API separately.
//!
//! Claims: observe-43, observe-47

use super::*;

const METRICS: &str = "/apis/metrics.smi-spec.io/v1alpha2/namespaces/shop/pods";

fn metrics(name: &str, success: &str, failure: &str) -> Value {
    let metric = |name: &str, value: &str| json!({"name": name, "value": value});
    json!({"resource": {"kind": "Pod", "namespace": "shop", "name": name}, "window": "60s", "metrics": [
        metric("p99_response_latency", "9"), metric("p90_response_latency", "4"),
        metric("p50_response_latency", "1500m"), metric("success_count", success),
        metric("failure_count", failure),
    ]})
}

#[tokio::test]
async fn pod_rows_count_requests_sent_to_each_pod() {
    let api = FakeApi::default();
    let items = json!([
        metrics("web-1", "8", "2"),
        metrics("web-2", "60", "0"),
        metrics("web-3", "0", "0")
    ]);
    api.put(METRICS, json!({"items": items}));
    let rows = async |line: &str| {
        let (code, out, err) = run(api.client(), &format!("weft {line} -n shop")).await;
        assert_eq!(code, 0, "{line}: {err}");
        let rows = out.lines().skip(1);
        let rows = rows.map(|row| row.split_whitespace().map(ToOwned::to_owned).collect());
        rows.collect::<Vec<Vec<String>>>()
    };
    let failing = [
        "web-1", "-", "80.00%", "0.2", "1.5ms", "4.0ms", "9.0ms", "-", "-", "-",
    ];
    let well = [
        "web-2", "-", "100%", "1.0", "1.5ms", "4.0ms", "9.0ms", "-", "-", "-",
    ];
    assert_eq!(rows("stat pod").await, [failing, well]);
    assert_eq!(rows("stat pod/web-2").await, [well]);
    let wide = rows("stat pod/web-1 -o wide").await;
    assert_eq!(wide[0][10..], ["10", "2"]);
    let (code, out, err) = run(api.client(), "weft stat pod/web-3 -n shop").await;
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("no calls in the last 60 s"), "{err}");
    let (code, out, err) = run(api.client(), "weft stat pod/wbe-2 -n shop").await;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.ends_with("you may mean pod/web-2\n"), "{err}");
    // One of the last second, of which no controller knows yet.
    let waits = json!({"metadata": {"name": "web-4", "namespace": "shop"}});
    api.put("/api/v1/namespaces/shop/pods/web-4", waits);
    let idle = ["web-4", "0/1", "-", "0.0", "-", "-", "-", "-", "-", "-"];
    assert_eq!(rows("stat pod/web-4").await, [idle]);
    // As JSON it is the API's own.
    let (_, out, _) = run(api.client(), "weft stat pod/web-1 -n shop -o json").await;
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["items"], json!([metrics("web-1", "8", "2")]));
}

/// A pod of the namespace, with a proxy or without.
fn put_pod(api: &FakeApi, name: &str, meshed: bool, phase: &str) {
    let proxy = match meshed {
        true => json!([{"name": "weft-proxy"}]),
        false => json!([]),
    };
    api.put(
        &format!("/api/v1/namespaces/shop/pods/{name}"),
        json!({"metadata": {"name": name, "namespace": "shop"}, "status": {"phase": phase},
            "spec": {"containers": [], "initContainers": proxy}}),
    );
}

/// The beginnings of rows: name, MESHED, SUCCESS and RPS.
fn beginnings(out: &str) -> Vec<String> {
    let rows = out.lines().skip(1).map(|row| {
        let cells: Vec<&str> = row.split_whitespace().take(4).collect();
        cells.join(" ")
    });
    rows.collect()
}

#[tokio::test]
async fn namespace_pod_table_lists_all_pods_with_mesh_state() {
    let api = FakeApi::default();
    let items = json!([
        metrics("web-1", "8", "2"),
        metrics("web-2", "0", "0"),
        metrics("gone-1", "0", "0"),
        metrics("gone-2", "6", "0"),
    ]);
    api.put(METRICS, json!({"items": items}));
    for (name, meshed, phase) in [
        ("web-1", true, "Running"),
        ("web-2", false, "Running"),
        ("new-1", true, "Pending"),
        ("done-1", true, "Succeeded"),
    ] {
        put_pod(&api, name, meshed, phase);
    }
    let (code, out, err) = run(api.client(), "weft stat pod -n shop").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let head: Vec<&str> = out.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        head.join(" "),
        "NAME MESHED SUCCESS RPS P50 P90 P99 OPEN REFUSED FAILED"
    );
    let expected = [
        "gone-2 - 100% 0.1",
        "new-1 1/1 - 0.0",
        "web-1 1/1 80.00% 0.2",
        "web-2 0/1 - 0.0",
    ];
    assert_eq!(beginnings(&out), expected);
    let (code, out, err) = run(api.client(), "weft stat pod/new-1 -n shop").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(beginnings(&out), ["new-1 1/1 - 0.0"]);
    // Of the newest no controller knows, and they may be meant too.
    for (named, meant) in [("wbe-1", "pod/web-1"), ("nwe-1", "po/new-1")] {
        let line = format!("weft stat pod/{named} -n shop");
        let (code, out, err) = run(api.client(), &line).await;
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        let words = format!("there is no Pod {named} in namespace shop; you may mean {meant}\n");
        assert_eq!(err, words);
    }
    // For all namespaces the controllers' data is used: listing the pods of a large cluster takes
    // too long.
    api.put(
        "/apis/metrics.smi-spec.io/v1alpha2/pods",
        json!({"items": [metrics("web-1", "8", "2"), metrics("web-2", "0", "0")]}),
    );
    let (code, out, err) = run(api.client(), "weft stat pod -A").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let expected = ["shop web-1 - 80.00%", "shop web-2 - -"];
    assert_eq!(beginnings(&out), expected);
    assert_eq!(api.reads("/api/v1/pods"), 0);
}

#[tokio::test]
async fn pods_beyond_one_response_are_reported_missing() {
    let api = FakeApi::default();
    api.put(METRICS, json!({"items": [metrics("web-500", "8", "2")]}));
    for number in 0..500 {
        put_pod(&api, &format!("web-{number:03}"), true, "Running");
    }
    let (code, out, err) = run(api.client(), "weft stat pod -n shop").await;
    assert_eq!((code, err.as_str()), (0, ""), "500 are all");
    assert_eq!(out.lines().count(), 502, "a head, and one that has gone");
    put_pod(&api, "web-500", true, "Running");
    let (code, out, err) = run(api.client(), "weft stat pod -n shop").await;
    assert_eq!((code, out.lines().count()), (0, 502), "{err}");
    assert!(err.starts_with("there are more than 500 pods: "), "{err}");
    assert_eq!(api.largest_list(), 500);
    let (_, out, err) = run(api.client(), "weft stat pod/web-500 -n shop").await;
    assert_eq!(err, "");
    assert_eq!(beginnings(&out), ["web-500 1/1 80.00% 0.2"]);
}

#[tokio::test(start_paused = true)]
async fn pods_and_metrics_are_fetched_in_parallel() {
    let api = FakeApi::default();
    api.put(METRICS, json!({"items": [metrics("web-1", "8", "2")]}));
    put_pod(&api, "web-1", true, "Running");
    let each = Duration::from_secs(1);
    let started = tokio::time::Instant::now();
    let (code, out, err) = run(api.slow_client(each), "weft stat pod -n shop").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(beginnings(&out), ["web-1 1/1 80.00% 0.2"]);
    let took = started.elapsed();
    assert!(took < each * 2, "{took:?}");
}

#[tokio::test]
async fn missing_pod_list_permission_is_reported_beside_metrics() {
    let items = json!({"items": [metrics("web-1", "8", "2"), metrics("web-2", "0", "0")]});
    let message = "pods is forbidden: User \"eve\" cannot list resource \"pods\" in API group \"\" \
                   in the namespace \"shop\"";
    let denied = json!({"kind": "Status", "status": "Failure", "message": message, "code": 403});
    let client = Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let (code, body) = match request.uri().path() {
                METRICS => (StatusCode::OK, &items),
                _ => (StatusCode::FORBIDDEN, &denied),
            };
            let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
            *answer.status_mut() = code;
            async move { Ok::<_, Infallible>(answer) }
        }),
        "shop",
    );
    let (code, out, err) = run(client, "weft stat pod -n shop").await;
    assert_eq!(code, 0, "{err}");
    let expected = ["web-1 - 80.00% 0.2", "web-2 - - 0.0"];
    assert_eq!(beginnings(&out), expected);
    assert!(err.contains("cannot list resource \"pods\""), "{err}");
    assert!(err.contains("without it MESHED is not known"), "{err}");
}

#[tokio::test]
async fn pod_stats_fall_back_from_metrics_api_to_graph() {
    let id = |name: &str| format!("shop/Pod/{name}");
    let node =
        |name: &str| json!({"id": id(name), "kind": "Pod", "namespace": "shop", "name": name});
    let cart = json!({"id": "cart", "kind": "Deployment", "namespace": "shop", "name": "cart"});
    let graph = json!({"metadata": {"windowSeconds": 60, "complete": true},
        "nodes": [node("alone"), node("caller"), cart],
        "edges": [{"id": "1", "from": id("caller"), "to": id("alone"), "protocol": "http1",
            "requests": 60, "success": 60},
            {"id": "2", "from": id("caller"), "to": "cart", "protocol": "http1",
            "requests": 60, "success": 30, "failure": 30}]});
    let denied = "pods.metrics.smi-spec.io is forbidden: User \"eve\" cannot list resource \"pods\" \
                  in API group \"metrics.smi-spec.io\" in the namespace \"shop\"";
    for (code, message, words) in [
        (403, denied, "ClusterRole view grants this"),
        (400, "side is none of its parameters", "side is none"),
    ] {
        let refused =
            json!({"kind": "Status", "status": "Failure", "message": message, "code": code});
        let graph = graph.clone();
        let client = Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let (code, body) = match request.uri().path() {
                    METRICS => (code, &refused),
                    _ => (200, &graph),
                };
                let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
                *answer.status_mut() = StatusCode::from_u16(code).unwrap();
                async move { Ok::<_, Infallible>(answer) }
            }),
            "shop",
        );
        let (status, out, err) = run(client, "weft stat pod -n shop").await;
        assert_eq!(status, 0, "{code}: {err}");
        let row: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..3], ["alone", "-", "100%"], "{out}");
        let row: Vec<&str> = out.lines().nth(2).unwrap().split_whitespace().collect();
        assert_eq!(row[..3], ["deploy/cart", "-", "50.00%"], "{out}");
        assert!(err.contains(words), "{err}");
        assert!(err.contains("are counted under it"), "{err}");
    }
}

#[tokio::test]
async fn call_query_on_pod_names_its_counting_workload() {
    let api = FakeApi::default();
    let owned_by = |name: &str, kind: &str, owner: &str, version: &str| {
        let owners = json!([
            {"apiVersion": "v1", "kind": "Node", "name": "a"},
            {"apiVersion": version, "kind": kind, "name": owner, "controller": true},
        ]);
        json!({"metadata": {"name": name, "namespace": "shop", "ownerReferences": owners}})
    };
    let owned = |name: &str, kind: &str, owner: &str| owned_by(name, kind, owner, "apps/v1");
    let (pod, set) = ("web-5d8-x1", "web-5d8");
    api.put(
        "/api/v1/namespaces/shop/pods/web-5d8-x1",
        owned(pod, "ReplicaSet", set),
    );
    api.put(
        "/apis/apps/v1/namespaces/shop/replicasets/web-5d8",
        owned(set, "Deployment", "web"),
    );
    api.put(
        "/api/v1/namespaces/shop/pods/alone",
        json!({"metadata": {"name": "alone", "namespace": "shop"}}),
    );
    let web = json!({"id": "shop/Deployment/web", "kind": "Deployment", "namespace": "shop", "name": "web"});
    api.put(
        "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live",
        json!({"metadata": {"windowSeconds": 60, "complete": true}, "nodes": [web]}),
    );
    // The last one where the metrics API knows no pod.
    for line in [
        "edges pod/web-5d8-x1",
        "routes pod/web-5d8-x1",
        "stat pod/web-5d8-x1",
        "edges rs/web-5d8",
    ] {
        let (code, out, err) = run(api.client(), &format!("weft {line} -n shop")).await;
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        assert!(err.contains("say deploy/web"), "{line}: {err}");
    }
    let (code, _, err) = run(api.client(), "weft edges pod/alone -n shop").await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(err, "no such calls\n");
    // That a kind of others owns, which only has the name of a known one.
    api.put(
        "/api/v1/namespaces/shop/pods/other-0",
        owned_by("other-0", "StatefulSet", "other", "apps.kruise.io/v1"),
    );
    let (code, _, err) = run(api.client(), "weft edges pod/other-0 -n shop").await;
    assert_eq!((code, err.as_str()), (0, "no such calls\n"));
    // That something owns which the graph does not know.
    api.put(
        "/apis/apps/v1/namespaces/shop/replicasets/web-6c",
        owned("web-6c", "Widget", "web"),
    );
    let (code, _, err) = run(api.client(), "weft edges rs/web-6c -n shop").await;
    assert_eq!(code, 0, "{err}");
    api.put(
        "/api/v1/namespaces/shop/pods/web-6c-x1",
        owned("web-6c-x1", "ReplicaSet", "web-6c"),
    );
    let (code, _, err) = run(api.client(), "weft edges pod/web-6c-x1 -n shop").await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("say rs/web-6c"), "{err}");
}

/// The owner itself the user may not be able to read: it is named by what it owns.
#[tokio::test]
async fn call_query_on_owned_object_names_rollout_or_cronjob() {
    let api = FakeApi::default();
    for (path, name, kind, owner) in [
        (
            "apis/apps/v1",
            "replicasets/web-6c",
            "argoproj.io/v1alpha1 Rollout",
            "web",
        ),
        (
            "apis/batch/v1",
            "jobs/report-29387460",
            "batch/v1 CronJob",
            "report",
        ),
        ("apis/batch/v1", "jobs/once", "batch/v1 Widget", "report"),
    ] {
        let (version, kind) = kind.split_once(' ').unwrap();
        let owners =
            json!([{"apiVersion": version, "kind": kind, "name": owner, "controller": true}]);
        let (_, own) = name.split_once('/').unwrap();
        let meta = json!({"name": own, "namespace": "shop", "ownerReferences": owners});
        let path = format!("/{path}/namespaces/shop/{name}");
        api.put(&path, json!({"metadata": meta}));
    }
    let api_node = json!({"id": "shop/Deployment/api", "kind": "Deployment", "namespace": "shop", "name": "api"});
    api.put(
        "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live",
        json!({"metadata": {"windowSeconds": 60, "complete": true}, "nodes": [api_node]}),
    );
    for (of, said) in [
        ("rs/web-6c", "here Rollout web; say ro/web"),
        ("job/report-29387460", "here CronJob report; say cj/report"),
    ] {
        let (code, out, err) = run(api.client(), &format!("weft edges {of} -n shop")).await;
        assert_eq!((code, out.as_str()), (2, ""), "{of}: {err}");
        assert!(err.contains(said), "{of}: {err}");
    }
    let (code, _, err) = run(api.client(), "weft edges job/once -n shop").await;
    assert_eq!(code, 0, "{err}");
}

#[tokio::test]
async fn owner_with_impossible_name_is_not_queried() {
    let api = FakeApi::default();
    for (set, owner) in [
        ("web-6c", "r".repeat(400_000)),
        ("cart-6c", "cart".to_owned()),
    ] {
        let owners = json!([{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "name": owner, "controller": true}]);
        let meta = json!({"name": set, "namespace": "shop", "ownerReferences": owners});
        let path = format!("/apis/apps/v1/namespaces/shop/replicasets/{set}");
        api.put(&path, json!({"metadata": meta}));
    }
    let node = json!({"id": "shop/Deployment/api", "kind": "Deployment", "namespace": "shop", "name": "api"});
    api.put(
        "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live",
        json!({"metadata": {"windowSeconds": 60, "complete": true}, "nodes": [node]}),
    );
    let (code, _, err) = run(api.client(), "weft edges rs/web-6c -n shop").await;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("no such calls"), "{err}");
    let (code, _, err) = run(api.client(), "weft edges rs/cart-6c -n shop").await;
    assert_eq!(code, 2, "the control: {err}");
    assert!(err.contains("say ro/cart"), "{err}");
}
