//! HTTP as a server: one connection, both versions, with every bound named.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1::Builder, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use policy::reason::Reason;
use runtime::occupancy::Place;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::Body;
use crate::failure::refusal;
use crate::goodbye::Goodbye;
use crate::http1;
use crate::peer::{
    HEADER_BYTES, HEADER_COUNT, MESH, MESH_HEADER_BYTES, MESH_HEADER_COUNT, PING_INTERVAL,
    PING_TIMEOUT, PLAIN,
};
use crate::wide::Outlet;

/// Request target, in bytes; longer ones get 414.
const TARGET_LIMIT: usize = 8 * 1024;
/// Concurrent requests on one connection; a peer opens another one at 100.
const STREAMS: u32 = 128;
/// Time for a head, from its first byte.
pub const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Longest rest between two requests on a connection from outside the pod. The
/// pod's own application may keep its connections for as long as it likes.
pub const IDLE_WITHIN: Duration = Duration::from_secs(3600);

/// Where a connection comes from decides how patient the server is.
#[derive(Clone, Debug)]
pub enum From {
    OwnApplication,
    Network,
    /// A peer proxy, with what sends to it.
    Mesh(Outlet),
}

/// Serves one connection until it ends, or until `close` or its `place` asks to
/// end it after what is in flight.
pub async fn serve<I, H, F>(
    io: I,
    version: Version,
    from: From,
    place: Arc<Place>,
    close: impl Future<Output = ()>,
    handler: H,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let handler = move |request: Request<Incoming>| {
        // Boxed: a story is some KiB, which every future around it would hold again
        // for each place from which it is moved.
        let answer = match unacceptable(&request) {
            Some(refused) => Err(refused),
            None => Ok(Box::pin(handler(request))),
        };
        async move {
            match answer {
                Ok(answer) => answer.await,
                Err(refused) => refused,
            }
        }
    };
    let asked = Arc::clone(&place);
    let mut close = pin!(async move {
        tokio::select! {
            () = close => {}
            () = asked.wanted() => {}
        }
    });
    let ended = if version == Version::HTTP_2 {
        // Boxed: connections of HTTP/1.1 must not be as large as this one.
        Box::pin(http2(io, from, close.as_mut(), handler)).await
    } else {
        let mut builder = Builder::new();
        builder.auto_date_header(false);
        let mesh = matches!(from, From::Mesh(_));
        if mesh {
            // A peer proxy closes one direction only when it wants nothing more.
            builder
                .max_headers(MESH_HEADER_COUNT)
                .max_header_size(MESH_HEADER_BYTES);
        } else {
            builder
                .max_headers(HEADER_COUNT)
                .max_header_size(HEADER_BYTES as usize)
                .half_close(true);
        }
        let patience = (!matches!(from, From::OwnApplication)).then_some(IDLE_WITHIN);
        if mesh {
            let io = Goodbye::new(io);
            http1::serve(io, builder, patience, place, close.as_mut(), handler).await
        } else {
            http1::serve(io, builder, patience, place, close.as_mut(), handler).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

async fn http2<I, H, F>(
    io: I,
    from: From,
    mut close: Pin<&mut impl Future<Output = ()>>,
    handler: H,
) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let flow = if matches!(from, From::Mesh(_)) {
        MESH
    } else {
        PLAIN
    };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(flow.stream_window)
        .initial_connection_window_size(flow.connection_window)
        .max_send_buf_size(flow.unsent)
        .max_frame_size(flow.frame)
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let outlet = match from {
        From::Mesh(outlet) => Some(outlet),
        From::OwnApplication | From::Network => None,
    };
    if let Some(outlet) = &outlet {
        outlet.collect();
    }
    let mut closing = false;
    poll_fn(|cx| {
        if !closing && close.as_mut().poll(cx).is_ready() {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        let polled = connection.as_mut().poll(cx);
        if let Some(outlet) = &outlet {
            outlet.end_of_turn(cx);
        }
        polled
    })
    .await
}

/// Requests that are refused whoever sends them.
fn unacceptable(request: &Request<Incoming>) -> Option<Response<Body>> {
    let bad = |detail: &str| Some(refusal(Reason::BadRequest, detail, false));
    let headers = request.headers();
    if request
        .uri()
        .path_and_query()
        .is_some_and(|target| target.as_str().len() > TARGET_LIMIT)
    {
        let mut response = refusal(Reason::BadRequest, "the request target is too long", false);
        *response.status_mut() = StatusCode::URI_TOO_LONG;
        return Some(response);
    }
    let chunked = headers.contains_key(http::header::TRANSFER_ENCODING);
    if chunked && headers.contains_key(http::header::CONTENT_LENGTH) {
        return bad("Content-Length beside Transfer-Encoding");
    }
    if chunked && request.version() == Version::HTTP_10 {
        return bad("Transfer-Encoding in HTTP/1.0");
    }
    let mut encodings = headers.get_all(http::header::TRANSFER_ENCODING).iter();
    if let Some(first) = encodings.next()
        && (encodings.next().is_some()
            || !first
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"chunked"))
    {
        // What else the body is wrapped in would be lost on the way.
        return bad("Transfer-Encoding other than chunked");
    }
    let mut hosts = headers.get_all(http::header::HOST).iter();
    if let Some(first) = hosts.next() {
        if hosts.next().is_some() {
            return bad("more than one Host header");
        }
        if !is_host(first.as_bytes()) {
            return bad("Host is no host");
        }
        if request.version() == Version::HTTP_2
            && request
                .uri()
                .authority()
                .is_some_and(|authority| authority.as_str().as_bytes() != first.as_bytes())
        {
            return bad("Host differs from :authority");
        }
    } else if request.version() != Version::HTTP_10 && request.uri().authority().is_none() {
        return bad("no Host header");
    }
    if let Some(authority) = request.uri().authority()
        && !is_host(authority.as_str().as_bytes())
    {
        return bad("the authority is no host");
    }
    None
}

/// A host with or without a port, and nobody's name and password before it.
/// An empty one is what HTTP asks for where there is no host.
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || (!value.contains(&b'@') && Authority::try_from(value).is_ok())
}
