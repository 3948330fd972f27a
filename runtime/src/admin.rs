//! The admin port: serves `/live`, `/ready`, `/metrics`, and the pages that the process adds.
//!
//! Every client in the cluster can reach it and the kubelet's probes depend on it: a flood must not
//! make a probe fail and the pod restart. So one address has few connections at a time. Where
//! permits are scarce a new connection takes the permit of one of the address with most: of one
//! without a request, or with a body or a response that moves slowly, and never of one whose
//! response is being made. A client that does not take a response is disconnected. Few permits are
//! for pages that may be large, and go from the address with most of them to one with fewer, so
//! that scrapers get one and the others stay for the kubelet.
//!

mod exchange;
mod large;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep, timeout};
use tracing::{debug, warn};

use self::exchange::Exchange;
use self::large::Large;
pub use crate::metrics::Scraped;

use crate::head_timer::watch_heads;
use crate::occupancy::{Bounds, Occupancy, Permit, Reached};
use crate::ready::Ready;
use crate::{listen, metrics, task};

/// Connections at one time: a kubelet, a few scrapers and people, with room.
pub(crate) const MAX_CONNECTIONS: usize = 128;
/// Connections of one address at one time. A kubelet opens one per probe of each
/// container, a scraper one.
pub(crate) const MAX_PER_ADDRESS: usize = 32;
/// Time for a whole request head, and of rest on a kept connection.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that lost its permit gives it back within a tick of the runtime. No newcomer
/// waits longer, because the kubelet may be next.
const EVICTION_WITHIN: Duration = Duration::from_millis(20);
/// A client that takes nothing of a response for this long is cut off.
const STUCK_FOR: Duration = Duration::from_secs(10);
/// Bytes of a request head. No caller of this port has reason to send more.
pub const MAX_HEAD: usize = 8 * 1024;
/// Bytes of a request body that handlers may see.
pub const MAX_BODY: usize = 16 * 1024;

/// A request with its body, which is at most [`MAX_BODY`] bytes.
pub type Request = http::Request<Bytes>;
/// What a handler answers.
pub type Response = http::Response<Full<Bytes>>;

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
    F: Future<Output = Response> + Send + 'static,
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
    pub async fn run<H, F>(self, ready: Ready, scraped: impl Into<Scraped>, extra: H) -> Infallible
    where
        H: Fn(Request, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let pages = Arc::new(Pages {
            ready,
            scraped: scraped.into(),
            extra,
            large: Arc::default(),
        });
        let bounds = Bounds {
            permits: MAX_CONNECTIONS,
            per_holder: MAX_PER_ADDRESS,
            shared: true,
            head_within: HEAD_TIMEOUT,
            idle_within: HEAD_TIMEOUT,
        };
        let occupancy = Occupancy::new(bounds, |reached| {
            if matches!(reached, Reached::Hoarder | Reached::SlowHead) {
                metrics::admin_closed();
            }
        });
        task::spawn("admin connections", Arc::clone(&occupancy).watch());
        loop {
            let (stream, peer) = listen::next(&self.listener, "admin", || ()).await;
            let permit = timeout(EVICTION_WITHIN, occupancy.admit(peer.ip().into())).await;
            let Ok(permit) = permit else {
                metrics::admin_closed();
                continue;
            };
            let Ok(permit) = permit else { continue };
            let pages = Arc::clone(&pages);
            #[expect(clippy::disallowed_methods, reason = "its panic ends one connection")]
            tokio::spawn(async move {
                let serving = serve_connection(stream, peer, pages, &permit);
                permit.keep(serving).await;
            });
        }
    }
}

/// For processes without further pages: 404.
pub async fn nothing_more(_request: Request, _peer: SocketAddr) -> Response {
    text(StatusCode::NOT_FOUND, "no such page\n")
}

/// A plain text answer.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    typed(status, "text/plain; charset=utf-8", body)
}

/// A JSON answer; `body` must be JSON already.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    typed(status, "application/json", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

struct Pages<H> {
    ready: Ready,
    scraped: Scraped,
    extra: H,
    large: Arc<Large>,
}

async fn serve_connection<H, F>(
    stream: TcpStream,
    peer: SocketAddr,
    pages: Arc<Pages<H>>,
    permit: &Arc<Permit>,
) where
    H: Fn(Request, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let exchange = Arc::new(Exchange::of(permit));
    permit.idle();
    let io = TokioIo::new(Watched {
        stream,
        exchange: Arc::clone(&exchange),
        stuck: None,
    });
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let waiting = Arc::clone(&exchange);
    watch_heads(&mut builder, move || waiting.waits());
    let service = service_fn(|request: http::Request<Incoming>| {
        exchange.begins();
        let (exchange, pages) = (Arc::clone(&exchange), Arc::clone(&pages));
        async move {
            let may = of_kubelet(request.uri().path())
                || exchange.may_be_large(&pages.large, peer.ip()).await;
            let answer = if may {
                pages.answer(request, peer, &exchange).await
            } else {
                metrics::admin_closed();
                text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many pages are being read, come back\n",
                )
            };
            exchange.answers();
            Ok::<_, Infallible>(answer)
        }
    });
    let serving = async {
        let mut served = pin!(builder.serve_connection(io, service));
        tokio::select! {
            served = &mut served => served,
            () = permit.wanted() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        }
    };
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                debug!(%peer, %error, "admin connection ended early");
            }
        }
        () = exchange.lost() => metrics::admin_closed(),
    }
}

/// What probes and hooks ask for.
fn of_kubelet(path: &str) -> bool {
    matches!(path, "/live" | "/ready" | "/drain")
        || path.starts_with("/probe/")
        || path.starts_with("/hook/")
}

/// Notes when a head begins, and ends a connection whose peer takes nothing.
struct Watched {
    stream: TcpStream,
    exchange: Arc<Exchange>,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    fn unless_stuck<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let stuck = self
            .stuck
            .get_or_insert_with(|| Box::pin(sleep(STUCK_FOR)))
            .as_mut();
        stuck.poll(cx).map(|()| {
            metrics::admin_closed();
            Err(io::Error::new(io::ErrorKind::TimedOut, "no client reads"))
        })
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, out);
        if out.filled().len() > before {
            this.exchange.head_begins();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, data);
        this.unless_stuck(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        if flushed.is_ready() {
            this.exchange.flushed();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<H, F> Pages<H>
where
    H: Fn(Request, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    async fn answer(
        &self,
        request: http::Request<Incoming>,
        peer: SocketAddr,
        exchange: &Exchange,
    ) -> Response {
        let page = match request.uri().path() {
            "/live" => Self::live,
            "/ready" => Self::readiness,
            "/metrics" => Self::metrics,
            _ => return self.further(request, peer, exchange).await,
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
    fn live(&self) -> Response {
        text(StatusCode::OK, "live\n")
    }

    fn readiness(&self) -> Response {
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

    fn metrics(&self) -> Response {
        match self.scraped.page() {
            Ok(body) => typed(
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

    async fn further(
        &self,
        request: http::Request<Incoming>,
        peer: SocketAddr,
        exchange: &Exchange,
    ) -> Response {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect();
        exchange.reads();
        match tokio::time::timeout(HEAD_TIMEOUT, body).await {
            Ok(Ok(body)) => {
                exchange.makes();
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
