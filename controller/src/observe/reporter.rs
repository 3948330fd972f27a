//! The pod that a report is of, as its certificate names it.
//!
//! A report does not name its sender: what a pod may make others believe about calls is bounded by
//! its identity, and replicas pass this on beside the report.

use std::sync::Arc;

use crate::world::ObjectKey;

/// What a text takes besides its characters: where it is, and its two counts.
pub(super) const TEXT_BYTES: usize = 40;

/// The pod that reported.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reporter {
    /// Uid of this incarnation.
    pub uid: Arc<str>,
    /// Namespace and name.
    pub pod: ObjectKey,
    /// The service account that its certificate names; `None` from replicas that do not say.
    pub account: Option<ObjectKey>,
}

impl Reporter {
    /// A pod whose certificate names this account.
    pub(crate) fn certified(uid: Arc<str>, pod: &ObjectKey, account: &str) -> Self {
        Self {
            uid,
            pod: pod.clone(),
            account: Some(ObjectKey::new(&pod.namespace, account)),
        }
    }

    /// As replicas tell each other: its namespace is the pod's.
    pub(crate) fn account_name(&self) -> String {
        let name = self.account.as_ref().map(|account| &*account.name);
        name.unwrap_or_default().to_owned()
    }

    /// Bytes of the account, which reports of other replicas' pods do not share.
    pub(super) fn account_bytes(&self) -> usize {
        let account = self.account.as_ref();
        account.map_or(0, |key| {
            2 * TEXT_BYTES + key.namespace.len() + key.name.len()
        })
    }
}
