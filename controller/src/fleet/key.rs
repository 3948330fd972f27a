//! Which breaker a pulse is about, and which proxy sends it.

use std::sync::Arc;

use wire::v1;

use crate::world::ObjectKey;

/// The proxy that sends a pulse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Namespace/name of its service account.
    pub account: Arc<str>,
    /// Of its pod.
    pub uid: Arc<str>,
}

/// The calls that one policy decides about, to one port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The Service whose policy decides.
    pub(crate) service: ObjectKey,
    /// The Service that serves.
    pub(crate) backend: ObjectKey,
    pub(crate) port: u16,
}

impl Key {
    /// `None` for what names no port of a Service.
    pub(crate) fn read(message: &v1::Circuit) -> Option<Self> {
        let key = |text: &str| {
            let (namespace, name) = text.split_once('/')?;
            Some(ObjectKey::new(namespace, name))
        };
        Some(Self {
            service: key(&message.service)?,
            backend: key(&message.backend)?,
            port: u16::try_from(message.port).ok()?,
        })
    }

    pub(crate) fn message(&self) -> v1::Circuit {
        v1::Circuit {
            service: self.service.to_string(),
            backend: self.backend.to_string(),
            port: self.port.into(),
        }
    }
}
