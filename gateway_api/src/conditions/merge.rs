//! Puts what Weft reports of a route beside what others report of it.
//!
//! Several controllers write the list `status.parents`, and the API server replaces it as a whole.
//! So the list that is there is the start: entries of others stay as they are and where they are,
//! and ours are changed, added or taken out.

use serde_json::Value;

use super::ConditionType;
use crate::parents::ParentRef;

/// One condition as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which one.
    pub kind: ConditionType,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// One word.
    pub reason: String,
    /// One or more sentences.
    pub message: String,
}

/// What is reported of a route as one of its parents sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentStatus {
    /// [`super::MESH_CONTROLLER`] or [`super::GATEWAY_CONTROLLER`].
    pub controller: &'static str,
    /// The parent.
    pub parent: ParentRef,
    /// In the order in which they are to be written.
    pub conditions: Vec<Condition>,
}

/// The object whose status it is, as the API server returned it with that status.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its generation at the API server.
    pub generation: i64,
}

/// What `status.parents` should be: `now` with our entries as in `ours`. `None` if it is that
/// already. `seen` is the generation of the object that `ours` is about, `time` the current time in
/// RFC 3339.
#[must_use]
pub fn merge(
    now: &[Value],
    owner: Owner<'_>,
    ours: &[ParentStatus],
    seen: i64,
    time: &str,
) -> Option<Vec<Value>> {
    let _ = (now, owner, ours, seen, time);
    None
}
