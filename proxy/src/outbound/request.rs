//! Handles one HTTP request that leaves the pod: receive, route, prepare, attempt, mirror, fall back,
//! respond.
//!
//! It comes from the application; in the pod of a Gateway from a client at a listener
//! (`connection.edge()`), or from a proxy that hands over a call which is to leave the mesh
//! (`connection.handed()`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::{HeaderValue, Method, Request, Response};
use policy::http_match::RequestFacts;
use policy::reason::Reason;

use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::context::ParentRequest;
use crate::http::deadline::{self, Timed};
use crate::http::headers::{DESTINATION, DESTINATION_POD};
use crate::http::incoming::IncomingBody;
use crate::http::received::{AbsoluteForm, Received, Rejected, Upgrades, host_of};
use crate::http::replay::Replay;
use crate::http::route_override::RouteOverride;
use crate::http::shadow::Shadow;
use crate::http::upload::Upload;
use crate::net::ticket::Waited;
use crate::outbound::call_policy;
use crate::outbound::connection::Connection;
use crate::outbound::context::{self, CancelGuard};
use crate::outbound::edge::{self, UpgradeHost};
use crate::outbound::edits::{Unsent, allow_reading, edit_request, name_once};
use crate::outbound::exchange::{Exchange, ExchangeResult};
use crate::outbound::fallback::{self, AttemptedCall, DueFallback};
use crate::outbound::handed;
use crate::outbound::mirror;
use crate::outbound::respond::{
    UpgradingCaller, answer_unsent, conclude_failure, pass_on_response, respond,
};
use crate::outbound::route::Route;
use crate::outbound::routing::route_call;
use crate::outbound::send::Outgoing;
use crate::outbound::serving_headers::ServingHeaders;
use crate::outbound::shadow;
use crate::proxy::Proxy;
use crate::telemetry::call::{Call, CallKind};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::trace::CameFrom;

/// The parent request of a call, and what the call takes from it.
struct Provenance {
    made_for: ParentRequest,
    /// The route override of calls that are made for it.
    route_override: Option<Arc<RouteOverride>>,
    /// Whether it is a copy, or made for one.
    shadow: Option<Shadow>,
    /// How often this workload has become read-only, read before the decision. An upload ends
    /// when this grows.
    read_only_epoch: u64,
}

/// A request that is ready to be sent, and what is kept of it until its response.
struct Prepared {
    outgoing: Outgoing,
    upload: Upload,
    caller_side: Option<UpgradingCaller>,
}

/// One request of the application, or of a client of the own Gateway, from its head to the head of its
/// response.
pub(super) async fn handle_request(
    connection: Arc<Connection>,
    request: Request<IncomingBody>,
) -> Response<Body> {
    let proxy = &connection.proxy;
    // Without a Service until the route is known.
    let call_ends = CallEnds::to_service(Arc::default(), connection.addr.port());
    let mut call = Call::begin(&proxy.telemetry, CallKind::Request, call_ends);
    let mut received = match receive(&connection, request, &mut call) {
        Ok(received) => received,
        Err(rejected) => return call.reject(&rejected),
    };
    let read_only_epoch = shadow::read_only_epoch(proxy);
    let snapshot = proxy.config.snapshot();
    let provenance = Provenance::of(proxy, &snapshot, read_only_epoch, &mut received);
    let route = route_request(&connection, &snapshot, &mut received, &provenance);
    call.set_ends(match &route {
        Ok(route) => route.call_ends(),
        Err(_) => connection.unrouted(&snapshot, host_of(&received.parts)),
    });
    // Attempts take the newest endpoints.
    drop(snapshot);
    let route = match route {
        Ok(route) => route,
        Err(unsent) => return answer_unsent(&connection, call, unsent, &received),
    };
    let Prepared {
        outgoing,
        upload,
        caller_side,
    } = prepare(&connection, &route, received, provenance, &mut call);
    let (sent, is_moved) = attempt(&connection, &route, &outgoing, &upload, &mut call).await;
    let attempted = AttemptedCall {
        proxy,
        route: &route,
        outgoing: &outgoing,
        upload: &upload,
    };
    let due = fallback::due(attempted, &sent, &call);
    mirror::copy(attempted, &sent, &call, due.and_then(DueFallback::service));
    if let Some(due) = due {
        connection.note_answer();
        // On the heap: most calls have no fallback.
        return Box::pin(fallback::run(due, sent, call, caller_side, &connection)).await;
    }
    outgoing.report_exhausted_retries(proxy);
    match sent {
        Ok((answer, served)) => {
            outgoing.replay.forget();
            let answer = respond(answer, call, served, caller_side, &connection).await;
            pass_on_response(&connection, answer, is_moved)
        }
        Err(failure) => fail(
            &conclude_failure(&connection, &route, failure),
            call,
            &route,
            &outgoing,
        ),
    }
}

/// Sends the call to the endpoints of its route. Where the client chose a pod and the proxy cannot
/// connect to it, the call may move to another pod; true beside the result if it did.
async fn attempt(
    connection: &Connection,
    route: &Route,
    outgoing: &Outgoing,
    upload: &Upload,
    call: &mut Call,
) -> (ExchangeResult, bool) {
    let proxy = &connection.proxy;
    let sent = {
        // Dropped here, before the response is passed on.
        let cancel_guard = CancelGuard::new(&proxy.contexts, outgoing);
        let mut exchange = Exchange::new(proxy, route, outgoing, upload);
        cancel_guard.completed(exchange.send(call).await)
    };
    let Some(others) = route_to_other_pods(connection, route, outgoing, &sent) else {
        return (sent, false);
    };
    // On the heap: hardly any call goes on to another pod.
    let sent = Box::pin(send_to(others, proxy, outgoing, upload, call)).await;
    (sent, true)
}

/// Sends a call to another pod of the Service than the one of its client's choice.
async fn send_to(
    (chosen, others): (SocketAddr, Route),
    proxy: &Proxy,
    outgoing: &Outgoing,
    upload: &Upload,
    call: &mut Call,
) -> ExchangeResult {
    let cancel_guard = CancelGuard::new(&proxy.contexts, outgoing);
    let exchange = Exchange::at_other_endpoints(proxy, &others, outgoing, upload);
    cancel_guard.completed(exchange.excluding(chosen).send(call).await)
}

/// Cleans the request and notes it in the call. A rejected request counts for the Service that was
/// called.
fn receive(
    connection: &Connection,
    request: Request<IncomingBody>,
    call: &mut Call,
) -> Result<Received, Rejected> {
    let mut received = match Received::new(request, Upgrades::Own) {
        Ok(received) => received,
        Err(mut rejected) => {
            let config = &connection.proxy.config;
            call.set_ends(config.inspect(|now| connection.call_ends(now)));
            // Clients outside the mesh have no Service whose port they could name otherwise.
            if connection.edge().is_some() && rejected.parts.method == Method::CONNECT {
                let detail = "CONNECT is not served at a Gateway; send the request itself";
                rejected.failure = Failure::refused(Reason::BadRequest, detail);
            }
            return Err(rejected);
        }
    };
    if let Some(edge) = connection.edge() {
        // The program of the Gateway edits the head: `gateway/src/entrance.rs`.
        if let Err(failure) = edge.enter(&mut received) {
            let parts = Box::new(received.parts);
            return Err(Rejected { failure, parts });
        }
        if !edge.continues_traces {
            let tracer = &connection.proxy.telemetry.tracer;
            tracer.leave(&mut received.parts.headers);
        }
    }
    if connection.handed().is_some() {
        handed::enter(&mut received);
    }
    if let Some(Waited(time)) = received.parts.extensions.get() {
        call.waited(*time);
    }
    call.note_request(&received.parts, CameFrom::Application);
    call.speaks(received.parts.version, received.grpc);
    Ok(received)
}

impl Provenance {
    fn of(
        proxy: &Proxy,
        snapshot: &Snapshot,
        read_only_epoch: u64,
        received: &mut Received,
    ) -> Self {
        let made_for = context::of_call(proxy, received);
        let route_override = context::route_override(proxy, received, &made_for);
        let shadow = shadow::of_call(proxy, snapshot, received, &made_for);
        Self {
            made_for,
            route_override,
            shadow,
            read_only_epoch,
        }
    }
}

/// The request for any endpoint, with trace, deadline and a body that can be sent again. Nothing
/// else of the received request stays in memory until the response.
fn prepare(
    connection: &Connection,
    route: &Route,
    received: Received,
    provenance: Provenance,
    call: &mut Call,
) -> Prepared {
    let proxy = &connection.proxy;
    let Received {
        mut parts,
        body,
        upgrade,
        caller_side,
        grpc,
        times,
        priority,
        ..
    } = received;
    if let Some(declared) = route.speaks {
        edge::speak(&mut parts, declared, upgrade.is_some());
        call.speaks(parts.version, grpc);
    }
    // What lies outside the mesh gets the application's own headers. And in absolute form the
    // endpoint is a forward proxy, which may send all headers on to the host of the target.
    let keeps_own_headers = route.external.is_some() || AbsoluteForm::is_of(&parts);
    let trace = (!keeps_own_headers).then(|| call.pass_on_trace_to_peers(&mut parts.headers));
    if route.leaves_policies_to_peer() {
        let pod = HeaderValue::from_static(DESTINATION_POD);
        parts.headers.insert(DESTINATION, pod);
    }
    let timeout = times.as_ref().and_then(|times| times.timeout.as_ref());
    let timed = Timed::read(&parts.headers, grpc, timeout, None);
    proxy.telemetry.metrics.read_time(timed.unreadable);
    let timeouts = call_policy::timeouts(route.policy.as_deref());
    let deadline = deadline::outgoing(&parts, timed, timeouts, provenance.made_for.until());
    let made_for = provenance.made_for.request();
    let names_client = !keeps_own_headers && edge::name_client(&mut parts);
    let caller_side = caller_side.map(|side| UpgradingCaller {
        side,
        host: UpgradeHost::take(&mut parts),
    });
    let (body, upload) = shadow::watch(proxy, provenance.read_only_epoch, &parts.method, body);
    call.uploads(&upload);
    let replay = Replay::new(body).counted(&mut parts.extensions);
    let outgoing = Outgoing {
        parts,
        replay,
        upgrade,
        grpc,
        called: connection.addr,
        deadline,
        priority: context::priority(priority, made_for.as_deref()),
        shadow: provenance.shadow,
        trace: trace.flatten(),
        made_for,
        retries_exhausted: AtomicBool::new(false),
        late: AtomicBool::new(false),
        forwarded_override: provenance
            .route_override
            .and_then(|route_override| route_override.onward(&proxy.own.identity)),
        names_client,
        no_caller_waits: false,
    };
    Prepared {
        outgoing,
        upload,
        caller_side,
    }
}

/// The response to a call that no endpoint answered. Where the request chose another Service,
/// `weft-routed-to` names it here too.
fn fail(failure: &Failure, call: Call, route: &Route, outgoing: &Outgoing) -> Response<Body> {
    let mut response = call.refuse(failure, &outgoing.parts.method, outgoing.grpc);
    let routed_to = route.overridden.then_some(&*route.backend);
    if let Some(marks) = ServingHeaders::of(None, routed_to, None) {
        marks.write(response.headers_mut());
    }
    allow_reading(route, response.headers_mut());
    response
}

/// The route to the other pods, for a call that could not be connected to the pod of its
/// client's choice: where that pod still exists and the client has seen no failure.
fn route_to_other_pods(
    connection: &Connection,
    route: &Route,
    outgoing: &Outgoing,
    sent: &ExchangeResult,
) -> Option<(SocketAddr, Route)> {
    let failure = sent.as_ref().err()?;
    let movable = failure.is_unconnected()
        && outgoing.replay.may_be_sent()
        && !connection.has_answered()
        && connection
            .opened()
            .is_some_and(|opened| opened.is_there(&connection.proxy.config));
    route.to_others().filter(|_| movable)
}

/// Where the request goes, where it may be sent at all; with the edits of the rule that sends it
/// there.
fn route_request(
    connection: &Connection,
    snapshot: &Snapshot,
    received: &mut Received,
    provenance: &Provenance,
) -> Result<Route, Unsent> {
    shadow::may_send(snapshot, received)?;
    let parts = &received.parts;
    let facts = RequestFacts {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
    };
    let request = Some((&facts, host_of(parts)));
    let client = edge::client_of(parts);
    let route_override = provenance.route_override.as_deref();
    let route = route_call(connection, snapshot, request, client, route_override)?;
    edit_request(&route, &mut received.parts)?;
    if route.external.is_some() {
        name_once(&mut received.parts);
    }
    Ok(route)
}
