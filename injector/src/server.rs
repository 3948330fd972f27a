//! The HTTPS server that the API server calls.
//!
//! Everybody in the cluster can reach it, and the API server shows no certificate
//! here. So all that tells callers apart is their address, and everything is shared by
//! address: connections, bytes, and what is read at one time. Where there is not
//! enough, the address that holds most gives way. The API server holds next to
//! nothing, so a flood may delay it, and neither shuts it out nor exhausts this
//! process.
//!
//! Bytes are counted from the first one of a body until the last one of the answer has
//! been taken, with what a body takes in memory once it is read: that can be a hundred
//! times its length.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::{
    conn::auto,
    graceful::{GracefulShutdown, Watcher},
};
use runtime::accept;
use runtime::pool::{Limits, Pool, Share};
use runtime::rate::{Allowance, Rates};
use runtime::turns::Turns;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
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
/// Bytes of all calls at one time, and what they take once they are read. With 128 MiB
/// for the process this leaves 40 MiB for connections and everything else.
const MEMORY: Limits = Limits {
    total: 88 * 1024 * 1024,
    per_holder: 88 * 1024 * 1024,
};
/// What one call may take once it is read. The largest object that etcd takes, with its
/// former state, has about 60 MiB.
const MAX_COST: usize = 64 * 1024 * 1024;
/// Calls that are answered at one time, and those of one address.
const MAX_CALLS: (usize, usize) = (32, 24);
/// Connections at one time: a few API servers, with a few connections each, and room.
const CONNECTIONS: Limits = Limits {
    total: 128,
    per_holder: 64,
};
/// New connections of one address. API servers keep theirs.
const ARRIVALS: Allowance = Allowance {
    burst: 200,
    every: Duration::from_millis(10),
};
/// Addresses whose connections are counted at one time.
const MAX_SOURCES: usize = 4096;
/// Streams on one HTTP/2 connection. More than [`MAX_CALLS`], so that one API server
/// can use them all and the rest queues here and not there.
const MAX_STREAMS: u32 = 64;
/// Bytes of one call, and of all calls of a connection, that wait to be read. They are
/// read as they come.
const WINDOWS: (u32, u32) = (64 * 1024, 256 * 1024);
/// Time for one call, from its head to its answer. The webhooks are configured with 5 s,
/// and an answer that says why is better than none.
const CALL_TIMEOUT: Duration = Duration::from_millis(4500);
/// Time to take an answer: the API server has given up by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are given to the connection at once.
const PIECE: usize = 16 * 1024;
/// Time for a TLS handshake, and for the head of an HTTP/1 request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of all headers of one call.
const MAX_HEADERS: u32 = 16 * 1024;

/// What answers the calls.
pub(crate) struct Webhooks {
    mutator: Mutator,
    cluster_domain: String,
    metrics: Metrics,
    turns: Turns<IpAddr>,
    memory: Pool<IpAddr>,
}

impl Webhooks {
    pub(crate) fn new(mutator: Mutator, cluster_domain: String, metrics: Metrics) -> Self {
        Self {
            mutator,
            cluster_domain,
            turns: Turns::new(MAX_CALLS.0, MAX_CALLS.1),
            memory: Pool::new(MEMORY, metrics.limits.counter("memory")),
            metrics,
        }
    }
}

/// One open connection.
struct Caller {
    source: IpAddr,
    place: Share<IpAddr>,
    memory: Share<IpAddr>,
    /// An answer was not taken in time.
    stuck: Notify,
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
    let limits = &webhooks.metrics.limits;
    let places = Pool::new(CONNECTIONS, limits.counter("connections"));
    let arrivals: Rates<IpAddr> = Rates::new(ARRIVALS, MAX_SOURCES);
    let too_often = limits.counter("connection-rate");
    let mut stop = pin!(stop);
    loop {
        let (stream, addr) = tokio::select! {
            accepted = accept::next(&listener, "webhooks") => accepted,
            () = &mut stop => break,
        };
        let source = addr.ip().to_canonical();
        if arrivals.take(&source, Instant::now()).is_err() {
            too_often.inc();
            continue;
        }
        let (Ok(place), Ok(memory)) = (places.take(source, 1), webhooks.memory.take(source, 0))
        else {
            continue;
        };
        let caller = Arc::new(Caller {
            source,
            place,
            memory,
            stuck: Notify::new(),
        });
        let (acceptor, webhooks) = (acceptor.clone(), Arc::clone(&webhooks));
        let watcher = graceful.watcher();
        tokio::spawn(attend(stream, addr, acceptor, webhooks, caller, watcher));
    }
    drop(listener);
    let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
}

/// One connection, from its handshake to its end.
async fn attend(
    stream: TcpStream,
    addr: SocketAddr,
    acceptor: TlsAcceptor,
    webhooks: Arc<Webhooks>,
    caller: Arc<Caller>,
    watcher: Watcher,
) {
    tokio::select! {
        () = converse(stream, acceptor, webhooks, Arc::clone(&caller), watcher) => {}
        () = caller.place.taken() => debug!(%addr, "connection closed: there are too many"),
        () = caller.memory.taken() => {
            warn!(%addr, "connection closed: its calls hold most of the memory, and others need some");
        }
        () = caller.stuck.notified() => debug!(%addr, "connection closed: it took no answer"),
    }
}

async fn converse(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    webhooks: Arc<Webhooks>,
    caller: Arc<Caller>,
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
        let caller = Arc::clone(&caller);
        async move { Ok::<_, Infallible>(webhooks.call(request, caller).await) }
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
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_header_list_size(MAX_HEADERS);
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    if let Err(error) = watcher.watch(connection).await {
        debug!(%error, "connection ended");
    }
}

/// Bytes that a call has of its connection's share, given back when it is dropped.
struct Held {
    caller: Arc<Caller>,
    bytes: usize,
}

impl Held {
    fn new(caller: Arc<Caller>) -> Self {
        caller.place.begin();
        Self { caller, bytes: 0 }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Box<Outcome>> {
        self.caller.memory.grow(bytes).map_err(|_| {
            refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "overload",
                "too many bytes at once, try again",
            )
        })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Goes on with so many bytes at most.
    fn shrink_to(&mut self, bytes: usize) {
        self.caller.memory.shrink(self.bytes.saturating_sub(bytes));
        self.bytes = self.bytes.min(bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
        self.caller.place.end();
    }
}

/// The body of an answer, which counts until it has been taken. In pieces: what a
/// connection has been given it holds, whether its peer reads or not.
pub(crate) struct Answer {
    rest: Bytes,
    _held: Held,
    timer: AbortHandle,
}

impl Answer {
    fn new(body: Bytes, mut held: Held) -> Self {
        held.shrink_to(body.len());
        let caller = Arc::clone(&held.caller);
        let timer = tokio::spawn(async move {
            tokio::time::sleep(ANSWER_TIMEOUT).await;
            caller.stuck.notify_one();
        });
        Self {
            rest: body,
            _held: held,
            timer: timer.abort_handle(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Reads a body as it comes, counting it.
async fn read(mut body: Incoming, most: usize, held: &mut Held) -> Result<Vec<u8>, Box<Outcome>> {
    let too_large = || {
        refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "the body is too large",
        )
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(refused(
                StatusCode::BAD_REQUEST,
                "broken",
                "the body broke off",
            ));
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len() + data.len() > most {
            return Err(too_large());
        }
        // A growing list has up to twice what is in it.
        held.grow(2 * data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok(whole)
}

/// How a call ended, in the words of the metrics.
struct Outcome {
    response: Response<Bytes>,
    outcome: &'static str,
    reason: &'static str,
}

impl Webhooks {
    async fn call(&self, request: Request<Incoming>, caller: Arc<Caller>) -> Response<Answer> {
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
        let mut held = Held::new(caller);
        let answer = self.answer(path, request, &mut held);
        let answer = tokio::time::timeout(CALL_TIMEOUT, answer).await;
        let outcome = match answer {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(outcome)) => *outcome,
            Err(_) => failure(
                StatusCode::SERVICE_UNAVAILABLE,
                "timeout",
                "the call took too long",
            ),
        };
        self.metrics
            .review(path, outcome.outcome, outcome.reason, began.elapsed());
        outcome.response.map(|body| Answer::new(body, held))
    }

    /// The answer, or why there is none.
    async fn answer(
        &self,
        path: &'static str,
        request: Request<Incoming>,
        held: &mut Held,
    ) -> Result<Outcome, Box<Outcome>> {
        if path == "other" {
            let message = "no such page";
            return Err(refused(StatusCode::NOT_FOUND, "no-such-path", message));
        }
        if request.method() != Method::POST {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Err(refused(status, "bad-method", "use POST"));
        }
        let conversion = path == "convert";
        let most = if conversion { MAX_CONVERSION } else { MAX_BODY };
        // Before the turn: a body that comes slowly holds its own bytes and nothing else.
        let body = read(request.into_body(), most, held).await?;
        let _turn = self.turns.take(held.caller.source).await;
        let cost = review::cost(&body);
        // Of a conversion one object is read at a time, and converted into another; the
        // answer grows beside them.
        let cost = if conversion {
            2 * cost.part + 2 * body.len()
        } else {
            cost.whole
        };
        if cost > MAX_COST {
            return Err(refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "reading this body would take too much memory: it holds too many values",
            ));
        }
        held.grow(cost)?;
        if conversion {
            return Ok(converted(&body));
        }
        let review = match review::parse(&body) {
            Ok(review) => review,
            Err(error) => {
                let message = error.to_string();
                return Err(refused(StatusCode::BAD_REQUEST, "bad-review", &message));
            }
        };
        drop(body);
        Ok(match path {
            "mutate" => self.mutate(&review).await,
            "account" => judged(account::check(&review), &review.uid),
            "ephemeral" => judged(ephemeral::check(&review), &review.uid),
            "spelling" => judged(spelling::check(&review), &review.uid),
            _ => {
                let answer = validate::validate(&review, &self.cluster_domain);
                judged(answer, &review.uid)
            }
        })
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

fn converted(body: &[u8]) -> Outcome {
    match convert::answer(body) {
        Ok(converted) => {
            if let Some(message) = converted.refusal {
                warn!(message, "objects could not be converted");
            }
            Outcome {
                response: json(converted.review.into()),
                outcome: converted.outcome,
                reason: converted.reason,
            }
        }
        Err(error) => failure(StatusCode::BAD_REQUEST, "bad-review", &error.to_string()),
    }
}

fn answered(review: &serde_json::Value) -> Response<Bytes> {
    json(review.to_string().into())
}

fn json(body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// The same, for `?`.
fn refused(status: StatusCode, reason: &'static str, message: &str) -> Box<Outcome> {
    Box::new(failure(status, reason, message))
}

/// A call without an answer: the webhook's failure policy decides.
fn failure(status: StatusCode, reason: &'static str, message: &str) -> Outcome {
    let mut response = Response::new(Bytes::from(format!("{message}\n")));
    *response.status_mut() = status;
    Outcome {
        response,
        outcome: "failed",
        reason,
    }
}

#[cfg(test)]
mod tests;
