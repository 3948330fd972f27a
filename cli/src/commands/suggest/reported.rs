//! The called side's report of an edge. A caller can report calls that no pod served, so a
//! suggestion relies on the called side's report, as far as it goes. If one report covers several
//! edges, these are evaluated as one.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::{Edge, Minute, RouteSums, ServerSums};
use k8s_openapi::jiff::Timestamp;
use policy::reason::Reason;

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
    let before = earlier_minutes(traffic, edge).filter(|minute| minute.refused);
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

/// The minutes that began before the window. Of these minutes less is known than of the window:
/// neither the routes of the calls, nor how many of the failed ones were refused; proxies and
/// controllers of older versions do not report whether any were.
pub(super) fn earlier_minutes<'a>(
    traffic: &IndexedGraph,
    edge: &'a Edge,
) -> impl Iterator<Item = &'a Minute> + use<'a> {
    let metadata = &traffic.graph.metadata;
    let window = i64::try_from(metadata.window_seconds).unwrap_or(i64::MAX);
    let begin = seconds(&metadata.end).map(|end| end.saturating_sub(window));
    edge.history.iter().filter(move |minute| {
        let is_inside = match (seconds(&minute.start), begin) {
            (Some(start), Some(begin)) => start >= begin,
            // What cannot be read is taken for older.
            _ => false,
        };
        !is_inside
    })
}

fn seconds(text: &str) -> Option<i64> {
    let at: Timestamp = text.parse().ok()?;
    Some(at.as_second())
}

/// Percent of the calls that callers report as served which routes must cover at least. Both sides
/// count in intervals of 5 s, and a call may end in another interval at its caller.
const MIN_COVERED: u64 = 95;

/// HTTPRouteGroups and their matches.
pub(super) type Routes = BTreeMap<String, BTreeSet<String>>;

/// The routes of the calls that were served, if they cover all that was served.
///
/// Routes are reported only for the window and for requests, by called pods whose proxies are
/// connected to a controller: what only another pod served has no route, and callers count it all
/// the same. How many calls of a route failed is known of the called workload, for all callers:
/// what exceeds that was served.
///
/// # Errors
/// Why a rule for the known ones would refuse others, or may.
pub(super) fn served_routes(traffic: &IndexedGraph, edge: &Edge) -> Result<Routes, String> {
    let seconds = traffic.graph.metadata.window_seconds;
    if earlier_minutes(traffic, edge).any(is_of_served) {
        return Err(format!(
            "calls before the last {seconds} s have no known route; --since {seconds}s looks at \
             the later ones alone"
        ));
    }
    let (requests, failure) = match server(edge) {
        Some(server) => (server.requests, server.failure),
        // Only the called side reported it.
        None => (edge.requests, edge.failure),
    };
    let covered: u64 = edge.routes.iter().map(|route| route.requests).sum();
    if edge.routes.is_empty() || requests > covered {
        return Err("the routes of some calls are not known".to_owned());
    }
    // Routes are reported for all edges together that share the called side's report.
    let success = sharers(traffic, edge).map(|sharer| sharer.success);
    let success = success.fold(0, u64::saturating_add);
    if covered.saturating_mul(100) < success.saturating_mul(MIN_COVERED) {
        return Err("some called pods report no routes".to_owned());
    }
    let mut routes = Routes::new();
    for route in &edge.routes {
        if failure > 0 && !is_served(traffic, edge, route)? {
            continue;
        }
        let Some((group, name)) = route.route.split_once('/') else {
            return Err("some calls have no route".to_owned());
        };
        let matches = routes.entry(group.to_owned()).or_default();
        matches.insert(name.to_owned());
    }
    if routes.is_empty() {
        return Err("of no route it is known that it was served".to_owned());
    }
    Ok(routes)
}

/// Whether calls of a route were served on an edge of which some failed.
///
/// # Errors
/// When that is not reported.
pub(super) fn is_served(
    traffic: &IndexedGraph,
    edge: &Edge,
    route: &RouteSums,
) -> Result<bool, String> {
    // Under way, so it was not refused.
    if route.requests == 0 {
        return Ok(true);
    }
    let routes = traffic.node(&edge.to).map(|node| node.routes.as_slice());
    let mut routes = routes.unwrap_or_default().iter();
    let all = routes.find(|one| one.route == route.route);
    let lost = |all: &RouteSums| all.failure.saturating_add(all.cancelled);
    match all {
        Some(all) if route.requests > lost(all) => Ok(true),
        Some(all) if all.requests <= lost(all) => Ok(false),
        _ => Err("some calls failed, and it is not known of which route".to_owned()),
    }
}
