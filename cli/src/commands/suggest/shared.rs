//! Accounts that several workloads run under: what a rule allows to one of them, or at one of
//! them, it allows to and at all.

use std::collections::{BTreeMap, BTreeSet};

use crds::few::few;
use crds::observe::{Node, NodeKind};

use super::called;
use crate::traffic::IndexedGraph;
use crate::traffic::select;

/// By account, `namespace/name`, its workloads as people type them.
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
