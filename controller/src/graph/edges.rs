//! The set of known edges of the graph, each stored once, with bounds by node and namespace.
//!
//! Intervals, memory and history refer to the same edges by the thousand, so they share one key
//! and compare its address. A proxy can make up edges, so no node and no namespace takes the room
//! of all others.
//!
//! Claims: observe-4

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::key::{EdgeKey, NodeKey};

/// Edges that are known at one time: those that are remembered and as many that are not.
/// More are counted and not shown, since every proxy could make up edges of its own.
const MAX_EDGES: usize = 40_000;
/// Of those, edges that the pods of one node reported, a tenth: made-up edges of one node leave
/// room for all others.
const MAX_OF_NODE: usize = 4_000;
/// And those of the nodes of one namespace, whose owner may run any number of nodes: half of them.
const MAX_OF_NAMESPACE: usize = 20_000;

/// An edge that is known, with its id.
#[derive(Debug)]
struct KnownEdge {
    key: EdgeKey,
    id: Box<str>,
    /// The node that reported it first.
    by: NodeKey,
}

/// An edge, compared by where it is held: [`Edges`] holds each once.
#[derive(Clone, Debug)]
pub(crate) struct EdgeRef(Arc<KnownEdge>);

impl EdgeRef {
    /// What it is about.
    pub(crate) fn key(&self) -> &EdgeKey {
        &self.0.key
    }

    /// The same in every response of every replica.
    pub(crate) fn id(&self) -> &str {
        &self.0.id
    }

    /// The node that reported it first.
    pub(crate) fn by(&self) -> &NodeKey {
        &self.0.by
    }
}

impl PartialEq for EdgeRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for EdgeRef {}

impl Hash for EdgeRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl PartialEq for KnownEdge {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for KnownEdge {}

impl Hash for KnownEdge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl std::borrow::Borrow<EdgeKey> for KnownEdge {
    fn borrow(&self) -> &EdgeKey {
        &self.key
    }
}

/// All edges that are in use.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    known_edges: HashSet<ByKey>,
    shares: Shares,
    bytes: usize,
    /// Edges that found no place.
    pub(crate) left_out: u64,
}

/// For looking up by key what is held behind a reference.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ByKey(Arc<KnownEdge>);

impl std::borrow::Borrow<EdgeKey> for ByKey {
    fn borrow(&self) -> &EdgeKey {
        &self.0.key
    }
}

/// How many edges each node, and each namespace, reported.
#[derive(Debug, Default)]
struct Shares {
    nodes: HashMap<NodeKey, usize>,
    namespaces: HashMap<Arc<str>, usize>,
}

impl Shares {
    fn count(&mut self, by: &NodeKey) {
        *self.nodes.entry(by.clone()).or_default() += 1;
        let namespace = Arc::clone(&by.object.namespace);
        *self.namespaces.entry(namespace).or_default() += 1;
    }

    fn are_used_up(&self, by: &NodeKey) -> bool {
        let namespace = self.namespaces.get(&by.object.namespace);
        self.nodes
            .get(by)
            .is_some_and(|known| *known >= MAX_OF_NODE)
            || namespace.is_some_and(|known| *known >= MAX_OF_NAMESPACE)
    }
}

impl Edges {
    /// The edge with this key, reported by `by`; `None` when there are too many, of that node or of
    /// all.
    pub(crate) fn get(&mut self, key: EdgeKey, by: &NodeKey) -> Option<EdgeRef> {
        if let Some(known) = self.known_edges.get(&key) {
            return Some(EdgeRef(Arc::clone(&known.0)));
        }
        if self.shares.are_used_up(by) {
            self.left_out += 1;
            return None;
        }
        self.add(key, by)
    }

    /// The edge that stands for those of `by` that had no place.
    pub(crate) fn overflow(&mut self, key: EdgeKey, by: &NodeKey) -> Option<EdgeRef> {
        if let Some(known) = self.known_edges.get(&key) {
            return Some(EdgeRef(Arc::clone(&known.0)));
        }
        self.add(key, by)
    }

    fn add(&mut self, key: EdgeKey, by: &NodeKey) -> Option<EdgeRef> {
        if self.known_edges.len() >= MAX_EDGES {
            self.left_out += 1;
            return None;
        }
        self.bytes += bytes_of(&key);
        self.shares.count(by);
        let id = key.id().into();
        let by = by.clone();
        let known = Arc::new(KnownEdge { key, id, by });
        self.known_edges.insert(ByKey(Arc::clone(&known)));
        Some(EdgeRef(known))
    }

    /// Forgets the edges that are in use nowhere else.
    pub(crate) fn tidy(&mut self) {
        let (mut bytes, mut shares) = (0, Shares::default());
        self.known_edges.retain(|known| {
            let kept = Arc::strong_count(&known.0) > 1;
            if kept {
                bytes += bytes_of(&known.0.key);
                shares.count(&known.0.by);
            }
            kept
        });
        (self.bytes, self.shares) = (bytes, shares);
    }

    /// How many there are, and the bytes that they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.known_edges.len(), self.bytes)
    }
}

/// Bytes that an edge takes at most.
fn bytes_of(key: &EdgeKey) -> usize {
    let ends = [&key.from.object, &key.to.object].into_iter();
    let names = [&key.service, &key.backend, &key.split, &key.account];
    let texts = ends.chain(names.into_iter().flatten());
    let texts: usize = texts
        .map(|key| 32 + key.namespace.len() + key.name.len())
        .sum();
    let rule = key.rule.as_ref().map_or(0, |rule| 16 + rule.len());
    size_of::<KnownEdge>() + texts + rule
}

#[cfg(test)]
mod tests {
    use crds::observe::NodeKind;

    use super::*;
    use crate::graph::key::tests::edge;
    use crate::testing::topology::key;

    #[test]
    fn edge_is_stored_once_and_dropped_with_last_user() {
        let mut edges = Edges::default();
        let get = |edges: &mut Edges| edges.get(edge(80), &edge(80).from).unwrap();
        let (one, two) = (get(&mut edges), get(&mut edges));
        assert_eq!(one, two);
        assert_eq!(edges.size().0, 1);
        drop(one);
        edges.tidy();
        assert_eq!(edges.size().0, 1);
        drop(two);
        edges.tidy();
        assert_eq!(edges.size(), (0, 0));
    }

    #[test]
    fn edges_beyond_the_bound_are_counted_and_not_held() {
        let mut edges = Edges::default();
        let ports = 1..=u16::try_from(MAX_EDGES + 3).unwrap();
        let by = |port: u16| NodeKey {
            kind: NodeKind::Deployment,
            object: key(&format!("n{}", port % 20), "web"),
        };
        let known: Vec<EdgeRef> = ports
            .filter_map(|port| edges.get(edge(port), &by(port)))
            .collect();
        assert_eq!((known.len(), edges.left_out), (MAX_EDGES, 3));
        assert!(
            edges.get(edge(1), &by(1)).is_some(),
            "a known one stays known"
        );
    }

    #[test]
    fn node_and_namespace_have_bounded_renewable_edge_share() {
        let mut edges = Edges::default();
        let by = |namespace: &str, number: usize| NodeKey {
            kind: NodeKind::Deployment,
            object: key(namespace, &format!("web-{number}")),
        };
        let most = u16::try_from(MAX_OF_NODE).unwrap();
        let report = |edges: &mut Edges, by: &NodeKey, port| {
            let from = by.clone();
            edges.get(EdgeKey { from, ..edge(port) }, by)
        };
        let mut known = Vec::new();
        for number in 0..6 {
            let by = by("shop", number);
            known.extend((0..most + 5).filter_map(|port| report(&mut edges, &by, port)));
        }
        assert_eq!(known.len(), MAX_OF_NAMESPACE);
        let other = report(&mut edges, &by("bank", 0), 80);
        assert!(other.is_some());
        known.truncate(MAX_OF_NODE - 1);
        edges.tidy();
        assert!(report(&mut edges, &by("shop", 0), most).is_some());
        assert!(report(&mut edges, &by("shop", 0), most + 1).is_none());
    }
}
