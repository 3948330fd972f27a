//! Edges, put together by what the user asked for: workloads, Services, namespaces, or the
//! backends of splits.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::Edge;
use kube::api::DynamicObject;
use serde_json::Value;

use crate::cluster::names::{Named, ResourceKind};
use crate::output::table::{Cell, Tone};
use crate::traffic::IndexedGraph;
use crate::traffic::select::Selected;
use crate::traffic::sums::Sums;

/// One row.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Of a split only.
    pub(super) backend: String,
    pub(super) sums: Sums,
    pods: u32,
    meshed: u32,
}

impl Group {
    /// Pods with a proxy, of all.
    pub(super) fn meshed_cell(&self) -> Cell {
        match (self.meshed, self.pods) {
            (0, 0) => Cell::default(),
            (meshed, pods) if meshed < pods => {
                Cell::toned(format!("{meshed}/{pods}"), Tone::Warning)
            }
            (meshed, pods) => format!("{meshed}/{pods}").into(),
        }
    }

    /// Its part of what was sent to all backends of its split.
    pub(super) fn share(&self, all: &[Self]) -> Option<f64> {
        let siblings = all
            .iter()
            .filter(|other| (&other.namespace, &other.name) == (&self.namespace, &self.name));
        let whole: u64 = siblings.map(|other| other.sums.attempts).sum();
        (whole > 0).then(|| self.sums.attempts as f64 / whole as f64)
    }
}

/// Weights by split and backend.
#[derive(Clone, Debug, Default)]
pub(super) struct Weights(BTreeMap<(String, String, String), i64>);

impl Weights {
    pub(super) fn read<'a>(splits: impl Iterator<Item = &'a DynamicObject>) -> Self {
        let mut weights = BTreeMap::new();
        for split in splits {
            let namespace = split.metadata.namespace.clone().unwrap_or_default();
            let name = split.metadata.name.clone().unwrap_or_default();
            let backends = split
                .data
                .pointer("/spec/backends")
                .and_then(Value::as_array);
            for backend in backends.into_iter().flatten() {
                let service = backend["service"].as_str().unwrap_or_default();
                // `cart-v1.shop.svc` is Service cart-v1 of the split's namespace.
                let service = service.split('.').next().unwrap_or_default();
                let backend_name = format!("{namespace}/{service}");
                if let Some(weight) = backend["weight"].as_i64() {
                    weights.insert((namespace.clone(), name.clone(), backend_name), weight);
                }
            }
        }
        Self(weights)
    }

    pub(super) fn of(&self, namespace: &str, split: &str, backend: &str) -> Option<i64> {
        let key = (namespace.to_owned(), split.to_owned(), backend.to_owned());
        self.0.get(&key).copied()
    }
}

/// The rows of a table, by name.
pub(super) fn of<'a>(
    traffic: &IndexedGraph,
    edges: impl Iterator<Item = &'a Edge>,
    resource: &Named,
    selected: &Selected,
    outbound: bool,
) -> Vec<Group> {
    let mut groups: BTreeMap<(String, String, String), (Group, BTreeSet<String>)> = BTreeMap::new();
    for edge in edges {
        let id = if outbound { &edge.from } else { &edge.to };
        let Some((namespace, name, backend)) = key(traffic, edge, id, resource, selected, outbound)
        else {
            continue;
        };
        let key = (namespace.clone(), name.clone(), backend.clone());
        let (group, nodes) = groups.entry(key).or_default();
        group.namespace = namespace;
        group.name = name;
        group.backend = backend;
        group.sums.add(edge);
        if nodes.insert(id.clone())
            && let Some(node) = traffic.node(id)
        {
            group.pods += node.pods.unwrap_or_default();
            group.meshed += node.meshed.unwrap_or_default();
        }
    }
    groups.into_values().map(|(group, _)| group).collect()
}

/// Namespace, name and backend of the row that an edge belongs to.
fn key(
    traffic: &IndexedGraph,
    edge: &Edge,
    id: &str,
    resource: &Named,
    selected: &Selected,
    outbound: bool,
) -> Option<(String, String, String)> {
    let owned =
        |(namespace, name): (&str, &str)| (namespace.to_owned(), name.to_owned(), String::new());
    match resource.kind {
        ResourceKind::Service if !outbound => {
            let fits = selected.is_to(traffic, edge);
            let service = selected.service_of(edge).filter(|_| fits)?;
            service.split_once('/').map(owned)
        }
        ResourceKind::TrafficSplit => {
            let (namespace, name) = edge.split.split_once('/')?;
            let wanted = resource.name.as_deref();
            wanted
                .is_none_or(|wanted| wanted == name)
                .then(|| (namespace.to_owned(), name.to_owned(), edge.backend.clone()))
        }
        ResourceKind::Namespace => {
            let node = traffic.node(id).filter(|node| selected.fits(node))?;
            (!node.namespace.is_empty()).then(|| owned(("", &node.namespace)))
        }
        _ => {
            let node = traffic.node(id).filter(|node| selected.fits(node))?;
            Some(owned((&node.namespace, &node.name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::observe::Graph;
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_that_a_backend_took_are_a_row_of_its_own_name_where_it_is_asked_about() {
        let graph: Graph = serde_json::from_value(json!({
            "nodes": [{"id": "shop/Deployment/web-v1", "kind": "Deployment",
                "namespace": "shop", "name": "web-v1"}],
            "edges": [
                {"id": "1", "from": "a", "to": "shop/Deployment/web-v1", "service": "shop/web",
                 "backend": "shop/web-v1", "split": "shop/web", "port": 80, "requests": 3},
                {"id": "2", "from": "a", "to": "shop/Deployment/web-v1", "service": "shop/web-v1",
                 "port": 80, "requests": 4},
            ],
        }))
        .unwrap();
        let traffic = IndexedGraph::of(graph);
        let rows = |text: &str| -> Vec<(String, u64)> {
            let named = Named::read(text, &[ResourceKind::Service]).unwrap();
            let selected = Selected::new(named.clone(), Some("shop"));
            let groups = of(&traffic, traffic.edges().iter(), &named, &selected, false);
            let rows = groups.into_iter();
            rows.map(|one| (one.name, one.sums.requests)).collect()
        };
        let row = |name: &str, requests: u64| (name.to_owned(), requests);
        assert_eq!(rows("svc/web-v1"), [row("web-v1", 7)]);
        assert_eq!(rows("svc/web"), [row("web", 3)]);
        assert_eq!(rows("svc"), [row("web", 3), row("web-v1", 4)]);
    }
}
