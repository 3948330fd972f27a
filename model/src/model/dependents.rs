//! Indexes the pods and callers that each object concerns, computed at the first query.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use policy::name::ObjectRef;

use crate::world::{ObjectKey, PodFacts};

/// Pods with a running proxy by account (namespace, account).
pub(crate) type Running = HashMap<ObjectKey, Vec<ObjectKey>>;

/// Which pods and callers objects concern, by object.
#[derive(Debug, Default)]
pub(crate) struct DependentsByObject(pub(super) HashMap<ObjectRef, Dependents>);

/// Which pods and callers one object concerns.
#[derive(Debug, Default)]
pub(super) struct Dependents {
    /// Accounts that targets made from the object are about.
    pub(super) accounts: BTreeSet<ObjectKey>,
    /// Namespaces all of whose accounts it may be about.
    pub(super) namespaces: BTreeSet<Arc<str>>,
    /// Pods that those targets name by label.
    pub(super) pods: BTreeSet<ObjectKey>,
    /// Services that splits made from the object share out.
    pub(super) roots: BTreeSet<ObjectKey>,
    /// Ports of Services that routes, or policies made from the object, speak of to callers.
    pub(super) ports: BTreeSet<(ObjectKey, u16)>,
}

/// Whether a pod has a proxy that may hold a configuration: one that does not run
/// carries no traffic.
pub(super) fn is_running(facts: &PodFacts) -> bool {
    !facts.ended && facts.proxy.as_ref().is_some_and(|proxy| proxy.running)
}
