//! Keys of objects: namespace and name within a kind, and their text in decisions.
//!
//! Names are shared and not copied: a World of ten thousand pods repeats each of them often.

use std::{borrow::Cow, fmt, sync::Arc};

use policy::{
    name::{Kind, ObjectRef, ServiceId},
    origin::Origin,
    release::service_of,
};

use super::smi::Meta;

/// Namespace and name of an object. Cluster-scoped objects have an empty namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace, or empty.
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The Service that this means as a backend: itself, or the one that it is a set of.
    #[must_use]
    pub fn service(&self) -> Cow<'_, Self> {
        match service_of(&self.name) {
            name if name.len() == self.name.len() => Cow::Borrowed(self),
            name => Cow::Owned(Self {
                namespace: self.namespace.clone(),
                name: name.into(),
            }),
        }
    }
}

impl From<&ServiceId> for ObjectKey {
    fn from(service: &ServiceId) -> Self {
        Self {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of an object as problems and origins carry it.
pub fn object(kind: Kind, key: &ObjectKey) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// The same as text, as a decision names it.
pub(crate) fn named(object: &ObjectRef) -> Origin {
    Origin::new(
        object.kind.as_str(),
        object.namespace.clone(),
        object.name.clone(),
    )
}

/// An object with its generation.
pub(crate) fn origin(kind: Kind, key: &ObjectKey, meta: &Meta) -> (ObjectRef, i64) {
    (object(kind, key), meta.generation)
}
