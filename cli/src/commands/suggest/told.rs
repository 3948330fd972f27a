//! What the called side says of an edge. A caller can tell of calls that nobody served, so a
//! suggestion rests on the word of whoever was called, as far as it goes.

use std::collections::BTreeMap;

use crds::observe::{Edge, Minute, ServerSums};
use policy::reason::Reason;

use super::earlier;
use crate::traffic::IndexedGraph;

/// Why the called side's word of an edge is not known beside a controller that does not pass it on.
pub(super) const UNTOLD: &str = "this controller is older than this command, and does not say \
     what the called side counted of these calls";

/// Whether the called side says that it served calls of this edge, now or in one of the minutes
/// that are known.
///
/// # Errors
/// Why its word does not reach that far.
pub(super) fn served(edge: &Edge) -> Result<(), &'static str> {
    if edge.history.iter().any(|minute| minute.proven) {
        return Ok(());
    }
    let Some(server) = &edge.server else {
        // The numbers are the called side's own.
        return match edge.caller_silent && (edge.success > 0 || edge.open > 0) {
            true => Ok(()),
            false => {
                Err("told by its caller alone: no called pod's proxy says that it served them")
            }
        };
    };
    if server.port_unknown {
        return Err(
            "told by its caller alone: no Service says that what the called pods counted came \
             by this port",
        );
    }
    if !has_served(server) {
        return Err("told by its caller alone: the called pods' proxies served none of them");
    }
    if server.mtls.is_some_and(|share| share <= 0.0) {
        return Err("no mutual TLS proves who calls, the called pods' proxies say");
    }
    Ok(())
}

fn has_served(server: &ServerSums) -> bool {
    server.open > 0 || server.requests > server.failure.saturating_add(server.cancelled)
}

/// Calls of the window that no rule allows, by reason, as whichever side counted more of them.
pub(super) fn unallowed(edge: &Edge) -> BTreeMap<&'static str, u64> {
    let told = Reason::UNALLOWED.iter().map(|reason| {
        let name = reason.as_str();
        let counted = |refused: &BTreeMap<String, u64>| refused.get(name).copied();
        let server = edge.server.as_ref();
        let server = server.and_then(|server| counted(&server.refused));
        (name, counted(&edge.refused).max(server).unwrap_or_default())
    });
    told.filter(|(_, calls)| *calls > 0).collect()
}

/// What of the edge was refused, in words; nothing where nothing was.
pub(super) fn refusals(traffic: &IndexedGraph, edge: &Edge) -> Option<String> {
    let reasons = unallowed(edge);
    let calls = reasons.values().copied().fold(0, u64::saturating_add);
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
