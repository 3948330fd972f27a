//! What is said of a Gateway's routes, and to which user.
//!
//! Claims: gateways-7

use crds::observe::API_VERSION;
use serde_json::{Value, json};

use super::Bench;
use crate::testing::cluster::{
    gateway, gateway_class, gateway_pod, http_route, in_namespace, listener, namespace, rule_below,
    set, shop, to_gateway, with_gateways,
};

/// Gateway `edge` of `shop`, with a route of its own namespace and one of the bank's.
fn bench() -> Bench {
    let all = listener("http", 80, "HTTP", "");
    let all = set(all, "/allowedRoutes/namespaces/from", json!("All"));
    let route = |name: &str, path: &str| {
        to_gateway(
            http_route(name, "", json!([rule_below(path, "api")])),
            "edge",
        )
    };
    let cluster = shop()
        .with(namespace("bank"))
        .with(gateway_class())
        .with(gateway("edge", json!([all])))
        .with(gateway_pod("edge-1", "10.0.0.91", "edge"))
        .with(route("own", "/a"))
        .with(in_namespace(route("theirs", "/a/b"), "bank"));
    Bench::of_compiled(&cluster, cluster.compile_with(&with_gateways()))
}

async fn explained(user: &str, url: &str) -> Value {
    let query = json!({
        "from": {"outside": true}, "to": {"kind": "Gateway", "namespace": "shop", "name": "edge"},
        "path": url,
    });
    let path = "namespaces/shop/explanations";
    let (status, body) = bench().explain(user, path, query).await;
    assert_eq!(status, 201, "{body}");
    body["status"].clone()
}

#[tokio::test]
async fn routes_of_other_namespaces_need_a_right_there() {
    let url = "http://web.example/a/x";
    let shown = explained("viewer", url).await;
    assert_eq!(shown["verdict"], "Allowed", "{shown}");
    assert_eq!(shown["rule"]["object"], "HTTPRoute shop/own", "{shown}");
    assert_eq!(shown["rule"]["moreEarlier"], 1, "{shown}");
    assert!(!shown.to_string().contains("theirs"), "{shown}");
    assert_eq!(
        shown["programmed"]["of"], 3,
        "the Gateway's pod, too: {shown}"
    );
    let shown = explained("both", url).await;
    let earlier = &shown["rule"]["earlier"][0]["object"];
    assert_eq!(earlier, "HTTPRoute bank/theirs", "{shown}");
    // It decides here, over a Service that its namespace does not have.
    let url = "http://web.example/a/b";
    let shown = explained("viewer", url).await;
    assert_eq!(shown["verdict"], "Unknown", "{shown}");
    assert!(!shown.to_string().contains("theirs"), "{shown}");
    let shown = explained("both", url).await;
    assert_eq!(shown["reason"], "invalid-backend", "{shown}");
}

#[tokio::test]
async fn call_to_a_gateway_without_url_is_refused() {
    let query = json!({
        "from": {"outside": true}, "to": {"kind": "Gateway", "namespace": "shop", "name": "edge"},
        "path": "/a",
    });
    let path = "namespaces/shop/explanations";
    let (status, body) = bench().explain("viewer", path, query).await;
    assert_eq!(status, 400, "{body}");
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("spec.path"), "{message}");
}

#[tokio::test]
async fn tables_of_a_gateway_count_rules_without_right() {
    let table = async |user: &str, at: &str| {
        let path = format!("/apis/{API_VERSION}/namespaces/shop/routetables/{at}");
        bench().get(user, &path).await
    };
    for (user, objects, hidden) in [
        ("viewer", &["HTTPRoute shop/own"][..], json!(1)),
        (
            "root",
            &["HTTPRoute bank/theirs", "HTTPRoute shop/own"][..],
            Value::Null,
        ),
    ] {
        let (status, shown) = table(user, "edge?kind=Gateway").await;
        assert_eq!(status, 200, "{shown}");
        let listener = &shown["tables"][0];
        assert_eq!(
            (&listener["listener"], &listener["host"]),
            (&json!("http"), &json!("*"))
        );
        let rules = listener["rules"].as_array().unwrap().iter();
        let found: Vec<&str> = rules.filter_map(|rule| rule["object"].as_str()).collect();
        assert_eq!(found, objects, "{user}: {shown}");
        assert_eq!(shown["hidden"], hidden, "{user}: {shown}");
    }
    for (at, code, words) in [
        ("edgy?kind=Gateway", 404, "no Gateway shop/edgy is served"),
        ("edge?kind=Gatewy", 400, "Service or Gateway"),
        ("edge?kind=Gateway&from=bank", 400, "parameter from"),
    ] {
        let (status, refusal) = table("root", at).await;
        assert_eq!(status, code, "{at}: {refusal}");
        assert!(refusal.to_string().contains(words), "{at}: {refusal}");
    }
}
