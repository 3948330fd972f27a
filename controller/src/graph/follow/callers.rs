//! The callers of a workload and how often each called, for explanations.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crds::observe::{NodeKind, RecentCalls};
use policy::name::SpiffeId;

use super::Graph;
use crate::graph::answer;
use crate::graph::edges::EdgeRef;
use crate::graph::history;
use crate::graph::key::{EdgeKey, NodeKey};
use crate::graph::workloads::workloads;
use crate::model::compiled::Compiled;
use crate::observe::reports::{SLOT, slot_of};
use crate::world::ObjectKey;

impl Graph {
    /// What was counted in the max window on the edges that `chosen` accepts.
    pub(crate) fn between(
        &self,
        now: SystemTime,
        chosen: impl Fn(&EdgeKey) -> bool,
    ) -> RecentCalls {
        let state = self.inner.state.lock();
        let current = slot_of(now);
        let slots = (current.saturating_sub(history::LONGEST), current);
        let window = state.history.window(slots, current, 0);
        let mut seen = RecentCalls {
            window_seconds: history::LONGEST * SLOT,
            ..RecentCalls::default()
        };
        let mut last = 0;
        for (edge, counted) in window.edges.iter().filter(|(edge, _)| chosen(edge.key())) {
            seen.requests += counted.sums.requests();
            seen.failure += u64::from(counted.sums.failure);
            for (reason, calls) in counted.sums.rare.iter().flat_map(|rare| &rare.reasons) {
                *seen.refused.entry(reason.to_string()).or_default() += u64::from(*calls);
            }
            last = last.max(state.memory.get(edge).map_or(0, |seen| seen.last));
        }
        seen.last = (last > 0).then(|| answer::timestamp(last));
        seen
    }

    /// Accounts of the callers that these nodes ever had, as far as they are in the memory or were
    /// there in the last minutes, and how many there were of which none is known.
    pub(crate) fn callers_of(
        &self,
        nodes: &BTreeSet<NodeKey>,
        compiled: &Compiled,
    ) -> (BTreeSet<ObjectKey>, usize) {
        let workloads = workloads(&compiled.model, &self.inner.inventory.read());
        let state = self.inner.state.lock();
        let remembered = state.memory.iter().map(|(edge, _)| edge);
        let edges = remembered.chain(state.history.unknown());
        let edges = edges.map(EdgeRef::key);
        let mut accounts = BTreeSet::new();
        let mut unknown = BTreeSet::new();
        for edge in edges.filter(|edge| nodes.contains(&edge.to)) {
            let own = (edge.from.kind == NodeKind::ServiceAccount).then_some(&edge.from.object);
            if let Some(account) = edge.account.as_ref().or(own) {
                accounts.insert(account.clone());
                continue;
            }
            let workload = workloads.get(&edge.from);
            let identities = workload
                .into_iter()
                .flat_map(|workload| &workload.identities);
            let known: BTreeSet<ObjectKey> = identities.filter_map(|id| account_of(id)).collect();
            if known.is_empty() {
                unknown.insert(&edge.from);
            }
            accounts.extend(known);
        }
        (accounts, unknown.len())
    }
}

fn account_of(id: &str) -> Option<ObjectKey> {
    let id = SpiffeId::try_from(id).ok()?;
    Some(ObjectKey::new(id.namespace()?, id.service_account()?))
}
