//! Parses a reference to a Service, as a backend or as the receiver of mirrored requests.

use std::sync::Arc;

use policy::name::ServiceId;

use crate::{
    conditions::Reason,
    reader::{Broken, Object},
};

/// The fields of a reference.
pub(super) const FIELDS: [&str; 5] = ["group", "kind", "namespace", "name", "port"];

/// What a backend, or a mirror, refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTarget {
    /// Where the reference is written, such as `spec.rules[0].backendRefs[1]`.
    pub path: String,
    /// API group; empty for Kubernetes' own.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace; the route's own where none is written.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Port of the Service.
    pub port: Option<u16>,
}

/// Why a reference leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// Of the condition `ResolvedRefs`.
    pub reason: Reason,
    /// Where it is written.
    pub path: String,
    /// One sentence.
    pub message: String,
}

impl BackendTarget {
    /// Reads the reference of a route in this namespace.
    pub(super) fn read(written: &Object<'_>, namespace: &str) -> Result<Self, Broken> {
        let group = written.filled("group")?.unwrap_or_default();
        let kind = written.filled("kind")?.unwrap_or("Service");
        let namespace = written.filled("namespace")?.unwrap_or(namespace);
        let port = written.read("port", |port| port.number(&(1..=u16::MAX)))?;
        Ok(Self {
            path: written.path.clone(),
            group: group.into(),
            kind: kind.into(),
            namespace: namespace.into(),
            name: written.need("name")?.word()?.into(),
            port,
        })
    }

    /// The Service and its port, which need not exist.
    ///
    /// # Errors
    /// If it is no Service, or without a port.
    pub fn service(&self) -> Result<(ServiceId, u16), Unresolved> {
        let unresolved = |reason, message| Unresolved {
            reason,
            path: self.path.clone(),
            message,
        };
        let Self { kind, name, .. } = self;
        if !self.group.is_empty() || &**kind != "Service" {
            let group = match &*self.group {
                "" => "the core group",
                group => group,
            };
            let message = format!(
                "{name} is of kind {kind} in {group}, but only Services can receive requests; name \
                 a Service"
            );
            return Err(unresolved(Reason::InvalidKind, message));
        }
        let Some(port) = self.port else {
            let message = format!("Service {name} is named without a port; add port");
            return Err(unresolved(Reason::BackendNotFound, message));
        };
        let service = ServiceId::new(self.namespace.clone(), self.name.clone());
        Ok((service, port))
    }
}
