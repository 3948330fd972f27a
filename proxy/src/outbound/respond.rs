//! Returns the response to the application, or the reason why there is none, and counts the call
//! when the body has ended.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::response::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use http_body_util::BodyExt;

use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::body::{self, Body};
use crate::http::byte_stream::ByteStream;
use crate::http::client::exchange::UpstreamResponse;
use crate::http::deadline::{self, StopConditions, WaitEnd};
use crate::http::ending_body::EndingBody;
use crate::http::headers;
use crate::http::received::Received;
use crate::http::refusal::answer_to;
use crate::http::unread_body::ends_connection;
use crate::http::upgrade::Side;
use crate::http::watched::{BodyEnd, Watched};
use crate::net::idle::unless_still;
use crate::net::relay::{Flows, relay};
use crate::outbound::connection::Connection;
use crate::outbound::edge::UpgradeHost;
use crate::outbound::edits::{Unsent, keep_readable, preflight, redirection};
use crate::outbound::opened_to::OpenedTo;
use crate::outbound::route::{Route, leaves_alike, may_leave};
use crate::outbound::serving::Serving;
use crate::outbound::shadow;
use crate::telemetry::call::{Call, Counted};

/// The caller of a request that asks for an upgrade.
pub(crate) struct UpgradingCaller {
    pub(super) side: Side,
    /// Where it came in at a listener of plaintext.
    pub(super) host: Option<UpgradeHost>,
}

/// The two sides of an upgraded connection, before they carry the other protocol.
struct Upgraded {
    client: UpgradingCaller,
    server: Side,
    /// What the server switched to.
    to: Option<HeaderValue>,
    /// How long nothing may move.
    idle: Option<Duration>,
    /// The resource of its endpoint, where that is of a host outside the mesh.
    standing: Option<Arc<str>>,
}

/// Hands the answer to the application and counts when its body has ended.
pub(crate) async fn respond(
    answer: UpstreamResponse,
    call: Call,
    mut served: Serving,
    on_upgrade: Option<UpgradingCaller>,
    connection: &Arc<Connection>,
) -> Response<Body> {
    let UpstreamResponse {
        mut response,
        out,
        permit,
        ..
    } = answer;
    let to = response.headers().get(header::UPGRADE).cloned();
    let server = Side::of_answer(&mut response);
    let (mut parts, incoming) = response.into_parts();
    parts.version = Version::HTTP_11;
    let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !headers::may_switch(parts.headers.get_all(header::UPGRADE)) {
        let failure = Failure::lost("the server switched to HTTP on the connection");
        return call.refuse(&failure, &Method::GET, false);
    }
    let mut counted = clean_answer(&mut parts, call);
    if let Some(marks) = served.marks.take() {
        marks.write(&mut parts.headers);
    }
    if let (true, Some(client)) = (switches, on_upgrade) {
        let server = match (out, incoming.into_http2()) {
            (Some(out), Some(stream)) => Side::Open(ByteStream::new(out, stream)),
            _ => server,
        };
        let idle = served.ends.take().and_then(|ends| ends.idle());
        let upgraded = Upgraded {
            client,
            server,
            to,
            idle,
            standing: served.standing.take(),
        };
        return switch(
            parts,
            upgraded,
            (permit, served),
            counted,
            Arc::clone(connection),
        );
    }
    let grpc = served
        .ends
        .as_deref()
        .is_some_and(StopConditions::is_reported_in_grpc);
    let incoming = EndingBody::new(incoming, served.ends.take(), &parts.headers);
    let (lists, flows) = (Arc::clone(connection), counted.flows());
    let mut watched = Watched::start(incoming, flows, move |end, bytes, trailers| {
        drop(permit);
        served.ended(end, trailers, counted.call(), |among, endpoint| {
            among.lists(&lists.proxy, endpoint)
        });
        counted.done(end, bytes, trailers);
    })
    .await;
    if watched.is_late() {
        let mut response = deadline::passed().response(grpc);
        keep_readable(&parts.headers, response.headers_mut());
        return response;
    }
    Response::from_parts(parts, watched.boxed_unsync())
}

/// The answer to a request that goes to no endpoint. One whose pod is gone ends the connection.
pub(super) fn answer_unsent(
    connection: &Connection,
    mut call: Call,
    unsent: Unsent,
    received: &Received,
) -> Response<Body> {
    let (answer, by) = match unsent {
        Unsent::Failed(failure) => (Err(failure), None),
        Unsent::Redirected { redirect, by } => {
            let called = (connection.scheme(), connection.addr);
            let answer = redirection(&redirect, called, &received.parts);
            (answer, by)
        }
        Unsent::Preflight { headers, by } => (Ok(preflight(*headers)), by),
    };
    call.decided_by(by.as_ref());
    let method = &received.parts.method;
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            if matches!(failure, Failure::TargetGone { .. }) {
                connection.breaks();
            }
            return call.refuse(&failure, method, received.grpc);
        }
    };
    let (parts, body) = answer.into_parts();
    call.answered(&parts, None).whole(0);
    answer_to(method, Response::from_parts(parts, body))
}

/// Returns the failure for the client. Where the pod that the client chose is gone or cannot be
/// connected to, its connection is closed too, so that the client tries the next address.
pub(super) fn conclude_failure(
    connection: &Connection,
    route: &Route,
    failure: Failure,
) -> Failure {
    let opened = connection.opened();
    let failure = match opened {
        Some(opened) => opened.unsent(&connection.proxy.config, failure),
        None => failure,
    };
    let to_pod = opened.is_some_and(OpenedTo::is_pod);
    let of_headless = to_pod && route.choice.is_one() && !route.service.is_empty();
    if of_headless && failure.is_unconnected() {
        connection.breaks();
        return failure.breaks_connection();
    }
    if matches!(failure, Failure::TargetGone { .. }) {
        connection.breaks();
    } else {
        connection.note_answer();
    }
    failure
}

/// The answer that the client gets. Where the call was moved, the connection ends behind
/// it, so that the next request is for the pod of the client's choice again.
pub(super) fn pass_on_response(
    connection: &Connection,
    mut answer: Response<Body>,
    is_moved: bool,
) -> Response<Body> {
    connection.note_answer();
    if is_moved && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        ends_connection(&mut answer);
        connection.breaks();
    }
    answer
}

/// Takes out what is for this proxy only, but for the reason that a peer proxy gave.
fn clean_answer(parts: &mut Parts, call: Call) -> Counted {
    let reason = call.reason_of(&parts.headers);
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::strip_ours(&mut parts.headers);
    if let Some(reason) = reason {
        let reason = HeaderValue::from_static(reason.as_str());
        parts.headers.insert(headers::REASON, reason);
    }
    call.mark_fault(&mut parts.headers);
    call.answered(parts, reason)
}

/// Whether what carries another protocol may go on. `host`: of its request, where that came in at
/// a listener of plaintext. `standing`: the resource of its endpoint, where that is of a host outside
/// the mesh.
fn may_go_on(
    connection: &Connection,
    host: Option<&UpgradeHost>,
    standing: Option<&str>,
    snapshot: &Snapshot,
) -> Result<(), Failure> {
    let is_carried = || match (connection.edge(), host) {
        (Some(edge), Some(host)) => edge.may_carry(host, snapshot),
        (None, _) | (_, None) => Ok(()),
    };
    shadow::may_pass(snapshot)
        .and_then(|()| connection.may_go_on(snapshot))
        .and_then(|()| is_carried())
        .and_then(|()| may_leave(snapshot, standing))
        // None leaves by a Gateway.
        .and_then(|()| leaves_alike(snapshot, standing, false))
}

/// Answers that the connection carries another protocol from now on, and relays it.
fn switch(
    mut parts: Parts,
    upgraded: Upgraded,
    guard: impl Send + 'static,
    mut counted: Counted,
    connection: Arc<Connection>,
) -> Response<Body> {
    let Upgraded {
        client: UpgradingCaller { side: client, host },
        server,
        to,
        idle,
        standing,
    } = upgraded;
    if let Some(protocol) = to {
        parts.headers.insert(header::UPGRADE, protocol);
    }
    let upgrade = HeaderValue::from_static("upgrade");
    parts.headers.insert(header::CONNECTION, upgrade);
    #[expect(clippy::disallowed_methods, reason = "one upgraded connection")]
    tokio::spawn(async move {
        let _guard = guard;
        let sides = tokio::join!(client.switched(), server.switched());
        let (Some(mut client), Some(mut server)) = sides else {
            return counted.done(BodyEnd::Failed, 0, None);
        };
        let cut = client.cut();
        let config = &connection.proxy.config;
        let may_go_on = |now: &Snapshot| {
            let standing = standing.as_deref();
            may_go_on(&connection, host.as_ref(), standing, now)
        };
        let (flows, own) = (counted.flows(), Flows::default());
        let mut metered = client.metered(&own);
        let mut passed = 0;
        let moved = || {
            let now = own.passed();
            std::mem::replace(&mut passed, now) != now
        };
        let end = {
            // Dropped before its end, it aborts each side that has not received its end.
            let relayed = pin!(relay(
                &mut metered,
                &mut server,
                connection.proxy.budget(),
                &flows
            ));
            tokio::select! {
                relayed = unless_still(relayed, idle, moved) => Ok(match relayed {
                    Some(_) => BodyEnd::Complete,
                    None => BodyEnd::OutOfTime(WaitEnd::Still),
                }),
                () = cut => Ok(BodyEnd::Failed),
                refused = config.until_refused(may_go_on) => Err(refused),
                gone = connection.pod_gone() => Err(gone),
            }
        };
        match end {
            Ok(end) => counted.done(end, own.received(), None),
            Err(refused) => counted.cut(refused.reason(), own.received()),
        }
    });
    Response::from_parts(parts, body::empty())
}
