//! What `stat` prints, and which part of the graph.
//!
//! Claims: observe-43

use super::*;

const GRAPH: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live";
const SPLITS: &str = "/apis/split.smi-spec.io/v1alpha4/namespaces/shop/trafficsplits";

/// `web` calls `cart` by a split, `cart` calls `db` and a host outside, and `idle` calls nothing.
fn shop() -> FakeApi {
    let node = |kind: &str, name: &str| {
        json!({"id": name, "kind": kind, "namespace": "shop", "name": name, "pods": 1,
            "meshed": 1})
    };
    let nodes = json!([
        node("Deployment", "cart"),
        node("StatefulSet", "db"),
        {"id": "host", "kind": "External", "name": "api.example"},
        node("Deployment", "idle"),
        node("Deployment", "web"),
    ]);
    let edges = json!([
        {"id": "1", "from": "web", "to": "cart", "service": "shop/cart", "port": 80,
            "backend": "shop/cart-v1", "split": "shop/cart", "requests": 6, "success": 6,
            "attempts": 6},
        {"id": "2", "from": "cart", "to": "db", "service": "shop/db", "port": 5432},
        {"id": "3", "from": "cart", "to": "host", "port": 443},
    ]);
    let api = FakeApi::default();
    let metadata = json!({"windowSeconds": 60, "complete": true});
    api.put(
        GRAPH,
        json!({"metadata": metadata, "nodes": nodes, "edges": edges}),
    );
    api
}

// Claims: observe-49
#[tokio::test]
async fn json_and_yaml_contain_queried_part_of_graph() {
    let api = shop();
    for (line, edges, nodes) in [
        // All that there is.
        ("edges", "1 2 3", "cart db host idle web"),
        ("stat deploy", "1", "cart idle web"),
        ("stat deploy/cart", "1", "cart web"),
        ("stat deploy/idle", "", "idle"),
        ("stat sts", "2", "cart db"),
        ("stat sts --from deploy/web", "", ""),
        ("stat deploy --to sts/db", "2", "cart db"),
        ("stat pod --from deploy/web", "1", "cart web"),
        ("stat pod --to svc/db", "2", "cart db"),
        ("stat svc/db", "2", "cart db"),
        ("stat svc/db:80", "", ""),
        ("stat ts", "1", "cart web"),
        ("stat ns/shop", "1 2", "cart db idle web"),
    ] {
        for format in ["json", "yaml"] {
            let line = format!("weft {line} -n shop -o {format}");
            let (code, out, err) = run(api.client(), &line).await;
            assert_eq!((code, err.as_str()), (0, ""), "{line}");
            let answer: Value = serde_yaml_ng::from_str(&out).unwrap();
            let ids = |part: &str| {
                let all = answer[part].as_array().unwrap().iter();
                let ids: Vec<&str> = all.map(|one| one["id"].as_str().unwrap()).collect();
                ids.join(" ")
            };
            assert_eq!((&*ids("edges"), &*ids("nodes")), (edges, nodes), "{line}");
        }
    }
}

// Claims: observe-48
#[tokio::test]
async fn split_is_shown_with_all_its_backends() {
    let api = shop();
    let put = |name: &str, backends: Value| {
        api.put(
            &format!("{SPLITS}/{name}"),
            json!({"metadata": {"namespace": "shop", "name": name},
                "spec": {"service": name, "backends": backends}}),
        );
    };
    let backend = |service: &str, weight: u32| json!({"service": service, "weight": weight});
    put(
        "cart",
        json!([backend("cart-v1", 9), backend("cart-v2", 1)]),
    );
    put("quiet", json!([backend("quiet-v1", 1)]));
    let (code, out, err) = run(api.client(), "weft stat ts -n shop").await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let rows = out.lines().skip(1).map(|row| {
        let cells: Vec<&str> = row.split_whitespace().take(6).collect();
        cells.join(" ")
    });
    assert_eq!(
        rows.collect::<Vec<String>>(),
        [
            "cart shop/cart-v1 9 100% 100% 0.1",
            "cart shop/cart-v2 1 0.00% - 0.0",
            "quiet shop/quiet-v1 1 - - 0.0"
        ],
        "{out}"
    );
    // Between ends that call none of its backends it has no row.
    let (_, out, _) = run(api.client(), "weft stat ts --from deploy/web -n shop").await;
    assert_eq!((out.lines().count(), out.contains("quiet")), (3, false));
}

#[tokio::test]
async fn uncalled_port_has_row_if_service_has_it() {
    let api = shop();
    let mut graph = api.read(GRAPH).unwrap();
    graph["nodes"][0]["services"] = json!(["shop/cart"]);
    api.put(GRAPH, graph.clone());
    api.put("/apis/observe.weft.dev/v1alpha1/graphs/live", graph);
    let service = "/api/v1/namespaces/shop/services/cart";
    let ports = json!([{"name": "http", "port": 80}, {"name": "grpc", "port": 9090}]);
    let metadata = json!({"name": "cart", "namespace": "shop"});
    api.put(
        service,
        json!({"metadata": metadata, "spec": {"ports": ports}}),
    );
    let called = "cart 1/1 100% 0.1 - - - 0 0 0";
    let idle = "cart 1/1 - 0.0 - - - 0 0 0";
    for (line, row, asked) in [
        ("stat svc/cart:80 -n shop", called, 0),
        ("stat svc/cart:9090 -n shop", idle, 1),
        // Several Services may have the name, each with ports of its own.
        ("stat svc/cart:81 -A", &*format!("shop {idle}"), 1),
    ] {
        let (code, out, err) = run(api.client(), &format!("weft {line}")).await;
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        let rows = out.lines().skip(1).map(|row| {
            let cells: Vec<&str> = row.split_whitespace().collect();
            cells.join(" ")
        });
        assert_eq!(rows.collect::<Vec<String>>(), [row], "{line}");
        assert_eq!(api.reads(service), asked, "{line}");
    }
    for line in [
        "stat svc/cart:81",
        "stat svc/cart:81 -o json",
        "stat deploy --to svc/cart:81",
        "edges svc/cart:81",
    ] {
        let (code, out, err) = run(api.client(), &format!("weft {line} -n shop")).await;
        assert_eq!((code, out.as_str()), (2, ""), "{line}");
        let words = "Service cart has no TCP port 81; it has 80 (http), 9090 (grpc)\n";
        assert_eq!(err, words, "{line}");
    }
}
