//! The keys of the graph's nodes and edges, and the ids that clients see for them.
//!
//! Both are the same on every replica and in every response: a client that repeats a query, maybe
//! at another replica, finds the same ids. `edges` holds the known keys.

use std::fmt;
use std::sync::Arc;

use crds::label_syntax::is_object_name;
use crds::observe::{NodeKind, Protocol};
use model::world::ObjectKey;
use sha2::{Digest as _, Sha256};

use crate::inventory::ObjectId;
use crate::inventory::kind::MetricsKind;

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
            MetricsKind::CronJob => NodeKind::CronJob,
            MetricsKind::Rollout => NodeKind::Rollout,
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
            NodeKind::CronJob => MetricsKind::CronJob,
            NodeKind::Rollout => MetricsKind::Rollout,
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

    /// Whether an object can have its name. Versions before this one persisted any reported name of
    /// an owner.
    pub(super) fn can_be(&self) -> bool {
        let is_object = !matches!(self.kind, NodeKind::External | NodeKind::Outside);
        !is_object || is_object_name(&self.object.name)
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
const KINDS: [NodeKind; 11] = [
    NodeKind::CronJob,
    NodeKind::DaemonSet,
    NodeKind::Deployment,
    NodeKind::Job,
    NodeKind::Pod,
    NodeKind::ReplicaSet,
    NodeKind::ReplicationController,
    NodeKind::Rollout,
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
    /// The caller.
    pub from: NodeKey,
    /// The callee.
    pub to: NodeKey,
    /// Service that was called.
    pub service: Option<ObjectKey>,
    /// Its port; without a Service the pod's.
    pub port: u16,
    /// Service whose endpoints served.
    pub backend: Option<ObjectKey>,
    /// TrafficSplit that chose it.
    pub split: Option<ObjectKey>,
    /// Route of the Gateway API that chose it, such as `HTTPRoute shop/web`.
    pub rule: Option<Arc<str>>,
    /// What flows.
    pub protocol: Protocol,
    /// The caller's service account, by the certificate that a proxy saw. `None` where no proxy
    /// reported it, and where `from` has none or is the account itself.
    pub account: Option<ObjectKey>,
}

impl EdgeKey {
    /// Calls of which no more is known.
    pub(super) fn between(from: NodeKey, to: NodeKey) -> Self {
        Self {
            from,
            to,
            service: None,
            port: 0,
            backend: None,
            split: None,
            rule: None,
            protocol: Protocol::Unknown,
            account: None,
        }
    }

    /// The same for every replica. An account or a route is part of it only where one is known, so
    /// that other edges keep the ids that older versions gave them.
    pub(super) fn id(&self) -> String {
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
        if let Some(rule) = &self.rule {
            hash.update([0]);
            hash.update(rule.as_bytes());
        }
        let digest = hash.finalize();
        let bytes = digest.iter().take(8);
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    /// The node whose pods report it, for what was remembered: the caller's, where callers have
    /// proxies.
    pub(crate) fn teller(&self) -> &NodeKey {
        match self.from.kind {
            NodeKind::Outside | NodeKind::ServiceAccount => &self.to,
            _ => &self.from,
        }
    }

    /// Whether its calls may be of any account that the caller had: a version without accounts
    /// persisted or reported it.
    pub(crate) fn lacks_account(&self) -> bool {
        let named = [NodeKind::Outside, NodeKind::ServiceAccount].contains(&self.from.kind);
        self.account.is_none() && !named
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::topology::key;

    pub(in crate::graph) fn edge(port: u16) -> EdgeKey {
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
            rule: None,
            protocol: Protocol::Http1,
            account: None,
        }
    }

    #[test]
    fn node_reads_what_it_writes() {
        let of_a_kind = |kind| NodeKey {
            kind,
            ..edge(1).from
        };
        let nodes = [
            edge(1).from,
            of_a_kind(NodeKind::CronJob),
            of_a_kind(NodeKind::Rollout),
            NodeKey::elsewhere(NodeKind::External, "db.example.com"),
            NodeKey::elsewhere(NodeKind::Outside, "2001:db8::1"),
        ];
        for node in nodes {
            assert_eq!(NodeKey::parse(&node.to_string()), Some(node));
        }
        for bad in ["", "shop", "shop/web", "shop/Widget/web"] {
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
        let rule = Some("HTTPRoute shop/web".into());
        let routed = EdgeKey { rule, ..edge(80) };
        assert_ne!(routed.id(), edge(80).id());
        // Without a protocol or account from a proxy an id stays as it was.
        assert_eq!(edge(80).id(), "c188d901d5469306");
    }
}
