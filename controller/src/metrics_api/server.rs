//! The HTTPS server that the API server calls.
//!
//! Every pod can reach it, so everything is bounded: connections, calls, bytes
//! and time. Whoever shows no certificate of the API server's gets no further
//! than being told so, and has places of their own, so that no number of such callers
//! costs the API server a connection: while it cannot reach this API, no namespace
//! of the cluster can be deleted.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use identity::front_proxy::common_name;
use runtime::https::{self, Bounds, Door};
use runtime::limit::Reached;
use runtime::pool::{Limits, Pool, Share};
use runtime::rate::Allowance;
use runtime::stop;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::{
    answer::{Answer, Sources},
    discovery, openapi,
    query::{GROUP, Mistake, Parameters, Path, VERSIONS},
    render::Refusal,
};
use crate::{
    aggregated::{
        access::{AccessDecision, Gate, refusal},
        front_proxy::{self, Front},
    },
    inventory::follow::Followed,
    metrics::ApiMetrics,
};

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
/// Calls that are answered at one time; the others wait.
const MAX_CALLS: usize = 16;
/// Streams on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Streams on the connection of somebody else.
const MAX_UNPROVEN_STREAMS: u32 = 2;
/// Bytes of all headers of one call. A user may be in many groups.
const MAX_HEADERS: u32 = 64 * 1024;
/// The same of somebody else.
const MAX_UNPROVEN_HEADERS: u32 = 8 * 1024;
/// Bytes of bodies that wait to be read on one connection: nobody sends any.
const WINDOW: u32 = 16 * 1024;
/// Time for a TLS handshake, and for the head of an HTTP/1 request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for one call, which may wait for others.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Answers the API server.
#[derive(Debug)]
pub(crate) struct Api {
    /// What answers are made of.
    pub sources: Sources,
    /// Whether that is whole.
    pub followed: Followed,
    /// How the API server calls.
    pub front: front_proxy::Latest,
    /// Who may read what.
    pub gate: Gate,
    /// Counters.
    pub metrics: ApiMetrics,
}

/// Serves `listener` until `stop` says true.
pub(crate) async fn serve(
    listener: TcpListener,
    api: Api,
    limits: &Reached,
    stop: watch::Receiver<bool>,
) {
    let too_often = limits.counter("metrics-api-connection-rate");
    let door = Door::new(listener, "metrics API", ARRIVALS, too_often);
    let unproven = Pool::new(UNPROVEN, limits.counter("metrics-api-unproven-connections"));
    let port = Port {
        proven: Pool::new(PROVEN, limits.counter("metrics-api-connections")),
        api: Arc::new(api),
        calls: Arc::new(Semaphore::new(MAX_CALLS)),
        stop: stop.clone(),
    };
    let mut stop = pin!(stop::requested(stop));
    loop {
        let admitted = tokio::select! {
            admitted = door.next() => admitted,
            () = &mut stop => return,
        };
        let Ok((stream, addr)) = admitted else {
            port.api.metrics.turned_away.inc();
            continue;
        };
        match unproven.take(https::source(addr), 1) {
            Ok(place) => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "one connection's: its panic ends that connection only"
                )]
                tokio::spawn(port.clone().attend(stream, addr, place));
            }
            Err(_) => {
                port.api.metrics.turned_away.inc();
            }
        }
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Port {
    api: Arc<Api>,
    calls: Arc<Semaphore>,
    /// By address.
    proven: Pool<IpAddr>,
    stop: watch::Receiver<bool>,
}

impl Port {
    /// One connection, from its handshake to its end.
    async fn attend(self, stream: TcpStream, addr: SocketAddr, place: Share<IpAddr>) {
        let until = Instant::now() + UNPROVEN_LIFE;
        let trusted = self.api.front.borrow().clone();
        // Nobody can be verified yet: closing is the only honest answer.
        let Some(trusted) = trusted else { return };
        let acceptor = TlsAcceptor::from(Arc::clone(&trusted.tls));
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        let stream = tokio::select! {
            shaken = handshake => match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return debug!(%addr, %error, "metrics API: handshake failed"),
                Err(_) => return,
            },
            () = place.taken() => return self.turned_away(addr),
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
                () = place.taken() => self.turned_away(addr),
                () = sleep_until(until) => debug!(%addr, "metrics API: no API server, closed"),
                () = stop => {}
            }
            return;
        }
        let Ok(proven) = self.proven.take(addr.ip().to_canonical(), 1) else {
            return self.turned_away(addr);
        };
        drop(place);
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
        let (api, calls) = (Arc::clone(&self.api), Arc::clone(&self.calls));
        let service = service_fn(move |request| {
            let (api, calls, name) = (Arc::clone(&api), Arc::clone(&calls), name.clone());
            // Judged by the rules under which its certificate was verified.
            let trusted = Arc::clone(&trusted);
            async move {
                let answer = api.call(&request, name.as_deref(), &trusted.front, &calls);
                let answer = tokio::time::timeout(CALL_TIMEOUT, answer).await;
                let answer = answer.unwrap_or_else(|_| {
                    Err(Refusal::new(
                        StatusCode::GATEWAY_TIMEOUT,
                        "Timeout",
                        "the answer took too long",
                    ))
                });
                Ok::<_, Infallible>(api.respond(answer, request.method()))
            }
        });
        let bounds = Bounds {
            handshake: HANDSHAKE_TIMEOUT,
            streams,
            headers,
            windows: (WINDOW, WINDOW),
        };
        let builder = bounds.http();
        let served = builder.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = served.await {
            debug!(%error, "metrics API: connection ended");
        }
    }

    fn turned_away(&self, addr: SocketAddr) {
        self.api.metrics.turned_away.inc();
        debug!(%addr, "metrics API: connection closed, there are too many");
    }
}

impl Api {
    async fn call(
        &self,
        request: &Request<Incoming>,
        certificate: Option<&str>,
        front: &Front,
        calls: &Semaphore,
    ) -> Result<Answer, Refusal> {
        let user = front
            .user(certificate, request.headers())
            .map_err(|error| {
                Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", error.to_string())
            })?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(not_allowed("metrics can be read and nothing else"));
        }
        // Never closed, so this waits at most for the call's time limit.
        let _place = calls.acquire().await;
        let path = request.uri().path();
        if let Some(document) = document(path) {
            return Ok(document.into());
        }
        let rest = path
            .strip_prefix("/apis/")
            .and_then(|path| path.strip_prefix(GROUP));
        let rest = rest
            .and_then(|path| path.strip_prefix('/'))
            .ok_or(Mistake::NotFound)?;
        let path = Path::parse(rest)?;
        let asked = path.attributes();
        match self.gate.admits(&user, &asked).await {
            Ok(AccessDecision::Allowed) => {}
            Ok(AccessDecision::Denied(reason)) => {
                let message = refusal(&user, &asked, &reason);
                return Err(Refusal {
                    about: Some((asked.resource, asked.name.clone())),
                    ..Refusal::new(StatusCode::FORBIDDEN, "Forbidden", message)
                });
            }
            Err(message) => return Err(unavailable(message)),
        }
        let query = request.uri().query().unwrap_or_default();
        if form_urlencoded::parse(query.as_bytes())
            .any(|(name, value)| name == "watch" && matches!(&*value, "true" | "1"))
        {
            return Err(not_allowed("metrics cannot be watched: read them again"));
        }
        let parameters = Parameters::parse(query, &path)?;
        if !self.followed.is_whole() {
            return Err(unavailable(
                "not every kind of object has been listed yet".to_owned(),
            ));
        }
        self.sources
            .answer(&path, &parameters, as_table(request), SystemTime::now())
    }

    fn respond(&self, answer: Result<Answer, Refusal>, method: &Method) -> Response<Full<Bytes>> {
        let (code, Answer { body, warning }) = match answer {
            Ok(answer) => (StatusCode::OK, answer),
            Err(refusal) => (refusal.code, refusal.json().into()),
        };
        self.metrics.answered(code.as_u16());
        let body = if method == Method::HEAD {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = code;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        // RFC 7234: code 299, no agent, the text in quotes. Ours has none.
        let warning = warning.and_then(|text| format!("299 - \"{text}\"").try_into().ok());
        if let Some(warning) = warning {
            response.headers_mut().insert(header::WARNING, warning);
        }
        if code == StatusCode::SERVICE_UNAVAILABLE {
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        response
    }
}

/// Documents about the API, which say nothing about the cluster.
fn document(path: &str) -> Option<Value> {
    match path.trim_end_matches('/') {
        "/apis" => return Some(discovery::groups()),
        "/openapi/v2" => return Some(openapi::v2()),
        "/openapi/v3" => return Some(openapi::v3_index()),
        _ => {}
    }
    let v3 = path.strip_prefix("/openapi/v3");
    let group = v3
        .unwrap_or(path)
        .strip_prefix("/apis/")?
        .strip_prefix(GROUP)?;
    let group = group.trim_end_matches('/');
    if group.is_empty() {
        return v3.is_none().then(discovery::group);
    }
    let version = VERSIONS
        .into_iter()
        .find(|version| group.strip_prefix('/') == Some(version))?;
    Some(match v3 {
        Some(_) => openapi::v3(version),
        None => discovery::resources(version),
    })
}

/// Whether the client would rather have a table, as `kubectl get` does.
fn as_table(request: &Request<Incoming>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    // The first that can be served decides.
    let mut offers = accepted.flat_map(|value| value.split(',')).map(str::trim);
    offers.find_map(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let kind = parts.next()?;
        let table = offer.contains("as=Table");
        let known = offer.contains("v=v1;") || offer.ends_with("v=v1");
        match kind {
            "application/json" if table => known.then_some(true),
            "application/json" | "*/*" | "application/*" => Some(false),
            _ => None,
        }
    }) == Some(true)
}

fn not_allowed(message: &str) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
}

fn unavailable(message: String) -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "ServiceUnavailable",
        message,
    )
}

#[cfg(test)]
mod tests;
