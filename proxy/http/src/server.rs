//! Serves one connection as HTTP, in either version, with all bounds named.

pub mod http1;
mod refused_head;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use http::{Request, Response, StatusCode, Version, header};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use policy::path::MAX_TARGET;
use policy::reason::Reason;
use runtime::occupancy::Permit;
use tokio::io::{AsyncRead, AsyncWrite};
use weft_proxy_net::abort::MayAbort;
use weft_proxy_net::admission::AdmissionClass;
use weft_proxy_net::budget::Budget;
use weft_proxy_net::coalesce::FlushHandle;
use weft_proxy_net::linger::Lingering;
use weft_proxy_net::ticket::NotAdmitted;

use crate::body::{self, Body};
use crate::deadline::PreviousHop;
use crate::grpc::is_grpc;
use crate::head::{
    BUFFER, HEADER_BYTES, HEADER_COUNT, MESH_HEADER_BYTES, MESH_HEADER_COUNT, ReportedHead,
};
use crate::http2::{MESH, PLAIN, server};
use crate::incoming::IncomingBody;
use crate::refusal::{NotHandled, answer_to, not_admitted, refusal};
use crate::unread_body;

/// Longest rest between two requests on a connection from outside the pod. The
/// pod's own application may keep its connections for as long as it likes.
pub const IDLE_WITHIN: Duration = Duration::from_secs(3600);

/// A client whose connection is to end has this long for one more request, whose answer announces
/// the end: a close between two requests may cost the request that is on its way. Long against the
/// idle times of a connection in use, short against the stop of a proxy.
const LAST_WITHIN: Duration = Duration::from_millis(500);
/// The same at a Gateway, which stops as slowly as load balancers learn of it.
const LAST_AT_EDGE_WITHIN: Duration = Duration::from_secs(5);

/// Where a connection comes from decides how patient the server is.
#[derive(Clone, Debug)]
pub enum Profile {
    OwnApplication,
    Network,
    /// Clients of a Gateway: the same, and their address goes on leading here for a while after
    /// connections begin to end.
    Edge,
    /// A peer proxy, with what sends to it.
    Mesh(FlushHandle),
}

/// What is known of a connection before its first byte.
#[derive(Debug)]
pub struct Accepted {
    pub version: Version,
    pub profile: Profile,
    pub budget: Arc<Budget>,
    pub permit: Arc<Permit>,
}

/// An answer on its way. Boxed: the handler's future has some KiB, which every future
/// around it would hold again for each place from which it is moved.
type AnswerFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
/// What answers the requests of a connection. One type for all of them, as for the two
/// below: what serves a connection is a hundred KiB of code, and would be in the program,
/// and in memory, once for each kind of handler.
type RequestHandler = Arc<dyn Fn(Request<IncomingBody>) -> AnswerFuture + Send + Sync>;
/// Called for requests that the handler does not get to see, with what could be read of them.
type RefusedHook = Arc<dyn Fn(NotHandled, ReportedHead<'_>) + Send + Sync>;
/// Asks for the end of a connection.
type CloseSignal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves one connection until it ends, or until `close` or its `permit` asks to end it after what
/// is in flight. `refused` is called for each request that `handler` does not get to see.
pub fn serve<I, H, F>(
    io: I,
    accepted: Accepted,
    close: impl Future<Output = ()> + Send + 'static,
    refused: impl Fn(NotHandled, ReportedHead<'_>) + Send + Sync + 'static,
    handler: H,
) -> impl Future<Output = ()>
where
    I: AsyncRead + AsyncWrite + MayAbort + Unpin + Send + 'static,
    H: Fn(Request<IncomingBody>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let most_fields = match accepted.profile {
        Profile::Mesh(_) => MESH_HEADER_COUNT,
        Profile::OwnApplication | Profile::Network | Profile::Edge => HEADER_COUNT,
    };
    let mesh = matches!(accepted.profile, Profile::Mesh(_));
    let refused: RefusedHook = Arc::new(refused);
    let handler = bounded_heads(most_fields, mesh, Arc::clone(&refused), handler);
    serve_connection(io, accepted, Box::pin(close), refused, handler)
}

async fn serve_connection<I>(
    io: I,
    accepted: Accepted,
    close: CloseSignal,
    refused: RefusedHook,
    handler: RequestHandler,
) where
    I: AsyncRead + AsyncWrite + MayAbort + Unpin + Send + 'static,
{
    let Accepted {
        version,
        profile,
        budget,
        permit,
    } = accepted;
    let mesh = matches!(profile, Profile::Mesh(_));
    let mut close = pin!(close);
    if version == Version::HTTP_2 {
        let closing = Arc::clone(&permit);
        let close = async move {
            tokio::select! {
                () = close.as_mut() => {}
                () = closing.wanted() => {}
            }
        };
        let limits = http2_limits(profile, budget, permit);
        let handler = move |request: Request<_>| handler(request.map(IncomingBody::from));
        // Boxed: connections of HTTP/1.1 must not be as large as this one.
        let io = if mesh {
            Lingering::to_peer(io)
        } else {
            Lingering::not_at_all(io)
        };
        let ended = Box::pin(async move {
            let close = pin!(close);
            server::serve(io, limits, close, handler).await
        });
        let ended = ended.await;
        if let Err(error) = ended {
            tracing::debug!(%error, "an HTTP/2 connection ended early");
        }
        return;
    }
    let limits = http1_limits(&profile, budget, permit);
    let handler = move |request: Request<Incoming>| {
        if request.body().is_end_stream() {
            return Either::Left(handler(request.map(IncomingBody::from)));
        }
        let (request, rest) = unread_body::watch(request);
        let answer = handler(request.map(|body| IncomingBody::Returned(Box::new(body))));
        Either::Right(Box::pin(async move { rest.settle(answer.await).await }))
    };
    let io = if mesh {
        Lingering::to_peer(io)
    } else {
        Lingering::to_client(io)
    };
    let refused = move |how, asked: ReportedHead<'_>| refused(how, asked);
    let ended = http1::serve(io, limits, close.as_mut(), refused, handler).await;
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

impl Profile {
    const fn class(&self) -> AdmissionClass {
        match self {
            Self::OwnApplication => AdmissionClass::Own,
            Self::Network | Self::Edge | Self::Mesh(_) => AdmissionClass::Callers,
        }
    }

    const fn previous_hop(&self) -> PreviousHop {
        match self {
            Self::OwnApplication => PreviousHop::Application,
            Self::Network | Self::Edge => PreviousHop::Outside,
            Self::Mesh(_) => PreviousHop::Peer,
        }
    }
}

fn http2_limits(profile: Profile, budget: Arc<Budget>, permit: Arc<Permit>) -> server::Limits {
    let (class, from) = (profile.class(), profile.previous_hop());
    let (profile, flush_handle) = match profile {
        Profile::Mesh(flush_handle) => (MESH, Some(flush_handle)),
        Profile::OwnApplication | Profile::Network | Profile::Edge => (PLAIN, None),
    };
    server::Limits {
        profile,
        budget,
        class,
        from,
        flush_handle,
        permit,
    }
}

fn http1_limits(profile: &Profile, budget: Arc<Budget>, permit: Arc<Permit>) -> http1::Limits {
    let mut builder = Builder::new();
    builder.auto_date_header(false).max_buf_size(BUFFER);
    if matches!(profile, Profile::Mesh(_)) {
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
    http1::Limits {
        builder,
        patience: (!matches!(profile, Profile::OwnApplication)).then_some(IDLE_WITHIN),
        budget,
        class: profile.class(),
        from: profile.previous_hop(),
        last_within: match profile {
            Profile::Edge => LAST_AT_EDGE_WITHIN,
            Profile::OwnApplication | Profile::Network | Profile::Mesh(_) => LAST_WITHIN,
        },
        permit,
    }
}

/// `handler` for requests whose head a server would read; others are answered here.
fn bounded_heads<H, F>(
    most_fields: usize,
    peer: bool,
    refused: RefusedHook,
    handler: H,
) -> RequestHandler
where
    H: Fn(Request<IncomingBody>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    Arc::new(move |request: Request<IncomingBody>| -> AnswerFuture {
        match unreadable_head(&request, most_fields, peer) {
            Some((response, how)) => {
                let (parts, _body) = request.into_parts();
                refused(how, ReportedHead::of(&parts));
                Box::pin(std::future::ready(response))
            }
            None => Box::pin(handler(request)),
        }
    })
}

/// The answer to a request that no handler sees.
fn unreadable_head(
    request: &Request<IncomingBody>,
    most_fields: usize,
    peer: bool,
) -> Option<(Response<Body>, NotHandled)> {
    late(request, peer)
        .or_else(|| too_long(request).map(unreadable))
        .or_else(|| too_many(request, most_fields).map(unreadable))
}

/// The answer to a request with more than `most` fields. HTTP/1.1 bounds them as it reads;
/// `h2` bounds bytes only, and a field may be one byte on the wire.
fn too_many(request: &Request<IncomingBody>, most: usize) -> Option<Response<Body>> {
    // Cookies may come one by one, and are joined.
    let cookies = request.headers().get_all(header::COOKIE).iter().count();
    (request.headers().len() - cookies.saturating_sub(1) > most).then(|| {
        let detail = "more than 100 header fields";
        let mut response = refusal(Reason::BadRequest, detail, false);
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        answer_to(request.method(), response)
    })
}

fn unreadable(response: Response<Body>) -> (Response<Body>, NotHandled) {
    let how = NotHandled::Answered(Reason::BadRequest, response.status());
    (response, how)
}

/// The answer to a request that was not admitted.
fn late(request: &Request<IncomingBody>, peer: bool) -> Option<(Response<Body>, NotHandled)> {
    let why = *request.extensions().get::<NotAdmitted>()?;
    if why == NotAdmitted::Left {
        // This has no receiver.
        return Some((Response::new(body::empty()), NotHandled::Left));
    }
    let grpc = is_grpc(request.headers());
    let response = not_admitted(why, request.method(), grpc, peer);
    Some((response, NotHandled::answered(why)))
}

/// The answer to a request whose target no server would read. Heads that are too long as a whole
/// are refused before a handler sees a request.
fn too_long(request: &Request<IncomingBody>) -> Option<Response<Body>> {
    let target = request.uri().path_and_query()?;
    (target.as_str().len() > MAX_TARGET).then(|| {
        let detail = "the request target is too long";
        let mut response = refusal(Reason::BadRequest, detail, false);
        *response.status_mut() = StatusCode::URI_TOO_LONG;
        answer_to(request.method(), response)
    })
}

#[cfg(test)]
mod tests;
