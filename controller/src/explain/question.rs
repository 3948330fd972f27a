//! What a question needs to be answered, and why it may have no meaning.

use std::collections::BTreeSet;

use crate::model::PodId;
use crate::world::ObjectKey;

/// Who owns a pod: kind and name of the topmost owner, in the pod's namespace.
pub type Owner<'a> = &'a dyn Fn(&PodId) -> (String, ObjectKey);
/// The callers that these pods had, as far as is remembered; for whom a fix would close out.
pub type Callers<'a> = &'a dyn Fn(&BTreeSet<PodId>) -> SeenCallers;

/// Who called, of whom only some may be named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenCallers {
    /// Accounts that the client may know of.
    pub accounts: BTreeSet<ObjectKey>,
    /// How many more there are.
    pub unnamed: usize,
    /// How many callers beside them were seen of whom no account is known: without a proxy,
    /// or without a pod now.
    pub unknown: usize,
}

/// What of the caller may go into an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerView {
    /// Whatever is known of its pods.
    Known,
    /// Nothing but its account, as it was asked. No pod of it is looked up, so that an answer
    /// is the same whatever there is.
    AccountOnly,
}

/// Why a question cannot be answered: the field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {reason}")]
pub struct BadQuestion {
    /// Within the spec.
    pub field: &'static str,
    /// What is wrong.
    pub reason: String,
}

impl BadQuestion {
    pub(super) fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self {
            field,
            reason: reason.into(),
        }
    }
}
