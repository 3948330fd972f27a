//! Folds the reports of one interval into sums by edge of the graph.
//!
//! Pods are replaced by their owners, and each side's numbers stay apart: `window` decides which
//! are shown. It is a pure function: folding an interval again gives the same.
//!
//! Two thousand proxies with twenty edges each make 40 000 rows an interval, of which those of
//! one workload are alike. So names are looked up once for a pod and once for an edge of a
//! workload, and a row costs two lookups by number.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crds::observe::NodeKind;
use model::world::ObjectKey;

use super::edges::{EdgeRef, Edges};
use super::key::{EdgeKey, NodeKey};
use super::protocol;
pub(crate) use super::sums::OTHER;
use super::sums::{EdgeTotals, OTHER_NAME};
use super::workloads::Owners;
use crate::observe::dropped_reports::DroppedReports;
use crate::observe::reports::{PodInterval, ReportedEdgeKey, RouteCalls};

/// Routes of all workloads in one interval, and of one of them.
const MAX_ROUTES: usize = 20_000;
const MAX_ROUTES_OF_NODE: usize = 512;
/// Reasons, rules and routes on all edges that the pods of one workload report in one interval, each
/// once for an edge. A pod that makes them up takes no more memory than that.
const MAX_NAMES_OF_NODE: usize = 4_096;

/// One edge as one side counted it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// The edge.
    pub edge: EdgeRef,
    /// Whether the called side counted.
    pub server: bool,
    /// What it counted.
    pub sums: EdgeTotals,
}

/// Requests of one route of one workload.
pub(crate) type Routes = HashMap<(NodeKey, Arc<str>), EdgeTotals>;

/// One stretch of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folded {
    /// Each edge once per side.
    pub rows: Vec<Row>,
    /// What workloads served.
    pub routes: Routes,
    /// Whose reports of it were not there any more.
    pub dropped_reports: DroppedReports,
    /// Edges of pods whose owner was unknown.
    pub unknown: HashSet<EdgeRef>,
}

impl Folded {
    /// Bytes that it takes, without what edges share.
    pub(crate) fn size(&self) -> usize {
        let rows: usize = self.rows.iter().map(|row| 24 + row.sums.size()).sum();
        let rows = rows + 16 * self.unknown.len();
        let routes: usize = self.routes.values().map(|sums| 96 + sums.size()).sum();
        rows + routes + self.dropped_reports.bytes()
    }

    /// Takes over what the fold before this one counted of the same stretch and this one does not,
    /// because reports were dropped in between. What other proxies reported since is in this one
    /// alone, so of an edge that has both the fuller sums stand.
    pub(crate) fn keep(&mut self, before: &Self) {
        let went = |node: &NodeKey| self.dropped_reports.concerns(|one| one == node.namespace());
        let teller = |row: &Row| match row.server {
            true => went(&row.edge.key().to),
            false => went(&row.edge.key().from),
        };
        let rows: Vec<&Row> = before.rows.iter().filter(|row| teller(row)).collect();
        let routes: Vec<_> = before.routes.iter().filter(|(at, _)| went(&at.0)).collect();
        let indexes = self.rows.iter().enumerate();
        let indexes: HashMap<(EdgeRef, bool), usize> = indexes
            .map(|(at, row)| ((row.edge.clone(), row.server), at))
            .collect();
        for row in rows {
            let entry = indexes.get(&(row.edge.clone(), row.server));
            match entry.and_then(|at| self.rows.get_mut(*at)) {
                Some(entry) if entry.sums.reported_calls() < row.sums.reported_calls() => {
                    *entry = row.clone()
                }
                Some(_) => {}
                None => {
                    self.rows.push(row.clone());
                    self.unknown.extend(before.unknown.get(&row.edge).cloned());
                }
            }
        }
        for (route, sums) in routes {
            let entry = self.routes.entry(route.clone()).or_default();
            if entry.reported_calls() < sums.reported_calls() {
                *entry = sums.clone();
            }
        }
    }

    /// Drops what was counted for pods whose owner is known by now.
    pub(crate) fn let_go(&mut self, moved: impl Fn(&NodeKey) -> bool) {
        let unknown = &self.unknown;
        self.rows.retain(|row| {
            let key = row.edge.key();
            let by_account = key.from.kind == NodeKind::ServiceAccount;
            !unknown.contains(&row.edge) || !(by_account || moved(&key.from) || moved(&key.to))
        });
        self.routes.retain(|(node, _), _| !moved(node));
    }

    /// Several stretches as one, the earliest first.
    pub(crate) fn together<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        Self::of(parts, [], |_| true)
    }

    /// The same of edges with these ends and of routes of these nodes: a query for a few of many
    /// thousand waits for no more than a look at each. The reports of `unsettled` stretches, which
    /// come after the others, are not complete yet.
    pub(crate) fn of<'a>(
        settled: impl IntoIterator<Item = &'a Self>,
        unsettled: impl IntoIterator<Item = &'a Self>,
        keep: impl Fn(&[&NodeKey]) -> bool,
    ) -> Self {
        // With whether what is open of it comes from the last settled stretch.
        let mut rows: HashMap<(EdgeRef, bool), (EdgeTotals, bool)> = HashMap::new();
        let (mut routes, mut unknown) = (Routes::new(), HashSet::new());
        let mut dropped_reports = DroppedReports::default();
        let settled = settled.into_iter().map(|part| (part, true));
        let unsettled = unsettled.into_iter().map(|part| (part, false));
        for (part, is_settled) in settled.chain(unsettled) {
            unknown.extend(part.unknown.iter().cloned());
            dropped_reports.add(&part.dropped_reports);
            // The last stretch decides what is open; an edge that is not in it has nothing
            // open. An unsettled stretch shows less than there is, so the one before holds.
            for (sums, holds) in rows.values_mut() {
                *holds &= !is_settled;
                sums.open = if *holds { sums.open } else { 0 };
            }
            for row in &part.rows {
                let key = row.edge.key();
                if !keep(&[&key.from, &key.to]) {
                    continue;
                }
                let (sums, holds) = rows.entry((row.edge.clone(), row.server)).or_default();
                let open = sums.open;
                sums.then(&row.sums);
                if *holds {
                    sums.open = open;
                }
                *holds |= is_settled;
            }
            for (route, sums) in &part.routes {
                if !keep(&[&route.0]) {
                    continue;
                }
                routes.entry(route.clone()).or_default().then(sums);
            }
        }
        let rows = rows.into_iter();
        let rows = rows.map(|((edge, server), (sums, _))| Row { edge, server, sums });
        Self {
            rows: rows.collect(),
            routes,
            dropped_reports,
            unknown,
        }
    }
}

/// Folds reports one by one, so that its thread can run others in between.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    nodes: Nodes,
    /// Accounts of reporters by number.
    accounts: HashMap<Option<ObjectKey>, usize>,
    /// By numbers of the reporter's node and account, and address of the reported key, which
    /// the reports that are folded hold.
    known: HashMap<(usize, usize, usize), Option<(usize, u16)>>,
    edges: HashMap<(EdgeRef, bool), usize>,
    rows: Vec<Row>,
    routes: Routes,
    unknown: HashSet<EdgeRef>,
    /// By number of the reporter's node: names that are left to it, and routes that it has.
    left: HashMap<usize, usize>,
    routes_of: HashMap<usize, usize>,
    /// Rows whose edge was not known by number.
    #[cfg(test)]
    looked_up: usize,
}

impl Fold {
    /// Adds what one process of a pod counted.
    pub(crate) fn add(&mut self, owners: Owners<'_>, interval: &PodInterval, known: &mut Edges) {
        let reporter = &interval.reporter;
        let own = self.nodes.of_pod(owners, &reporter.pod, &reporter.uid);
        let account = owners.account(reporter);
        let next = self.accounts.len();
        let number = *self.accounts.entry(account.clone()).or_insert(next);
        let teller = ReportingPod {
            own,
            pod: &reporter.pod,
            account: account.as_ref(),
        };
        for edge in &*interval.edges {
            let at = (own, number, Arc::as_ptr(&edge.key).addr());
            let row = match self.known.get(&at) {
                Some(row) => *row,
                None => {
                    let row = self.row(owners, teller, &edge.key, known);
                    self.known.insert(at, row);
                    row
                }
            };
            if let Some((row, own_port)) = row
                && let Some(row) = self.rows.get_mut(row)
            {
                let left = self.left.entry(own).or_insert(MAX_NAMES_OF_NODE);
                row.sums.count(edge, left);
                // Of pods that are gone it is not known.
                if own_port != 0 {
                    row.sums.own_port = own_port;
                }
            }
        }
        for calls in &*interval.routes {
            self.route(own, calls);
        }
    }

    /// What all of it comes to.
    pub(crate) fn done(self) -> Folded {
        Folded {
            rows: self.rows,
            routes: self.routes,
            dropped_reports: DroppedReports::default(),
            unknown: self.unknown,
        }
    }

    /// Where an edge that is met for the first time is counted, and the called pod's own
    /// port.
    fn row(
        &mut self,
        owners: Owners<'_>,
        teller: ReportingPod<'_>,
        reported: &ReportedEdgeKey,
        known: &mut Edges,
    ) -> Option<(usize, u16)> {
        #[cfg(test)]
        {
            self.looked_up += 1;
        }
        let (key, own_port) = if reported.client {
            self.called(owners, teller, reported)
        } else {
            self.served(owners, teller, reported)
        };
        let by = &self.nodes.all[teller.own];
        let edge = match known.get(key, by) {
            Some(edge) => edge,
            None => known.overflow(overflow_key(by, reported.client), by)?,
        };
        if self.is_unknown(edge.key(), reported) {
            self.unknown.insert(edge.clone());
        }
        let server = !reported.client;
        let rows = &mut self.rows;
        let row = *self.edges.entry((edge.clone(), server)).or_insert_with(|| {
            rows.push(Row {
                edge,
                server,
                sums: EdgeTotals::default(),
            });
            rows.len() - 1
        });
        Some((row, own_port))
    }

    /// Whether an end is a pod whose owner is unknown: it stands for itself then, or for its
    /// account where only its uid was reported.
    fn is_unknown(&self, edge: &EdgeKey, reported: &ReportedEdgeKey) -> bool {
        let by_account = edge.from.kind == NodeKind::ServiceAccount;
        let mut ends = [&edge.from, &edge.to].into_iter();
        (by_account && !reported.caller.is_empty())
            || ends.any(|end| self.nodes.unknown.contains(end))
    }

    /// An edge as the caller's proxy reports it.
    fn called(
        &mut self,
        owners: Owners<'_>,
        teller: ReportingPod<'_>,
        reported: &ReportedEdgeKey,
    ) -> (EdgeKey, u16) {
        let from = self.nodes.all[teller.own].clone();
        let to = match (&reported.pod, &reported.service) {
            (Some(pod), _) => {
                let at = self.nodes.of_pod(owners, pod, "");
                self.nodes.all[at].clone()
            }
            (None, Some(service)) => NodeKey {
                kind: NodeKind::Service,
                object: service.clone(),
            },
            (None, None) => NodeKey::elsewhere(NodeKind::External, remote(reported)),
        };
        let served_by = reported.backend.as_ref().or(reported.service.as_ref());
        let own_port = match (&reported.pod, served_by) {
            (Some(pod), Some(service)) => owners.own_port(pod, service, reported.port),
            (Some(_), None) => reported.port,
            (None, _) => 0,
        };
        let key = EdgeKey {
            from,
            to,
            service: reported.service.clone(),
            port: reported.port,
            backend: reported.backend.clone(),
            split: reported.split.clone(),
            rule: reported.rule.clone(),
            protocol: protocol(reported.protocol),
            account: teller.account.cloned(),
        };
        (key, own_port)
    }

    /// An edge as the called pod's proxy reports it.
    fn served(
        &mut self,
        owners: Owners<'_>,
        teller: ReportingPod<'_>,
        reported: &ReportedEdgeKey,
    ) -> (EdgeKey, u16) {
        let caller = owners.inventory.pod_by_uid(&reported.caller).cloned();
        let (from, account) = match (caller, &reported.account) {
            // The callee does not choose the account of a pod that is known.
            (Some(pod), given_account) => {
                let at = self.nodes.of_pod(owners, &pod, &reported.caller);
                let own = owners.account_of(&pod, &reported.caller);
                let given_account = given_account
                    .as_ref()
                    .filter(|given_account| given_account.namespace == pod.namespace);
                (
                    self.nodes.all[at].clone(),
                    own.or_else(|| given_account.cloned()),
                )
            }
            (None, Some(account)) => {
                let from = NodeKey {
                    kind: NodeKind::ServiceAccount,
                    object: account.clone(),
                };
                (from, None)
            }
            (None, None) => {
                let from = NodeKey::elsewhere(NodeKind::Outside, remote(reported));
                (from, None)
            }
        };
        let service = owners.only_service(teller.pod, reported.port);
        let port = service.as_ref().map_or(reported.port, |(_, port)| *port);
        let service = service.map(|(service, _)| service);
        let key = EdgeKey {
            backend: service.clone(),
            service,
            port,
            protocol: protocol(reported.protocol),
            account,
            ..EdgeKey::between(from, self.nodes.all[teller.own].clone())
        };
        (key, reported.port)
    }

    fn route(&mut self, own: usize, calls: &RouteCalls) {
        let node = &self.nodes.all[own];
        let mut at = (node.clone(), Arc::clone(&calls.route));
        if !self.routes.contains_key(&at) {
            let entry = self.routes_of.entry(own).or_default();
            if self.routes.len() < MAX_ROUTES && *entry < MAX_ROUTES_OF_NODE {
                *entry += 1;
            } else {
                at.1 = Arc::clone(&OTHER_NAME);
            }
        }
        let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let mut sums = self.routes.remove(&at).unwrap_or_default();
        sums.then(&EdgeTotals {
            success: count(calls.calls.0),
            failure: count(calls.calls.1),
            cancelled: count(calls.calls.2),
            client_errors: count(calls.client_errors),
            latency: calls.latency.clone(),
            own_port: calls.port,
            ..EdgeTotals::default()
        });
        self.routes.insert(at, sums);
    }
}

/// The pod whose report is folded.
#[derive(Clone, Copy, Debug)]
struct ReportingPod<'a> {
    /// Number of its node.
    own: usize,
    pod: &'a ObjectKey,
    account: Option<&'a ObjectKey>,
}

/// Nodes by number, each looked up once.
#[derive(Debug, Default)]
struct Nodes {
    all: Vec<NodeKey>,
    numbers: HashMap<NodeKey, usize>,
    /// By name, and by uid where that is reported.
    pods: HashMap<(ObjectKey, Arc<str>), usize>,
    /// Pods whose owner was looked up.
    #[cfg(test)]
    looked_up: usize,
    /// Those of pods that are not known.
    unknown: HashSet<NodeKey>,
}

impl Nodes {
    fn of_pod(&mut self, owners: Owners<'_>, pod: &ObjectKey, uid: &str) -> usize {
        let at = (pod.clone(), Arc::from(uid));
        if let Some(number) = self.pods.get(&at) {
            return *number;
        }
        #[cfg(test)]
        {
            self.looked_up += 1;
        }
        let node = NodeKey::of_workload(owners.inventory.topmost(pod, uid));
        if !owners.inventory.knows(pod, uid) {
            self.unknown.insert(node.clone());
        }
        let next = self.all.len();
        let number = *self.numbers.entry(node.clone()).or_insert(next);
        if number == next {
            self.all.push(node);
        }
        self.pods.insert(at, number);
        number
    }
}

/// What a node reported beyond its share, as one edge: its calls are counted all the same.
fn overflow_key(own: &NodeKey, client: bool) -> EdgeKey {
    let (from, to) = if client {
        (own.clone(), NodeKey::elsewhere(NodeKind::External, OTHER))
    } else {
        (NodeKey::elsewhere(NodeKind::Outside, OTHER), own.clone())
    };
    EdgeKey::between(from, to)
}

fn remote(reported: &ReportedEdgeKey) -> &str {
    match &*reported.remote {
        "" => OTHER,
        remote => remote,
    }
}

#[cfg(test)]
mod tests;
