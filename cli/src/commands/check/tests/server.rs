//! The API server of a healthy mesh, and what of it can be made to fail.

use std::convert::Infallible;
use std::time::Duration;

use fake_api::FakeApi;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::sleep;

/// What only a dry run finds out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Webhooks {
    pub(super) injects: bool,
    pub(super) validates: bool,
    /// Whether calls for the read API reach a controller.
    pub(super) observes: bool,
    /// Whether the user may see anything but the API server's version.
    pub(super) sees: bool,
    /// Status of the response to the version request.
    pub(super) version: u16,
    /// The API server's clock, seconds ahead of ours.
    pub(super) clock: i64,
    /// Seconds for each page of the list of pods.
    pub(super) pods_take: u64,
    /// Seconds for Namespace `shop`.
    pub(super) namespace_takes: u64,
}

pub(super) const WELL: Webhooks = Webhooks {
    injects: true,
    validates: true,
    observes: true,
    sees: true,
    version: 200,
    clock: 0,
    pods_take: 0,
    namespace_takes: 0,
};

pub(super) fn client(api: &FakeApi, webhooks: Webhooks) -> Client {
    let api = api.client();
    Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                if !webhooks.sees && request.uri().path() != "/version" {
                    return Ok(respond(
                        403,
                        &json!({"kind": "Status", "status": "Failure", "message": "no", "code": 403}),
                    ));
                }
                if request.method() == Method::POST {
                    return Ok::<_, Infallible>(tried(request.uri().path(), webhooks));
                }
                if webhooks.pods_take > 0 && request.uri().path() == "/api/v1/pods" {
                    sleep(Duration::from_secs(webhooks.pods_take)).await;
                }
                if webhooks.namespace_takes > 0 && request.uri().path() == "/api/v1/namespaces/shop"
                {
                    sleep(Duration::from_secs(webhooks.namespace_takes)).await;
                }
                let observe = request.uri().path().starts_with("/apis/observe.weft.dev/");
                if observe && !webhooks.observes {
                    let message =
                        "error trying to reach service: certificate signed by unknown authority";
                    return Ok(respond(
                        503,
                        &json!({"kind": "Status", "status": "Failure", "message": message, "code": 503}),
                    ));
                }
                let version = request.uri().path() == "/version";
                if version && webhooks.version != 200 {
                    let code = webhooks.version;
                    return Ok(respond(
                        code,
                        &json!({"kind": "Status", "status": "Failure", "message": "no", "code": code}),
                    ));
                }
                let mut answer = api.send(request).await.unwrap();
                if version {
                    let now = k8s_openapi::jiff::Timestamp::now().as_second() + webhooks.clock;
                    let now = k8s_openapi::jiff::Timestamp::from_second(now).unwrap();
                    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
                    answer.headers_mut().insert("date", date.parse().unwrap());
                }
                Ok(answer)
            }
        }),
        "default",
    )
}

fn tried(path: &str, webhooks: Webhooks) -> Response<Body> {
    let (code, body) = if path.ends_with("/pods") {
        let containers = if webhooks.injects {
            json!([{"name": "weft-proxy"}])
        } else {
            json!([])
        };
        (201, json!({"spec": {"initContainers": containers}}))
    } else if path.ends_with("/httproutegroups") && webhooks.validates {
        let message = "admission webhook \"smi.validate.weft.dev\" denied the request: HTTPRouteGroup default/x is invalid: spec";
        (
            422,
            json!({"kind": "Status", "status": "Failure", "message": message, "code": 422}),
        )
    } else if path.ends_with("/selfsubjectaccessreviews") {
        (201, json!({"status": {"allowed": webhooks.injects}}))
    } else {
        (201, json!({}))
    };
    respond(code, &body)
}

fn respond(code: u16, body: &Value) -> Response<Body> {
    let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}
