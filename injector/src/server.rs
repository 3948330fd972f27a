//! The HTTPS server that the API server calls.
//!
//! Everybody in the cluster can reach it, so everything is bounded: connections,
//! calls, bytes and time. A flood may delay the API server, it cannot exhaust
//! this process.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::{
    conn::auto,
    graceful::{GracefulShutdown, Watcher},
};
use runtime::accept;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::metrics::Metrics;
use crate::mutate::Mutator;
use crate::{account, convert, ephemeral, review, spelling, validate};

/// Bytes of one call. The API server's own limit for a request is 3 MiB.
pub(crate) const MAX_BODY: usize = 3 * 1024 * 1024;
/// Bytes of one conversion, which may hold many objects. etcd takes 1.5 MiB for one, and
/// the API server mostly asks for one at a time.
pub(crate) const MAX_CONVERSION: usize = 16 * 1024 * 1024;
/// Conversions that are read and answered at one time; with [`MAX_CONVERSION`] and what
/// their objects take once read, what they can hold in memory.
const MAX_CONVERSIONS: usize = 4;
/// Calls that are read and answered at one time; with [`MAX_BODY`], what they can
/// hold in memory.
const MAX_CALLS: usize = 32;
/// Connections at one time: a few API servers, with a few connections each, and room.
const MAX_CONNECTIONS: usize = 128;
/// Streams on one HTTP/2 connection. More than [`MAX_CALLS`], so that one API server
/// can use them all and the rest queues here and not there.
const MAX_STREAMS: u32 = 64;
/// Time for one call, from its head to its answer. The webhooks are configured with 5 s,
/// and an answer that says why is better than none.
const CALL_TIMEOUT: Duration = Duration::from_millis(4500);
/// Time for a TLS handshake, and for the head of an HTTP/1 request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of all headers of one call.
const MAX_HEADERS: u32 = 16 * 1024;

/// What answers the calls.
pub(crate) struct Webhooks {
    mutator: Mutator,
    metrics: Metrics,
    calls: Semaphore,
    conversions: Semaphore,
}

impl Webhooks {
    pub(crate) fn new(mutator: Mutator, metrics: Metrics) -> Self {
        Self {
            mutator,
            metrics,
            calls: Semaphore::new(MAX_CALLS),
            conversions: Semaphore::new(MAX_CONVERSIONS),
        }
    }
}

/// One open connection, as the accept loop sees it.
struct Connection {
    task: AbortHandle,
    state: Arc<ConnectionState>,
}

#[derive(Default)]
struct ConnectionState {
    /// Calls that have no answer yet.
    busy: AtomicUsize,
    /// Whether a well-formed review ever came.
    proven: AtomicBool,
}

/// Accepts until `stop` ends, then lets open connections finish for `grace`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    webhooks: Arc<Webhooks>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) {
    let acceptor = TlsAcceptor::from(tls);
    let graceful = GracefulShutdown::new();
    let mut open: VecDeque<Connection> = VecDeque::with_capacity(MAX_CONNECTIONS);
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, _peer) = tokio::select! {
            accepted = accept::next(&listener, "webhooks") => accepted,
            () = &mut stop => break,
        };
        open.retain(|connection| !connection.task.is_finished());
        if open.len() >= MAX_CONNECTIONS && !make_room(&mut open) {
            continue;
        }
        let state = Arc::new(ConnectionState::default());
        let conversation = converse(
            stream,
            acceptor.clone(),
            Arc::clone(&webhooks),
            Arc::clone(&state),
            graceful.watcher(),
        );
        let task = tokio::spawn(conversation).abort_handle();
        open.push_back(Connection { task, state });
    }
    drop(listener);
    let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
}

/// Closes the oldest connection that is not in use, first among those that never
/// said anything sensible; false when all are in use.
fn make_room(open: &mut VecDeque<Connection>) -> bool {
    let idle = |c: &Connection| c.state.busy.load(Ordering::Relaxed) == 0;
    let proven = |c: &Connection| c.state.proven.load(Ordering::Relaxed);
    let victim = open
        .iter()
        .position(|c| idle(c) && !proven(c))
        .or_else(|| open.iter().position(idle));
    match victim.and_then(|index| open.remove(index)) {
        Some(connection) => {
            connection.task.abort();
            debug!("webhook port is full, an idle connection was closed");
            true
        }
        None => false,
    }
}

async fn converse(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    webhooks: Arc<Webhooks>,
    state: Arc<ConnectionState>,
    watcher: Watcher,
) {
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            debug!(%error, "handshake failed");
            return;
        }
        Err(_) => return,
    };
    let service = service_fn(move |request| {
        let webhooks = Arc::clone(&webhooks);
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(webhooks.call(request, &state).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT)
        .max_buf_size(MAX_HEADERS as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "connection ended");
    }
}

/// How a call ended, in the words of the metrics.
struct Outcome {
    response: Response<Full<Bytes>>,
    outcome: &'static str,
    reason: &'static str,
}

impl Webhooks {
    async fn call(
        &self,
        request: Request<Incoming>,
        state: &ConnectionState,
    ) -> Response<Full<Bytes>> {
        let began = Instant::now();
        let path = match request.uri().path() {
            "/mutate" => "mutate",
            "/validate" => "validate",
            "/account" => "account",
            "/ephemeral" => "ephemeral",
            "/spelling" => "spelling",
            "/convert" => "convert",
            _ => "other",
        };
        state.busy.fetch_add(1, Ordering::Relaxed);
        let _busy = Busy(&state.busy);
        let answer = tokio::time::timeout(CALL_TIMEOUT, self.answer(path, request, state));
        let outcome = answer.await.unwrap_or_else(|_| {
            failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "timeout",
                "the call took too long",
            )
        });
        self.metrics
            .review(path, outcome.outcome, outcome.reason, began.elapsed());
        outcome.response
    }

    async fn answer(
        &self,
        path: &'static str,
        request: Request<Incoming>,
        state: &ConnectionState,
    ) -> Outcome {
        if path == "other" {
            return failure(StatusCode::NOT_FOUND, "no-such-path", "no such page");
        }
        if request.method() != Method::POST {
            return failure(StatusCode::METHOD_NOT_ALLOWED, "bad-method", "use POST");
        }
        // Closing the semaphore is nobody's business, so this waits at most for the
        // call's time limit.
        let (places, most) = if path == "convert" {
            (&self.conversions, MAX_CONVERSION)
        } else {
            (&self.calls, MAX_BODY)
        };
        let Ok(_place) = places.acquire().await else {
            return failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "overload",
                "too many calls",
            );
        };
        let body = match Limited::new(request.into_body(), most).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return failure(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-large",
                    "the body is too large",
                );
            }
            Err(_) => return failure(StatusCode::BAD_REQUEST, "broken", "the body broke off"),
        };
        if path == "convert" {
            return converted(&body, state);
        }
        let review = match review::parse(&body) {
            Ok(review) => review,
            Err(error) => {
                return failure(StatusCode::BAD_REQUEST, "bad-review", &error.to_string());
            }
        };
        drop(body);
        state.proven.store(true, Ordering::Relaxed);
        match path {
            "mutate" => self.mutate(&review).await,
            "account" => judged(account::check(&review), &review.uid),
            "ephemeral" => judged(ephemeral::check(&review), &review.uid),
            "spelling" => judged(spelling::check(&review), &review.uid),
            _ => judged(validate::validate(&review), &review.uid),
        }
    }

    async fn mutate(&self, review: &review::Request) -> Outcome {
        match self.mutator.mutate(review).await {
            Ok(mutation) => Outcome {
                response: answered(&mutation.answer.into_review(&review.uid)),
                outcome: mutation.outcome,
                reason: mutation.reason,
            },
            Err(error) => {
                warn!(%error, namespace = review.namespace, "namespace could not be read");
                // Without the API server's words: whoever asks may not read them himself.
                let message = "weft could not read the namespace; the injector's log says why";
                failure(StatusCode::SERVICE_UNAVAILABLE, "no-namespace", message)
            }
        }
    }
}

/// Counts a call as open for as long as it lives, also when it is dropped half-way.
struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn judged(answer: review::Answer, uid: &str) -> Outcome {
    let outcome = if answer.refusal.is_none() {
        "valid"
    } else {
        "invalid"
    };
    Outcome {
        response: answered(&answer.into_review(uid)),
        outcome,
        reason: "",
    }
}

fn converted(body: &[u8], state: &ConnectionState) -> Outcome {
    match convert::answer(body) {
        Ok(converted) => {
            state.proven.store(true, Ordering::Relaxed);
            if let Some(message) = refusal(&converted.review) {
                warn!(message, "objects could not be converted");
            }
            Outcome {
                response: answered(&converted.review),
                outcome: converted.outcome,
                reason: converted.reason,
            }
        }
        Err(error) => failure(StatusCode::BAD_REQUEST, "bad-review", &error.to_string()),
    }
}

/// Why a conversion failed, if it did.
fn refusal(review: &serde_json::Value) -> Option<&str> {
    let result = review.pointer("/response/result")?;
    let failed = result.get("status")?.as_str()? == "Failure";
    failed.then(|| result.get("message")?.as_str()).flatten()
}

fn answered(review: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(review.to_string())));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// A call without an answer: the webhook's failure policy decides.
fn failure(status: StatusCode, reason: &'static str, message: &str) -> Outcome {
    let mut response = Response::new(Full::new(Bytes::from(format!("{message}\n"))));
    *response.status_mut() = status;
    Outcome {
        response,
        outcome: "failed",
        reason,
    }
}

#[cfg(test)]
mod tests;
