//! The checks of a request besides access: its deadline, whether it is a copy, the rate limits of
//! this pod, its class, and whether the application has room for one more.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use policy::deadline::Deadline;
use policy::fault::Selection;
use policy::limit::Emptied;
use policy::overload::Admit;
use policy::path::PathReadings;
use policy::reason::Reason;
use policy::trace::Format;
use policy::trace::context;
use policy::traffic::guard::Priority;

use crate::config::guard::{Arrival, Exceeded, Noticed, PortGuard};
use crate::config::overload::{AdmittedRequest, PendingRequest, PortOverload};
use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::deadline::{self, Timed, now};
use crate::http::received::{Received, authority_of};
use crate::http::shadow::Shadow;
use crate::inbound::authorize::{AllowedBytes, authorize_bytes};
use crate::inbound::connection::Connection;
use crate::inbound::path::EvaluatedPath;
use crate::net::abandon_limiter::ConnectGuard;
use crate::telemetry::call::Call;
use crate::telemetry::cell::CallGroup;
use crate::telemetry::labels::{OverloadLabels, Port, RateLimitedLabels, ShadowLabels, ShedLabels};
use crate::telemetry::trace::unsampled;

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The deadline of a request: its caller's, and that of this pod's policies where no proxy of the
/// caller applied them. That is so where the caller has no proxy, where its proxy relayed opaque
/// bytes, and where the pod was called by its own address. A peer proxy marks the last case; by an
/// older one it is seen from the host. Headers of ours count only from peer proxies.
pub(super) fn deadline(
    connection: &Connection,
    snapshot: &Snapshot,
    received: &Received,
    path: &EvaluatedPath,
) -> Deadline {
    let (parts, is_proxy) = (&received.parts, connection.is_of_proxy());
    let times = received.times.as_deref().filter(|_| is_proxy);
    let weft = times.and_then(|times| times.timeout.as_ref());
    let rest = times.and_then(|times| times.rest.as_ref());
    let timed = Timed::read(&parts.headers, received.grpc, weft, rest);
    connection
        .proxy
        .telemetry
        .metrics
        .read_time(timed.unreadable);
    let guard = port_guard(connection, snapshot).filter(|guard| guard.has_times());
    let guard = guard.filter(|_| !caller_proxy_applied_policies(connection, received));
    let request = guard.and_then(|guard| {
        guard.request_time(connection.caller(), &path.facts(parts), path.forms().ways())
    });
    deadline::arrived(parts, timed, request)
}

/// Whether the proxy of its caller applied policies to a request, and may choose another
/// endpoint for it: it read the request, which was not sent to this very pod.
pub(super) fn caller_proxy_applied_policies(connection: &Connection, received: &Received) -> bool {
    let times = received.times.as_deref();
    let leaves_policies = times.is_some_and(|times| times.unlimited);
    connection.is_of_proxy()
        && !leaves_policies
        && !is_called_by_address(connection, &received.parts)
}

/// Whether a request names no Service as its host, but the pod's own address.
fn is_called_by_address(connection: &Connection, parts: &Parts) -> bool {
    let host = authority_of(parts);
    let host = host
        .as_ref()
        .map(|host| host.host().trim_matches(['[', ']']));
    let ip = host.and_then(|host| host.parse().ok());
    ip.is_some_and(|ip| connection.proxy.own.has(ip))
}

/// Refuses a copy for read-only receivers where this pod is not one.
pub(super) fn admit_copy(
    connection: &Connection,
    snapshot: &Snapshot,
    received: &Received,
) -> Result<(), Failure> {
    let wants = shadow(connection, received) == Some(Shadow::ReadOnly);
    if wants && snapshot.takes_copies().is_none() {
        let detail = "a copy that is only for pods which their proxy lets change nothing, and \
                      this is none";
        return Err(Failure::refused(Reason::ShadowWrite, detail));
    }
    Ok(())
}

/// What a request has to do with copies, which only a proxy of the mesh may state. It proves
/// nothing: the receiver of a mirror could learn whose copies it gets, and so could its own
/// callees. So it may only take something from a request, which is evaluated, limited and
/// counted as any other, and goes last ([`requested_class`]).
pub(super) fn shadow(connection: &Connection, received: &Received) -> Option<Shadow> {
    received.shadow.filter(|_| connection.is_of_proxy())
}

/// Counts requests after which this pod's calls are not copied for a while, by peer.
pub(super) fn count_shadow(connection: &Connection, shadow: Option<Shadow>) {
    let said = match shadow {
        None => return,
        Some(Shadow::Any | Shadow::ReadOnly) => "copy",
        Some(Shadow::Perhaps(_)) => "perhaps",
    };
    let peer = Arc::clone(&connection.label);
    let labels = ShadowLabels { peer, said };
    let metrics = &connection.proxy.telemetry.metrics;
    metrics.shadow_requests.at(&labels).inc();
}

/// The group in which early reports count a request, while they are wanted.
pub(super) fn group(connection: &Connection, received: &Received) -> CallGroup {
    if !connection.proxy.telemetry.early.is_wanted() {
        return CallGroup::None;
    }
    if shadow(connection, received).is_some_and(Shadow::is_copy) {
        CallGroup::Copies
    } else {
        CallGroup::None
    }
}

/// By which requests to this port count in the groups of a FaultExperiment, if one checks it.
pub(super) fn groups(connection: &Connection, snapshot: &Snapshot) -> Option<Selection> {
    port_guard(connection, snapshot)?.groups()
}

/// Counts a request in its group of that experiment, as its headers go to the application. One
/// without a trace gets one that is not sampled, so that calls which are made for it are of the
/// same group. Copies are of none.
pub(super) fn join_group(
    groups: Selection,
    shadow: Option<Shadow>,
    map: &mut HeaderMap,
    call: &mut Call,
) {
    if shadow.is_some_and(Shadow::is_copy) {
        return;
    }
    let trace = match context::read(map) {
        Some(came) => came.ids.map(|ids| ids.trace),
        None => {
            let onward = unsampled(None);
            context::begin(map, onward, &[Format::TraceContext]);
            Some(onward.trace)
        }
    };
    if let Some(group) = trace.and_then(|trace| groups.group(trace)) {
        call.in_group(group);
    }
}

/// The class that a request states, which counts only from peer proxies. A copy is Sheddable
/// whatever it states, or a false mark as a copy would cost nothing.
pub(super) fn requested_class(connection: &Connection, received: &Received) -> Option<Priority> {
    match shadow(connection, received) {
        Some(Shadow::Any | Shadow::ReadOnly) => Some(Priority::Sheddable),
        Some(Shadow::Perhaps(_)) | None => received.priority.filter(|_| connection.is_of_proxy()),
    }
}

/// The rate limit that refuses this request. Evaluated after access, so that refused requests take
/// no tokens.
pub(super) fn limited(
    connection: &Connection,
    snapshot: &Snapshot,
    received: &Received,
    path: &EvaluatedPath,
) -> Option<Box<Exceeded>> {
    let guard = port_guard(connection, snapshot)?;
    exceeds(
        connection,
        guard,
        &Arrival {
            caller: connection.caller(),
            client: received.client_address.filter(|_| connection.is_of_proxy()),
            request: Some(&path.facts(&received.parts)),
            path: path.forms().ways(),
        },
    )
}

/// May this caller use the port for opaque bytes, and for one more connection of them?
/// `begins_as_tls`: as far as they were looked at.
pub(super) fn admit_bytes(
    connection: &Connection,
    snapshot: &Snapshot,
    begins_as_tls: bool,
) -> Result<AllowedBytes, Failure> {
    let allowed = authorize_bytes(connection, snapshot, begins_as_tls)?;
    let arrival = Arrival {
        caller: connection.caller(),
        client: None,
        request: None,
        path: PathReadings::One,
    };
    let guard = port_guard(connection, snapshot);
    match guard.and_then(|guard| exceeds(connection, guard, &arrival)) {
        Some(exceeded) => Err(failure(&exceeded)),
        None => Ok(allowed),
    }
}

fn port_guard<'a>(connection: &Connection, snapshot: &'a Snapshot) -> Option<&'a PortGuard> {
    let guard = snapshot.guard.as_ref()?;
    guard.port(connection.local.port()).map(|port| &**port)
}

fn exceeds(
    connection: &Connection,
    guard: &PortGuard,
    arrival: &Arrival<'_>,
) -> Option<Box<Exceeded>> {
    let count = |origin: &policy::origin::Origin, mode| {
        let labels = RateLimitedLabels {
            policy: format!("{}/{}", origin.namespace(), origin.name()).into(),
            limit: origin.rule_name().unwrap_or_default().into(),
            mode,
        };
        connection
            .proxy
            .telemetry
            .metrics
            .rate_limited
            .at(&labels)
            .inc();
    };
    let admitted = guard.admit(now(), arrival, |noticed| match noticed {
        Noticed::Audited(origin) => count(origin, "Audit"),
        Noticed::Overflowed => connection.proxy.telemetry.metrics.limit("rate-limit-keys"),
    });
    let exceeded = admitted.err()?;
    count(&exceeded.origin, "Enforce");
    Some(Box::new(exceeded))
}

fn failure(exceeded: &Exceeded) -> Failure {
    let (origin, wait) = (&exceeded.origin, exceeded.refused.retry_after());
    let emptied = match exceeded.refused.emptied {
        Emptied::Own => "is reached",
        Emptied::Forgotten => {
            "is reached by more keys than it has places for: what forgotten keys used is counted \
             to this one"
        }
        Emptied::Shared => {
            "has no place for one more caller, and the bucket that such callers share is empty"
        }
    };
    Failure::Refused {
        reason: Reason::Limit,
        by: Some(origin.clone()),
        detail: format!("the limit of {origin} {emptied}; a token is there in {wait} s").into(),
    }
}

/// The response to a request that exceeds a limit, with the time after which to retry.
pub(super) fn limit_response(
    exceeded: &Exceeded,
    call: Call,
    parts: &Parts,
    grpc: bool,
) -> Response<Body> {
    let mut response = call.refuse(&failure(exceeded), &parts.method, grpc);
    let (name, value) = if grpc {
        let millis = exceeded.refused.wait.as_millis().max(1);
        (PUSHBACK, u64::try_from(millis).unwrap_or(u64::MAX))
    } else {
        (header::RETRY_AFTER, exceeded.refused.retry_after())
    };
    response
        .headers_mut()
        .insert(name, HeaderValue::from(value));
    response
}

/// Admits a request of this class that access and limits have passed. It counts as in flight
/// until what comes back is dropped, or gets its response, which may be that it switched
/// protocols.
///
/// # Errors
/// When the application has no room for it.
pub(super) fn admit_request(
    connection: &Connection,
    snapshot: &Snapshot,
    received: &Received,
    class: Option<Priority>,
) -> Result<Option<Box<AdmittedRequest>>, Failure> {
    let guard = port_guard(connection, snapshot);
    let Some(overload) = guard.and_then(PortGuard::overload) else {
        return Ok(None);
    };
    let pending = PendingRequest {
        priority: class.unwrap_or_default(),
        retry: received.retry && connection.is_of_proxy(),
        audited: false,
    };
    admit_by_overload(connection, overload, pending).map(Some)
}

/// Waits until the call may open a connection. What waits here is not in flight, and needs
/// room when it goes on: others may have taken it.
///
/// # Errors
/// When too many wait, or the application has no room by then.
pub(super) async fn wait_for_turn(
    connection: &Connection,
    connect_guard: &ConnectGuard<'_>,
    admitted: &mut Option<Box<AdmittedRequest>>,
) -> Result<(), Failure> {
    let put_off = admitted.take().map(|admitted| admitted.put_off());
    let turn = connect_guard.turn().await;
    turn.map_err(|full| Failure::not_sent(Reason::Overload, full.to_string()))?;
    if let Some((overload, pending)) = put_off {
        *admitted = Some(admit_by_overload(connection, &overload, pending)?);
    }
    Ok(())
}

fn admit_by_overload(
    connection: &Connection,
    overload: &PortOverload,
    pending: PendingRequest,
) -> Result<Box<AdmittedRequest>, Failure> {
    let decided = overload.arrive(now(), pending, |limit| show_limit(connection, limit));
    if decided.admit != Admit::Pass && !pending.audited {
        let labels = ShedLabels {
            port: Port::Number(connection.local.port()),
            priority: pending.class().as_str(),
        };
        connection.proxy.telemetry.metrics.shed.at(&labels).inc();
    }
    decided.let_in.ok_or_else(|| Failure::Refused {
        reason: Reason::Overload,
        by: Some(overload.origin().clone()),
        detail: format!(
            "the application has more requests than it can answer in time, by {}; this one, \
             of class {}, was not sent to it",
            overload.origin(),
            pending.class().as_str()
        )
        .into(),
    })
}

/// The class of a request, where policies cover this port. Headers about it count only from
/// peer proxies.
pub(super) fn class(
    connection: &Connection,
    snapshot: &Snapshot,
    received: &Received,
    path: &EvaluatedPath,
) -> Option<Priority> {
    let guard = port_guard(connection, snapshot)?;
    let facts = path.facts(&received.parts);
    let class = guard.class(connection.caller(), &facts, path.forms().ways());
    Some(Priority::of_call(
        requested_class(connection, received),
        class,
    ))
}

/// The head of the response is there. The request is in flight no more, and the time that it took
/// sets how many the application gets at once.
pub(super) fn answered(connection: &Connection, admitted: Option<Box<AdmittedRequest>>) {
    if let Some(admitted) = admitted {
        admitted.answered(now(), |limit| show_limit(connection, limit));
    }
}

/// The limit of the port is another one than before.
fn show_limit(connection: &Connection, limit: i64) {
    let labels = OverloadLabels {
        port: Port::Number(connection.local.port()),
    };
    let metrics = &connection.proxy.telemetry.metrics;
    metrics.overload_limit.at(&labels).set(limit);
}
