//! The client of the API server, in which every call has a time limit.
//!
//! A connection to an API server that has vanished stays open until the kernel ends it, a quarter
//! of an hour later, and every call on it waits as long. So the limit is set in one place: the
//! client that everything in the process uses. Work of the Lease holder has a client that also
//! notices when responses stay away, so that the Lease can go to a replica that gets some.
//!
//! Claims: attack-89

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tower::BoxError;

/// From a call to the end of its answer. The slowest honest one is a write that waits for a
/// webhook, which the API server gives at most this long.
pub(crate) const CALL_WITHIN: Duration = Duration::from_secs(30);
/// Seconds after which the watches of the cluster and of the Lease holder begin anew: kube
/// notices a watch that has died 5 s later, instead of after its five minutes.
pub(crate) const WATCH_SECONDS: u32 = 60;
/// A loop without an answer for this long, and in two calls at least, is stalled.
const STALLED_AFTER: Duration = Duration::from_secs(45);

/// The API server did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer {method} {path} within {} s", CALL_WITHIN.as_secs())]
pub(crate) struct NoAnswer {
    method: http::Method,
    path: String,
}

/// A client whose calls take at most [`CALL_WITHIN`].
#[must_use]
pub fn bounded(client: &Client) -> Client {
    observed(client, None)
}

/// Where a loop of the Lease holder reports that it gets no answers.
#[derive(Clone, Debug)]
pub(crate) struct Stalls(mpsc::Sender<&'static str>);

impl Stalls {
    /// One place: its reader gives the Lease up, and then no other loop need report.
    pub(crate) fn new() -> (Self, mpsc::Receiver<&'static str>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// A bounded client of the loop called `name`.
    pub(crate) fn client(&self, name: &'static str, client: &Client) -> Client {
        let silence = Silence {
            name,
            since: Mutex::new(None),
            stalls: self.clone(),
        };
        observed(client, Some(Arc::new(silence)))
    }
}

/// How long a loop's calls have been without an answer.
#[derive(Debug)]
struct Silence {
    name: &'static str,
    since: Mutex<Option<Instant>>,
    stalls: Stalls,
}

impl Silence {
    fn answered(&self) {
        *self.since.lock() = None;
    }

    fn unanswered(&self, called: Instant) {
        let mut since = self.since.lock();
        let first = *since.get_or_insert(called);
        if first.elapsed() >= STALLED_AFTER {
            *since = None;
            // Full: another loop has said the same already.
            let _ = self.stalls.0.try_send(self.name);
        }
    }
}

fn observed(client: &Client, silence: Option<Arc<Silence>>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let client = client.clone();
    let service = tower::service_fn(move |request| {
        let (client, silence) = (client.clone(), silence.clone());
        async move {
            let called = Instant::now();
            let answer = answer(&client, request, called + CALL_WITHIN).await;
            match (&silence, &answer) {
                (Some(silence), Ok(_)) => silence.answered(),
                (Some(silence), Err(_)) => silence.unanswered(called),
                (None, _) => {}
            }
            answer
        }
    });
    Client::new(service, namespace)
}

/// The whole answer, or for a watch its beginning: what comes later is watched by the
/// watcher.
async fn answer(
    client: &Client,
    request: Request<Body>,
    deadline: Instant,
) -> Result<Response<Body>, BoxError> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let watches = watches(&request);
    within(deadline, method, path, async {
        let answer = client.send(request).await?;
        if watches {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = body.collect_bytes().await?;
        Ok(Response::from_parts(head, Body::from(body)))
    })
    .await
}

async fn within<T>(
    deadline: Instant,
    method: http::Method,
    path: String,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, BoxError> {
    match timeout_at(deadline, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(NoAnswer { method, path }.into()),
    }
}

fn watches(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes())
        .any(|(key, value)| key == "watch" && (value == "true" || value == "1"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::ListParams;
    use serde_json::json;

    use super::*;
    use crate::testing::api_server::FakeApi;

    fn maps(client: Client) -> Api<ConfigMap> {
        Api::namespaced(client, "mesh")
    }

    // Claims: B9
    #[tokio::test(start_paused = true)]
    async fn call_to_vanished_api_server_times_out() {
        let api = FakeApi::default();
        api.vanish(true);
        let start = Instant::now();
        let error = maps(bounded(&api.client())).get("one").await.unwrap_err();
        assert_eq!(start.elapsed(), CALL_WITHIN);
        let kube::Error::Service(error) = error else {
            panic!("{error}")
        };
        let error = error.to_string();
        assert!(
            error.contains("GET /api/v1/namespaces/mesh/configmaps/one"),
            "{error}"
        );
        assert!(error.contains("30 s"), "{error}");
    }

    // Claims: B9
    #[tokio::test(start_paused = true)]
    async fn response_that_never_ends_also_times_out() {
        let endless = tower::service_fn(|_: Request<Body>| async {
            let body = http_body_util::StreamBody::new(futures::stream::pending::<
                Result<hyper::body::Frame<bytes::Bytes>, std::io::Error>,
            >());
            Ok::<_, BoxError>(Response::new(body))
        });
        let start = Instant::now();
        let client = bounded(&Client::new(endless, "default"));
        maps(client).list(&ListParams::default()).await.unwrap_err();
        assert_eq!(start.elapsed(), CALL_WITHIN);
    }

    // Claims: B9
    #[tokio::test(start_paused = true)]
    async fn watch_outlasts_call_limit_and_responses_pass_unchanged() {
        let api = FakeApi::default();
        api.put(
            "/api/v1/namespaces/mesh/configmaps/one",
            json!({"metadata": {"name": "one", "namespace": "mesh"}, "data": {"a": "b"}}),
        );
        let client = bounded(&api.client());
        let map = maps(client.clone()).get("one").await.unwrap();
        assert_eq!(map.data.unwrap()["a"], "b");
        let missing = maps(client).get_opt("two").await.unwrap();
        assert_eq!(missing, None, "a refusal is an answer");

        let pending = tower::service_fn(|_: Request<Body>| async {
            let body = http_body_util::StreamBody::new(futures::stream::pending::<
                Result<hyper::body::Frame<bytes::Bytes>, std::io::Error>,
            >());
            Ok::<_, BoxError>(Response::new(body))
        });
        let client = bounded(&Client::new(pending, "default"));
        let request = Request::get("/api/v1/configmaps?watch=true&timeoutSeconds=60");
        let answer = client
            .send(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let more = tokio::time::timeout(CALL_WITHIN * 2, answer.into_body().collect_bytes());
        assert!(more.await.is_err(), "the watch is still open");
    }
}
