//! What is told of proxies.

use serde_json::{Value, json};

use super::Bench;

#[tokio::test]
async fn proxies_show_what_they_say_of_themselves() {
    let bench = Bench::new();
    let path = "namespaces/shop/proxies/client";
    let (_, body) = bench.get("viewer", path).await;
    let uid = body["metadata"]["uid"].as_str().unwrap().to_owned();
    assert!(body["status"].get("memory").is_none(), "{body}");
    let status = wire::v1::ProxyStatus {
        certificate: Some(wire::v1::Certificate {
            serial: "0a:0b".to_owned(),
            issuer: "CN=weft".to_owned(),
            not_after: 1_800_000_000,
        }),
        memory: 12 << 20,
        draining: true,
        now: 0,
    };
    let state = wire::v1::ProxyState {
        namespace: "shop".to_owned(),
        pod: "client".to_owned(),
        uid,
        version: "9.9.9".to_owned(),
        lacks: vec!["telemetry".to_owned()],
        status: Some(status),
        clock_ahead: -7,
        ..wire::v1::ProxyState::default()
    };
    bench.api.told.observed.note(1, state);
    let (_, body) = bench.get("viewer", path).await;
    for (field, expected) in [
        ("version", json!("9.9.9")),
        ("connected", json!(true)),
        (
            "certificate",
            json!({"serial": "0a:0b", "notAfter": "2027-01-15T08:00:00Z", "issuer": "CN=weft"}),
        ),
        ("memory", json!(12 << 20)),
        ("draining", json!(true)),
        ("clockAheadMs", json!(-7)),
        ("lacks", json!(["telemetry"])),
    ] {
        assert_eq!(body["status"][field], expected, "{field} of {body}");
    }
}

#[tokio::test]
async fn proxies_are_listed_named_and_printed() {
    let bench = Bench::new();
    let (status, body) = bench.get("viewer", "namespaces/shop/proxies").await;
    assert_eq!((status, &body["kind"]), (200, &json!("ProxyList")));
    let names: Vec<&Value> = body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["metadata"]["name"])
        .collect();
    assert_eq!(names, ["api-1", "api-2", "client"]);
    let (status, body) = bench.get("viewer", "namespaces/shop/proxies/api-1").await;
    assert_eq!(status, 200);
    assert_eq!(
        body["status"]["identity"],
        "spiffe://cluster.local/ns/shop/sa/api"
    );
    assert_eq!(body["status"]["connected"], false);
    assert_eq!(body["status"]["version"], "0.1.0");
    assert_eq!(
        bench
            .get("viewer", "namespaces/shop/proxies/nobody")
            .await
            .0,
        404
    );
    assert_eq!(bench.get("viewer", "proxies").await.0, 403);
    assert_eq!(bench.get("admin", "proxies").await.0, 200);
}
