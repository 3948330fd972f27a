//! What is explained to whom.

use serde_json::{Value, json};

use super::Bench;
use crate::observe_api::explanations;

use http::Method;

fn asks(from: &str, kind: &str, to: &str) -> Value {
    json!({
        "from": {"kind": kind, "namespace": from, "name": if kind == "Pod" { "client" } else { "web" }},
        "to": {"kind": "Service", "namespace": to, "name": "api"},
        "method": "DELETE", "path": "/items/7",
    })
}

#[tokio::test]
async fn explanation_says_as_much_as_the_rights_at_each_end_allow() {
    let bench = Bench::new();
    let (status, body) = bench
        .explain(
            "viewer",
            "namespaces/shop/explanations",
            asks("shop", "Pod", "shop"),
        )
        .await;
    assert_eq!(status, 201, "{body}");
    let told = &body["status"];
    assert_eq!(
        (&told["verdict"], &told["reason"]),
        (&json!("Refused"), &json!("not-allowed"))
    );
    assert!(told["steps"].to_string().contains("shop/read"), "{told}");
    assert!(!told["fix"]["objects"].as_array().unwrap().is_empty());
    assert_eq!(told["programmed"], json!({"proxies": 0, "of": 2}));
    // Only the caller's: what he would find out by calling.
    let (status, body) = bench
        .explain(
            "neighbour",
            "namespaces/bank/explanations",
            asks("bank", "ServiceAccount", "shop"),
        )
        .await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(
        body["status"],
        json!({"verdict": "Refused", "reason": "not-allowed", "httpStatus": 403, "owner": "shop"})
    );
    let mut nothing = asks("bank", "ServiceAccount", "shop");
    nothing["to"]["name"] = json!("nothing");
    let (_, body) = bench
        .explain("neighbour", "namespaces/bank/explanations", nothing)
        .await;
    assert!(
        body["status"]["reason"]
            .as_str()
            .unwrap()
            .contains("you may not know"),
        "{body}"
    );
    // Only the called side's: nothing of the caller but what he wrote, whether it exists.
    for name in ["client", "nobody"] {
        let mut asked = asks("bank", "Pod", "shop");
        asked["from"]["name"] = json!(name);
        let (_, body) = bench
            .explain("viewer", "namespaces/shop/explanations", asked)
            .await;
        assert_eq!(body["status"]["verdict"], "Unknown");
        assert!(!body.to_string().contains("no pods"), "{body}");
    }
    let by_account = asks("bank", "ServiceAccount", "shop");
    let (_, body) = bench
        .explain("viewer", "namespaces/shop/explanations", by_account)
        .await;
    assert_eq!(body["status"]["verdict"], "Refused");
    assert_eq!(
        body["status"]["steps"][0]["text"],
        "bank/web, as it was asked"
    );
    assert!(body["status"].get("seen").is_none());
    // Neither.
    let (status, _) = bench
        .explain(
            "viewer",
            "namespaces/shop/explanations",
            asks("bank", "Pod", "bank"),
        )
        .await;
    assert_eq!(status, 400);
    let (status, _) = bench
        .explain(
            "stranger",
            "namespaces/shop/explanations",
            asks("shop", "Pod", "shop"),
        )
        .await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn question_that_is_too_long_or_misspelt_is_refused() {
    let bench = Bench::new();
    let path = "namespaces/shop/explanations";
    let long = "x".repeat(explanations::MAX_BODY + 1);
    let answer = bench.send("viewer", Method::POST, path, long).await;
    assert_eq!(answer.status(), 400);
    let mut asked = asks("shop", "Pod", "shop");
    asked["methd"] = json!("GET");
    let (status, body) = bench.explain("viewer", path, asked).await;
    assert_eq!(status, 400);
    assert!(
        body["message"].as_str().unwrap().contains("methd"),
        "{body}"
    );
    let mut asked = asks("shop", "Pod", "shop");
    asked["from"]["kind"] = json!("Rollout");
    let (status, body) = bench.explain("viewer", path, asked).await;
    assert_eq!(status, 400);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .starts_with("spec.from.kind:"),
        "{body}"
    );
}
