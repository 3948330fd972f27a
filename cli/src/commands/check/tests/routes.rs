//! Routes of the Gateway API, by what their status reports.

use std::convert::Infallible;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;

use super::*;

const GROUP: &str = "/apis/gateway.networking.k8s.io";

/// A route whose parent is of this kind, with what is reported of it by this controller.
fn route(kind: &str, parent: &str, controller: &str, conditions: &Value) -> Value {
    let group = if parent == "Service" {
        ""
    } else {
        "gateway.networking.k8s.io"
    };
    let reference = json!({"group": group, "kind": parent, "name": "cart"});
    let entry = json!({
        "controllerName": controller, "parentRef": reference, "conditions": conditions,
    });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": "web", "namespace": "shop",
            "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"parentRefs": [reference]},
        "status": {"parents": [entry]},
    })
}

fn condition(name: &str, status: &str, reason: &str) -> Value {
    json!([{"type": name, "status": status, "reason": reason}])
}

async fn with_route(path: &str, route: Value) -> (String, String) {
    let api = healthy();
    api.put(&format!("{GROUP}/{path}"), route);
    let (_, report, _) = checked(&api, WELL, &[]).await;
    of_routes(&report)
}

/// Result and message of the check.
fn of_routes(report: &Value) -> (String, String) {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|one| one["id"] == "gateway-routes");
    let text = |field: &str| found.unwrap()[field].as_str().unwrap().to_owned();
    (text("result"), text("message"))
}

#[tokio::test]
async fn route_that_is_not_in_force_is_found() {
    const HTTP: &str = "v1/namespaces/shop/httproutes/web";
    const TCP: &str = "v1alpha2/namespaces/shop/tcproutes/web";
    let weft = "weft.dev/mesh";
    let of =
        |kind, name, status, reason| route(kind, "Service", weft, &condition(name, status, reason));
    for (path, route, result, words) in [
        (
            HTTP,
            of("HTTPRoute", "Accepted", "False", "Conflicted"),
            "error",
            "HTTPRoute shop/web for Service cart Accepted=False Conflicted",
        ),
        (
            HTTP,
            of("HTTPRoute", "ResolvedRefs", "False", "BackendNotFound"),
            "warning",
            "BackendNotFound",
        ),
        (
            HTTP,
            of("HTTPRoute", "PartiallyInvalid", "True", "UnsupportedValue"),
            "warning",
            "PartiallyInvalid=True",
        ),
        (
            TCP,
            of("TCPRoute", "Accepted", "False", "NoMatchingParent"),
            "error",
            "TCPRoute shop/web",
        ),
        (
            HTTP,
            route("HTTPRoute", "Service", "example.com/other", &json!([])),
            "warning",
            "no status of Weft",
        ),
        (
            HTTP,
            of("HTTPRoute", "Accepted", "True", "Accepted"),
            "ok",
            "1 routes",
        ),
        (
            HTTP,
            route(
                "HTTPRoute",
                "Gateway",
                "weft.dev/gateway",
                &condition("Accepted", "False", "NoMatchingListenerHostname"),
            ),
            "error",
            "HTTPRoute shop/web for Gateway cart Accepted=False NoMatchingListenerHostname",
        ),
        (
            HTTP,
            route(
                "HTTPRoute",
                "Gateway",
                "example.com/other",
                &condition("Accepted", "False", "Other"),
            ),
            "ok",
            "0 routes",
        ),
    ] {
        let (found, message) = with_route(path, route).await;
        assert_eq!(found, result, "{message}");
        assert!(message.contains(words), "{message}");
    }
}

/// Of a user who may see no routes.
async fn unseen(api: &FakeApi) -> (String, String) {
    let well = client(api, WELL);
    let hidden = tower::service_fn(move |request: Request<Body>| {
        let well = well.clone();
        async move {
            if !request.uri().path().starts_with(&format!("{GROUP}/")) {
                return Ok::<_, Infallible>(well.send(request).await.unwrap());
            }
            let refused = json!({"kind": "Status", "status": "Failure", "code": 403,
                "message": "routes are forbidden"});
            let body = Body::from(refused.to_string().into_bytes());
            Ok(Response::builder().status(403).body(body).unwrap())
        }
    });
    let (_, report, _) = checked_by(Client::new(hidden, "default"), &[]).await;
    of_routes(&report)
}

#[tokio::test]
async fn routes_out_of_sight_are_skipped_where_they_exist() {
    let api = healthy();
    let (result, message) = unseen(&api).await;
    assert_eq!((&*result, &*message), ("ok", "0 routes"));
    api.put(GROUP, json!({"kind": "APIGroup", "metadata": {}}));
    let (result, message) = unseen(&api).await;
    assert_eq!(result, "skipped", "{message}");
}

#[tokio::test]
async fn routes_are_not_judged_where_they_are_off() {
    let api = healthy();
    let unwritten = route("HTTPRoute", "Service", "example.com/other", &json!([]));
    let path = format!("{GROUP}/v1/namespaces/shop/httproutes/web");
    api.put(&path, unwritten);
    let mut off = controller(true, true);
    let env = off.pointer_mut("/spec/template/spec/containers/0/env");
    let env = env.and_then(Value::as_array_mut).unwrap();
    env.push(json!({"name": "WEFT_GATEWAY_API", "value": "false"}));
    api.put(&format!("{WEFT}/weft-controller"), off);
    let (_, report, _) = checked(&api, WELL, &[]).await;
    let (result, message) = of_routes(&report);
    assert_eq!(result, "ok", "{message}");
    assert!(message.contains("gatewayApi.enabled"), "{message}");
}
