//! Selects the nodes and edges of the graph that a name such as `deploy/web` means.

use crds::observe::{Edge, Node, NodeKind};

use super::IndexedGraph;
use crate::cluster::names::{Named, ResourceKind, counted_kinds};

/// Kinds that can stand at an end of an edge.
pub(crate) const ENDS: &[ResourceKind] = counted_kinds!(ServiceAccount, External);

/// A selected object and its namespace.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    named: Named,
    /// Without it, in any namespace.
    namespace: Option<String>,
}

impl Selected {
    /// In this namespace, or in all.
    #[must_use]
    pub(crate) fn new(named: Named, namespace: Option<&str>) -> Self {
        Self {
            named,
            namespace: namespace.map(ToOwned::to_owned),
        }
    }

    /// Whether the caller of an edge is selected. Never with a port: calls go to one, and come from
    /// none.
    #[must_use]
    pub(crate) fn is_from(&self, traffic: &IndexedGraph, edge: &Edge) -> bool {
        if self.named.port.is_some() {
            return false;
        }
        // The edge has its caller's account, whatever pods the caller has now.
        if self.named.kind == ResourceKind::ServiceAccount && !edge.identities.is_empty() {
            return self.is_account_in(&edge.identities);
        }
        traffic.node(&edge.from).is_some_and(|node| self.fits(node))
    }

    /// Whether the called side of an edge is meant.
    #[must_use]
    pub(crate) fn is_to(&self, traffic: &IndexedGraph, edge: &Edge) -> bool {
        if self.named.port.is_some_and(|port| port != edge.port) {
            return false;
        }
        if self.named.kind == ResourceKind::Service {
            return self.service_of(edge).is_some();
        }
        traffic.node(&edge.to).is_some_and(|node| self.fits(node))
    }

    /// The Service that is meant, of the two that an edge may name: the one that was called, or
    /// the backend that took the calls.
    #[must_use]
    pub(crate) fn service_of<'e>(&self, edge: &'e Edge) -> Option<&'e str> {
        let is_meant = |text: &&str| {
            text.split_once('/')
                .is_some_and(|(namespace, name)| self.is_named(namespace, name))
        };
        [edge.service.as_str(), edge.backend.as_str()]
            .into_iter()
            .find(is_meant)
    }

    /// Whether a node serves what is meant: is it, or its pods are a Service's endpoints.
    #[must_use]
    pub(crate) fn is_served_by(&self, node: &Node) -> bool {
        if self.named.kind != ResourceKind::Service {
            return self.fits(node);
        }
        self.services_of(node).next().is_some()
    }

    /// Those of the Services behind which a node's pods are that are meant.
    pub(crate) fn services_of<'n>(&self, node: &'n Node) -> impl Iterator<Item = &'n str> {
        let services = node.services.iter().map(String::as_str);
        services.filter(move |service| {
            service
                .split_once('/')
                .is_some_and(|(namespace, name)| self.is_named(namespace, name))
        })
    }

    /// Whether a node is meant.
    #[must_use]
    pub(crate) fn fits(&self, node: &Node) -> bool {
        match self.named.kind {
            ResourceKind::Namespace => {
                let name = self.named.name.as_deref();
                name.is_none_or(|name| name == node.namespace)
            }
            ResourceKind::ServiceAccount => self.is_account_in(&node.accounts),
            ResourceKind::External => {
                let name = self.named.name.as_deref();
                node.kind == NodeKind::External && name.is_none_or(|name| name == node.name)
            }
            kind => {
                node.kind.as_str() == kind.as_str() && self.is_named(&node.namespace, &node.name)
            }
        }
    }

    /// Whether it is a workload of which the pods are meant, when pods are and none by its name:
    /// the graph counts them under that.
    #[must_use]
    pub(crate) fn is_of_pods(&self, node: &Node) -> bool {
        if self.named.kind != ResourceKind::Pod || self.named.name.is_some() {
            return false;
        }
        let is_workload = matches!(
            node.kind,
            NodeKind::CronJob
                | NodeKind::DaemonSet
                | NodeKind::Deployment
                | NodeKind::Job
                | NodeKind::ReplicaSet
                | NodeKind::ReplicationController
                | NodeKind::Rollout
                | NodeKind::StatefulSet
        );
        is_workload && self.is_named(&node.namespace, &node.name)
    }

    fn is_account_in(&self, ids: &[String]) -> bool {
        let mut accounts = ids.iter().filter_map(|id| account_of(id));
        accounts.any(|(namespace, name)| self.is_named(namespace, name))
    }

    fn is_named(&self, namespace: &str, name: &str) -> bool {
        let wanted = self.named.name.as_deref();
        let here = self.namespace.as_deref();
        wanted.is_none_or(|wanted| wanted == name) && here.is_none_or(|here| here == namespace)
    }
}

/// Namespace and name of the account of a SPIFFE id.
#[must_use]
pub(crate) fn account_of(id: &str) -> Option<(&str, &str)> {
    let (_, rest) = id.split_once("/ns/")?;
    rest.split_once("/sa/")
}

/// An id of the graph as people type it; without the namespace where it is the user's.
#[must_use]
pub(crate) fn shown(traffic: &IndexedGraph, id: &str, here: Option<&str>) -> String {
    let Some(node) = traffic.node(id) else {
        return id.to_owned();
    };
    let kind = match node.kind {
        NodeKind::Deployment => "deploy",
        NodeKind::StatefulSet => "sts",
        NodeKind::DaemonSet => "ds",
        NodeKind::ReplicaSet => "rs",
        NodeKind::ReplicationController => "rc",
        NodeKind::Job => "job",
        NodeKind::CronJob => "cj",
        NodeKind::Rollout => "ro",
        NodeKind::Pod => "pod",
        NodeKind::Service => "svc",
        NodeKind::ServiceAccount => "sa",
        NodeKind::External => "external",
        NodeKind::Outside => "outside",
        NodeKind::Unknown => "unknown",
    };
    let name = match node.name.as_str() {
        "" => kind.to_owned(),
        name => format!("{kind}/{name}"),
    };
    match node.namespace.as_str() {
        "" => name,
        namespace if Some(namespace) == here => name,
        namespace => format!("{name}.{namespace}"),
    }
}

#[cfg(test)]
mod tests {
    use crds::observe::Graph;
    use serde_json::json;

    use super::*;

    fn traffic() -> IndexedGraph {
        let graph: Graph = serde_json::from_value(json!({
            "nodes": [
                {"id": "shop/Deployment/web", "kind": "Deployment", "namespace": "shop", "name": "web",
                 "accounts": ["spiffe://cluster.local/ns/shop/sa/web"]},
                {"id": "other/Deployment/web", "kind": "Deployment", "namespace": "other", "name": "web"},
                {"id": "External/api.example", "kind": "External", "name": "api.example"},
            ],
            "edges": [
                {"id": "1", "from": "other/Deployment/web", "to": "shop/Deployment/web",
                 "service": "shop/web", "backend": "shop/web-v1", "port": 80},
                {"id": "2", "from": "shop/Deployment/web", "to": "External/api.example", "port": 443},
            ],
        }))
        .unwrap();
        IndexedGraph::of(graph)
    }

    fn found(text: &str, namespace: Option<&str>) -> (Vec<String>, Vec<String>) {
        let traffic = traffic();
        let selected = Selected::new(Named::read(text, ENDS).unwrap(), namespace);
        let ids = |is: &dyn Fn(&Edge) -> bool| {
            let edges = traffic.edges().iter().filter(|edge| is(edge));
            edges.map(|edge| edge.id.clone()).collect()
        };
        (
            ids(&|edge| selected.is_from(&traffic, edge)),
            ids(&|edge| selected.is_to(&traffic, edge)),
        )
    }

    #[test]
    fn names_select_objects_of_current_namespace() {
        let sets = |from: &[&str], to: &[&str]| {
            let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
            (owned(from), owned(to))
        };
        assert_eq!(found("deploy/web", Some("shop")), sets(&["2"], &["1"]));
        assert_eq!(found("deploy/web", None), sets(&["1", "2"], &["1"]));
        assert_eq!(found("sa/web", Some("shop")), sets(&["2"], &["1"]));
        assert_eq!(
            found("svc/web-v1", Some("shop")),
            sets(&[], &["1"]),
            "a backend too"
        );
        assert_eq!(found("svc/web:81", Some("shop")), sets(&[], &[]));
        assert_eq!(
            found("deploy/web:80", Some("shop")),
            sets(&[], &["1"]),
            "whom it calls is no call to its port"
        );
        assert_eq!(found("ns/other", Some("shop")), sets(&["1"], &[]));
        assert_eq!(
            found("external/api.example", Some("shop")),
            sets(&[], &["2"])
        );
    }

    #[test]
    fn calls_belong_to_calling_account_not_current_pod_account() {
        let mut traffic = traffic();
        let edges = &mut traffic.graph.edges;
        edges[1].identities = vec!["spiffe://cluster.local/ns/shop/sa/before".to_owned()];
        let is_from = |text: &str| {
            let selected = Selected::new(Named::read(text, ENDS).unwrap(), Some("shop"));
            selected.is_from(&traffic, &traffic.edges()[1])
        };
        assert_eq!((is_from("sa/before"), is_from("sa/web")), (true, false));
        assert!(is_from("deploy/web"));
    }
}
