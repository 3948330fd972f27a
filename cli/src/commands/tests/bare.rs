//! `weft explain web cart`: names without a kind.
//!
//! Claims: observe-31

use super::*;

const SHOP: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop";

/// Deployments `web` and `cart`, and Service `cart`.
fn shop() -> FakeApi {
    let api = FakeApi::default();
    for (path, name) in [
        ("/apis/apps/v1/namespaces/shop/deployments", "web"),
        ("/apis/apps/v1/namespaces/shop/deployments", "cart"),
        ("/api/v1/namespaces/shop/services", "cart"),
    ] {
        api.put(
            &format!("{path}/{name}"),
            json!({"metadata": {"name": name}}),
        );
    }
    let node = |name: &str, services: Value| {
        json!({"id": name, "kind": "Deployment", "namespace": "shop", "name": name,
            "services": services})
    };
    let nodes = json!([node("web", json!([])), node("cart", json!(["shop/cart"]))]);
    api.put(
        &format!("{SHOP}/graphs/live"),
        json!({"metadata": {"windowSeconds": 60, "complete": true}, "nodes": nodes}),
    );
    api.judge(
        &format!("{SHOP}/explanations"),
        json!({"verdict": "Allowed"}),
    );
    api
}

/// Kinds and names of both queried ends, and the messages.
async fn explained(api: &FakeApi, line: &str) -> ([String; 2], String) {
    let line = format!("weft explain {line} -n shop -o json");
    let (code, out, err) = run(api.client(), &line).await;
    assert_eq!(code, 0, "{line}: {err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let end = |end: &str| {
        let end = &answer["spec"][end];
        let text = |field: &str| end[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text("kind"), text("name"), end["port"])
    };
    ([end("from"), end("to")], err)
}

#[tokio::test]
async fn unique_bare_name_needs_no_kind_and_is_echoed() {
    let api = shop();
    let web = "Deployment web null";
    let (ends, error) = explained(&api, "web cart DELETE /items/7").await;
    assert_eq!(ends, [web, "Service cart null"]);
    assert_eq!(
        error,
        "web is taken for deploy/web of namespace shop\n\
         cart is taken for svc/cart of namespace shop\n"
    );
    let (ends, _) = explained(&api, "deploy/web cart:8080 GET /").await;
    assert_eq!(ends, [web, "Service cart 8080"]);
    let (ends, error) = explained(&api, "cart web GET /").await;
    assert_eq!(ends, ["Deployment cart null", web], "{error}");
    api.put(
        "/apis/batch/v1/namespaces/shop/cronjobs/report",
        json!({"metadata": {"name": "report"}}),
    );
    let (ends, error) = explained(&api, "report cart GET /").await;
    assert_eq!(ends[0], "CronJob report null", "{error}");
    let (ends, error) = explained(&api, "outside svc/cart GET /").await;
    assert_eq!(
        (ends[1].as_str(), error.as_str()),
        ("Service cart null", "")
    );
}

#[tokio::test]
async fn unknown_or_ambiguous_bare_name_error_lists_candidates() {
    let api = shop();
    let line = "weft explain wbe cart GET / -n shop";
    let (code, out, err) = run(api.client(), line).await;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("\"wbe\" names no kind"), "{err}");
    assert!(err.ends_with("; you may mean deploy/web\n"), "{err}");
    let line = "weft explain deploy/web crat GET / -n shop";
    let (code, _, err) = run(api.client(), line).await;
    assert_eq!(code, 2, "{err}");
    assert!(err.ends_with("; you may mean svc/cart\n"), "{err}");
    let other = "/apis/apps/v1/namespaces/shop/statefulsets/web";
    api.put(other, json!({"metadata": {"name": "web"}}));
    let (code, _, err) = run(api.client(), "weft explain web cart GET / -n shop").await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("say one of deploy/web, sts/web"), "{err}");
}
