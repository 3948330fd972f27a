//! Selects the calls that a suggestion may rely on: proven by mutual TLS and served, as the called
//! side reports. Other calls are skipped, each with the reason, because a suggestion must not
//! allow more than was seen. A refused call counts against every rule that would let it pass,
//! whichever edge reports it.
//!
//! Routes are used only if those of all these calls are known: a rule for some of them would refuse
//! what was proven and served. Otherwise the port is the only limit of an edge, and the reason is
//! printed.

use std::collections::{BTreeMap, BTreeSet};

use crds::names::few;
use crds::observe::{Edge, Minute, Node, NodeKind, Protocol};

use super::called::{self, Account, Ports};
use super::refusals::{self, Refusals};
use super::reported::{self, Routes};
use crate::traffic::{IndexedGraph, select};

/// What one account called of another.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Traffics {
    /// Ports of the called containers.
    pub(super) ports: BTreeSet<u16>,
    /// Groups and their matches, if the calls are allowed by these alone.
    pub(super) routes: Routes,
}

/// The facts, and what is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    /// By called account, by caller, and where routes limit them by the ports that these were
    /// seen on: routes and ports of several edges as one would allow each on every port.
    pub(super) facts: BTreeMap<(Account, Account, Option<BTreeSet<u16>>), Traffics>,
    /// What was skipped, and why.
    pub(super) left: Vec<String>,
    /// What is allowed by its port although routes were requested, and why.
    pub(super) by_port: Vec<String>,
    /// What no rule allowed, and how often.
    pub(super) refused: Vec<String>,
    /// How many of the skipped ones a newer controller might have reported as facts.
    pub(super) unreported: usize,
    /// Which workloads run under which account.
    pub(super) sharing: Sharing,
}

/// The evidence by which edges are evaluated.
#[derive(Debug)]
struct Evidence<'a> {
    traffic: &'a IndexedGraph,
    ports: &'a Ports,
    /// The refusals that contradict rules, by all edges of the response.
    refusals: Refusals<'a>,
    by_route: bool,
}

impl Calls {
    pub(super) fn of<'a>(
        traffic: &IndexedGraph,
        edges: impl Iterator<Item = &'a Edge>,
        ports: &Ports,
        here: Option<&str>,
        by_route: bool,
    ) -> Self {
        let mut calls = Self {
            sharing: Sharing::of(traffic, here),
            ..Self::default()
        };
        let evidence = Evidence {
            traffic,
            ports,
            refusals: Refusals::of(traffic, ports, here),
            by_route,
        };
        // Edges that only callers report come last: called pods may report them as another edge.
        let (first, last): (Vec<_>, Vec<_>) =
            edges.partition(|edge| reported::served(edge).is_ok());
        for edge in first.into_iter().chain(last) {
            let Some(to) = traffic.node(&edge.to) else {
                continue;
            };
            let elsewhere = here.is_some_and(|here| here != to.namespace);
            if elsewhere || [NodeKind::External, NodeKind::Outside].contains(&to.kind) {
                continue;
            }
            let named = called::named(traffic, edge, here);
            let refused = reported::refusals(traffic, edge);
            calls
                .refused
                .extend(refused.map(|what| format!("{named}: {what}")));
            if let Err(why) = calls.add(&evidence, edge, &named) {
                calls.left.push(format!("{named}: {why}"));
            }
        }
        calls
    }

    fn add(&mut self, evidence: &Evidence<'_>, edge: &Edge, named: &str) -> Result<(), String> {
        let traffic = evidence.traffic;
        refusals::earlier_refusals_are_known(traffic, edge)?;
        if !served(edge) {
            return Err(unserved(edge));
        }
        let share = proven(edge);
        if share <= 0.0 {
            return Err("no mutual TLS proves who calls".to_owned());
        }
        // If no proxy reports the callers' identities, the accounts are those of existing pods, and
        // calls outlive a Job's pods.
        if edge.identities.is_empty() {
            return Err(
                "no meshed pod of the caller is known now, so its account is not".to_owned(),
            );
        }
        let (destination, found) = called::called(traffic, edge, evidence.ports)?;
        if let Err(why) = reported::served(edge) {
            return match self.has(&destination, edge, &found) {
                true => Ok(()),
                false => Err(self.unserved(traffic, edge, why)),
            };
        }
        let mut by_port = None;
        let routes = if evidence.by_route && is_http(edge.protocol) {
            reported::served_routes(traffic, edge).unwrap_or_else(|why| {
                by_port = Some(format!("{named}: {why}"));
                Routes::new()
            })
        } else {
            Routes::new()
        };
        if routes.is_empty() {
            refusals::none_was_refused(traffic, edge)?;
        }
        let at = (&destination, &found);
        let others = &evidence.refusals;
        others.none_stands_elsewhere(traffic, edge, at, &routes)?;
        self.by_port.extend(by_port);
        self.take(&destination, &edge.identities, &found, &routes)?;
        if share < 1.0 {
            return Err(
                "a part of the calls came in plaintext; that part is not suggested".to_owned(),
            );
        }
        Ok(())
    }

    /// Why an edge is skipped if the called side is not known to have served its calls.
    fn unserved(&mut self, traffic: &IndexedGraph, edge: &Edge, why: &str) -> String {
        // The called side's report of the window is known; of minutes before, an older controller
        // reports nothing.
        let has_unreported = reported::server(edge).is_none()
            || reported::earlier_minutes(traffic, edge).any(Minute::served);
        if has_unreported && !traffic.reports_sides() {
            self.unreported += 1;
            return reported::UNREPORTED.to_owned();
        }
        // What is missing may be the called side's word.
        if traffic.is_lossy() {
            return format!("{why}, as far as was reported by now");
        }
        why.to_owned()
    }

    /// Calls of these callers to these ports, or of these routes there, are facts.
    fn take(
        &mut self,
        destination: &Account,
        callers: &[String],
        ports: &BTreeSet<u16>,
        routes: &Routes,
    ) -> Result<(), String> {
        for caller in callers {
            let source =
                called::account(caller).ok_or("an identity of the callers is no account")?;
            let limited = (!routes.is_empty()).then(|| ports.clone());
            let key = (destination.clone(), source, limited);
            let traffics = self.facts.entry(key).or_default();
            traffics.ports.extend(ports);
            for (group, matches) in routes {
                let known = traffics.routes.entry(group.clone()).or_default();
                known.extend(matches.iter().cloned());
            }
        }
        Ok(())
    }

    /// Whether calls of all its callers to these ports are facts by reports of other edges: two
    /// Services may lead to one port, whose calls the called side reports once.
    fn has(&self, destination: &Account, edge: &Edge, ports: &BTreeSet<u16>) -> bool {
        edge.identities.iter().all(|caller| {
            let Some(source) = called::account(caller) else {
                return false;
            };
            let first = (destination.clone(), source.clone(), None::<BTreeSet<u16>>);
            let known = self.facts.range(first..);
            let mut known =
                known.take_while(|((to, from, _), _)| to == destination && *from == source);
            known.any(|(_, traffics)| ports.is_subset(&traffics.ports))
        })
    }

    /// What of it a reader has to know, a line each.
    pub(super) fn words(&self) -> impl Iterator<Item = String> {
        let by_port = self.by_port.iter().map(|one| format!("by port: {one}"));
        let left = self.left.iter().map(|one| format!("left out: {one}"));
        let refused = self.refused.iter().map(|one| format!("refused: {one}"));
        by_port.chain(left).chain(refused)
    }

    /// Accounts that no workload has for itself.
    pub(super) fn shared(&self) -> BTreeSet<String> {
        let accounts = self.facts.keys().flat_map(|(to, from, _)| [to, from]);
        let accounts = accounts.map(|(namespace, name)| format!("{namespace}/{name}"));
        let shared = accounts.filter(|account| self.sharing.is_shared(account));
        shared.collect()
    }
}

/// Now, or in one of the minutes that are known.
pub(super) fn served(edge: &Edge) -> bool {
    edge.success > 0 || edge.open > 0 || edge.history.iter().any(Minute::served)
}

/// Why calls that are not known to have been served are skipped. A window of minutes ends with a
/// half minute, so the newest calls are in none yet.
pub(super) fn unserved(edge: &Edge) -> String {
    match edge.requests {
        0 => format!(
            "is only persisted, last seen {}; calls of the last 30 s are not counted yet",
            edge.last_seen
        ),
        _ => "was not served".to_owned(),
    }
}

/// The share of the calls that mutual TLS proved, now and in the minutes that are known. A part
/// without a report counts as none.
fn proven(edge: &Edge) -> f64 {
    let (mut calls, mut secured) = (0.0, 0.0);
    let mut add = |count: u64, share: Option<f64>| {
        calls += count as f64;
        secured += count as f64 * share.unwrap_or_default();
    };
    // What is open has ended nowhere, and has a security all the same.
    add(edge.requests.max(edge.open), edge.mtls);
    for minute in &edge.history {
        add(minute.requests, minute.mtls);
    }
    if calls > 0.0 { secured / calls } else { 0.0 }
}

fn is_http(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http1 | Protocol::Http2 | Protocol::Grpc)
}

/// By account, `namespace/name`, its workloads as people type them.
///
/// Accounts that several workloads run under: what a rule allows to one of them, or at one of
/// them, it allows to and at all.
#[derive(Clone, Debug, Default)]
pub(super) struct Sharing(BTreeMap<String, BTreeSet<String>>);

impl Sharing {
    /// From all edges and nodes of the response. If a workload has no pods now, as a CronJob
    /// between two runs, the accounts are those of its calls.
    pub(super) fn of(traffic: &IndexedGraph, here: Option<&str>) -> Self {
        let mut sharing = Self::default();
        for node in &traffic.graph.nodes {
            sharing.add(traffic, node, &node.accounts, here);
        }
        for edge in traffic.edges() {
            let from = traffic.node(&edge.from);
            if let Some(node) = from.filter(|node| node.accounts.is_empty()) {
                sharing.add(traffic, node, &edge.identities, here);
            }
        }
        sharing
    }

    fn add(&mut self, traffic: &IndexedGraph, node: &Node, ids: &[String], here: Option<&str>) {
        if !is_workload(node) {
            return;
        }
        for (namespace, name) in ids.iter().filter_map(|id| called::account(id)) {
            let workloads = self.0.entry(format!("{namespace}/{name}")).or_default();
            workloads.insert(select::shown(traffic, &node.id, here));
        }
    }

    /// Whether no workload has it for itself.
    pub(super) fn is_shared(&self, account: &str) -> bool {
        is_default(account) || self.workloads(account).len() > 1
    }

    /// The workloads that share an account, and what follows.
    pub(super) fn words(&self, account: &str) -> String {
        if is_default(account) {
            return format!(
                "{account} is the account of every pod that names none; what it is allowed to \
                 call, all of them may"
            );
        }
        let workloads = self.workloads(account);
        format!(
            "{account} is the account of {} workloads ({}); what it is allowed to call, all of \
             them may, and a caller that may call one of them there may call all",
            workloads.len(),
            few(&workloads, workloads.len())
        )
    }

    fn workloads(&self, account: &str) -> Vec<&str> {
        let workloads = self.0.get(account).into_iter().flatten();
        workloads.map(String::as_str).collect()
    }
}

fn is_default(account: &str) -> bool {
    account.ends_with("/default")
}

/// Whether it has an account for pods that there are, or will be.
fn is_workload(node: &Node) -> bool {
    let is_one = !matches!(
        node.kind,
        NodeKind::Service
            | NodeKind::ServiceAccount
            | NodeKind::External
            | NodeKind::Outside
            | NodeKind::Unknown
    );
    is_one && (!node.gone || node.kind == NodeKind::CronJob)
}
