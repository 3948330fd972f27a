//! Names that mean nothing, and names that mean something without calls.
//!
//! Claims: observe-43

use super::*;

const GRAPH: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live";

/// `web` and `cart`, which have no calls now.
fn shop() -> FakeApi {
    let api = FakeApi::default();
    let node = |kind: &str, name: &str, services: Value| {
        let account = format!("spiffe://cluster.local/ns/shop/sa/{name}");
        json!({"id": format!("shop/{kind}/{name}"), "kind": kind, "namespace": "shop",
            "name": name, "services": services, "accounts": [account]})
    };
    let nodes = json!([
        node("Deployment", "web", json!([])),
        node("StatefulSet", "cart", json!(["shop/cart"]))
    ]);
    api.put(
        GRAPH,
        json!({"metadata": {"windowSeconds": 60, "complete": true}, "nodes": nodes, "edges": []}),
    );
    api
}

#[tokio::test]
async fn unknown_name_in_traffic_commands_suggests_nearest() {
    let api = shop();
    for (line, words) in [
        (
            "stat deploy/wbe",
            "there is no Deployment wbe in namespace shop; you may mean deploy/web",
        ),
        (
            "stat deploy/wbe -o json",
            "there is no Deployment wbe in namespace shop; you may mean deploy/web",
        ),
        (
            "edges svc/crat",
            "there is no Service crat in namespace shop; you may mean svc/cart",
        ),
        (
            "routes deploy/cart",
            "there is no Deployment cart in namespace shop; you may mean sts/cart",
        ),
        (
            "edges sa/wbe",
            "there is no ServiceAccount wbe in namespace shop; you may mean sa/web",
        ),
        (
            "stat svc --from deploy/vault",
            "there is no Deployment vault in namespace shop",
        ),
    ] {
        let (code, out, err) = run(api.client(), &format!("weft {line} -n shop")).await;
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        assert_eq!(err, format!("{words}\n"), "{line}");
    }
}

#[tokio::test]
async fn existing_object_without_calls_is_not_unknown_name() {
    let api = shop();
    let idle = "/apis/apps/v1/namespaces/shop/deployments/idle";
    api.put(idle, json!({"metadata": {"name": "idle"}}));
    for line in [
        "stat deploy/idle",
        "edges deploy/idle",
        "routes deploy/web",
        "stat svc/cart",
        "edges svc/cart:81",
        "edges external/api.exmple",
    ] {
        let (code, out, err) = run(api.client(), &format!("weft {line} -n shop")).await;
        assert_eq!((code, out.as_str()), (0, ""), "{line}: {err}");
        assert!(err.contains("calls"), "{line}: {err}");
    }
    assert_eq!(api.reads(idle), 2);
    let web = "/apis/apps/v1/namespaces/shop/deployments/web";
    assert_eq!(api.reads(web), 0, "the graph knows it");
}

#[tokio::test]
async fn misspelt_namespace_gets_suggestion_and_empty_one_no_calls() {
    let api = shop();
    let empty = json!({"metadata": {"windowSeconds": 60, "complete": true}});
    for namespace in ["shpo", "empty"] {
        api.put(&GRAPH.replace("shop", namespace), empty.clone());
    }
    let scopes = "/apis/observe.weft.dev/v1alpha1/scopes/live";
    api.put(scopes, json!({"namespaces": ["bank", "empty", "shop"]}));
    api.put(
        "/api/v1/namespaces/empty",
        json!({"metadata": {"name": "empty"}}),
    );
    for line in [
        "stat deploy -n shpo",
        "edges -n shpo",
        "stat deploy/web -n shpo",
        "stat ns/shpo -n shop",
    ] {
        let (code, out, err) = run(api.client(), &format!("weft {line}")).await;
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        assert_eq!(
            err, "there is no namespace shpo; you may mean shop\n",
            "{line}"
        );
    }
    for line in ["stat deploy -n empty", "edges -n empty"] {
        let (code, _, err) = run(api.client(), &format!("weft {line}")).await;
        assert_eq!(code, 0, "{line}: {err}");
        assert!(err.contains("calls"), "{line}: {err}");
    }
}

/// A server whose graph has a Deployment behind a Service, both named `web`, and whose other
/// responses are this refusal.
fn but_the_graph(refusal: u16, status: Value) -> Client {
    let graph = json!({"nodes": [{"id": "shop/Deployment/web", "kind": "Deployment", "namespace": "shop", "name": "web",
        "services": ["shop/web"], "pods": 1}]});
    Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let (code, body) = match request.uri().path() {
                GRAPH => (200, &graph),
                _ => (refusal, &status),
            };
            let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        }),
        "shop",
    )
}

#[tokio::test]
async fn name_is_not_verified_without_read_permission() {
    let denied = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": "deployments.apps \"wbe\" is forbidden: User \"eve\" cannot get resource \"deployments\" in API group \"apps\" in the namespace \"shop\""});
    let client = but_the_graph(403, denied);
    let (code, out, err) = run(client.clone(), "weft stat deploy/wbe -n shop").await;
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("ClusterRole view grants this"), "{err}");
    // A Service that the graph knows has its row, with or without such a port.
    let (code, out, err) = run(client, "weft stat svc/web:81 -n shop").await;
    assert_eq!((code, out.lines().count()), (0, 2), "{err}");
}

/// A server that is away may know more than the graph, which names only ports with calls.
#[tokio::test]
async fn service_port_is_not_guessed_when_api_fails() {
    for line in [
        "stat svc/web:81",
        "stat deploy --to svc/web:81",
        "edges svc/web:81",
    ] {
        for code in [401, 429, 500, 503] {
            let status = json!({"kind": "Status", "status": "Failure", "code": code,
                "message": "not now"});
            let client = but_the_graph(code, status);
            let (ended, out, err) = run(client, &format!("weft {line} -n shop")).await;
            assert_eq!((ended, out.as_str()), (3, ""), "{line}, {code}: {err}");
            assert!(err.starts_with("Service web: "), "{line}, {code}: {err}");
            assert!(err.contains("not now"), "{line}, {code}: {err}");
        }
        // Control: that it is gone, and that the user may not see it, is a result.
        for (code, reason) in [(404, "NotFound"), (403, "Forbidden")] {
            let status = json!({"kind": "Status", "status": "Failure", "code": code,
                "reason": reason, "message": "no"});
            let client = but_the_graph(code, status);
            let (ended, _, err) = run(client, &format!("weft {line} -n shop")).await;
            assert_eq!(ended, 0, "{line}, {code}: {err}");
        }
    }
}

#[tokio::test]
async fn host_without_calls_suggests_nearest_known_host() {
    let api = FakeApi::default();
    let outside =
        |host: &str| json!({"id": format!("External/{host}"), "kind": "External", "name": host});
    let web = json!({"id": "shop/Deployment/web", "kind": "Deployment", "namespace": "shop",
        "name": "web"});
    let edge = json!({"id": "1", "from": "shop/Deployment/web", "to": "External/api.example",
        "port": 443, "protocol": "tls", "requests": 6, "success": 6});
    api.put(
        GRAPH,
        json!({"metadata": {"windowSeconds": 60, "complete": true}, "edges": [edge],
            "nodes": [web, outside("api.example"), outside("idle.test")]}),
    );
    for (host, words) in [
        (
            "api.exmple",
            "no such calls; you may mean external/api.example\n",
        ),
        (
            "api.exmple:443",
            "no such calls; you may mean external/api.example:443\n",
        ),
        ("payments.invalid", "no such calls\n"),
        // Control: known ones, without calls and with them.
        ("idle.test", "no such calls\n"),
        ("api.example", ""),
    ] {
        let line = format!("weft edges external/{host} -n shop");
        let (code, out, err) = run(api.client(), &line).await;
        assert_eq!((code, &*err), (0, words), "{host}: {out}");
        assert_eq!(out.is_empty(), !words.is_empty(), "{host}: {out}");
    }
}
