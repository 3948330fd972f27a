//! Writes the service graph as JSON, and tracks which part of it a streaming client was already
//! sent.
//!
//! Claims: observe-2

use std::collections::HashMap;

use crds::observe::{API_VERSION, Edge, GraphMetadata, Node, Resource};

use super::answer::GraphSink;

/// Bytes of one block of text. One text of all parts would grow by doubling, up to twice of what
/// is in it, and be copied each time.
const BLOCK: usize = 64 * 1024;
/// Bytes of the nodes and edges of one response. 20 000 edges with names of a usual length take
/// half of that.
const MAX_BYTES: usize = 24 * 1024 * 1024;

/// A graph as it is written, by part: streams of many readers are made of the same parts.
#[derive(Debug)]
pub(crate) struct Written {
    /// Bytes of all texts that there may be.
    most: usize,
    /// Those that there are.
    bytes: usize,
    metadata: GraphMetadata,
    nodes: Parts,
    edges: Parts,
}

/// Nodes or edges, in the order in which they came.
#[derive(Debug, Default)]
struct Parts {
    /// Of each part its id and its JSON, without anything between.
    blocks: Vec<String>,
    locations: Vec<PartLocation>,
}

/// Where a part stands, and what is known of it.
#[derive(Debug)]
struct PartLocation {
    block: usize,
    start: usize,
    /// Bytes of the id.
    id: usize,
    /// Bytes of the JSON.
    json: usize,
    hash: u64,
    again: bool,
}

// 20 000 edges have one each in every response that is shared.
const _: () = assert!(size_of::<PartLocation>() <= 48);

/// One node or edge.
#[derive(Debug)]
struct Part<'a> {
    id: &'a str,
    json: &'a str,
    /// Of `json`.
    hash: u64,
    /// A reader that comes back is sent it though it seems to be as it was: of what has calls
    /// reports may have come since, and what a node was then is not kept.
    again: bool,
}

impl Parts {
    fn push(&mut self, id: &str, again: bool, json: &str) {
        use std::hash::{DefaultHasher, Hasher as _};
        let mut hasher = DefaultHasher::new();
        hasher.write(json.as_bytes());
        let needed = id.len() + json.len();
        let fits = |last: &String| last.capacity() - last.len() >= needed;
        if !self.blocks.last().is_some_and(fits) {
            self.blocks.push(String::with_capacity(needed.max(BLOCK)));
        }
        let Some(block) = self.blocks.last_mut() else {
            return;
        };
        let start = block.len();
        block.push_str(id);
        block.push_str(json);
        self.locations.push(PartLocation {
            block: self.blocks.len() - 1,
            start,
            id: id.len(),
            json: json.len(),
            hash: hasher.finish(),
            again,
        });
    }

    fn sort(&mut self) {
        let blocks = &self.blocks;
        self.locations
            .sort_unstable_by(|one, other| id_of(blocks, one).cmp(id_of(blocks, other)));
    }

    /// Releases the room that nothing came for.
    fn shrink(&mut self) {
        if let Some(last) = self.blocks.last_mut() {
            last.shrink_to_fit();
        }
        self.blocks.shrink_to_fit();
        self.locations.shrink_to_fit();
    }

    fn iter(&self) -> impl Iterator<Item = Part<'_>> {
        self.locations.iter().map(move |location| {
            let block = self.blocks.get(location.block);
            let text = block.and_then(|block| block.get(location.start..));
            let parted = text.and_then(|text| text.split_at_checked(location.id));
            let (id, rest) = parted.unwrap_or_default();
            let json = rest.get(..location.json).unwrap_or_default();
            Part {
                id,
                json,
                hash: location.hash,
                again: location.again,
            }
        })
    }

    /// Texts of the parts that `keep` accepts.
    fn kept(&self, keep: &impl Fn(&Part<'_>) -> bool) -> Vec<&str> {
        let kept = self.iter().filter(|part| keep(part));
        kept.map(|part| part.json).collect()
    }

    /// Bytes that it takes.
    fn size(&self) -> usize {
        let blocks = self.blocks.iter().map(String::capacity);
        blocks.sum::<usize>() + self.locations.capacity() * size_of::<PartLocation>()
    }
}

/// Bytes of a text and what parts it from the next.
const fn with_comma(json: usize) -> usize {
    json + 1
}

fn id_of<'a>(blocks: &'a [String], location: &PartLocation) -> &'a str {
    let text = blocks.get(location.block);
    let id = text.and_then(|text| text.get(location.start..location.start + location.id));
    id.unwrap_or_default()
}

/// Each is written when it comes, so that they never exist all as objects: those of 10 000 edges
/// take twice the bytes of their texts.
impl GraphSink for Written {
    fn node(&mut self, node: &Node) -> bool {
        // Texts and numbers only: nothing that could not be written.
        let json = serde_json::to_string(node).unwrap_or_default();
        let fits = self.takes(json.len(), self.most);
        if fits {
            self.nodes.push(&node.id, true, &json);
        }
        fits
    }

    fn edge(&mut self, edge: &Edge) -> bool {
        let json = serde_json::to_string(edge).unwrap_or_default();
        let fits = self.takes(json.len(), self.most_of_edges());
        if fits {
            self.edges.push(&edge.id, !edge.quiet, &json);
        }
        fits
    }

    fn room(&self) -> usize {
        self.most_of_edges().saturating_sub(self.bytes)
    }

    fn sort_edges(&mut self) {
        self.edges.sort();
    }

    fn clear_edges(&mut self) {
        let edges = std::mem::take(&mut self.edges).locations.into_iter();
        self.bytes -= edges.map(|edge| with_comma(edge.json)).sum::<usize>();
    }
}

impl Written {
    /// What `write` writes, and the metadata that it returns.
    pub(crate) fn of(write: impl FnOnce(&mut Self) -> GraphMetadata) -> Self {
        Self::within(MAX_BYTES, write)
    }

    /// The same of so many bytes at most.
    pub(super) fn within(most: usize, write: impl FnOnce(&mut Self) -> GraphMetadata) -> Self {
        let mut written = Self {
            most,
            bytes: 0,
            metadata: GraphMetadata::default(),
            nodes: Parts::default(),
            edges: Parts::default(),
        };
        written.metadata = write(&mut written);
        written.nodes.shrink();
        written.edges.shrink();
        written
    }

    /// Bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        self.nodes.size() + self.edges.size()
    }

    /// The remaining bytes are for the nodes that these lead to.
    const fn most_of_edges(&self) -> usize {
        self.most / 4 * 3
    }

    /// Counts a text, if there is room for it.
    fn takes(&mut self, json: usize, most: usize) -> bool {
        let bytes = self.bytes + with_comma(json);
        let fits = bytes <= most;
        if fits {
            self.bytes = bytes;
        }
        fits
    }

    /// Bytes that all of it takes on one line, or some more.
    pub(crate) fn length(&self) -> usize {
        const METADATA: usize = 4096;
        self.bytes + METADATA
    }

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

    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.nodes.iter().chain(self.edges.iter())
    }

    /// The parts that `keep` accepts, on one line, with room for its end: a response of megabytes
    /// is put together once, and never grows by doubling.
    fn only(
        &self,
        keep: impl Fn(&Part<'_>) -> bool,
        removed: &[&str],
        change: impl FnOnce(&mut GraphMetadata),
    ) -> String {
        const BETWEEN: &str = "],\"edges\":[";
        let mut metadata = self.metadata.clone();
        change(&mut metadata);
        let text = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        let head = format!(
            "{{\"apiVersion\":\"{API_VERSION}\",\"kind\":\"{}\",\"metadata\":{},\"nodes\":[",
            Resource::Graphs.kind(),
            text(serde_json::to_string(&metadata)),
        );
        let tail = match removed {
            [] => "]}".to_owned(),
            some => format!("],\"removed\":{}}}", text(serde_json::to_string(some))),
        };
        let (nodes, edges) = (self.nodes.kept(&keep), self.edges.kept(&keep));
        let parts = nodes.iter().chain(&edges);
        let parts: usize = parts.map(|part| part.len() + 1).sum();
        let room = head.len() + parts + BETWEEN.len() + tail.len() + 1;
        let mut line = String::with_capacity(room);
        line.push_str(&head);
        join(&mut line, &nodes);
        line.push_str(BETWEEN);
        join(&mut line, &edges);
        line.push_str(&tail);
        line
    }
}

fn join(line: &mut String, parts: &[&str]) {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            line.push(',');
        }
        line.push_str(part);
    }
}

#[cfg(test)]
impl From<crds::observe::Graph> for Written {
    fn from(graph: crds::observe::Graph) -> Self {
        Self::of(|to| {
            assert!(graph.nodes.iter().all(|node| to.node(node)));
            assert!(graph.edges.iter().all(|edge| to.edge(edge)));
            graph.metadata
        })
    }
}

/// What a reader was shown: of each node and edge its content, as a hash. Responses themselves
/// would be megabytes for each reader.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastShown {
    hashes: HashMap<Box<str>, u64>,
}

impl LastShown {
    /// Notes all of it.
    pub(crate) fn note(&mut self, written: &Written) {
        let parts = written.parts();
        self.hashes = parts.map(|part| (part.id.into(), part.hash)).collect();
    }

    /// What is new to this reader, and what is gone. With `again`, where another stream ended,
    /// also what may have changed since without showing here.
    pub(crate) fn changes(&mut self, written: &Written, again: bool) -> String {
        let before = std::mem::take(&mut self.hashes);
        self.note(written);
        let gone = before.keys().filter(|id| !self.hashes.contains_key(*id));
        let mut gone: Vec<&str> = gone.map(|id| &**id).collect();
        gone.sort_unstable();
        let news =
            |part: &Part<'_>| before.get(part.id) != Some(&part.hash) || (again && part.again);
        written.only(news, &gone, |metadata| metadata.changes = true)
    }

    /// The last line of a stream, which showed all up to this end.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Edges with names of a usual length.
    fn edges(count: usize) -> impl Iterator<Item = Edge> {
        (0..count).map(|number| Edge {
            id: format!("{number:016x}"),
            from: format!("shop/Deployment/web-{number}"),
            to: "shop/Deployment/api".to_owned(),
            requests: 7,
            ..Edge::default()
        })
    }

    fn written(edges: impl Iterator<Item = Edge>) -> Written {
        Written::of(|to| {
            for edge in edges {
                assert!(to.edge(&edge));
            }
            GraphMetadata::default()
        })
    }

    #[test]
    fn parts_take_little_more_than_their_texts() {
        const EDGES: usize = 10_000;
        let written = written(edges(EDGES));
        let texts: usize = edges(EDGES)
            .map(|edge| edge.id.len() + serde_json::to_string(&edge).unwrap().len())
            .sum();
        let more = written.size() - texts;
        // A text of its own had up to as many bytes again for each, as it grew.
        assert!(more < EDGES * 64, "{more} more than {texts} bytes");
        let few = self::written(edges(1)).size();
        assert!(few < 1024, "{few} bytes for one edge");
    }

    #[test]
    fn graph_response_respects_byte_limit_and_reports_omissions() {
        let filled = |most: usize| {
            let mut accepted = (0, 0);
            let written = Written::within(most, |to| {
                accepted.0 = edges(1_000).filter(|edge| to.edge(edge)).count();
                let nodes = (0..1_000).map(|number| Node {
                    id: format!("shop/Deployment/web-{number}"),
                    ..Node::default()
                });
                accepted.1 = nodes.filter(|node| to.node(node)).count();
                GraphMetadata::default()
            });
            let line = written.whole();
            assert!(line.len() <= written.length(), "{} bytes", line.len());
            (accepted, line.len())
        };
        let (accepted, length) = filled(100_000);
        assert!(0 < accepted.0 && accepted.0 < 1_000, "{accepted:?}");
        assert!(0 < accepted.1 && accepted.1 < 1_000, "{accepted:?}");
        assert!(length <= 101_000, "{length} bytes");
        // With room for it nothing is missing.
        assert_eq!(filled(MAX_BYTES).0, (1_000, 1_000));
    }

    #[test]
    fn graph_line_has_exact_size_with_newline_room() {
        for count in [0, 1, 3_000] {
            let mut line = written(edges(count)).whole();
            let (length, room) = (line.len(), line.capacity());
            assert!(
                room > length && room <= length + 3,
                "{length} bytes in {room}"
            );
            line.push('\n');
            assert_eq!(line.capacity(), room, "it was copied for its end");
        }
    }

    #[test]
    fn part_that_is_longer_than_a_block_is_whole() {
        let long = Edge {
            id: "long".to_owned(),
            service: "s".repeat(2 * BLOCK),
            ..Edge::default()
        };
        let all: Vec<Edge> = edges(2).chain([long]).chain(edges(3)).collect();
        let line = written(all.iter().cloned()).whole();
        let read: crds::observe::Graph = serde_json::from_str(&line).unwrap();
        assert_eq!(read.edges, all);
    }
}
