//! The dashboard's local HTTP server: accepts connections, and guards, parses and handles each
//! request.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::guard::{Guard, Refused};
use super::request::{PageRequest, Unknown};
use super::response::{self, PageResponse};
use crate::cluster::{Cluster, Refusal};
use crate::commands::explain;

/// A browser opens six to one host. More wait until one of these has ended, or evict one that has
/// not sent a request with the key yet.
const CONNECTIONS: usize = 32;
/// Requests to the API server at a time; the others wait for their turn.
const QUESTIONS: usize = 8;
/// Explanations at a time, fewer than a browser's connections and than requests, so that the page
/// goes on while some take long. More are refused: waiting, they would hold connections.
const EXPLANATIONS: usize = 4;
/// Taps at a time: fewer than a browser's connections, so that the page goes on. More are
/// refused.
const TAPS: usize = 3;
/// Head of a request. A query about a call carries its path, which HTTP servers bound to 8 KiB.
const MAX_HEAD: usize = 32 << 10;
/// For a head to arrive, also the first one of a connection or the next.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Age below which a connection without a head is not evicted: connections that arrived together
/// are not read yet.
const HEAD_GRACE: Duration = Duration::from_millis(10);
/// Age at which a connection ends after its response, and the time for that, which is longer than
/// the controller lets a tap go on; so one whose other end does not read is not held for ever.
const LIFE: Duration = Duration::from_secs(300);
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// After a connection that could not be taken.
const AGAIN_IN: Duration = Duration::from_millis(100);
/// Bytes of one response of the API server. A graph of 20 000 edges is below 16 MiB.
const MAX_ANSWER: usize = 32 << 20;

/// What is served.
#[derive(Clone)]
pub(super) struct Site(Arc<Parts>);

struct Parts {
    cluster: Cluster,
    guard: Guard,
    questions: Semaphore,
    explanations: Semaphore,
    taps: Arc<Semaphore>,
}

impl Site {
    pub(super) fn new(cluster: Cluster, guard: Guard) -> Self {
        let questions = Semaphore::new(QUESTIONS);
        Self(Arc::new(Parts {
            cluster,
            guard,
            questions,
            explanations: Semaphore::new(EXPLANATIONS),
            taps: Arc::new(Semaphore::new(TAPS)),
        }))
    }
}

/// A connection over which no request with the key has come yet: any program may send others. A
/// browser opens some in advance, and others when these are closed.
struct Keyless {
    had_key: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Keyless {
    fn is_still(&self) -> bool {
        !self.task.is_finished() && !self.had_key.load(Ordering::Relaxed)
    }
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: &TcpListener, site: &Site) -> Infallible {
    let mut connections = JoinSet::new();
    // The oldest first.
    let mut keyless: VecDeque<Keyless> = VecDeque::new();
    loop {
        keyless.retain(Keyless::is_still);
        let has_place = connections.len() < CONNECTIONS || !keyless.is_empty();
        tokio::select! {
            accepted = listener.accept(), if has_place => match accepted {
                Ok((stream, _)) => {
                    while connections.len() >= CONNECTIONS {
                        sleep(HEAD_GRACE).await;
                        // Those that were refused have mostly ended by then.
                        if connections.try_join_next().is_some() {
                            continue;
                        }
                        keyless.retain(Keyless::is_still);
                        if let Some(oldest) = keyless.pop_front() {
                            oldest.task.abort();
                        }
                        connections.join_next().await;
                    }
                    let had_key = Arc::new(AtomicBool::new(false));
                    let served = connection(stream, site.clone(), Arc::clone(&had_key));
                    #[expect(clippy::disallowed_methods, reason = "its panic ends one connection")]
                    let task = connections.spawn(served);
                    keyless.push_back(Keyless { had_key, task });
                }
                // One that was gone before it was taken, or no descriptor is left just now.
                Err(_) => sleep(AGAIN_IN).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, site: Site, had_key: Arc<AtomicBool>) {
    let service = service_fn(move |request| {
        let (site, had_key) = (site.clone(), Arc::clone(&had_key));
        async move { Ok::<_, Infallible>(site.answer(&request, &had_key).await) }
    });
    let mut serving = http1::Builder::new();
    serving
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_header_size(MAX_HEAD);
    let connection = serving.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // How a browser leaves is its own affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = sleep(LIFE) => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(LAST_ANSWER_WITHIN, connection).await;
        }
    }
}

impl Site {
    /// Notes in `had_key` that it came with the key.
    async fn answer<B>(&self, request: &Request<B>, had_key: &AtomicBool) -> PageResponse {
        let Parts {
            cluster,
            guard,
            questions,
            explanations,
            taps,
        } = &*self.0;
        if let Err(refused) = guard.admit(request) {
            let status = match refused {
                Refused::Method => StatusCode::METHOD_NOT_ALLOWED,
                _ => StatusCode::FORBIDDEN,
            };
            return response::last(response::failure(status, &refused.to_string()));
        }
        let uri = request.uri();
        let page_request = match PageRequest::read(uri.path(), uri.query()) {
            Ok(page_request) => page_request,
            Err(unknown) => {
                let status = match unknown {
                    Unknown::Path => StatusCode::NOT_FOUND,
                    Unknown::Parameter(_) => StatusCode::BAD_REQUEST,
                };
                return response::failure(status, &unknown.to_string());
            }
        };
        if page_request.needs_key() {
            if let Err(refused) = guard.admit_to_cluster(request) {
                let failure = response::failure(StatusCode::FORBIDDEN, &refused.to_string());
                return response::last(failure);
            }
            had_key.store(true, Ordering::Relaxed);
        }
        let permit = match &page_request {
            PageRequest::Explain(_) => explanations.try_acquire().map(Some),
            _ => Ok(None),
        };
        let Ok(_permit) = permit else {
            let words = format!(
                "{EXPLANATIONS} calls are being explained already; ask again when one is answered"
            );
            return response::failure(StatusCode::TOO_MANY_REQUESTS, &words);
        };
        let Ok(_turn) = questions.acquire().await else {
            return response::failure(StatusCode::SERVICE_UNAVAILABLE, "weft dashboard ends");
        };
        match page_request {
            PageRequest::File(file) => response::file(file),
            PageRequest::Start => response::json(start(cluster)),
            PageRequest::Read { what, path } => read(cluster, &what, &path).await,
            PageRequest::Watch { what, path } => watched(cluster, taps, &what, &path).await,
            PageRequest::Explain(spec) => explained(cluster, *spec).await,
        }
    }
}

/// Where the user is, so that the page begins there.
fn start(cluster: &Cluster) -> Bytes {
    let all = cluster.scope().is_none();
    let version = env!("CARGO_PKG_VERSION");
    let start = json!({
        "namespace": cluster.namespace(),
        "named": cluster.is_named(),
        "all": all,
        "version": version,
    });
    start.to_string().into()
}

async fn read(cluster: &Cluster, what: &str, path: &str) -> PageResponse {
    match cluster.try_read_bytes(what, path, MAX_ANSWER).await {
        Ok(bytes) => response::json(bytes),
        Err(refusal) => refused(refusal),
    }
}

/// A tap that has started takes no permit of the requests, but one of its own.
async fn watched(cluster: &Cluster, taps: &Arc<Semaphore>, what: &str, path: &str) -> PageResponse {
    let Ok(permit) = Arc::clone(taps).try_acquire_owned() else {
        let words = format!("{TAPS} taps go on already; start again when one was stopped");
        return response::failure(StatusCode::TOO_MANY_REQUESTS, &words);
    };
    match cluster.stream(what, path).await {
        Ok(body) => response::lines(body, permit),
        Err(refusal) => refused(refusal),
    }
}

/// The API server's own status and message, when to retry and what is missing; 502 if it did not
/// respond, or redirected the request.
fn refused(refusal: Refusal) -> PageResponse {
    let again_in = refusal.passes_in();
    let missing = refusal.missing().map(str::to_owned);
    let status = refusal
        .code()
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| status.is_client_error() || status.is_server_error());
    let status = status.unwrap_or(StatusCode::BAD_GATEWAY);
    let words = refusal.into_failure().to_string();
    response::refusal(status, &words, again_in, missing.as_deref())
}

/// Nothing is stored by this `create`: it is how the read API takes a query.
async fn explained(cluster: &Cluster, spec: crds::observe::ExplanationSpec) -> PageResponse {
    let explanation = match explain::try_explain(cluster, spec).await {
        Ok(explanation) => explanation,
        Err(refusal) => return refused(refusal),
    };
    let status = explanation.status.clone().unwrap_or_default();
    match explain::yaml(&status.fix.unwrap_or_default()) {
        Ok(yaml) => {
            let answer = json!({"explanation": explanation, "yaml": yaml});
            response::json(answer.to_string().into())
        }
        Err(failure) => response::failure(StatusCode::BAD_GATEWAY, &failure.to_string()),
    }
}

#[cfg(test)]
mod tests;
