//! The input of a query for an explanation, and the errors of a query that has no meaning.

use std::collections::BTreeSet;

use crate::model::PodId;
use crate::world::ObjectKey;

/// The owner of a pod: kind and name of the topmost owner, in the pod's namespace.
pub type Owner<'a> = &'a dyn Fn(&PodId) -> (String, ObjectKey);
/// The callers that these pods had, as far as they are kept; a fix would close them out.
pub type Callers<'a> = &'a dyn Fn(&BTreeSet<PodId>) -> SeenCallers;

/// The callers seen, of which only some may be named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenCallers {
    /// Accounts that the client may know of.
    pub accounts: BTreeSet<ObjectKey>,
    /// How many more there are.
    pub unnamed: usize,
    /// How many callers beside them were seen without a known account: without a proxy, or without
    /// a pod now.
    pub unknown: usize,
}

/// What of the caller may go into an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerView {
    /// Whatever is known of its pods.
    Known,
    /// Nothing but its account, as it was given. No pod of it is looked up, so that a result is the
    /// same whatever there is.
    AccountOnly,
}

/// Why a query has no result: the field, and what is wrong with it.
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
