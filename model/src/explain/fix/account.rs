//! Decides whether a suggested TrafficTarget names the pods' account or their labels, and reports
//! what that means for the account's other pods.

use std::collections::{BTreeMap, BTreeSet};

use crds::names::few;
use policy::mode::{AccessMode, Enforcement};

use crate::explain::outcome::{BackendOutcome, Question};
use crate::explain::question::{CallerView, Callers, Owner, SeenCallers};
use crate::model::{Index, PodId, modes};
use crate::world::{ObjectKey, PodFacts};

/// The labels by which users distinguish workloads, so they are tried first.
const USUAL: [&str; 3] = ["app.kubernetes.io/name", "app", "k8s-app"];
/// These change with each rollout or pod: an object that named them would soon match no pod.
const FLEETING: [&str; 13] = [
    "app.kubernetes.io/version",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "rollouts-pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
    "version",
];
/// Labels that an IdentityBinding may name.
const MAX_LABELS: usize = 32;

/// Labels of pods.
pub(super) type Labels = BTreeMap<String, String>;

/// Whose pods a target is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Protected {
    /// All of the account.
    Account,
    /// Those with these labels.
    Labelled(Labels),
}

/// What a target that these pods lack is to name: their account, unless that would close pods that
/// are open now and labels distinguish these from them.
pub(super) fn protected(
    index: &Index,
    account: &ObjectKey,
    refusing: &BTreeSet<PodId>,
    owner: Owner<'_>,
) -> Protected {
    if closed_by_a_target(index, account).is_empty() {
        return Protected::Account;
    }
    let labels = distinguishing_labels(index, account, refusing, owner);
    labels.map_or(Protected::Account, Protected::Labelled)
}

/// Labels that pods of the same account and workloads as these have and no other pod, and no pod
/// that is open: one of them, or all that they have in common.
fn distinguishing_labels(
    index: &Index,
    account: &ObjectKey,
    refusing: &BTreeSet<PodId>,
    owner: Owner<'_>,
) -> Option<Labels> {
    let mut pods = refusing.iter().filter_map(|pod| index.world.pods.get(pod));
    let first = pods.next()?.labels.iter();
    let mut common: Labels = first
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .filter(|(name, _)| !FLEETING.contains(&name.as_str()))
        .collect();
    for facts in pods {
        common.retain(|name, value| has(facts, name, value));
    }
    let workloads: BTreeSet<_> = refusing.iter().map(owner).collect();
    let distinguishes = |labels: &Labels| {
        let mut meant = index.world.pods.iter().filter(|(pod, facts)| {
            let mut labels = labels.iter();
            pod.namespace == account.namespace
                && !facts.ended
                && labels.all(|(name, value)| has(facts, name, value))
        });
        meant.all(|(pod, facts)| {
            facts.service_account == account.name
                && workloads.contains(&owner(pod))
                && !is_open(index, pod, facts)
        })
    };
    let usual = USUAL.iter().filter_map(|name| common.get_key_value(*name));
    for (name, value) in usual.chain(&common) {
        let one = Labels::from([(name.clone(), value.clone())]);
        if distinguishes(&one) {
            return Some(one);
        }
    }
    let few = (1..=MAX_LABELS).contains(&common.len());
    (few && distinguishes(&common)).then_some(common)
}

fn has(facts: &PodFacts, name: &str, value: &str) -> bool {
    facts
        .labels
        .get(name)
        .is_some_and(|actual| **actual == *value)
}

/// Says why labels are named, and what follows from them.
pub(super) fn by_labels(account: &ObjectKey, labels: &Labels) -> String {
    let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
    let labels: Vec<String> = labels.collect();
    format!(
        "the target is for pods with {} and not for account {account}, of which other pods are \
         open now and would be closed: a pod that gets these labels later is closed by it, and \
         allows the same call",
        labels.join(", ")
    )
}

/// Whether these ports, written in a TCPRoute, mean these ports on every pod of an account. A
/// number that no pod declares and that is a Service's own stands for the port behind it.
pub(super) fn stand_for_themselves(
    index: &Index,
    account: &ObjectKey,
    ports: &BTreeSet<u16>,
) -> bool {
    let mut pods = pods_of(index, account);
    let of_a_service = |port: u16| {
        let mut services = index.services.iter();
        services.any(|(key, entry)| {
            key.namespace == account.namespace && entry.ports.contains_key(&port)
        })
    };
    pods.all(|(pod, facts)| {
        let serves = index.pods.get(pod).map_or(&[][..], |entry| &entry.serves);
        ports.iter().all(|port| {
            let declared = facts.ports.contains_key(port);
            declared || serves.iter().any(|(_, _, own)| own == port) || !of_a_service(*port)
        })
    })
}

/// Whether on some pod of an account one of these ports carries bytes. There a rule for the
/// port lets anything pass, whatever it says of requests.
pub(super) fn carries_bytes(index: &Index, account: &ObjectKey, ports: &BTreeSet<u16>) -> bool {
    let mut pods = pods_of(index, account);
    pods.any(|(pod, facts)| {
        let protocols = index.pod_protocols(pod, facts);
        ports.iter().any(|port| protocols.lookup(*port).is_opaque())
    })
}

/// Says on how many workloads beside what is called a target for the account allows the
/// call.
pub(super) fn lets_in_elsewhere(
    index: &Index,
    account: &ObjectKey,
    outcomes: &[BackendOutcome<'_>],
    owner: Owner<'_>,
) -> Option<String> {
    let pods = pods_of(index, account).filter(|(_, facts)| !facts.ended);
    let mut others: BTreeSet<_> = pods.map(|(pod, _)| owner(pod)).collect();
    let called = outcomes.iter().flat_map(|outcome| &outcome.evaluated);
    for pod in called.filter_map(|one| one.endpoint.pod.as_ref()) {
        others.remove(&owner(pod));
    }
    let workloads = other_workloads(others.len())?;
    Some(format!(
        "the same call is allowed on {workloads} of account {account} too, since a TrafficTarget \
         names an account: where that is too much, give what is called one of its own and ask \
         again"
    ))
}

fn other_workloads(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 other workload".to_owned()),
        count => Some(format!("{count} other workloads")),
    }
}

/// Names the workloads that a target for the common account admits beside the requested one. A
/// query for an account means all of its pods; a client that may know of the account alone gets no
/// names.
pub(super) fn lets_in_other_callers(
    index: &Index,
    account: &ObjectKey,
    question: &Question<'_>,
    owner: Owner<'_>,
) -> Option<String> {
    let from = &question.spec.from;
    // The account of a Gateway is made for it alone.
    let is_account = matches!(&*from.kind, "ServiceAccount" | "Gateway");
    if question.view == CallerView::AccountOnly || is_account {
        return None;
    }
    let asked = ObjectKey::new(&from.namespace, &from.name);
    let caller = match &*from.kind {
        "Pod" => owner(&asked),
        kind => (kind.to_owned(), asked),
    };
    // Without a proxy no pod has an identity.
    let pods = pods_of(index, account).filter(|(_, facts)| facts.proxy.is_some() && !facts.ended);
    let mut others: BTreeSet<_> = pods.map(|(pod, _)| owner(pod)).collect();
    others.remove(&caller);
    let workloads = other_workloads(others.len())?;
    let names: Vec<String> = others
        .iter()
        .map(|(kind, key)| format!("{kind} {key}"))
        .collect();
    Some(format!(
        "the same call is allowed to {workloads} of account {account} too ({}), since a \
         TrafficTarget names the caller's account: where that is too much, give the caller one of \
         its own and ask again",
        few(&names, names.len())
    ))
}

/// Names the callers that a target for the account closes out of those of its pods that are open
/// now.
pub(super) fn closes_out(index: &Index, account: &ObjectKey, callers: Callers<'_>) -> Vec<String> {
    let closed = closed_by_a_target(index, account);
    let pods = match closed.len() {
        0 => return Vec::new(),
        1 => format!("1 pod of account {account}"),
        count => format!("{count} pods of account {account}"),
    };
    // Which callers it names may be secret; that it closes is not.
    let SeenCallers {
        accounts,
        unnamed,
        unknown,
    } = callers(&closed);
    let names: Vec<String> = accounts.iter().map(ToString::to_string).collect();
    let seen = match &*names {
        [] => String::new(),
        names => format!(", also to callers that were seen ({})", names.join(", ")),
    };
    let mut warnings = vec![format!(
        "{pods}, open now, would be closed by this: whatever no TrafficTarget allows is refused \
         there from then on{seen}; no object is printed against that, since it would let callers \
         in on the account's pods that refuse as well: to close no caller out, give the pods that \
         refuse a label or a service account of their own and ask again"
    )];
    if unnamed > 0 {
        warnings.push(format!(
            "{unnamed} more accounts called {pods} and would be refused from then on: they are of \
             namespaces where you may not create explanations; let a user ask who may, to have \
             them named"
        ));
    }
    if unknown > 0 {
        warnings.push(format!(
            "{unknown} more callers of {pods} were seen and would be refused from then on: they \
             have no pod now, or no proxy, so their account is not known; weft edges shows them"
        ));
    }
    warnings
}

/// Pods of an account that are open now and that a target would close.
fn closed_by_a_target(index: &Index, account: &ObjectKey) -> BTreeSet<PodId> {
    let open = pods_of(index, account).filter(|(pod, facts)| is_open(index, pod, facts));
    open.map(|(pod, _)| pod.clone()).collect()
}

/// Whether a pod is open until a target names it.
fn is_open(index: &Index, pod: &PodId, facts: &PodFacts) -> bool {
    let namespace = index.world.namespace(&pod.namespace);
    let targets: Vec<_> = index.targets.of(pod, facts).collect();
    facts.proxy.is_some()
        && !facts.ended
        && modes::access(&index.defaults, namespace, &facts.annotations) == AccessMode::Auto
        && index.enforcement(pod, facts, &targets) == Enforcement::Open
}

fn pods_of<'a>(
    index: &'a Index,
    account: &'a ObjectKey,
) -> impl Iterator<Item = (&'a PodId, &'a PodFacts)> {
    let pods = index.world.pods.iter();
    let pods = pods.filter(move |(pod, facts)| {
        pod.namespace == account.namespace && facts.service_account == account.name
    });
    pods.map(|(pod, facts)| (pod, &**facts))
}
