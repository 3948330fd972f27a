//! HTTP as a server: one connection, both versions, with every bound named.

pub mod http1;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::server::conn::http1::Builder;
use policy::reason::Reason;
use runtime::occupancy::Place;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::failure::{answer_to, refusal};
use crate::http::body::{Body, Received};
use crate::http::client::multiplexed::{
    BUFFER, HEADER_BYTES, HEADER_COUNT, MESH, MESH_HEADER_BYTES, MESH_HEADER_COUNT, PLAIN,
};
use crate::http::http2::server;
use crate::net::abort::MayAbort;
use crate::net::budget::Budget;
use crate::net::coalesce::Outlet;
use crate::net::linger::Goodbye;

/// Request target, in bytes; longer ones get 414.
const TARGET_LIMIT: usize = 8 * 1024;
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
    budget: Arc<Budget>,
    place: Arc<Place>,
    close: impl Future<Output = ()>,
    handler: H,
) where
    I: AsyncRead + AsyncWrite + MayAbort + Unpin + Send + 'static,
    H: Fn(Request<Received>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let handler = move |request: Request<Received>| {
        // Boxed: the handler's future has some KiB, which every future around it would
        // hold again for each place from which it is moved.
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
    if version == Version::HTTP_2 {
        let (profile, outlet) = match from {
            From::Mesh(outlet) => (MESH, Some(outlet)),
            From::OwnApplication | From::Network => (PLAIN, None),
        };
        let handler = move |request: Request<_>| handler(request.map(Received::from));
        // Boxed: connections of HTTP/1.1 must not be as large as this one.
        let serving = server::serve(io, profile, budget, outlet, place, close.as_mut(), handler);
        if let Err(error) = Box::pin(serving).await {
            tracing::debug!(%error, "an HTTP/2 connection ended early");
        }
    } else {
        let mut builder = Builder::new();
        builder.auto_date_header(false).max_buf_size(BUFFER);
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
        let handler = move |request: Request<_>| handler(request.map(Received::from));
        let patience = (!matches!(from, From::OwnApplication)).then_some(IDLE_WITHIN);
        let ended = if mesh {
            let io = Goodbye::to_peer(io);
            http1::serve(
                io,
                builder,
                patience,
                budget,
                place,
                close.as_mut(),
                handler,
            )
            .await
        } else {
            let io = Goodbye::to_client(io);
            http1::serve(
                io,
                builder,
                patience,
                budget,
                place,
                close.as_mut(),
                handler,
            )
            .await
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
    }
}

/// Requests that are refused whoever sends them.
fn unacceptable(request: &Request<Received>) -> Option<Response<Body>> {
    let bad = |detail: &str| {
        let refused = refusal(Reason::BadRequest, detail, false);
        Some(answer_to(request.method(), refused))
    };
    let headers = request.headers();
    let uri = request.uri();
    if uri.scheme().is_none() && uri.authority().is_some() && request.method() != Method::CONNECT {
        // Servers disagree on what it is; sent on it would be another one.
        return bad("the request target does not begin with a slash");
    }
    if request
        .uri()
        .path_and_query()
        .is_some_and(|target| target.as_str().len() > TARGET_LIMIT)
    {
        let mut response = bad("the request target is too long");
        if let Some(response) = &mut response {
            *response.status_mut() = StatusCode::URI_TOO_LONG;
        }
        return response;
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
