//! Which limit is divided, and what a pod knows it by.

use std::sync::Arc;

use policy::name::Kind;
use policy::origin::Origin;
use wire::v1;

use crate::world::ObjectKey;

/// A limit of one port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LimitKey {
    pub(super) of: NamedLimit,
    pub(super) service: ObjectKey,
    pub(super) port: u16,
}

/// A limit by the policy that says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamedLimit {
    pub(super) policy: ObjectKey,
    pub(super) limit: Arc<str>,
}

/// A limit at a port of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShareOf {
    /// Of the container.
    pub(super) port: u16,
    pub(super) of: NamedLimit,
}

impl LimitKey {
    /// The least of all keys with this name.
    pub(super) fn first(of: &NamedLimit) -> Self {
        Self {
            of: of.clone(),
            service: ObjectKey::new("", ""),
            port: 0,
        }
    }
}

impl NamedLimit {
    /// `None` for a rule that is none of a limit.
    pub(super) fn by(origin: &Origin) -> Option<Self> {
        Some(Self {
            policy: ObjectKey {
                namespace: Arc::clone(origin.namespace()),
                name: Arc::clone(origin.name()),
            },
            limit: origin.rule_name()?.into(),
        })
    }
}

impl ShareOf {
    /// `None` for what names no limit at a port.
    pub(crate) fn read(message: &v1::ShareOf) -> Option<Self> {
        let policy = message.origin.as_ref()?;
        Some(Self {
            port: u16::try_from(message.port).ok()?,
            of: NamedLimit {
                policy: ObjectKey::new(&policy.namespace, &policy.name),
                limit: message.limit.as_str().into(),
            },
        })
    }

    pub(crate) fn message(&self) -> v1::ShareOf {
        v1::ShareOf {
            port: self.port.into(),
            origin: Some(v1::ObjectRef {
                kind: Kind::TrafficPolicy.to_string(),
                namespace: self.of.policy.namespace.to_string(),
                name: self.of.policy.name.to_string(),
            }),
            limit: self.of.limit.to_string(),
        }
    }
}
