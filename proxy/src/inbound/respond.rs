//! Passes the application's response to the caller for as long as that is allowed, and counts the
//! call when the body has ended. Peer proxies get the application's load with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use http_body_util::BodyExt;

use crate::failure::Failure;
use crate::http::body::{self, Body};
use crate::http::client::exchange::UpstreamResponse;
use crate::http::context::OpenRequest;
use crate::http::deadline::{self, StopConditions, now};
use crate::http::ending_body::EndingBody;
use crate::http::grpc::{grpc_status, is_grpc};
use crate::http::headers::{self, SPENT};
use crate::http::http2::server::Accept;
use crate::http::orca::{self, Utilization};
use crate::http::upgrade::Side;
use crate::http::watched::{BodyEnd, Watched};
use crate::inbound::connection::Connection;
use crate::inbound::reauthorize::{Allowed, no_longer_allowed, over, revoked_request};
use crate::mesh::load::{self, Answered, LastReportedLoad, TooManyPorts};
use crate::mesh::protocol::{PeerResponse, RequestKind};
use crate::net::relay::{Flows, relay};
use crate::telemetry::call::{Call, Counted};

/// Frames of a response that pass before it is evaluated again: most responses have fewer, and
/// need no watch.
const FREE_FRAMES: u32 = 32;

/// The two sides of an upgraded connection, before they carry the other protocol.
struct Upgraded {
    caller: Side,
    server: Side,
    /// What the application switched to.
    to: Option<HeaderValue>,
    /// The request that it was for.
    open_request: OpenRequest,
}

/// Passes the answer to a request on that was `allowed`. `caller_side` is there where the
/// request may switch protocols.
pub(super) async fn respond(
    connection: Arc<Connection>,
    answer: UpstreamResponse,
    call: Call,
    allowed: Allowed,
    caller_side: Option<Side>,
    open_request: OpenRequest,
) -> Response<Body> {
    let UpstreamResponse {
        mut response,
        permit,
        took,
        ..
    } = answer;
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !headers::may_switch(response.headers().get_all(header::UPGRADE)) {
        let failure = Failure::lost("the application switched to HTTP on the connection");
        open_request.refused(failure.reason());
        return call.refuse(&failure, &allowed.parts.method, false);
    }
    let to = response.headers().get(header::UPGRADE).cloned();
    let server = Side::of_answer(&mut response);
    let (mut parts, incoming) = response.into_parts();
    clean_answer(&connection, &mut parts);
    if caller_side.is_none() {
        write_load(&connection, &mut parts, took);
    }
    let head = (parts.status, &mut parts.headers);
    write_retries_exhausted(&connection, &open_request, &allowed.parts.headers, head);
    let mut counted = call.answered(&parts, None);
    let by_mesh = matches!(caller_side, Some(Side::Mesh(_)));
    if let (true, Some(caller)) = (switches, caller_side) {
        let upgraded = Upgraded {
            caller,
            server,
            to,
            open_request,
        };
        return switch(connection, parts, upgraded, allowed, counted);
    }
    if by_mesh {
        parts = PeerResponse::Answered(parts).encode(RequestKind::Upgrade);
    }
    let incoming = EndingBody::new(incoming, StopConditions::at(allowed.ends), &parts.headers);
    let flows = counted.flows();
    let mut watched = Watched::start(incoming, flows, move |end, bytes, trailers| {
        drop(permit);
        open_request.ended(end);
        counted.done(end, bytes, trailers);
    })
    .await;
    if watched.is_late() {
        let request_parts = &allowed.parts;
        return deadline::passed()
            .response_to(&request_parts.method, is_grpc(&request_parts.headers));
    }
    let body = Revocable {
        inner: watched,
        connection,
        allowed: Some(allowed),
        frames: 0,
        over: None,
    };
    Response::from_parts(parts, body.boxed_unsync())
}

fn clean_answer(connection: &Connection, parts: &mut Parts) {
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::strip_ours(&mut parts.headers);
    if connection.is_of_proxy() {
        // The application's protocol shows nothing of the way to the peer, and not every way
        // has a place for its phrase.
        parts.version = Version::HTTP_11;
        parts.extensions.remove::<hyper::ext::ReasonPhrase>();
    }
}

/// Answers that the connection carries another protocol from now on, and relays it
/// for as long as the request is `allowed`.
fn switch(
    connection: Arc<Connection>,
    mut parts: Parts,
    upgraded: Upgraded,
    allowed: Allowed,
    mut counted: Counted,
) -> Response<Body> {
    let Upgraded {
        caller,
        server,
        to,
        open_request,
    } = upgraded;
    open_request.switched();
    let (accept, out) = Accept::new();
    if matches!(caller, Side::Mesh(_)) {
        parts = PeerResponse::Switched { to, parts }.encode(RequestKind::Upgrade);
        parts.extensions.insert(accept);
    } else {
        if let Some(to) = to {
            parts.headers.insert(header::UPGRADE, to);
        }
        let upgrade = HeaderValue::from_static("upgrade");
        parts.headers.insert(header::CONNECTION, upgrade);
    }
    #[expect(clippy::disallowed_methods, reason = "one upgraded connection")]
    tokio::spawn(async move {
        let sides = tokio::join!(caller.opened(out), server.switched());
        let (Some(mut client), Some(mut server)) = sides else {
            return counted.done(BodyEnd::Failed, 0, None);
        };
        let cut = client.cut();
        let (flows, own) = (counted.flows(), Flows::default());
        let mut metered = client.metered(&own);
        let end = tokio::select! {
            // Dropped before its end, it aborts each side that has not received its end.
            _ = relay(&mut metered, &mut server, connection.proxy.budget(), &flows) => {
                BodyEnd::Complete
            }
            () = revoked_request(&connection, &allowed) => BodyEnd::Complete,
            () = cut => BodyEnd::Failed,
        };
        if end == BodyEnd::Complete {
            open_request.ended(end);
        }
        counted.done(end, own.received(), None);
    });
    Response::from_parts(parts, body::empty())
}

/// An answer that ends early when its request is no longer allowed. The wait is
/// set up only when the body makes its reader wait, which most never do.
struct Revocable<B> {
    inner: B,
    connection: Arc<Connection>,
    allowed: Option<Allowed>,
    frames: u32,
    over: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<B> http_body::Body for Revocable<B>
where
    B: http_body::Body<Data = bytes::Bytes, Error = body::BoxError> + Unpin,
{
    type Data = bytes::Bytes;
    type Error = body::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, body::BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        this.frames += 1;
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            read_trailers(&this.connection, trailers);
        }
        if (polled.is_pending() || this.frames > FREE_FRAMES)
            && let Some(allowed) = this.allowed.take()
        {
            let connection = Arc::clone(&this.connection);
            this.over = Some(Box::pin(async move {
                over(&connection, &allowed).await;
            }));
        }
        let Some(over) = &mut this.over else {
            return polled;
        };
        if over.as_mut().poll(cx).is_pending() {
            return polled;
        }
        this.over = None;
        Poll::Ready(Some(Err(no_longer_allowed(&this.connection).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// The application answered so after this time: a peer's proxy gets the load, where it does
/// not know it. Other callers have received nothing.
fn write_load(connection: &Connection, parts: &mut Parts, took: Duration) {
    let answered = Answered {
        port: connection.local.port(),
        now: now(),
        took,
        reported: utilization(connection, orca::in_head(&parts.headers)),
    };
    let (is_proxy, no_load) = (connection.is_of_proxy(), LastReportedLoad::default());
    let last_load = if is_proxy {
        connection.last_load()
    } else {
        &no_load
    };
    match connection.proxy.loads.answered(&answered, last_load) {
        Ok(Some(percent)) if is_proxy => load::write(&mut parts.headers, percent),
        Ok(_) => {}
        Err(full) => too_many(connection, full),
    }
}

/// The trailers of a response may carry the load as well.
fn read_trailers(connection: &Connection, trailers: &HeaderMap) {
    let reported = utilization(connection, orca::in_trailers(trailers));
    if let Some(percent) = reported
        && let Err(full) = connection
            .proxy
            .loads
            .report(connection.local.port(), now(), percent)
    {
        too_many(connection, full);
    }
}

fn utilization(connection: &Connection, reported: Utilization) -> Option<u8> {
    match reported {
        Utilization::Nothing => None,
        Utilization::Percent(percent) => Some(percent),
        Utilization::Unreadable => {
            connection.proxy.telemetry.metrics.unreadable_load();
            None
        }
    }
}

fn too_many(connection: &Connection, _: TooManyPorts) {
    connection.proxy.telemetry.metrics.limit("load-ports");
}

/// Reports to a peer proxy a call that the application made for this request, with these
/// headers, and that failed in its last attempt: a retry here would be a retry there.
pub(super) fn write_retries_exhausted(
    connection: &Connection,
    open_request: &OpenRequest,
    request_headers: &HeaderMap,
    (status, answer): (StatusCode, &mut HeaderMap),
) {
    if connection.is_of_proxy()
        && is_failing(status, answer)
        && connection
            .proxy
            .contexts
            .retries_exhausted(open_request, request_headers)
    {
        answer.insert(SPENT, HeaderValue::from_static("true"));
    }
}

/// Whether a policy may list it.
fn is_failing(status: StatusCode, map: &HeaderMap) -> bool {
    status.as_u16() >= 400 || grpc_status(map).is_some_and(|code| code != 0)
}
