//! Gateways, by what their status reports.

use super::*;

const GROUP: &str = "/apis/gateway.networking.k8s.io/v1";

/// A cluster in which Weft runs Gateways, with this one of its class and one of another's.
fn running(gateway: Value) -> FakeApi {
    let api = healthy();
    let mut on = controller(true, true);
    let env = on.pointer_mut("/spec/template/spec/containers/0/env");
    let env = env.and_then(Value::as_array_mut).unwrap();
    env.push(json!({"name": "WEFT_GATEWAY_NAMESPACES", "value": "shop"}));
    api.put(&format!("{WEFT}/weft-controller"), on);
    for (name, controller) in [
        ("weft-a", "weft.dev/gateway"),
        ("other", "example.com/other"),
    ] {
        let class = json!({"metadata": {"name": name}, "spec": {"controllerName": controller}});
        api.put(&format!("{GROUP}/gatewayclasses/{name}"), class);
    }
    let mut foreign = of(&json!({}));
    foreign["spec"]["gatewayClassName"] = json!("other");
    foreign["metadata"]["name"] = json!("foreign");
    api.put(
        &format!("{GROUP}/namespaces/shop/gateways/foreign"),
        foreign,
    );
    api.put(&format!("{GROUP}/namespaces/shop/gateways/web"), gateway);
    api
}

/// A Gateway with this status.
fn of(status: &Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "shop",
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"gatewayClassName": "weft-a"},
        "status": status,
    })
}

fn is(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "so it is"})
}

/// Result and message of the check.
async fn of_gateways(api: &FakeApi) -> (String, String) {
    let (_, report, _) = checked(api, WELL, &[]).await;
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|one| one["id"] == "gateways");
    let text = |field: &str| found.unwrap()[field].as_str().unwrap().to_owned();
    (text("result"), text("message"))
}

#[tokio::test]
async fn gateway_that_does_not_serve_is_found() {
    let good = || {
        [
            is("Accepted", "True", "Accepted"),
            is("Programmed", "True", "Programmed"),
        ]
    };
    let [accepted, programmed] = good();
    let listener = json!({"name": "https", "conditions": [
        is("ResolvedRefs", "False", "InvalidCertificateRef"),
    ]});
    for (status, result, words) in [
        (json!({"conditions": good()}), "ok", "1 Gateways"),
        (json!({}), "error", "without a status of Weft"),
        (
            json!({"conditions": [is("Accepted", "False", "InvalidParameters"), programmed]}),
            "error",
            "Gateway shop/web Accepted=False InvalidParameters",
        ),
        (
            json!({"conditions": [accepted, is("Programmed", "False", "AddressNotAssigned")]}),
            "error",
            "Programmed=False AddressNotAssigned",
        ),
        (
            json!({"conditions": good(), "listeners": [listener]}),
            "warning",
            "listener https ResolvedRefs=False InvalidCertificateRef",
        ),
        (
            json!({"conditions": [
                accepted, programmed, is("weft.dev/CertificateEnds", "True", "EndsSoon"),
            ]}),
            "warning",
            "so it is",
        ),
    ] {
        let (found, message) = of_gateways(&running(of(&status))).await;
        assert_eq!(found, result, "{message}");
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn gateways_are_not_judged_where_they_are_off() {
    let api = healthy();
    api.put(
        &format!("{GROUP}/namespaces/shop/gateways/web"),
        of(&json!({})),
    );
    let (result, message) = of_gateways(&api).await;
    assert_eq!(result, "ok", "{message}");
    assert!(message.contains("gateway.enabled"), "{message}");
}
