//! A graph as text, and what a reader of a stream was shown of it.

use std::collections::HashMap;

use crds::observe::{API_VERSION, Graph, GraphMetadata, Resource};

/// A graph as it is written, by part: streams of many readers are made of the same parts.
#[derive(Debug)]
pub(crate) struct Written {
    metadata: GraphMetadata,
    nodes: Vec<Part>,
    edges: Vec<Part>,
}

/// One node or edge.
#[derive(Debug)]
struct Part {
    id: Box<str>,
    json: String,
    /// Of `json`.
    hash: u64,
    /// Whoever comes back is told of it though it seems to be as it was: of what has calls
    /// reports may have come since, and what a node was then is not kept.
    again: bool,
}

impl Part {
    fn of(id: &str, again: bool, written: Result<String, serde_json::Error>) -> Self {
        use std::hash::{DefaultHasher, Hasher as _};
        // Texts and numbers only: nothing that could not be written.
        let json = written.unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        hasher.write(json.as_bytes());
        Self {
            id: id.into(),
            hash: hasher.finish(),
            json,
            again,
        }
    }
}

impl From<Graph> for Written {
    fn from(graph: Graph) -> Self {
        let nodes = graph.nodes.iter();
        let edges = graph.edges.iter();
        Self {
            nodes: nodes
                .map(|node| Part::of(&node.id, true, serde_json::to_string(node)))
                .collect(),
            edges: edges
                .map(|edge| Part::of(&edge.id, !edge.quiet, serde_json::to_string(edge)))
                .collect(),
            metadata: graph.metadata,
        }
    }
}

impl Written {
    /// All of it.
    pub(crate) fn whole(&self) -> String {
        self.only(|_| true, &[], |_| {})
    }

    /// End of its window.
    pub(crate) fn end(&self) -> &str {
        &self.metadata.end
    }

    /// Whether some of what was counted is lost.
    pub(crate) fn lacks(&self) -> bool {
        !self.metadata.complete && !self.metadata.unsettled
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.nodes.iter().chain(&self.edges)
    }

    /// The parts that `keep` says, on one line.
    fn only(
        &self,
        keep: impl Fn(&Part) -> bool,
        removed: &[&str],
        change: impl FnOnce(&mut GraphMetadata),
    ) -> String {
        let mut metadata = self.metadata.clone();
        change(&mut metadata);
        let text = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        let joined = |parts: &[Part]| {
            let kept = parts.iter().filter(|part| keep(part));
            let kept: Vec<&str> = kept.map(|part| part.json.as_str()).collect();
            kept.join(",")
        };
        let removed = match removed {
            [] => String::new(),
            some => format!(",\"removed\":{}", text(serde_json::to_string(some))),
        };
        format!(
            "{{\"apiVersion\":\"{API_VERSION}\",\"kind\":\"{}\",\"metadata\":{},\"nodes\":[{}],\"edges\":[{}]{removed}}}",
            Resource::Graphs.kind(),
            text(serde_json::to_string(&metadata)),
            joined(&self.nodes),
            joined(&self.edges),
        )
    }
}

/// What a reader was shown: of each node and edge what it said, as a hash. Answers
/// themselves would be megabytes for each reader.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastShown {
    hashes: HashMap<Box<str>, u64>,
}

impl LastShown {
    /// Notes all of it.
    pub(crate) fn note(&mut self, written: &Written) {
        let parts = written.parts();
        self.hashes = parts.map(|part| (part.id.clone(), part.hash)).collect();
    }

    /// What is new to this reader, and what is gone. With `again`, where another stream ended,
    /// also what may have changed since without showing here.
    pub(crate) fn changes(&mut self, written: &Written, again: bool) -> String {
        let before = std::mem::take(&mut self.hashes);
        self.note(written);
        let gone = before.keys().filter(|id| !self.hashes.contains_key(*id));
        let mut gone: Vec<&str> = gone.map(|id| &**id).collect();
        gone.sort_unstable();
        let news = |part: &Part| before.get(&part.id) != Some(&part.hash) || (again && part.again);
        written.only(news, &gone, |metadata| metadata.changes = true)
    }

    /// The last line of a stream, which told all up to this end.
    pub(crate) fn last(written: &Written, end: &str) -> String {
        written.only(
            |_| false,
            &[],
            |metadata| {
                end.clone_into(&mut metadata.end);
                metadata.changes = true;
                metadata.last = true;
            },
        )
    }
}
