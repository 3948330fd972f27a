//! Pods that report more than their share, and whose answers say so.
//!
//! Claims: calls-61

use super::*;

const SHOP: &str = "/apis/metrics.smi-spec.io/v1alpha1/namespaces/shop";
const BANK: &str = "/apis/metrics.smi-spec.io/v1alpha1/namespaces/bank";

/// `bank/web` has reported more of the newest interval than there is room for.
fn hoarded() -> Reports {
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 1_000);
    let reporter = crate::observe::reports::Reporter {
        uid: "bank-web".into(),
        pod: ObjectKey::new("bank", "web-1"),
        account: None,
    };
    let now = SystemTime::now();
    for process in [1, 2] {
        let report = wire::v1::Report {
            process,
            slot: (interval_of(now) - 1) * INTERVAL,
            edges: vec![seen_by_server("shop/web", 1, 0); 600],
            ..wire::v1::Report::default()
        };
        reports.take(&reporter, report, true, now);
    }
    reports
}

/// Status and body of an answer, and what it warns of.
async fn read(bench: &Bench, path: &str) -> (u16, Value, String) {
    let headers = [
        ("x-remote-user", "reader"),
        ("x-remote-group", "readers"),
        ("x-remote-group", "all"),
    ];
    let certificate = Some(bench.ca.client("front-proxy"));
    let answer = bench
        .send(certificate, Method::GET, path, &headers)
        .await
        .unwrap();
    let status = answer.status().as_u16();
    let warning = answer.headers().get(header::WARNING);
    let warning = warning.map(|warning| warning.to_str().unwrap().to_owned());
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap();
    (status, body, warning.unwrap_or_default())
}

#[tokio::test]
async fn hoarding_pod_is_unavailable_without_shortening_other_windows() {
    let followed = Followed::default();
    *followed.inventory.write() = inventory();
    let bench = Bench::telling(followed, hoarded()).await;
    bench.store_report("shop-api", "api-1", seen_by_server("shop/web", 8, 2));
    let (status, body, warning) = read(&bench, &format!("{SHOP}/deployments/api")).await;
    assert_eq!((status, &*warning), (200, ""), "{body}");
    assert_eq!(
        (&body["window"], &body["metrics"][3]["value"]),
        (&json!("30s"), &json!("8"))
    );
    // Its own figures would be zeros that no proxy counted.
    let (status, body, _) = read(&bench, &format!("{BANK}/deployments/web")).await;
    assert_eq!(status, 503, "{body}");
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("more than their share"), "{message}");
    // Among others, and where it may have been a caller, no window but its own is shorter.
    for path in [
        format!("{BANK}/deployments"),
        format!("{SHOP}/services/api"),
        format!("{SHOP}/deployments/api/edges"),
        "/apis/metrics.smi-spec.io/v1alpha1/namespaces/bank".to_owned(),
        "/apis/metrics.smi-spec.io/v1alpha1/nodes/n1".to_owned(),
    ] {
        let (status, body, warning) = read(&bench, &path).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert!(
            warning.contains("some calls of pods are missing"),
            "{path}: {warning}"
        );
    }
    let (status, _, warning) = read(&bench, &format!("{SHOP}/deployments")).await;
    assert_eq!((status, &*warning), (200, ""));
}
