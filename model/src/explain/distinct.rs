//! Detects what distinguishes pods of one account: the rules that name them, and the Revocations that
//! end them.

use policy::access::Source;
use policy::name::SpiffeId;

use crate::model::revoked::EndedBy;
use crate::model::{Index, PodId};

/// Which rules name the pod with this uid.
pub(super) fn named_by(index: &Index, uid: &str) -> Vec<usize> {
    let names = |source: &Source| match source {
        Source::Pods(uids) => uids.iter().any(|one| **one == *uid),
        Source::Identity(_) | Source::Authenticated | Source::Unauthenticated => false,
    };
    let rules = index.targets.rules().enumerate();
    rules
        .filter(|(_, rule)| rule.sources.iter().any(names))
        .map(|(at, _)| at)
        .collect()
}

/// What revokes a pod for good.
pub(super) fn revoked(index: &Index, pod: &PodId) -> Option<EndedBy> {
    let facts = index.world.pods.get(pod)?;
    if !index.revocations.has_ended(&facts.uid) {
        return None;
    }
    let id = index.identity(pod, facts);
    let id = SpiffeId::try_from(id.as_str()).ok()?;
    index.revocations.ended_by(&id, Some((pod, &**facts)))
}
