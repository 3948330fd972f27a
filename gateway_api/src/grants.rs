//! ReferenceGrants: decides which references to objects of another namespace these permit.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::name::ServiceId;

use crate::{
    kinds::{GROUP, ReferenceGrant},
    reader::{Broken, Field, Object},
    route::RouteKind,
};

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
pub struct Grants(BTreeMap<Arc<str>, Vec<Grant>>);

impl Grants {
    /// The grants of these objects.
    pub fn new<'a>(grants: impl IntoIterator<Item = &'a Grant>) -> Self {
        let mut all: BTreeMap<Arc<str>, Vec<Grant>> = BTreeMap::new();
        for grant in grants {
            let here = all.entry(grant.namespace.clone()).or_default();
            here.push(grant.clone());
        }
        Self(all)
    }

    /// Whether a route of this kind and namespace may name the Service. Within one namespace no
    /// grant is needed.
    #[must_use]
    pub fn allows(&self, from: RouteKind, namespace: &str, to: &ServiceId) -> bool {
        let to = ("Service", &*to.namespace, &*to.name);
        self.permits((from.word(), namespace), to)
    }

    /// Whether a Gateway of a namespace may name a Secret, the same.
    #[must_use]
    pub fn allows_secret(&self, gateway: &str, namespace: &str, secret: &str) -> bool {
        self.permits(("Gateway", gateway), ("Secret", namespace, secret))
    }

    /// Whether objects of a kind of the Gateway API and of a namespace may name an object of a kind
    /// of Kubernetes itself.
    fn permits(
        &self,
        from: (&'static str, &str),
        (kind, namespace, name): (&'static str, &str, &str),
    ) -> bool {
        let mut there = self.0.get(namespace).into_iter().flatten();
        from.1 == namespace || there.any(|grant| grant.allows(from, (kind, name)))
    }
}

impl Grant {
    /// Reads an object. An entry that cannot be understood whole permits nothing.
    #[must_use]
    pub fn read(object: &ReferenceGrant) -> Self {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let spec = Field::new("spec", &object.spec).object().ok();
        let entries = |list: &str| {
            let list = spec.as_ref().map(|spec| spec.list(list));
            let list = list.and_then(Result::ok).unwrap_or_default().into_iter();
            list.filter_map(|entry| entry.object().ok())
        };
        Self {
            namespace: namespace.into(),
            from: entries("from").filter_map(|one| from(&one).ok()).collect(),
            to: entries("to").filter_map(|one| to(&one).ok()).collect(),
        }
    }

    fn allows(&self, (by, namespace): (&str, &str), (kind, name): (&str, &str)) -> bool {
        let from = |one: &GrantFrom| {
            &*one.group == GROUP && &*one.kind == by && &*one.namespace == namespace
        };
        let to = |one: &GrantTo| {
            let named = one.name.as_deref();
            one.group.is_empty() && &*one.kind == kind && named.is_none_or(|named| named == name)
        };
        self.from.iter().any(from) && self.to.iter().any(to)
    }
}

fn from(entry: &Object<'_>) -> Result<GrantFrom, Broken> {
    entry.only(&["group", "kind", "namespace"])?;
    Ok(GrantFrom {
        group: entry.need("group")?.text()?.into(),
        kind: entry.need("kind")?.word()?.into(),
        namespace: entry.need("namespace")?.word()?.into(),
    })
}

fn to(entry: &Object<'_>) -> Result<GrantTo, Broken> {
    entry.only(&["group", "kind", "name"])?;
    let name = entry.read("name", Field::word)?;
    Ok(GrantTo {
        group: entry.need("group")?.text()?.into(),
        kind: entry.need("kind")?.word()?.into(),
        name: name.map(Arc::from),
    })
}

#[cfg(test)]
mod tests;
