//! One end of requests, as a query names it.

use std::fmt;

use crate::inventory::kind::MetricsKind;
use crate::world::ObjectKey;

/// One end of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TapEnd {
    /// The pods of an object, which may be a Service, a Namespace or a Pod itself.
    Object(MetricsKind, ObjectKey),
    /// The pods of a service account.
    Account(ObjectKey),
}

impl TapEnd {
    /// `Kind/name` in this namespace, or `Kind/namespace/name`.
    pub(super) fn parse(text: &str, here: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match *parts {
            ["Namespace", name] => ("Namespace", "", name),
            [kind, name] => (kind, here, name),
            [kind, namespace, name] if kind != "Namespace" => (kind, namespace, name),
            _ => return None,
        };
        if name.is_empty() {
            return None;
        }
        let key = ObjectKey::new(namespace, name);
        if kind == "ServiceAccount" {
            return Some(Self::Account(key));
        }
        let known = |known: &MetricsKind| {
            known.name() == kind && !matches!(known, MetricsKind::Node | MetricsKind::TrafficSplit)
        };
        Some(Self::Object(MetricsKind::all().find(known)?, key))
    }

    /// The namespace of its pods.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Object(MetricsKind::Namespace, key) => &key.name,
            Self::Object(_, key) | Self::Account(key) => &key.namespace,
        }
    }

    /// The object that Events about it are about.
    pub(super) fn object(&self) -> (MetricsKind, ObjectKey) {
        match self {
            Self::Object(kind, key) => (*kind, key.clone()),
            Self::Account(key) => (MetricsKind::Namespace, ObjectKey::new("", &key.namespace)),
        }
    }
}

impl fmt::Display for TapEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(MetricsKind::Namespace, key) => write!(f, "Namespace {}", key.name),
            Self::Object(kind, key) => write!(f, "{} {key}", kind.name()),
            Self::Account(key) => write!(f, "ServiceAccount {key}"),
        }
    }
}
