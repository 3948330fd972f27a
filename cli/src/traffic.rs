//! The service graph as `observe.weft.dev` serves it: fetched, filtered and summed for commands.
//!
//! Claims: observe-74

pub(crate) mod known;
pub(crate) mod select;
pub(crate) mod sums;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crds::observe::{Edge, Graph, GraphMetadata, LIVE, Node, Resource};
use k8s_openapi::jiff::Timestamp;

use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::output::number;

/// The shortest and the longest window that the graph has.
pub(crate) const WINDOWS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(300)];
/// The only sign, in older controllers, that a window that ends now is not complete.
const UNSETTLED: &str = "reports of the last seconds may still come";

/// A query of the graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    /// The last so many seconds.
    pub(crate) window: Duration,
    /// Minutes of this long ago too.
    pub(crate) history: Option<Duration>,
    /// Each edge by route.
    pub(crate) routes: bool,
    /// Edges without calls in the window, and nodes that no longer exist.
    pub(crate) persisted: bool,
}

impl Question {
    /// About the last `window`.
    ///
    /// # Errors
    /// When the graph has no such window.
    pub(crate) fn window(window: Duration) -> Result<Self, Failure> {
        let [shortest, longest] = WINDOWS;
        let nearest = window.clamp(shortest, longest);
        if nearest != window {
            let [window, shortest, longest, nearest] =
                [window, shortest, longest, nearest].map(number::written);
            return Err(Failure::usage(format!(
                "-t {window}: the graph has windows from {shortest} to {longest}; you may mean \
                 {nearest}"
            )));
        }
        Ok(Self {
            window,
            ..Self::default()
        })
    }

    /// As parameters of the request.
    #[must_use]
    pub(crate) fn query(&self) -> String {
        let mut query = format!("window={}s", self.window.as_secs());
        if let Some(history) = self.history {
            query.push_str(&format!("&history={}m", history.as_secs().div_ceil(60)));
        }
        for (wanted, parameters) in [
            (self.routes, "&routes=1"),
            (self.persisted, "&quiet=1&gone=1"),
        ] {
            if wanted {
                query.push_str(parameters);
            }
        }
        query
    }
}

/// A graph whose nodes are found by their ids.
#[derive(Debug)]
pub(crate) struct IndexedGraph {
    /// As it was received.
    pub(crate) graph: Graph,
    nodes: BTreeMap<String, usize>,
    /// By group the edges that share what the called side counted.
    groups: BTreeMap<String, Vec<usize>>,
}

impl IndexedGraph {
    /// Queries it for the user's namespace.
    ///
    /// # Errors
    /// When there is no response.
    pub(crate) async fn fetch(cluster: &Cluster, question: &Question) -> Result<Self, Failure> {
        let query = question.query();
        let graph: Graph = cluster
            .observe(Resource::Graphs, cluster.scope(), Some(LIVE), &query)
            .await?;
        Ok(Self::of(graph))
    }

    /// From a response.
    #[must_use]
    pub(crate) fn of(graph: Graph) -> Self {
        let nodes = graph.nodes.iter().enumerate();
        let nodes = nodes.map(|(at, node)| (node.id.clone(), at)).collect();
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, edge) in graph.edges.iter().enumerate() {
            if let Some(shared) = &edge.server_shared {
                groups.entry(shared.group.clone()).or_default().push(at);
            }
        }
        Self {
            graph,
            nodes,
            groups,
        }
    }

    /// The edges of this group that share what the called side counted.
    pub(crate) fn sharers<'a>(&'a self, group: &str) -> impl Iterator<Item = &'a Edge> + use<'a> {
        let group = self.groups.get(group).into_iter().flatten();
        group.filter_map(move |at| self.graph.edges.get(*at))
    }

    /// The node of an id.
    #[must_use]
    pub(crate) fn node(&self, id: &str) -> Option<&Node> {
        self.graph.nodes.get(*self.nodes.get(id)?)
    }

    /// All edges.
    #[must_use]
    pub(crate) fn edges(&self) -> &[Edge] {
        &self.graph.edges
    }

    /// The window in seconds.
    #[must_use]
    pub(crate) fn seconds(&self) -> f64 {
        self.graph.metadata.window_seconds as f64
    }

    /// Whether numbers are missing for good, or were not reported yet.
    #[must_use]
    pub(crate) fn is_lossy(&self) -> bool {
        is_lossy(&self.graph.metadata)
    }

    /// Whether it has what the called side of an edge counted; controllers of older versions do not
    /// report it.
    #[must_use]
    pub(crate) fn reports_sides(&self) -> bool {
        self.graph.metadata.sides
    }

    /// The end of the window, by the controller's clock: what times of the graph are compared
    /// with, because this machine's may be wrong.
    #[must_use]
    pub(crate) fn end(&self) -> Option<SystemTime> {
        let end: Timestamp = self.graph.metadata.end.parse().ok()?;
        Some(end.into())
    }

    /// The last minutes for which the edges' traffic is known, if more were requested. The window
    /// is separate from them, and may reach further back.
    #[must_use]
    pub(crate) fn known_minutes(&self) -> Option<i64> {
        let metadata = &self.graph.metadata;
        let since: Timestamp = metadata.history_since.as_deref()?.parse().ok()?;
        let end: Timestamp = metadata.end.parse().ok()?;
        let seconds = end.as_second().saturating_sub(since.as_second());
        let window = i64::try_from(metadata.window_seconds).unwrap_or(i64::MAX);
        Some(seconds.max(window) / 60)
    }

    /// What a person should know of the numbers.
    #[must_use]
    pub(crate) fn word(&self) -> Option<String> {
        let metadata = &self.graph.metadata;
        if is_lossy(metadata) {
            // The message also has how many had no place.
            let why = metadata.incomplete.as_deref();
            let why = why.unwrap_or("the controller does not say why");
            return Some(format!("the numbers are not complete: {why}"));
        }
        let left_out = metadata.left_out;
        (left_out > 0).then(|| format!("{left_out} edges and nodes had no place in the answer"))
    }
}

/// Whether numbers are missing for good. That reports of the last seconds may still come is so of
/// every window that ends now, and no news.
fn is_lossy(metadata: &GraphMetadata) -> bool {
    let unsettled = metadata.unsettled || metadata.incomplete.as_deref() == Some(UNSETTLED);
    !metadata.complete && !unsettled
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The message for a response with this metadata.
    fn word(metadata: &Value) -> Option<String> {
        let graph = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
        IndexedGraph::of(graph).word()
    }

    #[test]
    fn numbers_are_incomplete_after_loss_but_not_while_unsettled() {
        let no_room = "some had no room";
        for metadata in [
            json!({"complete": true}),
            json!({"complete": false, "unsettled": true, "incomplete": "in other words"}),
            // An older controller.
            json!({"complete": false, "incomplete": "reports of the last seconds may still come"}),
        ] {
            assert_eq!(word(&metadata), None, "{metadata}");
        }
        for (metadata, why) in [
            (json!({"complete": false, "incomplete": no_room}), no_room),
            (
                json!({"complete": false}),
                "the controller does not say why",
            ),
        ] {
            let expected = format!("the numbers are not complete: {why}");
            assert_eq!(word(&metadata), Some(expected), "{metadata}");
        }
    }

    #[test]
    fn dropped_row_count_is_shown_once() {
        let why = "the answer is too long: 5 edges and nodes had no room in it";
        let cut = json!({"complete": false, "incomplete": why, "leftOut": 5});
        let expected = format!("the numbers are not complete: {why}");
        assert_eq!(word(&cut), Some(expected));
        // Controllers that mark a response with too many edges as complete.
        for metadata in [
            json!({"complete": true, "leftOut": 5}),
            json!({"complete": false, "unsettled": true, "incomplete": "x", "leftOut": 5}),
        ] {
            let expected = "5 edges and nodes had no place in the answer";
            assert_eq!(word(&metadata).as_deref(), Some(expected), "{metadata}");
        }
    }

    #[test]
    fn known_minutes_cover_at_least_the_window() {
        for (since, known) in [
            (json!("2026-11-02T09:48:00Z"), Some(12)),
            (json!("2026-11-02T09:57:00Z"), Some(5)),
            (Value::Null, None),
        ] {
            let graph = json!({"metadata": {"end": "2026-11-02T10:00:00Z", "windowSeconds": 300,
                "historySince": since}});
            let graph = IndexedGraph::of(serde_json::from_value(graph).unwrap());
            assert_eq!(graph.known_minutes(), known, "{:?}", graph.graph.metadata);
        }
    }

    #[test]
    fn unsupported_window_is_usage_error_before_any_query() {
        for (window, nearest) in [(5, "mean 10s"), (301, "mean 5m")] {
            let refused = Question::window(Duration::from_secs(window));
            let words = refused.unwrap_err().to_string();
            assert!(words.ends_with(nearest), "{words}");
        }
        let mut question = Question::window(Duration::from_secs(60)).unwrap();
        assert_eq!(question.query(), "window=60s");
        question.history = Some(Duration::from_secs(3600));
        question.persisted = true;
        question.routes = true;
        assert_eq!(
            question.query(),
            "window=60s&history=60m&routes=1&quiet=1&gone=1"
        );
    }
}
