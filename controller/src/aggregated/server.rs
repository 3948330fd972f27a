//! The HTTPS server that the API server calls, for every aggregated API of ours.
//!
//! Every pod can reach it, so everything is bounded: connections, calls, bytes and time. A client
//! without a certificate of the API server gets a refusal and nothing else. Such clients have
//! permits of their own, so that no number of them costs the API server a connection: while it
//! cannot reach an API, no namespace of the cluster can be deleted.
//!
//! Each API has permits of its own for its calls, so that none starves another. The memory and the
//! time of responses that are being sent are bounded for all of them together.

use std::convert::Infallible;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use identity::front_proxy::common_name;
use prometheus_client::metrics::counter::Counter;
use runtime::https::{self, Bounds, HttpsListener};
use runtime::limit::Reached;
use runtime::pool::{Limits, Pool, Share};
use runtime::rate::Allowance;
use runtime::stop;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::bodies::{AnswerBudget, PacedBody};
use super::front_proxy::{self, User};
use super::pace::{Streams, patiently};
use super::permits::Permits;
use super::refusal::Refusal;

/// Connections of the API servers at one time: a few, with a few connections each, and
/// room.
const PROVEN: Limits = Limits {
    total: 128,
    per_holder: 128,
};
/// Connections whose handshake has not ended, or has proven nothing.
const UNPROVEN: Limits = Limits {
    total: 128,
    per_holder: 32,
};
/// From accepting to the end of such a connection.
const UNPROVEN_LIFE: Duration = Duration::from_secs(10);
/// New connections of one address. API servers keep theirs.
const ARRIVALS: Allowance = Allowance {
    burst: 100,
    every: Duration::from_millis(20),
};
/// Streams on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Streams on the connection of any other client.
const MAX_UNPROVEN_STREAMS: u32 = 2;
/// Bytes of all headers of one call. A user may be in many groups.
const MAX_HEADERS: u32 = 64 * 1024;
/// The same of any other client.
const MAX_UNPROVEN_HEADERS: u32 = 8 * 1024;
/// Bytes of bodies that wait to be read on one connection: no client sends any.
const WINDOW: u32 = 16 * 1024;
/// Bytes of one answer that wait for the network.
const MAX_SENT: usize = 64 * 1024;
/// Time for a TLS handshake, and for the head of an HTTP/1 request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one call, which may wait for others.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Body of an answer: whole, or a stream.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
/// An answer.
pub(crate) type ApiResponse = Response<Body>;

/// One API behind the port.
pub(crate) trait Handler: Debug + Send + Sync {
    /// Its group.
    fn group(&self) -> &'static str;

    /// What it publishes about itself: the group, as discovery shows it.
    fn discovery(&self) -> Value;

    /// Its part of `/openapi/v2`.
    fn openapi_v2(&self) -> Value;

    /// Its part of `/openapi/v3`.
    fn openapi_v3(&self) -> Value;

    /// Answers a call below `/apis/<group>` or `/openapi/v3/apis/<group>` on behalf of a
    /// user whom the API server passed on, and counts it. See [`given`].
    fn call(
        self: Arc<Self>,
        user: User,
        request: Request<Incoming>,
    ) -> BoxFuture<'static, ApiResponse>;

    /// Counts a call that was answered without it.
    fn refused(&self, status: StatusCode);
}

/// What the port serves, and to which clients.
#[derive(Debug)]
pub(crate) struct Apis {
    /// The first answers what belongs to none.
    pub handlers: Vec<Arc<dyn Handler>>,
    /// How the API server calls.
    pub front: front_proxy::LatestTrusted,
    /// What bodies of answers may take.
    pub answers: AnswerBudget,
    /// Connections that were closed or rejected because too many were open.
    pub turned_away: Counter,
}

/// An API and the permits of its calls.
#[derive(Clone, Debug)]
struct Served {
    handler: Arc<dyn Handler>,
    permits: Arc<Permits>,
}

/// Serves `listener` until `stop` says true.
pub(crate) async fn serve(
    listener: TcpListener,
    apis: Apis,
    limits: &Reached,
    stop: watch::Receiver<bool>,
) {
    let too_often = limits.counter("metrics-api-connection-rate");
    let no_file = limits.counter("open-files");
    let listener = HttpsListener::new(listener, "aggregated APIs", ARRIVALS, too_often, no_file);
    let unproven = Pool::new(UNPROVEN, limits.counter("metrics-api-unproven-connections"));
    let port = Port {
        proven: Pool::new(PROVEN, limits.counter("metrics-api-connections")),
        apis: apis
            .handlers
            .into_iter()
            .map(|handler| Served {
                handler,
                permits: Arc::default(),
            })
            .collect(),
        front: apis.front,
        answers: apis.answers,
        lost_readers: limits.counter("answer-readers"),
        turned_away: apis.turned_away,
        stop: stop.clone(),
    };
    let mut stop = pin!(stop::requested(stop));
    loop {
        let admitted = tokio::select! {
            admitted = listener.next() => admitted,
            () = &mut stop => return,
        };
        let Ok((stream, addr)) = admitted else {
            port.turned_away.inc();
            continue;
        };
        match unproven.take(https::source(addr), 1) {
            Ok(permit) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "one connection's: its panic ends that connection only"
                )]
                tokio::spawn(port.clone().attend(stream, addr, permit));
            }
            Err(_) => {
                port.turned_away.inc();
            }
        }
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Port {
    apis: Arc<[Served]>,
    front: front_proxy::LatestTrusted,
    answers: AnswerBudget,
    /// Those that were cut because they took too long.
    lost_readers: Counter,
    turned_away: Counter,
    /// By address.
    proven: Pool<IpAddr>,
    stop: watch::Receiver<bool>,
}

impl Port {
    /// One connection, from its handshake to its end.
    async fn attend(self, stream: TcpStream, addr: SocketAddr, permit: Share<IpAddr>) {
        let until = Instant::now() + UNPROVEN_LIFE;
        let trusted = self.front.borrow().clone();
        // No client can be verified yet: closing is the only honest answer.
        let Some(trusted) = trusted else { return };
        let acceptor = TlsAcceptor::from(Arc::clone(&trusted.tls));
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        let stream = tokio::select! {
            shaken = handshake => match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return debug!(%addr, %error, "aggregated APIs: handshake failed"),
                Err(_) => return,
            },
            () = permit.taken() => return self.turned_away(addr),
            () = stop::requested(self.stop.clone()) => return,
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let name: Option<Arc<str>> = certificates
            .first()
            .map(|leaf| common_name(leaf).unwrap_or_default().into());
        let stop = stop::requested(self.stop.clone());
        if trusted.front.knows(name.as_deref()).is_err() {
            let bounds = (MAX_UNPROVEN_STREAMS, MAX_UNPROVEN_HEADERS);
            tokio::select! {
                () = self.serve_connection(stream, trusted, name, bounds) => {}
                () = permit.taken() => self.turned_away(addr),
                () = sleep_until(until) => debug!(%addr, "aggregated APIs: no API server, closed"),
                () = stop => {}
            }
            return;
        }
        let Ok(proven) = self.proven.take(addr.ip().to_canonical(), 1) else {
            return self.turned_away(addr);
        };
        drop(permit);
        tokio::select! {
            () = self.serve_connection(stream, trusted, name, (MAX_STREAMS, MAX_HEADERS)) => {}
            () = proven.taken() => self.turned_away(addr),
            () = stop => {}
        }
    }

    /// Answers the calls of one connection.
    async fn serve_connection(
        &self,
        stream: TlsStream<TcpStream>,
        trusted: Arc<front_proxy::Trusted>,
        name: Option<Arc<str>>,
        (streams, headers): (u32, u32),
    ) {
        let (apis, answers) = (Arc::clone(&self.apis), self.answers.clone());
        let service = service_fn(move |request| {
            // Judged by the rules under which its certificate was verified.
            let (apis, name, trusted) = (Arc::clone(&apis), name.clone(), Arc::clone(&trusted));
            let answers = answers.clone();
            async move {
                let user = trusted.front.user(name.as_deref(), request.headers());
                Ok::<_, Infallible>(answer(&apis, &answers, user, request).await)
            }
        });
        let bounds = Bounds {
            handshake: HANDSHAKE_TIMEOUT,
            streams,
            headers,
            windows: (WINDOW, WINDOW),
        };
        let streams = Streams {
            cut: self.lost_readers.clone(),
        };
        let mut builder = bounds.http_on(streams);
        builder.http2().max_send_buf_size(MAX_SENT);
        let served = builder.serve_connection(TokioIo::new(stream), service);
        match patiently(served).await {
            Some(Ok(())) => {}
            Some(Err(error)) => debug!(%error, "aggregated APIs: connection ended"),
            None => {
                self.lost_readers.inc();
                debug!("aggregated APIs: connection closed, its reader took too long");
            }
        }
    }

    fn turned_away(&self, addr: SocketAddr) {
        self.turned_away.inc();
        debug!(%addr, "aggregated APIs: connection closed, there are too many");
    }
}

/// Answers one call.
async fn answer(
    apis: &[Served],
    answers: &AnswerBudget,
    user: Result<User, front_proxy::Stranger>,
    request: Request<Incoming>,
) -> Response<PacedBody> {
    let path = request.uri().path();
    let Some(api) = apis
        .iter()
        .find(|api| is_of(&*api.handler, path))
        .or(apis.first())
    else {
        return answers.refusal(refused(&Refusal::no_such_path(), ""));
    };
    let group = api.handler.group();
    let head = request.method() == Method::HEAD;
    let refuse = |refusal: &Refusal| {
        api.handler.refused(refusal.code);
        answers.refusal(without_body(refused(refusal, group), head))
    };
    let user = match user {
        Ok(user) => user,
        Err(error) => {
            let code = StatusCode::UNAUTHORIZED;
            return refuse(&Refusal::new(code, "Unauthorized", error.to_string()));
        }
    };
    let own = answers.of(&user);
    let call = async {
        // At most for the call's time limit.
        let _permit = api.permits.acquire(&user).await;
        if let Some(document) = shared_document(apis, request.uri().path()) {
            return whole(StatusCode::OK, document.to_string());
        }
        Arc::clone(&api.handler).call(user, request).await
    };
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        // Counted already: one that found no room is not counted again.
        Ok(answer) if !answer.status().is_success() => own.refusal(without_body(answer, head)),
        Ok(answer) => {
            let admitted = own.admit(without_body(answer, head));
            admitted.unwrap_or_else(|refusal| refuse(&refusal))
        }
        Err(_) => {
            let code = StatusCode::GATEWAY_TIMEOUT;
            refuse(&Refusal::new(code, "Timeout", "the answer took too long"))
        }
    }
}

/// Whether a path is for this API.
fn is_of(handler: &dyn Handler, path: &str) -> bool {
    let path = path.strip_prefix("/openapi/v3").unwrap_or(path);
    let rest = path.strip_prefix("/apis/");
    let rest = rest.and_then(|path| path.strip_prefix(handler.group()));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Documents about all APIs, which say nothing about the cluster.
fn shared_document(apis: &[Served], path: &str) -> Option<Value> {
    let parts = |part: fn(&dyn Handler) -> Value| apis.iter().map(move |api| part(&*api.handler));
    match path.trim_end_matches('/') {
        "/apis" => {
            let groups: Vec<Value> = parts(|api| api.discovery()).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        "/openapi/v2" => parts(|api| api.openapi_v2()).reduce(merged),
        "/openapi/v3" => parts(|api| api.openapi_v3()).reduce(merged),
        _ => None,
    }
}

/// Two documents as one: what is an object in both has the members of both.
fn merged(mut one: Value, other: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (one.as_object_mut(), other) {
        for (name, value) in more {
            let before = fields.remove(&name);
            let value = match before {
                Some(before @ Value::Object(_)) => merged(before, value),
                Some(before) => before,
                None => value,
            };
            fields.insert(name, value);
        }
    }
    one
}

/// An answer that is all there.
pub(crate) fn whole(code: StatusCode, body: impl Into<Bytes>) -> ApiResponse {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = code;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// What a handler gives to a user: with room for it, or a refusal. The count is of what the user
/// receives.
pub(crate) fn given(
    answers: &AnswerBudget,
    made: Result<ApiResponse, Refusal>,
    group: &str,
) -> ApiResponse {
    let answer = made.unwrap_or_else(|refusal| refused(&refusal, group));
    let given = answers.with_room(answer);
    given.unwrap_or_else(|refusal| refused(&refusal, group))
}

/// A refusal as an answer.
pub(crate) fn refused(refusal: &Refusal, group: &str) -> ApiResponse {
    let mut response = whole(refusal.code, refusal.json(group).to_string());
    if let Some(seconds) = refusal.again_in() {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn without_body(answer: ApiResponse, head: bool) -> ApiResponse {
    if head {
        answer.map(|_| Full::default().boxed_unsync())
    } else {
        answer
    }
}
