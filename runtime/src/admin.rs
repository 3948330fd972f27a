//! The port for the cluster's eyes: `/live`, `/ready`, `/metrics`, and whatever
//! the process adds.
//!
//! Everybody in the cluster can reach it and the kubelet's probes depend on it,
//! so it is bounded on its own, and a new connection takes the place of the
//! oldest when all places are taken: a hoarder of connections must not be able
//! to make a probe fail and the pod restart.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use crate::accept;
use crate::ready::Ready;

/// Connections at one time: a kubelet, a few scrapers and people, with room.
pub const MAX_CONNECTIONS: usize = 64;
/// Time for a whole request head, and of rest on a kept connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request head. No caller of this port has reason to send more.
pub const MAX_HEAD: usize = 8 * 1024;
/// Bytes of a request body that handlers may see.
pub const MAX_BODY: usize = 16 * 1024;

/// A request with its body, which is at most [`MAX_BODY`] bytes.
pub type Request = http::Request<Bytes>;
/// What a handler answers.
pub type Answer = Response<Full<Bytes>>;

/// An admin port that is open but not yet served.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
}

/// Opens `addr` and serves it for ever. `extra` answers every path but `/live`,
/// `/ready` and `/metrics`, and sees the peer's address, so that it can keep
/// things to loopback; [`nothing_more`] adds no path.
///
/// # Errors
/// When the port cannot be opened.
pub async fn serve<H, F>(
    addr: SocketAddr,
    ready: Ready,
    registry: Arc<Mutex<Registry>>,
    extra: H,
) -> io::Result<Infallible>
where
    H: Fn(Request, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let admin = Admin::bind(addr).await?;
    Ok(admin.run(ready, registry, extra).await)
}

impl Admin {
    /// Opens the port, so that a failure is seen before anything else starts.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        Ok(Self { listener })
    }

    /// # Errors
    /// When the socket does not know its address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for ever; see [`serve`].
    pub async fn run<H, F>(
        self,
        ready: Ready,
        registry: Arc<Mutex<Registry>>,
        extra: H,
    ) -> Infallible
    where
        H: Fn(Request, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let pages = Arc::new(Pages {
            ready,
            registry,
            extra,
        });
        let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
        loop {
            let (stream, peer) = accept::next(&self.listener, "admin").await;
            open.retain(|connection| !connection.is_finished());
            if open.len() >= MAX_CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
                debug!(%peer, "admin port is full, oldest connection closed");
            }
            let connection = tokio::spawn(converse(stream, peer, Arc::clone(&pages)));
            open.push_back(connection.abort_handle());
        }
    }
}

/// For processes without further pages: 404.
pub async fn nothing_more(_request: Request, _peer: SocketAddr) -> Answer {
    text(StatusCode::NOT_FOUND, "no such page\n")
}

/// A plain text answer.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

/// A JSON answer; `body` must be JSON already.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "application/json", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

struct Pages<H> {
    ready: Ready,
    registry: Arc<Mutex<Registry>>,
    extra: H,
}

async fn converse<H, F>(stream: TcpStream, peer: SocketAddr, pages: Arc<Pages<H>>)
where
    H: Fn(Request, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let service = service_fn(|request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(pages.answer(request, peer).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%peer, %error, "admin connection ended early");
    }
}

impl<H, F> Pages<H>
where
    H: Fn(Request, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    async fn answer(&self, request: http::Request<Incoming>, peer: SocketAddr) -> Answer {
        let page = match request.uri().path() {
            "/live" => Self::live,
            "/ready" => Self::readiness,
            "/metrics" => Self::metrics,
            _ => return self.further(request, peer).await,
        };
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            page(self)
        } else {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            refusal
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            refusal
        }
    }

    /// That this answers at all is the proof.
    fn live(&self) -> Answer {
        text(StatusCode::OK, "live\n")
    }

    fn readiness(&self) -> Answer {
        let waiting = self.ready.waiting();
        let (status, mut body) = if waiting.is_empty() {
            (StatusCode::OK, "ready\n".to_owned())
        } else {
            let body = format!("waiting for: {}\n", waiting.join(", "));
            (StatusCode::SERVICE_UNAVAILABLE, body)
        };
        if let Some(note) = self.ready.noted() {
            body.push_str(note);
            body.push('\n');
        }
        text(status, body)
    }

    fn metrics(&self) -> Answer {
        let mut body = String::new();
        let encoded = prometheus_client::encoding::text::encode(&mut body, &self.registry.lock());
        match encoded {
            Ok(()) => typed(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body,
            ),
            Err(error) => {
                warn!(%error, "metrics could not be written");
                text(StatusCode::INTERNAL_SERVER_ERROR, "no metrics\n")
            }
        }
    }

    async fn further(&self, request: http::Request<Incoming>, peer: SocketAddr) -> Answer {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect();
        match tokio::time::timeout(HEAD_TIMEOUT, body).await {
            Ok(Ok(body)) => {
                let request = Request::from_parts(head, body.to_bytes());
                (self.extra)(request, peer).await
            }
            Ok(Err(_)) => text(StatusCode::PAYLOAD_TOO_LARGE, "body broken or too large\n"),
            Err(_) => text(StatusCode::REQUEST_TIMEOUT, "body too slow\n"),
        }
    }
}

#[cfg(test)]
mod tests;
