//! Evaluates the recorded calls by the current Model and by the changed one, and reports the
//! differences.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crds::observe::{BackendShare, Change, ChangedEdge, DryRunStatus, NodeKind, Protocol, Scope};
use model::compiled::Compiled;
use model::explain::comparison::{CallerSet, Calls, Meaning, ModelComparison, Share};
use model::{Model, PodId};
use policy::access::passes::Effect;
use policy::well_known::PROXY_PORTS;

use crate::graph::answer::timestamp;
use crate::graph::key::{EdgeKey, NodeKey};
use crate::observe_api::context::ObserveContext;

/// Max edges of one response, the worst first.
const MAX_CHANGED: usize = 2_000;

/// What is compared.
#[derive(Debug)]
pub(super) struct Edges {
    /// With when each was last seen, in seconds since 1970.
    edges: Vec<(EdgeKey, u64)>,
    /// Pods that run, by their topmost owner.
    pods: BTreeMap<NodeKey, Vec<PodId>>,
}

impl Edges {
    /// All that are remembered.
    pub(super) fn of(context: &ObserveContext, compiled: &Compiled) -> Self {
        let edges = context.graph.with_memory(|memory, _| {
            let all = memory.iter();
            all.map(|(edge, seen)| (edge.key().clone(), seen.last))
                .collect()
        });
        let inventory = context.followed.inventory.read();
        let mut pods: BTreeMap<NodeKey, Vec<PodId>> = BTreeMap::new();
        for (pod, facts) in compiled.world.pods.iter().filter(|(_, facts)| !facts.ended) {
            let node = NodeKey::of_workload(inventory.topmost(pod, &facts.uid));
            pods.entry(node).or_default().push(pod.clone());
        }
        Self { edges, pods }
    }

    /// What becomes of them, as far as `scope` may be shown and there is time.
    pub(super) fn compared(
        &self,
        (before, after): (&Model, &Model),
        scope: &Scope,
        until: Instant,
    ) -> DryRunStatus {
        let known: BTreeSet<&str> = scope.namespaces.iter().map(String::as_str).collect();
        let mut comparison = ModelComparison::new(before, after, until);
        let mut status = DryRunStatus {
            hidden_depends: Some(0),
            ..DryRunStatus::default()
        };
        // Before the edges: where there is no time for all nodes, no edge is compared either.
        for node in self.opened(&comparison) {
            if scope.cluster || known.contains(node.namespace()) {
                status.opened.push(node.to_string());
            } else {
                status.hidden_opened += 1;
            }
        }
        for (edge, last) in &self.edges {
            if comparison.is_late() {
                status.uncompared += 1;
                continue;
            }
            let may_read = |end: &NodeKey| scope.cluster || known.contains(end.namespace());
            let is_shown = may_read(&edge.from) || may_read(&edge.to);
            if lacks_port(before, edge) || is_of_proxy(edge) {
                status.kept += u64::from(is_shown);
                continue;
            }
            // What has no port was refused unread, whatever the rules.
            let past = edge.port == 0 || self.is_past(before, edge);
            let calls = self.calls(before, edge).filter(|_| !past);
            let Some(meaning) = calls.and_then(|calls| comparison.of(&calls)) else {
                if comparison.is_late() {
                    status.uncompared += 1;
                    continue;
                }
                status.unknown += u64::from(is_shown);
                // Of what is outside the cluster there is never anything to show.
                if is_shown && !past && edge.to.kind != NodeKind::External {
                    status
                        .changed
                        .push(shown(edge, *last, Change::Unknown, None));
                }
                continue;
            };
            let Some(change) = change(&meaning) else {
                status.kept += u64::from(is_shown);
                continue;
            };
            if is_shown {
                let pod_ports = self.pod_ports(before, edge, may_read(&edge.to));
                status.changed.push(ChangedEdge {
                    pod_ports,
                    ..shown(edge, *last, change, Some(meaning))
                });
            } else {
                status.hidden += 1;
                status.hidden_refused += u64::from(change == Change::Refused);
                let depends = status.hidden_depends.get_or_insert_default();
                *depends += u64::from(change == Change::Depends);
            }
        }
        let order = |one: &ChangedEdge| (one.change, one.from.clone(), one.to.clone(), one.port);
        status.changed.sort_by_cached_key(order);
        status.truncated = status.changed.len().max(status.opened.len()) > MAX_CHANGED;
        status.changed.truncate(MAX_CHANGED);
        status.opened.truncate(MAX_CHANGED);
        status
    }

    /// What the change opens to every caller, as far as there is time. Remembered calls do not show
    /// that: those that were refused are of callers that tried.
    fn opened<'a>(
        &'a self,
        comparison: &'a ModelComparison<'_>,
    ) -> impl Iterator<Item = &'a NodeKey> {
        let nodes = self.pods.iter();
        let opened = nodes.filter(move |(_, pods)| {
            !comparison.is_late() && pods.iter().any(|pod| comparison.opens(pod))
        });
        opened.map(|(node, _)| node)
    }

    /// Whether an end is in a namespace that is not there any more.
    fn is_past(&self, model: &Model, edge: &EdgeKey) -> bool {
        let is_gone = |end: &NodeKey| {
            let namespace = end.namespace();
            let exists = || model.index.world.namespace(namespace).is_some();
            !namespace.is_empty() && !self.pods.contains_key(end) && !exists()
        };
        is_gone(&edge.from) || is_gone(&edge.to)
    }

    /// The calls of an edge; `None` where an end has no pods, or lies outside the cluster.
    fn calls(&self, model: &Model, edge: &EdgeKey) -> Option<Calls> {
        let from = match edge.from.kind {
            NodeKind::Outside => CallerSet::Outside,
            NodeKind::ServiceAccount => CallerSet::Account(edge.from.object.clone()),
            _ => self.callers(model, edge)?,
        };
        let to = self.pods.get(&edge.to).cloned().unwrap_or_default();
        if to.is_empty() && edge.service.is_none() {
            return None;
        }
        Some(Calls {
            from,
            service: edge.service.clone(),
            port: edge.port,
            to,
            http: match edge.protocol {
                Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => true,
                Protocol::Tcp | Protocol::Tls => false,
                Protocol::Unknown => true,
            },
        })
    }

    /// The callers: those of the node's pods that run as the account that made the calls, or that
    /// account where none of its pods runs now. `None` where all run as another one: no pod makes
    /// these calls any more.
    fn callers(&self, model: &Model, edge: &EdgeKey) -> Option<CallerSet> {
        let pods = self.pods.get(&edge.from);
        let Some(account) = &edge.account else {
            return Some(CallerSet::Pods(pods?.clone()));
        };
        let runs_as = |pod: &&PodId| {
            let facts = model.index.world.pods.get(*pod);
            pod.namespace == account.namespace
                && facts.is_some_and(|facts| facts.service_account == account.name)
        };
        let all = pods.map_or(&[][..], Vec::as_slice);
        let own: Vec<PodId> = all.iter().filter(runs_as).cloned().collect();
        match (own.is_empty(), all.is_empty()) {
            (false, _) => Some(CallerSet::Pods(own)),
            (true, true) => Some(CallerSet::Account(account.clone())),
            (true, false) => None,
        }
    }

    /// The called pods' own ports, by which their proxies report live calls. Which of them a
    /// Service leads to belongs to their namespace: none where the graph of that may not be read.
    fn pod_ports(&self, model: &Model, edge: &EdgeKey, may_read: bool) -> Vec<u16> {
        let Some(service) = edge.backend.as_ref().or(edge.service.as_ref()) else {
            return vec![edge.port];
        };
        if !may_read {
            return Vec::new();
        }
        let service = &*service.service();
        let called = self.pods.get(&edge.to).into_iter().flatten();
        let entries = called.filter_map(|pod| model.index.pods.get(pod));
        let led_to_by = entries.flat_map(|entry| entry.led_to_by());
        let ports: BTreeSet<u16> = led_to_by
            .filter(|(of, port, _)| of == service && *port == edge.port)
            .map(|(_, _, own)| *own)
            .collect();
        ports.into_iter().collect()
    }
}

/// Whether a Service was called at a port that it does not have: whatever is changed, no pod serves
/// that.
fn lacks_port(model: &Model, edge: &EdgeKey) -> bool {
    let service = edge.service.as_ref();
    let service = service.and_then(|service| model.index.services.get(service));
    edge.port != 0 && service.is_some_and(|service| !service.ports.contains_key(&edge.port))
}

/// Whether a port of a pod's proxy was called, which no rule of the pod is about.
fn is_of_proxy(edge: &EdgeKey) -> bool {
    let by_address = edge.service.is_none() && edge.to.kind != NodeKind::External;
    by_address && PROXY_PORTS.contains(&edge.port)
}

/// The kind of change that is reported; `None`: nothing changes.
fn change(meaning: &Meaning) -> Option<Change> {
    Some(match (meaning.effect, &meaning.rerouted) {
        (Effect::Refused, _) => Change::Refused,
        (Effect::Depends, _) => Change::Depends,
        (Effect::Kept | Effect::Allowed, Some(_)) => Change::Rerouted,
        (Effect::Allowed, None) => Change::Allowed,
        (Effect::Kept, None) => return None,
    })
}

fn shown(edge: &EdgeKey, last: u64, change: Change, meaning: Option<Meaning>) -> ChangedEdge {
    let (reason, rerouted) =
        meaning.map_or((None, None), |outcome| (outcome.reason, outcome.rerouted));
    let shares = |shares: Vec<Share>| {
        let shares = shares.into_iter().map(|one| BackendShare {
            service: one.service.to_string(),
            share: one.share,
        });
        shares.collect()
    };
    let [before, after] = rerouted.unwrap_or_default().map(shares);
    ChangedEdge {
        change,
        from: edge.from.to_string(),
        to: edge.to.to_string(),
        service: edge
            .service
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        port: edge.port,
        pod_ports: Vec::new(),
        protocol: edge.protocol,
        reason: reason.map(|reason| reason.to_string()).unwrap_or_default(),
        before,
        after,
        last_seen: timestamp(last),
    }
}

#[cfg(test)]
mod tests;
