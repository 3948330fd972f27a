//! What an edge carried before the window. Of these minutes less is known than of the window:
//! neither the routes of the calls, nor how many of the failed ones were refused; proxies and
//! controllers of older versions do not report whether any were.

use crds::observe::{Edge, Minute};
use k8s_openapi::jiff::Timestamp;

use crate::traffic::IndexedGraph;

/// The minutes that began before the window.
pub(super) fn minutes<'a>(
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
