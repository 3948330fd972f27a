//! Adds up the results of live calls that proxies evaluated by a change, as edges of the graph.
//!
//! Each proxy reports its counts since the start, row by row, and a repeated row replaces the
//! former one: so a lost result makes the sums wrong for at most a second. A proxy may report
//! anything, and its pod may respond in its place; what is kept of each is bounded, and what does
//! not fit is counted in the sums.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crds::observe::{Change, NodeKind, Protocol, Scope, Trial, TriedEdge, TriedRequest};
use k8s_openapi::jiff::Timestamp;
use model::PodId;
use model::world::ObjectKey;
use policy::route::names::MAX_NAME_BYTES;
use policy::terminal::acts_upon;
use wire::v1;
use wire::v1::answered::What;

use crate::graph::fold::OTHER;
use crate::graph::key::{EdgeKey, NodeKey};
use crate::graph::protocol;
use crate::inventory::Inventory;
use crate::observe::live_queries::ProxyAnswer;

/// Max rows of one proxy, which counts 128 apart and of others only what they speak.
const MAX_ROWS: usize = 136;
/// Edges and routes that are counted apart.
const MAX_EDGES: usize = 2_000;
/// Of these, what one line lists: with examples and long names half of what a client reads.
const MAX_LISTED: usize = 100;
/// Requests of all proxies that are shown one by one.
pub(super) const MAX_EXAMPLES: u32 = 20;
/// Max reasons that are shown, and bytes of one.
const MAX_REASONS: usize = 4;
const REASON: usize = 200;
/// Bytes of a name, an address, or a path.
const TEXT: usize = 256;

/// Whose calls are shown, and how far.
#[derive(Debug, Default)]
pub(super) struct Rights {
    /// Where graphs may be read.
    pub(super) scope: Arc<Scope>,
    /// Namespaces whose requests may be shown one by one.
    pub(super) tapped: BTreeSet<Arc<str>>,
    /// Of calls whose called end may not be read, those whose port is shown all the same.
    pub(super) by_address: BTreeSet<CallByAddress>,
}

/// Caller, callee and port, without a Service: the port is in the address.
pub(super) type CallByAddress = (NodeKey, NodeKey, u16);

/// Of these edges the calls by address that are shown to a user who may read the calling end alone:
/// the graph shows that user their port as well.
pub(super) fn by_address<'a>(
    edges: impl Iterator<Item = &'a EdgeKey>,
    scope: &Scope,
) -> BTreeSet<CallByAddress> {
    if scope.cluster {
        return BTreeSet::new();
    }
    let known: BTreeSet<&str> = scope.namespaces.iter().map(String::as_str).collect();
    let may_read = |end: &NodeKey| known.contains(end.namespace());
    edges
        .filter(|edge| edge.service.is_none() && edge.backend.is_none())
        .filter(|edge| may_read(&edge.from) && !may_read(&edge.to))
        .map(|edge| (edge.from.clone(), edge.to.clone(), edge.port))
        .collect()
}

/// Calls that are counted apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Edge {
    from: NodeKey,
    to: NodeKey,
    port: u16,
    protocol: Protocol,
    route: String,
}

/// Kept, refused, allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts([u64; 3]);

impl Counts {
    fn of(row: &v1::TrialRow) -> Self {
        Self([row.kept, row.would_refuse, row.would_allow])
    }

    fn all(self) -> u64 {
        self.0.into_iter().fold(0, u64::saturating_add)
    }

    /// What came since. A proxy may report any number, and a smaller one than before.
    fn since(self, before: Self) -> Self {
        let mut since = self;
        for (now, before) in since.0.iter_mut().zip(before.0) {
            *now = now.saturating_sub(before);
        }
        since
    }

    fn add(&mut self, more: Self) {
        for (count, more) in self.0.iter_mut().zip(more.0) {
            *count = count.saturating_add(more);
        }
    }
}

/// What one proxy reported.
#[derive(Debug, Default)]
struct ProxyTally {
    /// By a hash of what the row is about.
    rows: HashMap<u64, Counts>,
    skipped: u64,
    here: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LiveTally {
    rights: Rights,
    /// The pods whose proxies were queried, by uid.
    pods: BTreeMap<Arc<str>, PodId>,
    /// How many should have been.
    proxies: u32,
    tallies: BTreeMap<Arc<str>, ProxyTally>,
    all: Counts,
    edges: HashMap<Edge, Counts>,
    hidden: u64,
    truncated: bool,
    examples: Vec<TriedRequest>,
    reasons: BTreeSet<String>,
}

impl LiveTally {
    /// Nothing so far, of these pods and so many in all.
    pub(super) fn new(rights: Rights, pods: BTreeMap<Arc<str>, PodId>, proxies: usize) -> Self {
        Self {
            rights,
            pods,
            proxies: u32::try_from(proxies).unwrap_or(u32::MAX),
            ..Self::default()
        }
    }

    /// Why some proxies do not take part.
    pub(super) fn because(&mut self, why: &str) {
        if self.reasons.len() < MAX_REASONS {
            self.reasons.insert(clean(why, REASON));
        }
    }

    /// Takes what a proxy reports.
    pub(super) fn take(&mut self, inventory: &Inventory, answer: ProxyAnswer) {
        let Some(pod) = self.pods.get(&answer.uid).cloned() else {
            return;
        };
        let to = NodeKey::of_workload(inventory.topmost(&pod, &answer.uid));
        let uid = answer.uid;
        match answer.what {
            Some(What::Trial(counts)) => {
                let tally = self.tallies.entry(Arc::clone(&uid)).or_default();
                tally.here = true;
                tally.skipped = counts.skipped;
                for row in counts.rows {
                    self.row(inventory, (&*uid, &to), row);
                }
            }
            Some(What::Example(example)) => self.example(inventory, (&pod, &to), example),
            // It has no room for a dry run, or cannot try these rules.
            Some(What::Refused(why)) => {
                self.because(&why);
                self.away(&uid);
            }
            None => self.away(&uid),
            Some(What::Config(_) | What::Record(_) | What::Summary(_)) => {}
        }
    }

    /// What it counted stays counted.
    fn away(&mut self, uid: &str) {
        if let Some(tally) = self.tallies.get_mut(uid) {
            tally.here = false;
        }
    }

    fn row(&mut self, inventory: &Inventory, (uid, to): (&str, &NodeKey), row: v1::TrialRow) {
        let counts = Counts::of(&row);
        let edge = row.edge.unwrap_or_default();
        let Some(tally) = self.tallies.get_mut(uid) else {
            return;
        };
        let about = about(&edge, &row.route);
        if tally.rows.len() >= MAX_ROWS && !tally.rows.contains_key(&about) {
            return;
        }
        let before = tally.rows.insert(about, counts).unwrap_or_default();
        let more = counts.since(before);
        if more.all() == 0 {
            return;
        }
        self.all.add(more);
        let from = caller(inventory, &edge);
        if !self.is_shown(&from, to) {
            self.hidden = self.hidden.saturating_add(more.all());
            return;
        }
        let port = self.shown_port(&from, to, number(edge.port));
        let edge = Edge {
            from,
            to: to.clone(),
            port,
            protocol: protocol(edge.protocol()),
            route: clean(&row.route, MAX_NAME_BYTES),
        };
        if self.edges.len() >= MAX_EDGES && !self.edges.contains_key(&edge) {
            self.truncated = true;
            return;
        }
        self.edges.entry(edge).or_default().add(more);
    }

    fn example(
        &mut self,
        inventory: &Inventory,
        (pod, to): (&PodId, &NodeKey),
        example: v1::TrialExample,
    ) {
        // A proxy that shall show none, and sends some all the same, shows none.
        let may = self.rights.tapped.contains(&pod.namespace);
        if !may || self.examples.len() >= MAX_EXAMPLES as usize {
            return;
        }
        let edge = example.edge.unwrap_or_default();
        let from = caller(inventory, &edge);
        if !self.is_shown(&from, to) {
            return;
        }
        let at = i64::try_from(example.at).ok();
        let at = at.and_then(|at| Timestamp::from_millisecond(at).ok());
        self.examples.push(TriedRequest {
            time: at.map(|at| at.to_string()).unwrap_or_default(),
            change: if example.would_allow {
                Change::Allowed
            } else {
                Change::Refused
            },
            from: from.to_string(),
            to: to.to_string(),
            port: number(edge.port),
            route: clean(&example.route, MAX_NAME_BYTES),
            method: clean(&example.method, TEXT),
            path: clean(&example.path, TEXT),
        });
    }

    fn is_shown(&self, from: &NodeKey, to: &NodeKey) -> bool {
        let scope = &self.rights.scope;
        reads(scope, from.namespace()) || reads(scope, to.namespace())
    }

    /// Where the called pods listen belongs to their namespace: 0 where the graph of that may not
    /// be read, unless the caller itself called that port.
    fn shown_port(&self, from: &NodeKey, to: &NodeKey, port: u16) -> u16 {
        let rights = &self.rights;
        let call = (from.clone(), to.clone(), port);
        if reads(&rights.scope, to.namespace()) || rights.by_address.contains(&call) {
            port
        } else {
            0
        }
    }

    /// What there was so far.
    pub(super) fn live_dry_run(&self) -> Trial {
        let taking_part = self.tallies.values().filter(|tally| tally.here).count();
        let skipped = self.tallies.values().map(|tally| tally.skipped);
        let mut edges: Vec<(&Edge, [u64; 3])> = self
            .edges
            .iter()
            .map(|(edge, counts)| (edge, counts.0))
            .collect();
        edges.sort_by_key(|(edge, [_, refused, allowed])| {
            (Reverse(*refused), Reverse(*allowed), *edge)
        });
        let listed = edges.iter().take(MAX_LISTED);
        let listed = listed.map(|(edge, [kept, refused, allowed])| TriedEdge {
            from: edge.from.to_string(),
            to: edge.to.to_string(),
            port: edge.port,
            protocol: edge.protocol,
            route: edge.route.clone(),
            kept: *kept,
            refused: *refused,
            allowed: *allowed,
        });
        let [_, refused, allowed] = self.all.0;
        Trial {
            proxies: self.proxies,
            taking_part: u32::try_from(taking_part).unwrap_or(u32::MAX),
            judged: self.all.all(),
            refused,
            allowed,
            skipped: skipped.fold(0, u64::saturating_add),
            hidden: self.hidden,
            edges: listed.collect(),
            truncated: self.truncated || edges.len() > MAX_LISTED,
            examples: self.examples.clone(),
            reasons: self.reasons.iter().cloned().collect(),
            last: false,
        }
    }
}

/// Whether the graph of this namespace may be read.
pub(super) fn reads(scope: &Scope, namespace: &str) -> bool {
    scope.cluster || scope.namespaces.iter().any(|one| one == namespace)
}

/// The caller: what owns the pod, else its account, else where it is.
fn caller(inventory: &Inventory, edge: &v1::Edge) -> NodeKey {
    if let Some(pod) = inventory.pod_by_uid(&edge.caller) {
        return NodeKey::of_workload(inventory.topmost(pod, &edge.caller));
    }
    if let Some((namespace, name)) = edge.identity.split_once('/') {
        return NodeKey {
            kind: NodeKind::ServiceAccount,
            object: ObjectKey::new(&clean(namespace, TEXT), &clean(name, TEXT)),
        };
    }
    let remote = clean(&edge.remote, TEXT);
    let remote = if remote.is_empty() { OTHER } else { &remote };
    NodeKey::elsewhere(NodeKind::Outside, remote)
}

/// A number for what a row is about. Of one proxy alone, so a proxy that makes two alike harms none
/// but its own.
fn about(edge: &v1::Edge, route: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    (&edge.caller, &edge.identity, &edge.remote, route).hash(&mut hash);
    (edge.port, edge.protocol, edge.security).hash(&mut hash);
    hash.finish()
}

fn number(port: u32) -> u16 {
    u16::try_from(port).unwrap_or_default()
}

/// At most so many bytes, and nothing that a line would write in more than it takes.
fn clean(text: &str, most: usize) -> String {
    let text = &text[..text.floor_char_boundary(most)];
    text.chars()
        .map(|c| match c {
            '"' | '\\' => '?',
            c if acts_upon(c) => '?',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "uid-api-1";

    fn node(id: &str) -> NodeKey {
        NodeKey::parse(id).unwrap()
    }

    fn of(namespaces: &[&str]) -> Scope {
        Scope {
            namespaces: namespaces.iter().map(ToString::to_string).collect(),
            ..Scope::default()
        }
    }

    /// What is shown of calls of `bank` at these ports of `shop`.
    fn shown_edges(scope: Scope, route: &str, calls: &[(u32, u64)]) -> Vec<TriedEdge> {
        let called = |service: Option<ObjectKey>, port: u16| EdgeKey {
            from: node("bank/ServiceAccount/client"),
            to: node("shop/Deployment/api"),
            backend: service.clone(),
            service,
            port,
            split: None,
            rule: None,
            protocol: Protocol::Http1,
            account: None,
        };
        // A Service's port may be the number of a pod's that it does not lead to.
        let persisted = [
            called(Some(ObjectKey::new("shop", "api")), 8081),
            called(None, 9090),
        ];
        let rights = Rights {
            by_address: by_address(persisted.iter(), &scope),
            scope: Arc::new(scope),
            tapped: BTreeSet::new(),
        };
        let mut tally = LiveTally::new(rights, BTreeMap::new(), 1);
        tally.tallies.insert(UID.into(), ProxyTally::default());
        let to = node("shop/Deployment/api");
        for (port, kept) in calls {
            let edge = v1::Edge {
                identity: "bank/client".to_owned(),
                port: *port,
                ..v1::Edge::default()
            };
            let row = v1::TrialRow {
                edge: Some(edge),
                route: route.to_owned(),
                kept: *kept,
                ..v1::TrialRow::default()
            };
            tally.row(&Inventory::default(), (UID, &to), row);
        }
        tally.live_dry_run().edges
    }

    #[test]
    fn live_ports_need_called_namespace_permission_or_address_call() {
        let ports = |scope: Scope| -> Vec<(u16, u64)> {
            let edges = shown_edges(scope, "", &[(8080, 1), (8081, 2), (9090, 4)]);
            edges.iter().map(|edge| (edge.port, edge.kept)).collect()
        };
        assert_eq!(ports(of(&["bank"])), [(0, 3), (9090, 4)]);
        // Control: the right to read the called namespace, with or without the calling one, or all.
        let all = Scope {
            cluster: true,
            ..Scope::default()
        };
        for scope in [of(&["shop"]), of(&["bank", "shop"]), all] {
            let words = format!("{scope:?}");
            let every = [(8080, 1), (8081, 2), (9090, 4)];
            assert_eq!(ports(scope), every, "{words}");
        }
    }

    #[test]
    fn characters_needing_escape_are_replaced_in_names() {
        let edges = shown_edges(of(&["shop"]), "\u{ad}\u{202e}\"caf\u{e9}", &[(8080, 1)]);
        let routes: Vec<&str> = edges.iter().map(|edge| edge.route.as_str()).collect();
        assert_eq!(routes, ["???caf\u{e9}"]);
    }
}
