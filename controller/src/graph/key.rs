//! What tells nodes and edges of the graph apart.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crds::observe::{NodeKind, Protocol};
use sha2::{Digest as _, Sha256};

use crate::inventory::ObjectId;
use crate::inventory::kind::MetricsKind;
use crate::world::ObjectKey;

/// Edges that are known at one time: those that are remembered and as many that are not.
/// More are counted and not shown, since every proxy could make up edges of its own.
pub(crate) const MAX_EDGES: usize = 40_000;
/// Of those, edges that the pods of one node told of, a tenth: what one makes up leaves room
/// for all others.
pub(crate) const MAX_OF_NODE: usize = 4_000;
/// And those of the nodes of one namespace, whose owner may run as many nodes as he likes:
/// half of them.
const MAX_OF_NAMESPACE: usize = 20_000;

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeKey {
    /// What it stands for.
    pub kind: NodeKind,
    /// Without a namespace where it is in none.
    pub object: ObjectKey,
}

impl NodeKey {
    /// A node of no namespace.
    pub(crate) fn elsewhere(kind: NodeKind, name: &str) -> Self {
        Self {
            kind,
            object: ObjectKey::new("", name),
        }
    }

    /// The namespace, unless it is in none.
    pub(crate) fn namespace(&self) -> &str {
        &self.object.namespace
    }

    /// The object that an edge's pod belongs to.
    pub(crate) fn of_workload((kind, object): ObjectId) -> Self {
        let kind = match kind {
            MetricsKind::DaemonSet => NodeKind::DaemonSet,
            MetricsKind::Deployment => NodeKind::Deployment,
            MetricsKind::Job => NodeKind::Job,
            MetricsKind::ReplicaSet => NodeKind::ReplicaSet,
            MetricsKind::ReplicationController => NodeKind::ReplicationController,
            MetricsKind::StatefulSet => NodeKind::StatefulSet,
            MetricsKind::Service => NodeKind::Service,
            // Nothing else owns pods.
            MetricsKind::Pod
            | MetricsKind::Namespace
            | MetricsKind::Node
            | MetricsKind::TrafficSplit => NodeKind::Pod,
        };
        Self { kind, object }
    }

    /// The kind in the inventory, if it has one.
    pub(crate) fn inventory_kind(&self) -> Option<MetricsKind> {
        Some(match self.kind {
            NodeKind::DaemonSet => MetricsKind::DaemonSet,
            NodeKind::Deployment => MetricsKind::Deployment,
            NodeKind::Job => MetricsKind::Job,
            NodeKind::Pod => MetricsKind::Pod,
            NodeKind::ReplicaSet => MetricsKind::ReplicaSet,
            NodeKind::ReplicationController => MetricsKind::ReplicationController,
            NodeKind::StatefulSet => MetricsKind::StatefulSet,
            NodeKind::Service => MetricsKind::Service,
            NodeKind::ServiceAccount
            | NodeKind::External
            | NodeKind::Outside
            | NodeKind::Unknown => return None,
        })
    }

    /// Reads what [`fmt::Display`] writes.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        let (first, rest) = id.split_once('/')?;
        for kind in [NodeKind::External, NodeKind::Outside] {
            if first == kind.as_str() {
                return Some(Self::elsewhere(kind, rest));
            }
        }
        let (kind, name) = rest.split_once('/')?;
        let kind = KINDS.into_iter().find(|known| known.as_str() == kind)?;
        Some(Self {
            kind,
            object: ObjectKey::new(first, name),
        })
    }
}

/// Kinds of nodes in namespaces.
const KINDS: [NodeKind; 9] = [
    NodeKind::DaemonSet,
    NodeKind::Deployment,
    NodeKind::Job,
    NodeKind::Pod,
    NodeKind::ReplicaSet,
    NodeKind::ReplicationController,
    NodeKind::StatefulSet,
    NodeKind::Service,
    NodeKind::ServiceAccount,
];

/// `namespace/Kind/name`, and `Kind/name` where there is no namespace.
impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = (self.kind.as_str(), &self.object.name);
        match &*self.object.namespace {
            "" => write!(f, "{kind}/{name}"),
            namespace => write!(f, "{namespace}/{kind}/{name}"),
        }
    }
}

/// One node's calls to another by one way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EdgeKey {
    /// Who calls.
    pub from: NodeKey,
    /// Who is called.
    pub to: NodeKey,
    /// Service that was called.
    pub service: Option<ObjectKey>,
    /// Its port; without a Service the pod's.
    pub port: u16,
    /// Service whose endpoints served.
    pub backend: Option<ObjectKey>,
    /// TrafficSplit that chose it.
    pub split: Option<ObjectKey>,
    /// What flows.
    pub protocol: Protocol,
    /// The caller's service account, by the certificate that a proxy saw. `None` where no
    /// proxy said it, and where `from` has none or is the account itself.
    pub account: Option<ObjectKey>,
}

impl EdgeKey {
    /// The same for every replica. An account is part of it only where one is known, so that
    /// other edges keep the ids that older versions gave them.
    fn id(&self) -> String {
        let text = |key: &Option<ObjectKey>| key.as_ref().map(ToString::to_string);
        let mut hash = Sha256::new();
        for part in [
            self.from.to_string(),
            self.to.to_string(),
            text(&self.service).unwrap_or_default(),
            self.port.to_string(),
            text(&self.backend).unwrap_or_default(),
            text(&self.split).unwrap_or_default(),
            self.protocol.as_str().to_owned(),
        ] {
            hash.update(part.as_bytes());
            // Stands in no name, so that parts cannot run into each other.
            hash.update([0]);
        }
        if let Some(account) = &self.account {
            hash.update(account.to_string().as_bytes());
        }
        let digest = hash.finalize();
        let bytes = digest.iter().take(8);
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    /// The node whose pods tell of it, for what was remembered: the caller's, where callers
    /// have proxies.
    pub(crate) fn teller(&self) -> &NodeKey {
        match self.from.kind {
            NodeKind::Outside | NodeKind::ServiceAccount => &self.to,
            _ => &self.from,
        }
    }

    /// Whether its calls may be of any account that the caller had: a version wrote it down, or
    /// told it, that knew of no accounts.
    pub(crate) fn lacks_account(&self) -> bool {
        let named = [NodeKind::Outside, NodeKind::ServiceAccount].contains(&self.from.kind);
        self.account.is_none() && !named
    }

    /// Bytes that it takes at most.
    fn bytes(&self) -> usize {
        let ends = [&self.from.object, &self.to.object].into_iter();
        let ways = [&self.service, &self.backend, &self.split, &self.account];
        let texts = ends.chain(ways.into_iter().flatten());
        let texts: usize = texts
            .map(|key| 32 + key.namespace.len() + key.name.len())
            .sum();
        size_of::<Known>() + texts
    }
}

/// An edge that is known, with its id.
#[derive(Debug)]
struct Known {
    key: EdgeKey,
    id: Box<str>,
    /// The node that told of it first.
    by: NodeKey,
}

/// An edge, told apart by where it is held: [`Edges`] holds each once.
#[derive(Clone, Debug)]
pub(crate) struct EdgeRef(Arc<Known>);

impl EdgeRef {
    /// What it is about.
    pub(crate) fn key(&self) -> &EdgeKey {
        &self.0.key
    }

    /// The same in every answer of every replica.
    pub(crate) fn id(&self) -> &str {
        &self.0.id
    }

    /// The node that told of it first.
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

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Known {}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl std::borrow::Borrow<EdgeKey> for Known {
    fn borrow(&self) -> &EdgeKey {
        &self.key
    }
}

/// All edges that somebody holds.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    held: HashSet<ByKey>,
    shares: Shares,
    bytes: usize,
    /// Edges that found no place.
    pub(crate) left_out: u64,
}

/// For looking up by key what is held behind a reference.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ByKey(Arc<Known>);

impl std::borrow::Borrow<EdgeKey> for ByKey {
    fn borrow(&self) -> &EdgeKey {
        &self.0.key
    }
}

/// How many edges nodes, and namespaces, told of.
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
        self.nodes.get(by).is_some_and(|held| *held >= MAX_OF_NODE)
            || namespace.is_some_and(|held| *held >= MAX_OF_NAMESPACE)
    }
}

impl Edges {
    /// The edge with this key, which `by` tells of; `None` when there are too many, of that
    /// node or of all.
    pub(crate) fn get(&mut self, key: EdgeKey, by: &NodeKey) -> Option<EdgeRef> {
        if let Some(held) = self.held.get(&key) {
            return Some(EdgeRef(Arc::clone(&held.0)));
        }
        if self.shares.are_used_up(by) {
            self.left_out += 1;
            return None;
        }
        self.add(key, by)
    }

    /// The edge that stands for those of `by` that had no place.
    pub(crate) fn rest(&mut self, key: EdgeKey, by: &NodeKey) -> Option<EdgeRef> {
        if let Some(held) = self.held.get(&key) {
            return Some(EdgeRef(Arc::clone(&held.0)));
        }
        self.add(key, by)
    }

    fn add(&mut self, key: EdgeKey, by: &NodeKey) -> Option<EdgeRef> {
        if self.held.len() >= MAX_EDGES {
            self.left_out += 1;
            return None;
        }
        self.bytes += key.bytes();
        self.shares.count(by);
        let id = key.id().into();
        let by = by.clone();
        let known = Arc::new(Known { key, id, by });
        self.held.insert(ByKey(Arc::clone(&known)));
        Some(EdgeRef(known))
    }

    /// Forgets what nobody else holds.
    pub(crate) fn tidy(&mut self) {
        let (mut bytes, mut shares) = (0, Shares::default());
        self.held.retain(|held| {
            let kept = Arc::strong_count(&held.0) > 1;
            if kept {
                bytes += held.0.key.bytes();
                shares.count(&held.0.by);
            }
            kept
        });
        (self.bytes, self.shares) = (bytes, shares);
    }

    /// How many there are, and the bytes that they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.held.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::topology::key;

    fn edge(port: u16) -> EdgeKey {
        let node = |name| NodeKey {
            kind: NodeKind::Deployment,
            object: key("shop", name),
        };
        EdgeKey {
            from: node("web"),
            to: node("api"),
            service: Some(key("shop", "api")),
            port,
            backend: None,
            split: None,
            protocol: Protocol::Http1,
            account: None,
        }
    }

    #[test]
    fn node_reads_what_it_writes() {
        let nodes = [
            edge(1).from,
            NodeKey::elsewhere(NodeKind::External, "db.example.com"),
            NodeKey::elsewhere(NodeKind::Outside, "2001:db8::1"),
        ];
        for node in nodes {
            assert_eq!(NodeKey::parse(&node.to_string()), Some(node));
        }
        for bad in ["", "shop", "shop/web", "shop/Rollout/web"] {
            assert_eq!(NodeKey::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn id_is_a_promise_to_clients_of_other_replicas() {
        assert_eq!(edge(80).id().len(), 16);
        assert_ne!(edge(80).id(), edge(81).id());
        let mut moved = edge(80);
        moved.backend = moved.service.take();
        assert_ne!(moved.id(), edge(80).id());
        let account = Some(key("shop", "web"));
        let proven = EdgeKey {
            account,
            ..edge(80)
        };
        assert_ne!(proven.id(), edge(80).id());
        // What no proxy says leaves an id as it was.
        assert_eq!(edge(80).id(), "c188d901d5469306");
    }

    #[test]
    fn edge_is_held_once_and_forgotten_with_its_last_user() {
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
        let held: Vec<EdgeRef> = ports
            .filter_map(|port| edges.get(edge(port), &by(port)))
            .collect();
        assert_eq!((held.len(), edges.left_out), (MAX_EDGES, 3));
        assert!(
            edges.get(edge(1), &by(1)).is_some(),
            "a known one stays known"
        );
    }

    #[test]
    fn one_node_and_the_nodes_of_one_namespace_have_a_share_that_comes_back() {
        let mut edges = Edges::default();
        let by = |namespace: &str, number: usize| NodeKey {
            kind: NodeKind::Deployment,
            object: key(namespace, &format!("web-{number}")),
        };
        let most = u16::try_from(MAX_OF_NODE).unwrap();
        let tell = |edges: &mut Edges, by: &NodeKey, port| {
            let from = by.clone();
            edges.get(EdgeKey { from, ..edge(port) }, by)
        };
        let mut held = Vec::new();
        for number in 0..6 {
            let by = by("shop", number);
            held.extend((0..most + 5).filter_map(|port| tell(&mut edges, &by, port)));
        }
        assert_eq!(held.len(), MAX_OF_NAMESPACE);
        let other = tell(&mut edges, &by("bank", 0), 80);
        assert!(other.is_some());
        held.truncate(MAX_OF_NODE - 1);
        edges.tidy();
        assert!(tell(&mut edges, &by("shop", 0), most).is_some());
        assert!(tell(&mut edges, &by("shop", 0), most + 1).is_none());
    }
}
