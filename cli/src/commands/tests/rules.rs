//! Rules of routes: their table, and how an explanation names the one that decides.

use super::*;

const TABLE: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/routetables/cart";

fn table() -> Value {
    json!({
        "apiVersion": "observe.weft.dev/v1alpha1", "kind": "RouteTable",
        "metadata": {"namespace": "shop", "name": "cart"},
        "tables": [
            {"service": "shop/cart", "port": 80, "otherwise": "refused: no-route", "rules": [
                {"object": "HTTPRoute shop/web", "rule": 1, "name": "canary",
                 "matches": "path below /api", "edits": ["sets header x: 1"],
                 "backends": [
                    {"service": "shop/cart-v1", "port": 80, "share": 0.9},
                    {"service": "bank/cart-v2", "port": 81, "share": 0.1, "invalid": true},
                 ]},
                {"object": "HTTPRoute shop/web", "rule": 0, "matches": "path below /",
                 "answer": "redirect 302"},
            ]},
            {"service": "shop/cart", "port": 80, "audience": "bank", "rules": [],
             "otherwise": "shop/cart"},
        ],
        "hidden": 2,
    })
}

/// The words of each line.
fn cells(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines();
    lines
        .map(|line| {
            line.split("   ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect()
        })
        .collect()
}

#[tokio::test]
async fn rules_are_listed_as_they_are_tried() {
    let api = FakeApi::default();
    api.put(TABLE, table());
    let (code, out, err) = run(api.client(), "weft routes svc/cart -n shop --rules").await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        cells(&out),
        [
            vec!["PORT", "CALLERS", "RULE", "MATCHES", "GOES TO"],
            vec![
                "80",
                "all",
                "HTTPRoute shop/web rules[1] canary",
                "path below /api",
                "cart-v1:80 90.00%, bank/cart-v2:81 10.00% (refused)"
            ],
            vec![
                "80",
                "all",
                "HTTPRoute shop/web rules[0]",
                "path below /",
                "redirect 302"
            ],
            vec!["80", "all", "-", "all else", "refused: no-route"],
            vec!["80", "bank", "-", "all else", "cart"],
        ]
    );
    assert!(err.contains("2 more tables"), "{err}");
    let line = "weft routes svc/cart -n shop --rules -o wide";
    let (_, out, _) = run(api.client(), line).await;
    assert!(out.contains("sets header x: 1"), "{out}");
}

#[tokio::test]
async fn rules_of_an_unknown_service_name_it() {
    let api = FakeApi::default();
    api.put(
        "/api/v1/namespaces/shop/services/cart",
        json!({"metadata": {"name": "cart"}}),
    );
    let (code, _, err) = run(api.client(), "weft routes svc/crt -n shop --rules").await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("crt") && err.contains("cart"), "{err}");
}

#[tokio::test]
async fn rules_of_gateway_are_listed_by_listener_and_host() {
    let api = FakeApi::default();
    let mut rules = table();
    rules["tables"] = json!([{"service": "shop/edge", "port": 443, "listener": "https",
        "host": "*.example", "otherwise": "refused: no-route", "rules": [
            {"object": "HTTPRoute shop/web", "rule": 0, "matches": "path below /",
             "answer": "redirect 302"}]}]);
    api.put(&TABLE.replace("/cart", "/edge"), rules);
    let line = "weft routes gateway/edge -n shop --rules";
    let (code, out, err) = run(api.client(), line).await;
    assert_eq!(code, 0, "{err}");
    let rule = "HTTPRoute shop/web rules[0]";
    assert_eq!(
        cells(&out),
        [
            vec!["LISTENER", "HOST", "RULE", "MATCHES", "GOES TO"],
            vec![
                "https:443",
                "*.example",
                rule,
                "path below /",
                "redirect 302"
            ],
            vec![
                "https:443",
                "*.example",
                "-",
                "all else",
                "refused: no-route"
            ],
        ]
    );
    assert!(err.contains("2 more rules are of routes"), "{err}");
    let (code, _, err) = run(api.client(), "weft routes gateway/edge -n shop").await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("add --rules"), "{err}");
}

#[tokio::test]
async fn explanation_names_the_rule_and_earlier_ones() {
    let mut answer = refused();
    answer["status"]["rule"] = json!({
        "object": "HTTPRoute shop/web", "rule": 1, "audience": "bank",
        "earlier": [{"object": "HTTPRoute shop/web", "rule": 0, "name": "beta",
            "wants": "header x-beta: yes", "fails": "header x-beta does not fit"}],
    });
    let explained = async |format: &str| {
        let line = format!("weft explain deploy/web svc/cart:80 DELETE /items/7 -o {format}");
        let client = explaining(vec![("shop", 201, answer.clone())]);
        run(client, &line).await.1
    };
    let out = explained("table").await;
    let rule = " rule    HTTPRoute shop/web rules[1], for callers of namespace bank alone; 1 before \
                it do not fit: -o wide says why";
    assert!(out.lines().any(|line| line == rule), "{out}");
    let out = explained("wide").await;
    let before = " before  HTTPRoute shop/web rules[0] beta wants header x-beta: yes: header x-beta \
                  does not fit";
    assert!(out.lines().any(|line| line == before), "{out}");
}
