//! Finds accounts that no longer exist. Calls are retained for longer than that, and a rule for
//! such an account would admit the next account of its name.

use std::collections::{BTreeMap, BTreeSet};

use crds::label_syntax::is_dns_label;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::core::ObjectList;

use super::called::{self, Account, Ports};
use super::observed_calls::Calls;
use crate::cluster::Cluster;
use crate::traffic::IndexedGraph;

/// The accounts of namespaces, as far as the user may list them. Every namespace has one at least,
/// so an empty list means nothing.
#[derive(Debug, Default)]
pub(super) struct Existing(BTreeMap<String, BTreeSet<String>>);

impl Existing {
    /// Of all namespaces of these calls' accounts.
    pub(super) async fn of(cluster: &Cluster, calls: &Calls) -> Self {
        let accounts = calls.facts.keys().flat_map(|(to, from, _)| [to, from]);
        let mut namespaces: BTreeSet<&String> = accounts.map(|(namespace, _)| namespace).collect();
        // Each becomes part of a path.
        namespaces.retain(|namespace| is_dns_label(namespace));
        let lists = namespaces.into_iter().map(|namespace| async move {
            let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
            let list = cluster.try_read::<ObjectList<ServiceAccount>>("ServiceAccounts", &path);
            let items = list.await.ok()?.items.into_iter();
            let names: BTreeSet<String> = items.filter_map(|item| item.metadata.name).collect();
            (!names.is_empty()).then(|| (namespace.clone(), names))
        });
        Self(join_all(lists).await.into_iter().flatten().collect())
    }

    fn lacks(&self, (namespace, name): &Account) -> bool {
        let known = self.0.get(namespace);
        known.is_some_and(|names| !names.contains(name))
    }

    /// Leaves out of `calls` what is of accounts that do not exist any more, each with when it was
    /// seen last.
    pub(super) fn leave_out_gone(&self, calls: &mut Calls, traffic: &IndexedGraph, ports: &Ports) {
        let mut reported = BTreeSet::new();
        calls.facts.retain(|(to, from, _), _| {
            let Some((namespace, name)) = [from, to].into_iter().find(|one| self.lacks(one)) else {
                return true;
            };
            let last = last_seen(traffic, ports, from, to).unwrap_or("an unknown time");
            reported.insert(format!(
                "calls of account {}/{} to account {}/{}: ServiceAccount {namespace}/{name} does \
                 not exist any more, last seen {last}",
                from.0, from.1, to.0, to.1
            ));
            false
        });
        calls.left.extend(reported);
    }
}

/// When one of these called the other last, RFC 3339.
fn last_seen<'a>(
    traffic: &'a IndexedGraph,
    ports: &Ports,
    from: &Account,
    to: &Account,
) -> Option<&'a str> {
    let edges = traffic.edges().iter();
    let between = edges.filter(|edge| {
        let mut callers = edge.identities.iter();
        callers.any(|id| called::account(id).as_ref() == Some(from))
            && called::called(traffic, edge, ports).is_ok_and(|(called, _)| called == *to)
    });
    // Times in this form are in the order of their letters.
    let times = between.map(|edge| edge.last_seen.as_str());
    times.filter(|time| !time.is_empty()).max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{edge, indexed, ports, suggested_by};
    use super::*;

    // Claims: observe-114
    #[test]
    fn deleted_account_becomes_a_comment_with_date() {
        let seen = |at: &str| json!({"lastSeen": at});
        let edges = [
            edge("web", "cart", 80, seen("2026-11-02T09:30:00Z")),
            edge("job", "cart", 80, seen("2026-11-02T09:10:00Z")),
        ];
        let traffic = indexed(&edges, &json!([]));
        let left_out = |accounts: &[&str]| {
            let names = accounts.iter().map(|name| (*name).to_owned());
            let existing = match accounts {
                [] => Existing::default(),
                _ => Existing(BTreeMap::from([("shop".to_owned(), names.collect())])),
            };
            let mut calls = suggested_by(&traffic, false);
            existing.leave_out_gone(&mut calls, &traffic, &ports());
            (calls.facts.len(), calls.left)
        };
        let job = "calls of account shop/job to account shop/cart: ServiceAccount shop/job does not \
                   exist any more, last seen 2026-11-02T09:10:00Z";
        assert_eq!(
            left_out(&["default", "web", "cart"]),
            (1, vec![job.to_owned()])
        );
        let (facts, left) = left_out(&["default", "web", "job"]);
        assert_eq!((facts, left.len()), (0, 2));
        assert!(
            left[0].contains("ServiceAccount shop/cart does not exist"),
            "{left:?}"
        );
        // Control: all exist, or the list is not known.
        for accounts in [&["cart", "job", "web"][..], &[]] {
            assert_eq!(left_out(accounts), (2, Vec::new()), "{accounts:?}");
        }
    }
}
