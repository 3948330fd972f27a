//! Draws the service graph as Graphviz or Mermaid text. Names come from the cluster, so they are
//! quoted, and the ids are generated numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crds::observe::{Edge, Node, NodeKind, Protocol};

use crate::escape;
use crate::output::number;
use crate::traffic::sums::TrafficTotals;
use crate::traffic::{IndexedGraph, select};

/// For Graphviz.
pub(super) fn dot(traffic: &IndexedGraph, here: Option<&str>) -> String {
    let mut text = "digraph mesh {\n  rankdir=LR\n  node [shape=box]\n".to_owned();
    let ids = ids(traffic);
    for (id, number) in &ids {
        let label = quoted(&select::shown(traffic, id, here));
        let style = if may_be_meshed(traffic.node(id)) {
            "solid"
        } else {
            "dashed"
        };
        let _ = writeln!(text, "  n{number} [label=\"{label}\", style={style}]");
    }
    for edge in traffic.edges() {
        let label = quoted(&label(traffic, edge));
        let color = if bad(edge) { "red" } else { "black" };
        let (from, to) = (ids[edge.from.as_str()], ids[edge.to.as_str()]);
        let _ = writeln!(
            text,
            "  n{from} -> n{to} [label=\"{label}\", color={color}]"
        );
    }
    text.push('}');
    text
}

/// For Markdown.
pub(super) fn mermaid(traffic: &IndexedGraph, here: Option<&str>) -> String {
    let mut text = "flowchart LR".to_owned();
    let ids = ids(traffic);
    for (id, number) in &ids {
        let label = entities(&select::shown(traffic, id, here));
        let _ = write!(text, "\n  n{number}[\"{label}\"]");
    }
    for edge in traffic.edges() {
        let label = entities(&label(traffic, edge));
        let arrow = if bad(edge) { "-.->" } else { "-->" };
        let (from, to) = (ids[edge.from.as_str()], ids[edge.to.as_str()]);
        let _ = write!(text, "\n  n{from} {arrow}|\"{label}\"| n{to}");
    }
    text
}

/// The nodes at the ends of edges, numbered in their order.
fn ids(traffic: &IndexedGraph) -> BTreeMap<&str, usize> {
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    for edge in traffic.edges() {
        ids.insert(&edge.from, 0);
        ids.insert(&edge.to, 0);
    }
    for (number, at) in ids.values_mut().enumerate() {
        *at = number;
    }
    ids
}

fn label(traffic: &IndexedGraph, edge: &Edge) -> String {
    let mut sums = TrafficTotals::default();
    sums.add(edge);
    let lock = match Secured::of(edge) {
        Some(Secured::Mtls) => "mtls ",
        Some(Secured::Partly(_) | Secured::Plaintext) => "plaintext ",
        // Its protocol shows it.
        Some(Secured::OwnTls) | None => "",
    };
    let rate = number::rate(edge.requests, traffic.seconds());
    let failed = match edge.failure {
        0 => String::new(),
        some => format!(", {some} failed"),
    };
    format!("{lock}{} {rate}/s{failed}", edge.protocol.as_str())
}

fn bad(edge: &Edge) -> bool {
    !edge.refused.is_empty() || (edge.failure > 0 && edge.success == 0)
}

/// Whether a node is in the mesh, or may be: for nodes of other namespaces it is not reported how
/// many pods have a proxy.
fn may_be_meshed(node: Option<&Node>) -> bool {
    node.is_some_and(|node| match node.kind {
        NodeKind::External | NodeKind::Outside => false,
        _ => node.meshed != Some(0),
    })
}

fn quoted(text: &str) -> String {
    escape::plain(text)
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
}

fn entities(text: &str) -> String {
    let mut written = String::new();
    for letter in escape::plain(text).chars() {
        match letter {
            '"' | '#' | ';' | '<' | '>' | '&' | '|' | '`' | '\\' => {
                let _ = write!(written, "#{};", u32::from(letter));
            }
            letter => written.push(letter),
        }
    }
    written
}

/// Of what is known of an edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Secured {
    /// Mutual TLS of the mesh, all of them.
    Mtls,
    /// TLS of the applications' own, at least those that no mutual TLS carried. The mesh knows
    /// no identity of it.
    OwnTls,
    /// Mutual TLS, but only this share.
    Partly(f64),
    /// Nothing.
    Plaintext,
}

impl Secured {
    /// `None` if it is not known, and if there was nothing to secure.
    pub(super) fn of(edge: &Edge) -> Option<Self> {
        if never_left(edge) {
            return None;
        }
        Some(match edge.mtls? {
            share if share >= 1.0 => Self::Mtls,
            _ if edge.protocol == Protocol::Tls => Self::OwnTls,
            share if share <= 0.0 => Self::Plaintext,
            share => Self::Partly(share),
        })
    }

    /// Whether calls went in plaintext.
    pub(super) const fn has_plaintext(self) -> bool {
        matches!(self, Self::Partly(_) | Self::Plaintext)
    }
}

/// Whether the callers' own proxies refused all of its calls, so that nothing went anywhere. Calls
/// that were served, or are under way, left the caller whatever is counted of attempts.
fn never_left(edge: &Edge) -> bool {
    let reported_by_callers = !edge.caller_silent && edge.server.is_none();
    let nothing_sent = edge.attempts == 0 && edge.success == 0 && edge.sent == 0;
    let nothing_open = edge.open == 0 && edge.opened == 0;
    edge.requests > 0 && reported_by_callers && nothing_sent && nothing_open
}

#[cfg(test)]
mod tests {
    use crds::observe::Graph;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_nodes_known_to_be_unmeshed_are_dashed() {
        let node = |id: &str, kind: &str, meshed: Option<u32>| {
            let mut node = json!({"id": id, "kind": kind, "namespace": "shop", "name": id});
            if let Some(meshed) = meshed {
                node["pods"] = json!(2);
                node["meshed"] = json!(meshed);
            }
            node
        };
        let nodes = [
            node("in", "Deployment", Some(1)),
            node("not", "Deployment", Some(0)),
            // Of a namespace that was not requested.
            node("far", "Deployment", None),
            node("account", "ServiceAccount", None),
            node("host", "External", None),
            node("someone", "Outside", None),
        ];
        let edges: Vec<_> = nodes
            .iter()
            .map(|node| json!({"id": node["id"], "from": "in", "to": node["id"]}))
            .collect();
        let graph = json!({"nodes": nodes, "edges": edges});
        let traffic = IndexedGraph::of(serde_json::from_value::<Graph>(graph).unwrap());
        let dot = dot(&traffic, Some("shop"));
        let style = |name: &str| {
            let lines = dot.lines().filter(|line| line.contains("style="));
            let mut of = lines.filter(|line| line.contains(&format!("{name}\"")));
            let line = of.next().unwrap_or_else(|| panic!("{name}: {dot}"));
            line.contains("dashed")
        };
        for (name, dashed) in [
            ("/in", false),
            ("/not", true),
            ("/far", false),
            ("/account", false),
            ("/host", true),
            ("/someone", true),
        ] {
            assert_eq!(style(name), dashed, "{name}: {dot}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_quotes_in_either_language() {
        let evil = "a\"]; x -> y\n#<script>";
        let graph: Graph = serde_json::from_value(json!({
            "metadata": {"windowSeconds": 60},
            "nodes": [
                {"id": "e", "kind": "External", "name": evil},
                {"id": "w", "kind": "Deployment", "namespace": "shop", "name": "web", "pods": 1, "meshed": 1},
            ],
            "edges": [{"id": "1", "from": "w", "to": "e", "protocol": "http1", "requests": 60, "failure": 60, "attempts": 60,
                       "refused": {"not-allowed": 60}, "mtls": 0.0},
                      {"id": "2", "from": "w", "to": "e", "protocol": "tls", "requests": 60, "success": 60, "mtls": 0.0}],
        }))
        .unwrap();
        let traffic = IndexedGraph::of(graph);
        let dot = dot(&traffic, Some("shop"));
        assert_eq!(dot.lines().count(), 8, "{dot}");
        assert!(
            dot.contains("label=\"external/a\\\"]; x -> y\\\\n#<script>\""),
            "{dot}"
        );
        assert!(
            dot.contains("n1 -> n0 [label=\"plaintext http1 1.0/s, 60 failed\", color=red]"),
            "{dot}"
        );
        assert!(dot.contains("[label=\"tls 1.0/s\", color=black]"), "{dot}");
        assert!(
            dot.contains("n1 [label=\"deploy/web\", style=solid]"),
            "{dot}"
        );
        let mermaid = mermaid(&traffic, Some("shop"));
        assert_eq!(mermaid.lines().count(), 5, "{mermaid}");
        assert!(
            !mermaid.contains("<script>") && !mermaid.contains("a\"]"),
            "{mermaid}"
        );
        assert!(mermaid.contains("n1 -.->|"), "{mermaid}");
    }
}
