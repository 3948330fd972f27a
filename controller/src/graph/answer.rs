//! Builds the read API's response about the service graph: nodes, edges and their numbers.

mod fields;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[cfg(test)]
use crds::observe::{API_VERSION, Graph, Resource};
use crds::observe::{Edge, GraphMetadata, Minute, Node, NodeKind, RouteSums};
use model::world::ObjectKey;
use parking_lot::RwLock;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::fields::{Overflow, numbers, route_sums, server_sums, shared_sums};
use super::edges::EdgeRef;
use super::history::{self, History};
use super::key::{EdgeKey, NodeKey};
use super::memory::{Memory, Seen};
use super::sums::EdgeTotals;
use super::window::{Counted, MinuteRow, Window, routes_by_node};
use super::workloads::Workloads;
use crate::inventory::Inventory;
use crate::observe::reports::INTERVAL;

/// Max edges of one response.
const MAX_EDGES: usize = 20_000;

/// What of the graph is requested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Edges with an end in this namespace; `None` for all.
    pub namespace: Option<String>,
    /// First minute of the history, as a number of minutes since 1970.
    pub history: Option<u64>,
    /// With sums by route.
    pub routes: bool,
    /// With edges that had no calls in the window.
    pub quiet: bool,
    /// Of these, also those with an end that does not exist any more. Edges with calls in the
    /// window are shown whatever became of their ends.
    pub gone: bool,
}

/// Everything that a response is made of.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// The window.
    pub window: &'a Window,
    /// For minutes.
    pub history: &'a History,
    /// For first and last seen.
    pub memory: &'a Memory,
    /// What is there now.
    pub workloads: &'a Workloads,
    /// Which objects there are; read for a moment each time, since others write it.
    pub inventory: &'a RwLock<Inventory>,
    /// Trust domain of identities.
    pub trust_domain: &'a str,
    /// The window is one of before: of what was seen, nothing after its end.
    pub as_it_was: bool,
}

/// An edge, what was counted of it in the window, and when it was seen.
type Chosen<'a> = (&'a EdgeRef, Option<&'a Counted>, Option<Seen>);
/// What was counted of each edge in the requested minutes.
type Minutes<'a> = HashMap<EdgeRef, Vec<(u64, &'a MinuteRow)>>;

/// Receives a response one part at a time: all edges of a large graph at once are tens of megabytes
/// as objects.
pub(crate) trait GraphSink {
    /// Takes a node, and returns whether it had room.
    fn node(&mut self, node: &Node) -> bool;
    /// Takes an edge, and returns whether it had room.
    fn edge(&mut self, edge: &Edge) -> bool;
    /// Bytes that edges may still take.
    fn room(&self) -> usize;
    /// Puts the edges into the order of their ids.
    fn sort_edges(&mut self);
    /// Takes all edges back.
    fn clear_edges(&mut self);
}

/// Writes the complete response, edges by id and nodes by name, and returns its metadata. What had
/// no calls for the longest time is dropped first for want of room; history goes before edges do.
pub(crate) fn write(
    sources: &Sources<'_>,
    extent: &Extent,
    to: &mut impl GraphSink,
) -> GraphMetadata {
    let (mut chosen, beyond) = sources.chosen(extent);
    let minutes = extent.history.map(|first| {
        let of = |edge: &EdgeRef| extent.concerns(edge.key());
        sources.history.minutes(first, of)
    });
    let minutes: Minutes<'_> = minutes.unwrap_or_default();
    let mut overflow = Overflow::default();
    // Only the sink knows an edge's length. Mostly all of them have room, in any order.
    let has_room = chosen.iter().all(|one| {
        let rows = rows_of(&minutes, one.0);
        to.edge(&sources.edge_with_history(one, rows, extent))
    });
    if !has_room {
        to.clear_edges();
        rank_all(&mut chosen);
        overflow = sources.write_most(&mut chosen, &minutes, extent, to);
    }
    to.sort_edges();
    let edges = chosen.iter().map(|(edge, ..)| edge.key());
    let mut ends: BTreeSet<&NodeKey> = edges.flat_map(|edge| [&edge.from, &edge.to]).collect();
    let own = sources.workloads.keys();
    ends.extend(own.filter(|node| extent.owns(node)));
    let routes = routes_by_node(&sources.window.routes);
    for node in ends {
        let routes = routes.get(node).map_or(&[][..], Vec::as_slice);
        if to.node(&sources.node(node, routes, extent)) {
            continue;
        }
        let fits = to.node(&sources.node(node, &[], extent));
        overflow.bare += usize::from(fits);
        overflow.left_out += usize::from(!fits);
    }
    GraphMetadata {
        end: timestamp(sources.window.intervals.1 * INTERVAL),
        history_since: sources.history_since(extent),
        ..overflow.metadata(sources.window, beyond)
    }
}

#[cfg(test)]
impl GraphSink for Graph {
    fn node(&mut self, node: &Node) -> bool {
        self.nodes.push(node.clone());
        true
    }

    fn edge(&mut self, edge: &Edge) -> bool {
        self.edges.push(edge.clone());
        true
    }

    fn room(&self) -> usize {
        usize::MAX
    }

    fn sort_edges(&mut self) {
        self.edges.sort_by(|one, other| one.id.cmp(&other.id));
    }

    fn clear_edges(&mut self) {
        self.edges.clear();
    }
}

/// The response as the object that a reader makes of it.
#[cfg(test)]
pub(crate) fn as_object(write: impl FnOnce(&mut Graph) -> GraphMetadata) -> Graph {
    let mut graph = Graph {
        api_version: API_VERSION.to_owned(),
        kind: Resource::Graphs.kind().to_owned(),
        ..Graph::default()
    };
    graph.metadata = write(&mut graph);
    graph
}

impl Extent {
    fn owns(&self, node: &NodeKey) -> bool {
        self.owns_namespace(node.namespace())
    }

    pub(crate) fn owns_namespace(&self, name: &str) -> bool {
        let namespace = self.namespace.as_deref();
        namespace.is_none_or(|namespace| name == namespace)
    }

    fn concerns(&self, edge: &EdgeKey) -> bool {
        self.owns_any(&[&edge.from, &edge.to])
    }

    /// The first interval of a response whose window begins with this one.
    pub(crate) fn first_interval(&self, of_window: u64) -> u64 {
        let minute = self.history.unwrap_or(u64::MAX);
        minute.saturating_mul(history::FINE).min(of_window)
    }

    /// Whether one of these is in it.
    pub(crate) fn owns_any(&self, nodes: &[&NodeKey]) -> bool {
        nodes.iter().any(|node| self.owns(node))
    }
}

impl Sources<'_> {
    /// The edges that are shown, and how many are too many: those without calls for the longest
    /// time.
    fn chosen(&self, extent: &Extent) -> (Vec<Chosen<'_>>, usize) {
        let mut chosen: Vec<Chosen<'_>> = Vec::new();
        for (edge, counted) in &self.window.edges {
            if extent.concerns(edge.key()) {
                let seen = self.memory.get(edge).and_then(|seen| self.seen(seen));
                chosen.push((edge, Some(counted), seen));
            }
        }
        if extent.quiet {
            let quiet = self.memory.iter();
            let quiet = quiet.filter(|(edge, _)| {
                let gone = || self.is_gone(&edge.key().from) || self.is_gone(&edge.key().to);
                !self.window.edges.contains_key(*edge)
                    && extent.concerns(edge.key())
                    && (extent.gone || !gone())
            });
            let seen = quiet.filter_map(|(edge, seen)| Some((edge, self.seen(seen)?)));
            chosen.extend(seen.map(|(edge, seen)| (edge, None, Some(seen))));
        }
        let left_out = chosen.len().saturating_sub(MAX_EDGES);
        if left_out > 0 {
            rank_all(&mut chosen);
            chosen.truncate(MAX_EDGES);
        }
        (chosen, left_out)
    }

    /// Writes edges in their order as long as there is room, and drops those that find none. A
    /// third of the room is for history, which leaves enough for the edges themselves.
    fn write_most(
        &self,
        chosen: &mut Vec<Chosen<'_>>,
        minutes: &Minutes<'_>,
        extent: &Extent,
        to: &mut impl GraphSink,
    ) -> Overflow {
        let least = to.room() / 3 * 2;
        let mut overflow = Overflow::default();
        chosen.retain(|one| {
            let rows = rows_of(minutes, one.0);
            let mut bare = to.room() < least && !rows.is_empty();
            let given = if bare { &[][..] } else { rows };
            let mut shown = self.edge_with_history(one, given, extent);
            shown.history_left_out = bare;
            let mut is_shown = to.edge(&shown);
            if !is_shown {
                bare = !(shown.history.is_empty() && shown.routes.is_empty());
                (shown.history, shown.routes) = (Vec::new(), Vec::new());
                shown.history_left_out = !rows.is_empty();
                is_shown = bare && to.edge(&shown);
            }
            overflow.bare += usize::from(is_shown && bare);
            overflow.left_out += usize::from(!is_shown);
            is_shown
        });
        overflow
    }

    fn edge_with_history(
        &self,
        (edge, counted, seen): &Chosen<'_>,
        rows: &[(u64, &MinuteRow)],
        extent: &Extent,
    ) -> Edge {
        let owned = extent.owns(&edge.key().to);
        Edge {
            history: rows.iter().map(|row| minute(row, owned)).collect(),
            ..self.edge(edge, *counted, *seen, extent)
        }
    }

    /// When an edge was seen, as it was known at the end of the window.
    fn seen(&self, seen: Seen) -> Option<Seen> {
        if !self.as_it_was {
            return Some(seen);
        }
        let end = self.window.intervals.1 * INTERVAL;
        (seen.first < end).then(|| Seen {
            last: seen.last.min(end),
            ..seen
        })
    }

    /// From when on minutes are known, where more are requested.
    fn history_since(&self, extent: &Extent) -> Option<String> {
        let since = self.history.known_since(extent.history?);
        since.map(timestamp)
    }

    /// Whether there is no such object any more.
    fn is_gone(&self, node: &NodeKey) -> bool {
        let Some(kind) = node.inventory_kind() else {
            return false;
        };
        let is_there = || self.inventory.read().exists(kind, &node.object);
        !self.workloads.contains_key(node) && !is_there()
    }

    fn node(&self, key: &NodeKey, routes: &[(&str, &EdgeTotals)], extent: &Extent) -> Node {
        let workload = self.workloads.get(key);
        let mut node = Node {
            id: key.to_string(),
            kind: key.kind,
            namespace: key.namespace().to_owned(),
            name: key.object.name.to_string(),
            accounts: self.identities(key, None),
            unproven: key.kind == NodeKind::Outside && &*key.object.name != super::fold::OTHER,
            ..Node::default()
        };
        // Of another namespace kind, name and identity are shown, nothing else.
        if !extent.owns(key) {
            return node;
        }
        node.gone = self.is_gone(key);
        if extent.routes {
            node.routes = routes
                .iter()
                .map(|(route, sums)| route_sums(route, sums))
                .collect();
        }
        if let Some(workload) = workload {
            node.pods = Some(workload.pods);
            node.meshed = Some(workload.meshed);
            node.without_proxy = Some(workload.without_proxy);
            node.access = workload.access.map(|mode| mode.to_string());
            node.mtls = workload.mtls.map(|mode| mode.to_string());
            node.services = workload.services.iter().map(ToString::to_string).collect();
        }
        node
    }

    /// The proven one; else those that the node's pods have now, which proves nothing of calls that
    /// pods before them made.
    fn identities(&self, key: &NodeKey, proven: Option<&ObjectKey>) -> Vec<String> {
        let own = (key.kind == NodeKind::ServiceAccount).then_some(&key.object);
        if let Some(ObjectKey { namespace, name }) = proven.or(own) {
            let domain = self.trust_domain;
            return vec![format!("spiffe://{domain}/ns/{namespace}/sa/{name}")];
        }
        let workload = self.workloads.get(key).into_iter();
        let identities = workload.flat_map(|workload| &workload.identities);
        identities.cloned().collect()
    }

    fn edge(
        &self,
        edge: &EdgeRef,
        counted: Option<&Counted>,
        seen: Option<Seen>,
        extent: &Extent,
    ) -> Edge {
        let key = edge.key();
        let text =
            |key: &Option<ObjectKey>| key.as_ref().map(ToString::to_string).unwrap_or_default();
        let end = self.window.intervals.1 * INTERVAL;
        let seen = seen.unwrap_or(Seen {
            first: end,
            last: end,
        });
        // How a Service is split, and into what, belongs to its namespace.
        let owned = extent.owns(&key.to);
        let of_owner = |key: &Option<ObjectKey>| if owned { text(key) } else { String::new() };
        let mut shown = Edge {
            id: edge.id().to_owned(),
            from: key.from.to_string(),
            to: key.to.to_string(),
            service: text(&key.service),
            port: key.port,
            backend: of_owner(&key.backend),
            split: of_owner(&key.split),
            rule: key
                .rule
                .iter()
                .filter(|_| owned)
                .map(ToString::to_string)
                .collect(),
            protocol: key.protocol,
            identities: self.identities(&key.from, key.account.as_ref()),
            first_seen: timestamp(seen.first),
            last_seen: timestamp(seen.last),
            quiet: counted.is_none(),
            ..Edge::default()
        };
        if let Some(counted) = counted {
            numbers(&mut shown, &counted.sums);
            // What the called side counted and decided by belongs to its namespace.
            if owned {
                let server = counted.served(&self.window.edges);
                let reported = server.map(|server| server_sums(server, counted.port_known));
                shown.caller_silent = counted.caller_silent;
                match &counted.shared {
                    None => {
                        shown.server = reported;
                        decided(&mut shown, &counted.sums, extent);
                    }
                    Some(shared) => {
                        shown.server_shared = reported.map(|sums| shared_sums(shared, sums));
                        if let Some(server) = server {
                            decided(&mut shown, server, extent);
                        }
                    }
                }
            }
        }
        shown
    }
}

fn rows_of<'a>(minutes: &'a Minutes<'_>, edge: &EdgeRef) -> &'a [(u64, &'a MinuteRow)] {
    minutes.get(edge).map_or(&[][..], Vec::as_slice)
}

/// Puts first what of too many edges is shown: those with calls, and then the ones whose last
/// call is the newest.
fn rank_all(chosen: &mut [Chosen<'_>]) {
    chosen.sort_unstable_by(|one, other| rank(one).cmp(&rank(other)));
}

fn rank<'a>((edge, counted, seen): &Chosen<'a>) -> (bool, Reverse<u64>, &'a str) {
    let last = seen.map_or(0, |seen| seen.last);
    (counted.is_none(), Reverse(last), edge.id())
}

fn decided(shown: &mut Edge, sums: &EdgeTotals, extent: &Extent) {
    let Some(rare) = &sums.rare else { return };
    shown.audit = rare.audit.into();
    shown.allowed_by = rare.rules.iter().map(ToString::to_string).collect();
    shown.allowed_by.sort();
    if extent.routes {
        let routes: BTreeMap<_, _> = rare.routes.iter().map(|(name, n)| (name, n)).collect();
        let routes = routes.into_iter().map(|(route, requests)| RouteSums {
            route: route.to_string(),
            requests: u64::from(*requests),
            ..RouteSums::default()
        });
        shown.routes = routes.collect();
    }
}

/// `owned`: for a reader who may read the called side's namespace.
fn minute((minute, row): &(u64, &MinuteRow), owned: bool) -> Minute {
    Minute {
        start: timestamp(minute * 60),
        requests: row.requests.into(),
        failure: row.failure.into(),
        cancelled: row.cancelled.into(),
        p95: row.p95(),
        mtls: row.mtls(),
        proven: owned && row.is_proven(),
        refused: owned && row.has_refused(),
    }
}

/// Seconds since 1970 as RFC 3339; empty for what is no time.
pub(crate) fn timestamp(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).ok();
    seconds
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
