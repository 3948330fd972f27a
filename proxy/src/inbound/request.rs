//! Handles one HTTP request from outside the pod: receive, decide (deadline, access, rate limits,
//! overload), prepare, forward, respond.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use policy::access::Caller;
use policy::deadline::Deadline;
use policy::fault::Selection;
use policy::traffic::guard::Priority;

use crate::config::guard::Exceeded;
use crate::config::overload::AdmittedRequest;
use crate::config::snapshot::Snapshot;
use crate::failure::{Failure, Next, StreamReset};
use crate::http::body::Body;
use crate::http::context::{Inherited, OpenRequest};
use crate::http::deadline::{self, NextHop};
use crate::http::headers;
use crate::http::incoming::IncomingBody;
use crate::http::received::{AbsoluteForm, Received, Rejected, Upgrades};
use crate::http::replay::Replay;
use crate::http::route_override::{OverrideAuthor, RouteOverride, UnreadableOverride};
use crate::http::upgrade::Side;
use crate::http::upload::Upload;
use crate::inbound::authorize::authorize;
use crate::inbound::connection::Connection;
use crate::inbound::forward::forward;
use crate::inbound::guard;
use crate::inbound::path::EvaluatedPath;
use crate::inbound::reauthorize::Allowed;
use crate::inbound::respond::{respond, write_retries_exhausted};
use crate::mesh::protocol::{AppHttp, RequestKind, not_sent};
use crate::net::ticket::Waited;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::labels::OverrideLabels;
use crate::telemetry::trace::CameFrom;

/// The result of the evaluation for a request that passes.
struct AuthorizedRequest {
    deadline: Deadline,
    /// Revision of the policy that allowed it.
    policy_revision: u64,
    class: Option<Priority>,
    /// By which it counts in the groups of a FaultExperiment.
    groups: Option<Selection>,
    /// Its room in the application; `None` where no policy protects that from overload.
    admitted: Option<Box<AdmittedRequest>>,
}

/// Why a request does not pass. Each gets a response of its own form.
enum Refused {
    /// Its time is over, it is a copy for others, or its caller may not send it.
    Denied(Failure),
    Limited(Box<Exceeded>),
    Shed(Failure),
}

/// A request that is ready to be forwarded, and what is kept of it until its response.
struct Prepared {
    allowed: Allowed,
    replay: Replay,
    upload: Upload,
    open_request: OpenRequest,
    admitted: Option<Box<AdmittedRequest>>,
    caller_side: Option<Side>,
    grpc: bool,
}

/// One HTTP request from outside the pod, from its head to the head of its response.
pub(super) async fn handle_request(
    connection: Arc<Connection>,
    request: Request<IncomingBody>,
    app_http: AppHttp,
    upgrades: Upgrades,
) -> Response<Body> {
    let mut call = connection.call(CallKind::Request);
    let mut received = match receive(&connection, request, app_http, upgrades, &mut call) {
        Ok(received) => received,
        Err(rejected) => return call.reject(&rejected),
    };
    let snapshot = connection.proxy.config.snapshot();
    let authorized = decide(&connection, &snapshot, &mut received, &mut call);
    // The application may take minutes; `forward` evaluates the request again when rules change.
    drop(snapshot);
    let authorized = match authorized {
        Ok(authorized) => authorized,
        Err(refused) => return refuse(&connection, refused, call, &received),
    };
    let Prepared {
        allowed,
        replay,
        upload,
        open_request,
        mut admitted,
        caller_side,
        grpc,
    } = prepare(&connection, received, authorized, &mut call);
    match forward(&connection, &allowed, &replay, app_http, &mut admitted).await {
        Ok(answer) => {
            connection.note_answer();
            guard::answered(&connection, admitted);
            replay.forget();
            respond(connection, answer, call, allowed, caller_side, open_request).await
        }
        Err(failure) => {
            // A body that broke off is the caller's failure, and not the application's.
            let failure = upload.blame(failure);
            fail(
                &connection,
                &failure,
                call,
                &allowed.parts,
                grpc,
                open_request,
            )
        }
    }
}

/// Validates and cleans the request. From now on it is counted.
fn receive(
    connection: &Connection,
    request: Request<IncomingBody>,
    app_http: AppHttp,
    upgrades: Upgrades,
    call: &mut Call,
) -> Result<Received, Rejected> {
    let from = match upgrades {
        Upgrades::FromPeer(_) => CameFrom::Peer,
        Upgrades::Own => CameFrom::Application,
    };
    let received = Received::new(request, upgrades)?;
    if let Some(Waited(time)) = received.parts.extensions.get() {
        call.waited(*time);
    }
    call.note_request(&received.parts, from);
    call.speaks(app_http.version(), received.grpc);
    connection.count_on_cell(call, guard::group(connection, &received));
    Ok(received)
}

/// Evaluates deadline, access, copies, rate limits and overload for a request, all by one snapshot.
/// `guard` has all of these but access, which is in `authorize`.
fn decide(
    connection: &Connection,
    snapshot: &Snapshot,
    received: &mut Received,
    call: &mut Call,
) -> Result<AuthorizedRequest, Refused> {
    let path = EvaluatedPath::of(&received.parts);
    let deadline = guard::deadline(connection, snapshot, received, &path);
    let policy_revision = deadline::check(deadline)
        .and_then(|()| authorize(connection, snapshot, &mut received.parts, &path, call))
        // A caller without access gets that reason, and learns nothing of this pod's limits.
        .and_then(|policy_revision| {
            guard::admit_copy(connection, snapshot, received).map(|()| policy_revision)
        })
        .map_err(Refused::Denied)?;
    if let Some(exceeded) = guard::limited(connection, snapshot, received, &path) {
        return Err(Refused::Limited(exceeded));
    }
    let class = guard::class(connection, snapshot, received, &path);
    let admitted = guard::admit_request(connection, snapshot, received, class);
    Ok(AuthorizedRequest {
        deadline,
        policy_revision,
        class,
        groups: guard::groups(connection, snapshot),
        admitted: admitted.map_err(Refused::Shed)?,
    })
}

/// The response to a request that does not pass.
fn refuse(
    connection: &Connection,
    refused: Refused,
    call: Call,
    received: &Received,
) -> Response<Body> {
    let (parts, grpc) = (&received.parts, received.grpc);
    match refused {
        Refused::Denied(failure) => {
            let response = call.refuse(&failure, &parts.method, grpc);
            // Of these only a missing configuration lets the caller's proxy try another endpoint;
            // `Failure::Refused` never does.
            with_not_sent_proof(connection, &failure, response)
        }
        Refused::Limited(exceeded) => guard::limit_response(&exceeded, call, parts, grpc),
        Refused::Shed(failure) => call.refuse(&failure, &parts.method, grpc),
    }
}

/// The request as it goes to the application: with the headers that it gets, registered for
/// calls that are made for it, and with a body that can be sent again.
fn prepare(
    connection: &Connection,
    mut received: Received,
    authorized: AuthorizedRequest,
    call: &mut Call,
) -> Prepared {
    let AuthorizedRequest {
        deadline,
        policy_revision,
        class,
        groups,
        admitted,
    } = authorized;
    let ends = deadline::ends(deadline, &received.parts.method);
    // Needed only where a deadline bounds the connect timeout.
    let replaceable = ends.is_some() && guard::caller_proxy_applied_policies(connection, &received);
    let absolute_form = AbsoluteForm::is_of(&received.parts);
    write_caller_and_upgrade(connection, &mut received);
    let shadow = guard::shadow(connection, &received);
    guard::count_shadow(connection, shadow);
    let (tracker, map) = (
        &connection.proxy.shadow_tracker,
        &mut received.parts.headers,
    );
    if absolute_form {
        // The application is a forward proxy here and may send all headers to that host, so none is
        // added.
        tracker.request_arrives(shadow, &mut HeaderMap::new());
    } else {
        call.pass_on_trace(map);
        if let Some(groups) = groups {
            guard::join_group(groups, shadow, map, call);
        }
        tracker.request_arrives(shadow, map);
    }
    let open_request = register(connection, &mut received, deadline, class);
    let Received {
        mut parts,
        body,
        caller_side,
        grpc,
        ..
    } = received;
    if absolute_form {
        headers::strip_ours(&mut parts.headers);
    } else {
        deadline::write_headers(&mut parts, deadline, grpc, NextHop::Application);
    }
    let (body, upload) = Upload::watch(body);
    call.uploads(&upload);
    let replay = Replay::new(body).counted(&mut parts.extensions);
    Prepared {
        allowed: Allowed {
            parts,
            policy_revision,
            ends,
            replaceable,
        },
        replay,
        upload,
        open_request,
        admitted,
        caller_side,
        grpc,
    }
}

/// Writes what the application may know: the caller's identity, and the upgrade that the caller
/// requests, which no rule evaluates.
fn write_caller_and_upgrade(connection: &Connection, received: &mut Received) {
    let map = &mut received.parts.headers;
    if let Some(peer) = &connection.peer
        && let Ok(id) = HeaderValue::from_str(peer.spiffe.as_str())
    {
        map.insert(headers::CLIENT_ID, id);
    }
    if let Some(upgrade) = &received.upgrade {
        map.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        map.insert(header::UPGRADE, upgrade.clone());
    }
}

/// Registers what a request leaves to the calls that its application makes for it: it goes to the
/// application, as one of this class where that is known here. Headers about it count only from
/// peer proxies.
fn register(
    connection: &Connection,
    received: &mut Received,
    deadline: Deadline,
    class: Option<Priority>,
) -> OpenRequest {
    let is_proxy = connection.is_of_proxy();
    let inherited = Inherited {
        deadline,
        retry: received.retry && is_proxy,
        priority: class.or_else(|| guard::requested_class(connection, received)),
        shadow: guard::shadow(connection, received),
        route_override: route_override(connection, received),
    };
    let map = &mut received.parts.headers;
    let (open_request, room) = connection.proxy.contexts.register(&inherited, map);
    if !room {
        connection.proxy.telemetry.metrics.limit("contexts");
    }
    open_request
}

/// The Service to which calls made for a request are to go. Where no peer proxy wrote the header,
/// only its token counts, as from outside the mesh.
fn route_override(connection: &Connection, received: &Received) -> Option<Arc<RouteOverride>> {
    let headers = received.route_override.as_ref()?;
    let caller = if connection.is_of_proxy() {
        connection.caller()
    } else {
        Caller::Outside
    };
    match headers.read(
        OverrideAuthor::Caller(caller),
        &connection.proxy.own.namespace,
    ) {
        Ok(route_override) => route_override.map(Arc::new),
        Err(UnreadableOverride) => {
            let outcome = "unreadable";
            let metrics = &connection.proxy.telemetry.metrics;
            metrics.overrides.at(&OverrideLabels { outcome }).inc();
            None
        }
    }
}

/// The response to a request that was not forwarded, or to which no response came.
fn fail(
    connection: &Connection,
    failure: &Failure,
    call: Call,
    request_parts: &Parts,
    grpc: bool,
    open_request: OpenRequest,
) -> Response<Body> {
    let mut response = call.refuse(failure, &request_parts.method, grpc);
    let head = (response.status(), response.headers_mut());
    write_retries_exhausted(connection, &open_request, &request_parts.headers, head);
    open_request.refused(failure.reason());
    with_not_sent_proof(connection, failure, response)
}

/// `response`, with proof that no application saw the request where that is so. Only a peer proxy
/// can read it.
fn with_not_sent_proof(
    connection: &Connection,
    failure: &Failure,
    mut response: Response<Body>,
) -> Response<Body> {
    if failure.next() != Next::Stop && connection.is_of_proxy() {
        // The stream between the proxies carries the proof, and is not refused itself.
        response.extensions_mut().remove::<StreamReset>();
        not_sent(failure, response, RequestKind::Http)
    } else {
        response
    }
}
