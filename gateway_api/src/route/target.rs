//! A reference to a Service that gets requests, or copies of them.

use std::sync::Arc;

use policy::name::ServiceId;

use crate::conditions::Reason;

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
    /// The Service and its port, which need not exist.
    pub fn service(&self) -> Result<(ServiceId, u16), Unresolved> {
        let unresolved = |reason, message: String| Unresolved {
            reason,
            path: self.path.clone(),
            message,
        };
        let Self {
            group, kind, name, ..
        } = self;
        if !group.is_empty() || &**kind != "Service" {
            let of = if group.is_empty() {
                "the core group"
            } else {
                group
            };
            let message = format!(
                "{name} is a {kind} of {of}, but only Services can be backends; name a Service"
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
