//! What the called side reports of an edge. A caller can report calls that no pod served, so a
//! suggestion relies on the called side's report, as far as it goes. If one report covers several
//! edges, these are evaluated as one.

use std::collections::BTreeMap;

use crds::observe::{Edge, Minute, ServerSums};
use policy::reason::Reason;

use super::earlier;
use crate::traffic::IndexedGraph;

/// Why the called side's word of an edge is not known beside a controller that does not pass it on.
pub(super) const UNREPORTED: &str = "this controller is older than this command, and does not say \
     what the called side counted of these calls";

/// What the called side counted of this edge, or of all edges that share its word.
pub(super) fn server(edge: &Edge) -> Option<&ServerSums> {
    let shared = edge.server_shared.as_ref().map(|shared| &shared.sums);
    edge.server.as_ref().or(shared)
}

/// This edge, and all others that share the called side's word with it.
pub(super) fn sharers<'a>(
    traffic: &'a IndexedGraph,
    edge: &'a Edge,
) -> impl Iterator<Item = &'a Edge> + use<'a> {
    let others = edge.server_shared.as_ref();
    let others = others.map(|shared| traffic.sharers(&shared.group));
    let others = others.into_iter().flatten();
    std::iter::once(edge).chain(others.filter(move |other| other.id != edge.id))
}

/// Whether the called side reports that it served calls of this edge, now or in one of the known
/// minutes.
///
/// # Errors
/// Why its report does not reach that far.
pub(super) fn served(edge: &Edge) -> Result<(), &'static str> {
    if edge.history.iter().any(|minute| minute.proven) {
        return Ok(());
    }
    let Some(server) = server(edge) else {
        // The numbers are the called side's own.
        return match edge.caller_silent && (edge.success > 0 || edge.open > 0) {
            true => Ok(()),
            false => {
                Err("reported by its caller alone: no called pod's proxy says that it served them")
            }
        };
    };
    if server.port_unknown {
        return Err(
            "reported by its caller alone: no Service says that what the called pods counted came \
             by this port",
        );
    }
    if !has_served(server) {
        return Err("reported by its caller alone: the called pods' proxies served none of them");
    }
    if server.mtls.is_some_and(|share| share <= 0.0) {
        return Err("no mutual TLS proves who calls, the called pods' proxies say");
    }
    Ok(())
}

fn has_served(server: &ServerSums) -> bool {
    server.open > 0 || server.requests > server.failure.saturating_add(server.cancelled)
}

/// Calls of the window that no rule allows, by reason, as its caller counted them and, of an edge
/// that shares its word with no other, as whichever side counted more of them.
fn unallowed(edge: &Edge) -> BTreeMap<&'static str, u64> {
    let reported = Reason::UNALLOWED.iter().map(|reason| {
        let name = reason.as_str();
        let server = edge.server.as_ref();
        let server = server.and_then(|server| counted(&server.refused, name));
        let calls = counted(&edge.refused, name).max(server);
        (name, calls.unwrap_or_default())
    });
    reported.filter(|(_, calls)| *calls > 0).collect()
}

fn counted(refused: &BTreeMap<String, u64>, name: &str) -> Option<u64> {
    refused.get(name).copied()
}

fn total(reasons: &BTreeMap<&'static str, u64>) -> u64 {
    reasons.values().copied().fold(0, u64::saturating_add)
}

/// The same of an edge that shares the called side's word with others, for all of these.
fn unallowed_of_all(traffic: &IndexedGraph, edge: &Edge) -> BTreeMap<&'static str, u64> {
    let mut all: BTreeMap<&'static str, u64> = BTreeMap::new();
    for sharer in sharers(traffic, edge) {
        for (name, calls) in unallowed(sharer) {
            let sum = all.entry(name).or_default();
            *sum = sum.saturating_add(calls);
        }
    }
    for reason in Reason::UNALLOWED {
        let name = reason.as_str();
        let shared = server(edge).and_then(|server| counted(&server.refused, name));
        if let Some(calls) = shared.filter(|calls| *calls > 0) {
            let sum = all.entry(name).or_default();
            *sum = calls.max(*sum);
        }
    }
    all
}

/// How many calls were refused in the window by the edge's port that no rule allows, as text; none
/// if there were none.
pub(super) fn refused_by_its_port(traffic: &IndexedGraph, edge: &Edge) -> Option<String> {
    let (calls, whose) = match &edge.server_shared {
        None => (total(&unallowed(edge)), "its calls".to_owned()),
        Some(shared) => {
            let calls = total(&unallowed_of_all(traffic, edge));
            let edges = shared.edges;
            let whose = format!("the calls of the {edges} edges that lead there");
            (calls, whose)
        }
    };
    (calls > 0).then(|| format!("{calls} of {whose}"))
}

/// What of the edge was refused, as text; none if nothing was.
pub(super) fn refusals(traffic: &IndexedGraph, edge: &Edge) -> Option<String> {
    let own = of_its_own(traffic, edge);
    let Some(shared) = &edge.server_shared else {
        return own;
    };
    // Refusals that callers reported are listed with their edges.
    let reported = sharers(traffic, edge).map(|sharer| total(&unallowed(sharer)));
    let reported = reported.fold(0, u64::saturating_add);
    let of_all = total(&unallowed_of_all(traffic, edge));
    let more = of_all.saturating_sub(reported);
    if more == 0 {
        return own;
    }
    let edges = shared.edges;
    let words = format!(
        "{more} calls of the {edges} edges that lead to the same port of the called pods, of which \
         it is not known by which they came"
    );
    Some(match own {
        Some(own) => format!("{own}; {words}"),
        None => words,
    })
}

fn of_its_own(traffic: &IndexedGraph, edge: &Edge) -> Option<String> {
    let reasons = unallowed(edge);
    let calls = total(&reasons);
    let before = earlier::minutes(traffic, edge).filter(|minute| minute.refused);
    let seconds = traffic.graph.metadata.window_seconds;
    let reasons: Vec<String> = reasons
        .iter()
        .map(|(reason, calls)| format!("{calls} {reason}"))
        .collect();
    let reasons = reasons.join(", ");
    match (calls, before.count()) {
        (0, 0) => None,
        (_, 0) => Some(format!(
            "{calls} of its calls in the last {seconds} s ({reasons})"
        )),
        (0, minutes) => Some(format!(
            "calls in {minutes} of the minutes before the last {seconds} s"
        )),
        (_, minutes) => Some(format!(
            "{calls} of its calls in the last {seconds} s ({reasons}), and calls in {minutes} \
             of the minutes before"
        )),
    }
}

/// Whether a minute is one of calls that the called side served.
pub(super) fn is_of_served(minute: &Minute) -> bool {
    minute.proven && minute.served()
}
