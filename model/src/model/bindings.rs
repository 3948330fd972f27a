//! The workloads that each IdentityBinding selects, except by labels: those are found while
//! targets are compiled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use policy::name::{ObjectRef, SpiffeId};

use crate::world::ObjectKey;

/// Every IdentityBinding by name.
#[derive(Debug, Default)]
pub struct Bindings(BTreeMap<ObjectKey, Binding>);

/// The pods that one IdentityBinding means.
#[derive(Debug)]
pub struct Binding {
    pub origin: (ObjectRef, i64),
    /// Whether it may allow something. What follows counts for protection either way.
    pub usable: bool,
    /// Identities that belong to it, each once.
    pub(crate) ids: Vec<SpiffeId>,
    /// Service accounts of its namespace that belong to it.
    pub accounts: BTreeSet<Arc<str>>,
    /// SPIFFE ids that are no account of its namespace: they can call, and cannot be
    /// protected.
    pub(crate) callers_only: Vec<SpiffeId>,
    /// SPIFFE ids of this mesh that belong to other namespaces: they are ignored.
    pub foreign: Vec<SpiffeId>,
}

impl Bindings {
    pub fn get(&self, key: &ObjectKey) -> Option<&Binding> {
        self.0.get(key)
    }
}

impl FromIterator<(ObjectKey, Binding)> for Bindings {
    fn from_iter<I: IntoIterator<Item = (ObjectKey, Binding)>>(bindings: I) -> Self {
        Self(bindings.into_iter().collect())
    }
}
