//! Lists, tables, and what the API publishes about itself.

use super::*;

#[tokio::test]
async fn selector_chooses_items_and_pages_fit_together() {
    let bench = Bench::start().await;
    let names = |body: &Value| -> Vec<String> {
        let items = body["items"].as_array().unwrap().iter();
        items
            .map(|item| item["resource"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let (_, body) = bench
        .fetch("reader", &format!("{DEPLOYMENTS}?labelSelector=app%3Dweb"))
        .await;
    assert_eq!(names(&body), ["web"]);
    assert_eq!(body["selector"]["matchLabels"], json!({"app": "web"}));
    let (_, first) = bench
        .fetch("reader", &format!("{DEPLOYMENTS}?limit=1"))
        .await;
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["api".to_owned()], &json!(1))
    );
    let next = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = bench
        .fetch("reader", &format!("{DEPLOYMENTS}?limit=1&continue={next}"))
        .await;
    assert_eq!(names(&second), ["web"]);
    assert_eq!(second["metadata"]["continue"], Value::Null);
    let (code, refusal) = bench
        .fetch("reader", &format!("{DEPLOYMENTS}?limit=1&continue=7-1"))
        .await;
    assert_eq!((code, &refusal["reason"]), (410, &json!("Expired")));
    assert_eq!(
        first["items"][0]["timestamp"],
        second["items"][0]["timestamp"]
    );
}

#[tokio::test]
async fn discovery_needs_no_permission_but_api_server_certificate() {
    let bench = Bench::start().await;
    for path in [
        "/apis",
        "/apis/metrics.smi-spec.io",
        "/apis/metrics.smi-spec.io/v1alpha1",
        "/apis/metrics.smi-spec.io/v1alpha2",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/apis/metrics.smi-spec.io/v1alpha1",
    ] {
        assert_eq!(bench.fetch("outsider", path).await.0, 200, "{path}");
        let answer = bench.try_ask(None, Method::GET, path, &[]).await.unwrap();
        assert_eq!(answer.0, 401, "{path}");
    }
    assert_eq!(bench.reviews.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn kubectl_gets_a_table() {
    let bench = Bench::start().await;
    call(&bench.reports, "shop/web", "shop/api", 1, 0);
    let headers = [
        ("x-remote-user", "reader"),
        ("x-remote-group", "readers"),
        ("x-remote-group", "all"),
        (
            "accept",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
        ),
    ];
    let own = Some(bench.ca.client("front-proxy"));
    let (_, table) = bench
        .try_ask(own, Method::GET, DEPLOYMENTS, &headers)
        .await
        .unwrap();
    assert_eq!(table["kind"], "Table");
    let (columns, rows) = (
        table["columnDefinitions"].as_array().unwrap(),
        table["rows"].as_array().unwrap(),
    );
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["cells"].as_array().unwrap().len(), columns.len());
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    }
}

#[tokio::test]
async fn metrics_response_without_room_counts_once_as_429() {
    let bench = Bench::start().await;
    let mut held = Vec::new();
    while let Ok(share) = bench.answers.reserve(64 * 1024) {
        held.push(share);
    }
    let (code, refusal) = bench.fetch("reader", DEPLOYMENTS).await;
    assert_eq!(code, 429, "{refusal}");
    let answered = || [200, 429].map(|code| bench.metrics.times_answered(code));
    assert_eq!(answered(), [0, 1]);
    // So does a refusal that finds none.
    assert_eq!(bench.fetch("outsider", DEPLOYMENTS).await.0, 429);
    assert_eq!(answered(), [0, 2]);
    assert_eq!(bench.metrics.times_answered(403), 0);
    drop(held);
    assert_eq!(bench.fetch("reader", DEPLOYMENTS).await.0, 200);
    assert_eq!(answered(), [1, 2]);
}
