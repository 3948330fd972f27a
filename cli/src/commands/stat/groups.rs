//! Groups edges into the rows of the table of `weft stat`: workloads, Services, namespaces, or the
//! backends of splits.
//!
//! Every existing object has a row, called or not: one that only calls, is idle or has no proxy
//! must be seen beside the rest. With filters for the ends of calls the rows are of these calls
//! alone. Pods are shown as rows of their workloads, under which the graph counts them.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::{Edge, Graph, Node};
use kube::api::DynamicObject;
use serde_json::Value;

use crate::cluster::names::{Named, ResourceKind};
use crate::output::table::{Cell, Tone};
use crate::traffic::IndexedGraph;
use crate::traffic::select::Selected;
use crate::traffic::sums::TrafficTotals;

/// Namespace and name of what a row is about, and of a split the backend.
type Key = (String, String, String);
/// By namespace and name, and then by backend.
type Rows = BTreeMap<(String, String), BTreeMap<String, Group>>;

/// One row.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Of a split only.
    pub(super) backend: String,
    pub(super) sums: TrafficTotals,
    /// Whether an edge is part of it.
    called: bool,
    /// Ids of the nodes with counted pods.
    nodes: BTreeSet<String>,
    pods: u32,
    meshed: u32,
}

impl Group {
    /// Counts the pods of a node, once.
    fn count(&mut self, node: &Node) {
        if self.nodes.insert(node.id.clone()) {
            self.pods += node.pods.unwrap_or_default();
            self.meshed += node.meshed.unwrap_or_default();
        }
    }

    /// Pods with a proxy, of all.
    pub(super) fn meshed_cell(&self) -> Cell {
        meshed_cell(self.meshed, self.pods)
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

/// So many with a proxy of so many pods; nothing where there are none.
pub(super) fn meshed_cell(meshed: u32, pods: u32) -> Cell {
    match (meshed, pods) {
        (0, 0) => Cell::default(),
        (meshed, pods) if meshed < pods => Cell::toned(format!("{meshed}/{pods}"), Tone::Warning),
        (meshed, pods) => format!("{meshed}/{pods}").into(),
    }
}

/// Weights by split and backend.
#[derive(Clone, Debug, Default)]
pub(super) struct Weights(BTreeMap<Key, i64>);

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

/// The query: which objects, and between which ends.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    resource: Named,
    selected: Selected,
    from: Option<Selected>,
    to: Option<Selected>,
}

impl Asked {
    /// `ends`: the caller and the called, where only calls between them count.
    pub(super) fn new(resource: Named, ends: [Option<Named>; 2], scope: Option<&str>) -> Self {
        let [from, to] = ends.map(|end| end.map(|named| Selected::new(named, scope)));
        Self {
            selected: Selected::new(resource.clone(), scope),
            resource,
            from,
            to,
        }
    }

    pub(super) fn kind(&self) -> ResourceKind {
        self.resource.kind
    }

    /// The rows of a table, by name.
    pub(super) fn rows(&self, traffic: &IndexedGraph, weights: &Weights) -> Vec<Group> {
        let mut rows = Rows::new();
        let backends = weights.0.keys();
        for key in backends.filter(|(_, split, _)| self.is_wanted(split)) {
            group(&mut rows, key.clone());
        }
        for node in &traffic.graph.nodes {
            for key in self.rows_of(node) {
                group(&mut rows, key).count(node);
            }
        }
        for edge in traffic.edges() {
            let Some(key) = self.row_of(traffic, edge) else {
                continue;
            };
            let group = group(&mut rows, key);
            group.called = true;
            group.sums.add(edge);
            if let Some(node) = traffic.node(self.end(edge)) {
                group.count(node);
            }
        }
        // Of a split all backends or none: the others show that one was not called.
        rows.into_values()
            .filter(|row| !self.is_narrowed() || row.values().any(|group| group.called))
            .flat_map(BTreeMap::into_values)
            .collect()
    }

    /// The part of a graph that the rows are made of, with the nodes at the other ends.
    pub(super) fn part_of(&self, traffic: IndexedGraph) -> Graph {
        let edges = traffic.edges().iter();
        let kept: Vec<bool> = edges
            .map(|edge| self.row_of(&traffic, edge).is_some())
            .collect();
        let mut graph = traffic.graph;
        let mut kept = kept.into_iter();
        graph.edges.retain(|_| kept.next().unwrap_or_default());
        let ends: BTreeSet<&str> = graph
            .edges
            .iter()
            .flat_map(|edge| [edge.from.as_str(), edge.to.as_str()])
            .collect();
        graph.nodes.retain(|node| {
            let is_row = !self.is_narrowed() && !self.rows_of(node).is_empty();
            is_row || ends.contains(node.id.as_str())
        });
        graph
    }

    /// Whether only calls between some ends count.
    fn is_narrowed(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Whether this name is the queried one, if there is one.
    fn is_wanted(&self, name: &str) -> bool {
        let wanted = self.resource.name.as_deref();
        wanted.is_none_or(|wanted| wanted == name)
    }

    /// The end of an edge that has the row: the called one, or with `--to` the caller.
    fn end<'e>(&self, edge: &'e Edge) -> &'e str {
        if self.to.is_some() {
            &edge.from
        } else {
            &edge.to
        }
    }

    /// The rows in which the pods of a node count, called or not. Without pods it has none: it is
    /// gone, or of a namespace without reports.
    fn rows_of(&self, node: &Node) -> Vec<Key> {
        if node.pods.unwrap_or_default() == 0 {
            return Vec::new();
        }
        match self.resource.kind {
            ResourceKind::Service => {
                let services = self.selected.services_of(node);
                services.filter_map(key_of).collect()
            }
            ResourceKind::TrafficSplit => Vec::new(),
            _ => self.row_at(node).into_iter().collect(),
        }
    }

    /// The row that an edge belongs to.
    fn row_of(&self, traffic: &IndexedGraph, edge: &Edge) -> Option<Key> {
        let (from, to) = (self.from.as_ref(), self.to.as_ref());
        let is_between = from.is_none_or(|from| from.is_from(traffic, edge))
            && to.is_none_or(|to| to.is_to(traffic, edge));
        if !is_between {
            return None;
        }
        match self.resource.kind {
            ResourceKind::Service if to.is_none() => {
                let fits = self.selected.is_to(traffic, edge);
                key_of(self.selected.service_of(edge).filter(|_| fits)?)
            }
            ResourceKind::TrafficSplit => {
                let (namespace, name) = edge.split.split_once('/')?;
                let key = (namespace.to_owned(), name.to_owned(), edge.backend.clone());
                self.is_wanted(name).then_some(key)
            }
            _ => self.row_at(traffic.node(self.end(edge))?),
        }
    }

    /// The row of a node itself, or of its namespace. One of a workload in place of its pods has
    /// its kind before its name: workloads of several kinds may stand there.
    fn row_at(&self, node: &Node) -> Option<Key> {
        if self.selected.is_of_pods(node) {
            let kind = ResourceKind::named(node.kind.as_str())?;
            let name = format!("{}/{}", kind.short(), node.name);
            return Some((node.namespace.clone(), name, String::new()));
        }
        if !self.selected.fits(node) {
            return None;
        }
        match self.resource.kind {
            ResourceKind::Namespace if node.namespace.is_empty() => None,
            ResourceKind::Namespace => Some((String::new(), node.namespace.clone(), String::new())),
            _ => Some((node.namespace.clone(), node.name.clone(), String::new())),
        }
    }
}

/// The row of an object, `namespace/name`.
fn key_of(object: &str) -> Option<Key> {
    let (namespace, name) = object.split_once('/')?;
    Some((namespace.to_owned(), name.to_owned(), String::new()))
}

/// The group of a row; a new one if there is none.
fn group(rows: &mut Rows, (namespace, name, backend): Key) -> &mut Group {
    let backends = rows.entry((namespace.clone(), name.clone())).or_default();
    let group = backends.entry(backend.clone()).or_default();
    group.namespace = namespace;
    group.name = name;
    group.backend = backend;
    group
}

#[cfg(test)]
mod tests;
