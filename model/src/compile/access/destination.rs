//! The destination of a TrafficTarget, resolved to the pods that it protects.
//!
//! A target protects what it names even where it can allow nothing: one that is wrong must not
//! leave its pods open.

use std::sync::Arc;

use policy::name::ObjectRef;

use crate::world::ObjectKey;

/// What a target is about.
pub(super) struct Destination {
    /// As it is written.
    pub(super) name: Arc<str>,
    /// All pods of these accounts.
    pub(super) accounts: Vec<ObjectKey>,
    /// Pods that were found by their labels.
    pub(super) pods: Vec<ObjectKey>,
    /// The binding that selects them.
    pub(super) origin: Option<(ObjectRef, i64)>,
    /// Whether the target may allow something; it protects them either way.
    pub(super) usable: bool,
}
