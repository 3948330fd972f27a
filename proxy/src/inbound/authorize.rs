//! Authorizes calls from outside the pod. Every decision is made here, and made again when the
//! policy changes. Dry runs of rules are evaluated beside it.
//!
//! Invariant: one snapshot decides everything about one request, or about one connection at one
//! moment. With two, a change in between could combine an old mode with a new rule.

use std::time::{Duration, Instant};

use http::Uri;
use http::request::Parts;
use policy::access::requests::RequestVerdict;
use policy::access::{Access, EvaluatedTraffic, Verdict};
use policy::origin::Origin;
use policy::protocol::Protocol;
use policy::reason::Reason;
use policy::revoked::Revoked;

use crate::config::dry_run::EvaluatedCall;
use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::http::server::IDLE_WITHIN;
use crate::inbound::connection::Connection;
use crate::inbound::path::EvaluatedPath;
use crate::net::sniff::{DETECT_WITHIN, Sniffed, sniff_declared, sniff_leniently, sniff_strictly};
use crate::telemetry::call::Call;

/// Plaintext where none is accepted, whatever the rules.
const WITHOUT_IDENTITY: Verdict<'static> = Verdict::Refuse {
    reason: Reason::NoIdentity,
    by: None,
};

/// What a caller gets whose certificate is revoked.
pub(super) const REVOKED: &str =
    "the certificate of the caller is revoked: `kubectl get revocations` shows by what";

/// The certificate of the caller is revoked, whatever the rules and modes.
const fn revoked(by: &Revoked) -> Verdict<'_> {
    Verdict::Refuse {
        reason: Reason::Revoked,
        by: Some(&by.by),
    }
}

/// What a caller may send on a port.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// Anything: the port is declared to carry no HTTP.
    Bytes,
    /// HTTP; nothing else is delivered. `sniff` decides what is taken for it, and `silence` for
    /// how long the caller may send nothing.
    Http {
        declared: bool,
        silence: Duration,
        sniff: fn(&[u8]) -> Sniffed,
    },
    /// Not declared, and this caller may send anything: the side that sends first decides.
    Either,
}

/// Opaque bytes that a caller may send on a connection.
#[derive(Clone, Debug)]
pub(super) struct AllowedBytes {
    /// What allowed them, where it was a rule.
    pub(super) by: Option<Origin>,
    /// Deny would have refused them.
    pub(super) audited: bool,
    /// HTTP must not pass among them.
    pub(super) watched: bool,
    /// Revision of the policy that allowed them.
    pub(super) policy_revision: u64,
}

/// True when plaintext is refused altogether, whatever the rules.
pub(super) fn needs_identity(connection: &Connection, snapshot: &Snapshot) -> bool {
    connection.peer.is_none() && !snapshot.takes_plaintext(connection.local.port())
}

/// What this caller may send on the port, as of `snapshot`. That decides how it is read;
/// whether it passes is decided when it is known what was sent.
pub(super) fn expected(connection: &Connection, snapshot: &Snapshot) -> Expected {
    let declared = declared(connection, snapshot);
    if declared.is_opaque() {
        return Expected::Bytes;
    }
    let passes = evaluate_bytes(connection, snapshot).is_allowed();
    if !declared.is_http() && passes {
        return Expected::Either;
    }
    let (declared, port) = (declared.is_http(), connection.local.port());
    // Where requests are evaluated or need an identity, whatever might be one is read as one,
    // so that its sender gets the reason.
    let answered = snapshot.access.evaluates_requests(port) || needs_identity(connection, snapshot);
    // Clients open connections ahead of their first request. One that waits for the
    // server to send first learns from the end of its connection that it never will, and a
    // caller that may request nothing has nothing to keep a connection for.
    let welcome = passes
        || !needs_identity(connection, snapshot)
            && snapshot.access.may_request(connection.caller(), port);
    Expected::Http {
        declared,
        silence: if welcome { IDLE_WITHIN } else { DETECT_WITHIN },
        sniff: if declared {
            sniff_declared
        } else if answered {
            sniff_strictly
        } else {
            sniff_leniently
        },
    }
}

/// What is declared for the port, which holds in tunnels as well.
fn declared(connection: &Connection, snapshot: &Snapshot) -> Protocol {
    snapshot
        .workload
        .as_ref()
        .map_or(Protocol::Detect, |workload| {
            workload.ports.lookup(connection.local.port())
        })
}

/// Which bytes come to the port, as far as that is declared.
pub(super) fn declared_bytes(connection: &Connection, snapshot: &Snapshot) -> Protocol {
    match declared(connection, snapshot) {
        Protocol::Tls => Protocol::Tls,
        _ => Protocol::Opaque,
    }
}

/// May this caller use the port for opaque bytes? How they begin decides nothing: a
/// connection that begins with TLS proves nothing by that.
pub(super) fn authorize_bytes(
    connection: &Connection,
    snapshot: &Snapshot,
    begins_as_tls: bool,
) -> Result<AllowedBytes, Failure> {
    let verdict = evaluate_bytes(connection, snapshot);
    dry_run_bytes(connection, snapshot, verdict.is_allowed(), begins_as_tls);
    let audited = audit(connection, &verdict);
    enforce(connection, snapshot, &verdict)?;
    Ok(AllowedBytes {
        by: verdict.by().cloned(),
        audited,
        watched: !declared(connection, snapshot).is_opaque(),
        policy_revision: snapshot.policy_revision,
    })
}

pub(super) fn refuses_bytes(connection: &Connection, snapshot: &Snapshot) -> Result<(), Failure> {
    enforce(connection, snapshot, &evaluate_bytes(connection, snapshot))
}

fn evaluate_bytes<'a>(connection: &Connection, snapshot: &'a Snapshot) -> Verdict<'a> {
    evaluate(connection, snapshot, traffic_of_bytes(connection, snapshot))
}

/// On a port that is declared to carry no HTTP, rules about HTTP do not apply. On any other
/// they are not satisfied by bytes that were not read as HTTP.
fn traffic_of_bytes(connection: &Connection, snapshot: &Snapshot) -> EvaluatedTraffic<'static> {
    if declared(connection, snapshot).is_opaque() {
        EvaluatedTraffic::Opaque
    } else {
        EvaluatedTraffic::Bytes
    }
}

/// Plaintext where none is accepted does not pass, whatever the rules.
fn evaluate<'a>(
    connection: &Connection,
    snapshot: &'a Snapshot,
    traffic: EvaluatedTraffic<'_>,
) -> Verdict<'a> {
    if needs_identity(connection, snapshot) {
        return WITHOUT_IDENTITY;
    }
    if let Some(by) = connection.revoked(snapshot) {
        return revoked(by);
    }
    let port = connection.local.port();
    snapshot.access.decide(connection.caller(), port, traffic)
}

/// True where requests are evaluated one by one: callers without any right to send bytes
/// may have one to requests, and what may be a request is read as one.
pub(super) fn evaluates_requests(connection: &Connection, snapshot: &Snapshot) -> bool {
    snapshot.access.evaluates_requests(connection.local.port())
}

/// What a verdict means for the caller.
fn enforce(
    connection: &Connection,
    snapshot: &Snapshot,
    verdict: &Verdict<'_>,
) -> Result<(), Failure> {
    let Verdict::Refuse { reason, by } = *verdict else {
        return Ok(());
    };
    // No rule has refused it yet.
    if !snapshot.is_complete() {
        return Err(Failure::no_configuration());
    }
    let detail = if reason == Reason::Revoked {
        connection.proxy.telemetry.metrics.revoked_refusals.inc();
        REVOKED
    } else if needs_identity(connection, snapshot) {
        "plaintext is not accepted here"
    } else {
        "no TrafficTarget allows this call"
    };
    Err(Failure::Refused {
        reason,
        by: by.cloned(),
        detail: detail.into(),
    })
}

/// Reports a call that deny would refuse, and returns whether this is one.
fn audit(connection: &Connection, verdict: &Verdict<'_>) -> bool {
    let audited = matches!(verdict, Verdict::Audit { .. });
    if audited {
        tracing::info!(peer = %connection.label, port = connection.local.port(), "deny would refuse this call");
    }
    audited
}

/// Decides, on the path that will be forwarded and on no other, and returns which revision of
/// the policy allowed it. The call records what decided.
pub(super) fn authorize(
    connection: &Connection,
    snapshot: &Snapshot,
    parts: &mut Parts,
    path: &EvaluatedPath,
    call: &mut Call,
) -> Result<u64, Failure> {
    let facts = path.facts(parts);
    let names = snapshot.names.as_ref();
    let route = names.and_then(|names| path.route(names, parts));
    if let Some(route) = route {
        // Counted by that, and decided by nothing of it.
        call.takes_route(route);
    }
    let evaluated = evaluate_request(connection, snapshot, parts, path);
    if connection.proxy.config.dry_runs.any() {
        let passes = |evaluated: &RequestVerdict<'_, '_>| evaluated.verdict.is_allowed();
        let evaluated = EvaluatedCall {
            key: connection.cell_key(call.protocol(), route),
            passes: evaluated.as_ref().is_ok_and(passes),
            request: Some(&facts),
            runs: path.forms().readings().len().max(1),
        };
        dry_run(connection, snapshot, &evaluated, Some((&*parts, path)));
    }
    let RequestVerdict { verdict, replaced } = evaluated?;
    audit(connection, &verdict);
    call.note_verdict(&verdict);
    enforce(connection, snapshot, &verdict)
        .map_err(|failure| failure.with_caller(&connection.label))?;
    let Some(replaced) = replaced else {
        return Ok(snapshot.policy_revision);
    };
    parts.uri = with_path(&parts.uri, replaced)
        .ok_or_else(|| Failure::refused(Reason::BadRequest, "the path cannot be sent on"))?;
    Ok(snapshot.policy_revision)
}

/// The verdict of the rules on a request, and which path of it is sent on. A request whose
/// path they could see in another way than the application is refused where they decide by
/// it, from any caller; before that, any request of a caller whose certificate is revoked.
pub(super) fn evaluate_request<'a, 'p>(
    connection: &Connection,
    snapshot: &'a Snapshot,
    parts: &Parts,
    path: &'p EvaluatedPath,
) -> Result<RequestVerdict<'a, 'p>, Failure> {
    if let Some(by) = connection.revoked_for_good(snapshot) {
        return Ok(RequestVerdict {
            verdict: revoked(by),
            replaced: None,
        });
    }
    let (port, sent) = (connection.local.port(), EvaluatedPath::sent(parts));
    let access = &snapshot.access;
    let evaluated = access.decide_request(connection.caller(), port, &sent, path.forms());
    let evaluated =
        evaluated.map_err(|error| Failure::refused(Reason::BadRequest, error.refusal()))?;
    Ok(if needs_identity(connection, snapshot) {
        RequestVerdict {
            verdict: WITHOUT_IDENTITY,
            replaced: None,
        }
    } else {
        evaluated
    })
}

/// Evaluates dry runs of rules on a request that was evaluated, or, without one, on a connection
/// of opaque bytes. They are evaluated beside the verdict, and are no part of it.
#[cold]
fn dry_run(
    connection: &Connection,
    snapshot: &Snapshot,
    evaluated: &EvaluatedCall<'_>,
    request: Option<(&Parts, &EvaluatedPath)>,
) {
    // Nothing is evaluated before the rules arrive, and everything is refused.
    if !snapshot.is_complete() {
        return;
    }
    let (caller, port) = (connection.caller(), connection.local.port());
    let revoked = match request {
        Some(_) => connection.revoked_for_good(snapshot),
        None => connection.revoked(snapshot),
    };
    let would_pass = |candidate: &Access| {
        if needs_identity(connection, snapshot) || revoked.is_some() {
            return false;
        }
        let Some((parts, path)) = request else {
            let bytes = traffic_of_bytes(connection, snapshot);
            return candidate.decide(caller, port, bytes).is_allowed();
        };
        let sent = EvaluatedPath::sent(parts);
        let evaluated = candidate.decide_request(caller, port, &sent, path.forms());
        evaluated.is_ok_and(|evaluated| evaluated.verdict.is_allowed())
    };
    let dry_runs = &connection.proxy.config.dry_runs;
    dry_runs.evaluate(evaluated, would_pass, Instant::now);
}

/// Evaluates dry runs on a connection of opaque bytes that passes, or does not. They go by what is
/// declared of the port, as the rules in force do, and count as the connection does.
fn dry_run_bytes(connection: &Connection, snapshot: &Snapshot, passes: bool, begins_as_tls: bool) {
    if connection.proxy.config.dry_runs.any() {
        let carried = if begins_as_tls {
            Protocol::Tls
        } else {
            declared_bytes(connection, snapshot)
        };
        let evaluated = EvaluatedCall {
            key: connection.cell_key(carried, None),
            passes,
            request: None,
            runs: 1,
        };
        dry_run(connection, snapshot, &evaluated, None);
    }
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}
