//! The routes of an edge's calls, if they cover all that was served.
//!
//! Routes are reported only for the window and for requests, by called pods whose proxies are
//! connected to a controller: what only another pod served has no route, and callers count it all
//! the same. How many calls of a route failed is known of the called workload, for all callers:
//! what exceeds that was served.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::{Edge, RouteSums};

use super::earlier;
use super::reported;
use crate::traffic::IndexedGraph;

/// Percent of the calls that callers report as served which routes must cover at least. Both sides
/// count in intervals of 5 s, and a call may end in another interval at its caller.
const MIN_COVERED: u64 = 95;

/// HTTPRouteGroups and their matches.
pub(super) type Routes = BTreeMap<String, BTreeSet<String>>;

/// The routes of the calls that were served.
///
/// # Errors
/// Why a rule for the known ones would refuse others, or may.
pub(super) fn of(traffic: &IndexedGraph, edge: &Edge) -> Result<Routes, String> {
    let seconds = traffic.graph.metadata.window_seconds;
    if earlier::minutes(traffic, edge).any(reported::is_of_served) {
        return Err(format!(
            "calls before the last {seconds} s have no known route; --since {seconds}s looks at \
             the later ones alone"
        ));
    }
    let (requests, failure) = match reported::server(edge) {
        Some(server) => (server.requests, server.failure),
        // Only the called side reported it.
        None => (edge.requests, edge.failure),
    };
    let covered: u64 = edge.routes.iter().map(|route| route.requests).sum();
    if edge.routes.is_empty() || requests > covered {
        return Err("the routes of some calls are not known".to_owned());
    }
    // Routes are reported for all edges together that share the called side's report.
    let success = reported::sharers(traffic, edge).map(|sharer| sharer.success);
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
