//! The calls that are remembered, by the Model that is and by the one that would be.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::{BackendShare, Change, ChangedEdge, DryRunStatus, NodeKind, Protocol, Scope};
use policy::access::passes::Effect;

use crate::explain::trial::{Calls, Meaning, Share, Trial, Who};
use crate::graph::answer::timestamp;
use crate::graph::key::{EdgeKey, NodeKey};
use crate::model::compiled::Compiled;
use crate::model::{Model, PodId};
use crate::observe_api::told::Told;

/// Edges of one answer, the worst first.
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
    pub(super) fn of(told: &Told, compiled: &Compiled) -> Self {
        let edges = told.graph.with_memory(|memory, _| {
            let all = memory.iter();
            all.map(|(edge, seen)| (edge.key().clone(), seen.last))
                .collect()
        });
        let inventory = told.followed.inventory.read();
        let mut pods: BTreeMap<NodeKey, Vec<PodId>> = BTreeMap::new();
        for (pod, facts) in compiled.world.pods.iter().filter(|(_, facts)| !facts.ended) {
            let node = NodeKey::of_workload(inventory.topmost(pod, &facts.uid));
            pods.entry(node).or_default().push(pod.clone());
        }
        Self { edges, pods }
    }

    /// What becomes of them, as far as `scope` may be told.
    pub(super) fn compared(&self, before: &Model, after: &Model, scope: &Scope) -> DryRunStatus {
        let known: BTreeSet<&str> = scope.namespaces.iter().map(String::as_str).collect();
        let mut trial = Trial::new(before, after);
        let mut status = DryRunStatus::default();
        for (edge, last) in &self.edges {
            let calls = self.calls(edge);
            let Some(meaning) = calls.and_then(|calls| trial.of(&calls)) else {
                status.unknown += 1;
                continue;
            };
            let Some(change) = change(&meaning) else {
                status.kept += 1;
                continue;
            };
            let ends = [&edge.from, &edge.to];
            if scope.cluster || ends.iter().any(|end| known.contains(end.namespace())) {
                status.changed.push(shown(edge, *last, change, meaning));
            } else {
                status.hidden += 1;
                status.hidden_refused += u64::from(change == Change::Refused);
            }
        }
        let order = |one: &ChangedEdge| (one.change, one.from.clone(), one.to.clone(), one.port);
        status.changed.sort_by_cached_key(order);
        status.truncated = status.changed.len() > MAX_CHANGED;
        status.changed.truncate(MAX_CHANGED);
        status
    }

    /// The calls of an edge; `None` where an end has no pods, or lies outside the cluster.
    fn calls(&self, edge: &EdgeKey) -> Option<Calls> {
        let from = match edge.from.kind {
            NodeKind::Outside => Who::Outside,
            NodeKind::ServiceAccount => Who::Account(edge.from.object.clone()),
            _ => Who::Pods(self.pods.get(&edge.from)?.clone()),
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
}

/// What is said of it; `None`: nothing changes.
fn change(meaning: &Meaning) -> Option<Change> {
    Some(match (meaning.effect, &meaning.rerouted) {
        (Effect::Refused, _) => Change::Refused,
        (Effect::Depends, _) => Change::Depends,
        (Effect::Kept | Effect::Allowed, Some(_)) => Change::Rerouted,
        (Effect::Allowed, None) => Change::Allowed,
        (Effect::Kept, None) => return None,
    })
}

fn shown(edge: &EdgeKey, last: u64, change: Change, meaning: Meaning) -> ChangedEdge {
    let shares = |shares: Vec<Share>| {
        let shares = shares.into_iter().map(|one| BackendShare {
            service: one.service.to_string(),
            share: one.share,
        });
        shares.collect()
    };
    let [before, after] = meaning.rerouted.unwrap_or_default().map(shares);
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
        protocol: edge.protocol,
        reason: meaning
            .reason
            .map(|reason| reason.to_string())
            .unwrap_or_default(),
        before,
        after,
        last_seen: timestamp(last),
    }
}
