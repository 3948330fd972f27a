//! An API server in memory for tests: objects by path, resource versions that
//! conflict as the real ones do, JSON patches. It validates nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The objects, shared between the test and its clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    objects: BTreeMap<String, Value>,
    /// Method and path of every write, in order.
    writes: Vec<(Method, String)>,
    broken: bool,
}

impl State {
    fn store(&mut self, path: String, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path, object.clone());
        object
    }
}

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.lock().store(path.to_owned(), object);
    }

    pub(crate) fn read(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    pub(crate) fn writes(&self) -> Vec<(Method, String)> {
        std::mem::take(&mut self.state.lock().writes)
    }

    /// From now on every call fails.
    pub(crate) fn break_down(&self) {
        self.state.lock().broken = true;
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let path = head.uri.path().to_owned();
        let mut state = self.state.lock();
        if state.broken {
            return status(StatusCode::INTERNAL_SERVER_ERROR);
        }
        if head.method == Method::GET {
            return match state.objects.get(&path) {
                Some(object) => reply(StatusCode::OK, object),
                None => status(StatusCode::NOT_FOUND),
            };
        }
        let content: Value = serde_json::from_slice(&body).unwrap_or_default();
        let stored = if head.method == Method::POST {
            let name = content["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("{path}/{name}");
            if state.objects.contains_key(&path) {
                return status(StatusCode::CONFLICT);
            }
            state.store(path, content)
        } else {
            let Some(mut object) = state.objects.get(&path).cloned() else {
                return status(StatusCode::NOT_FOUND);
            };
            if head.method == Method::PUT {
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                if version(&content) != version(&object) {
                    return status(StatusCode::CONFLICT);
                }
                object = content;
            } else {
                let patch: json_patch::Patch = serde_json::from_value(content).unwrap();
                if json_patch::patch(&mut object, &patch).is_err() {
                    return status(StatusCode::UNPROCESSABLE_ENTITY);
                }
            }
            state.store(path.clone(), object)
        };
        state.writes.push((head.method, path));
        reply(StatusCode::OK, &stored)
    }
}

fn reply(status: StatusCode, object: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(object.to_string().into_bytes()));
    *response.status_mut() = status;
    response
}

fn status(code: StatusCode) -> Response<Body> {
    let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "reason": reason, "message": reason, "code": code.as_u16(),
    });
    reply(code, &body)
}
