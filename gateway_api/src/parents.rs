//! Parses the `parentRefs` of a route: the Services or Gateways whose calls it routes.

use std::sync::Arc;

use policy::name::ServiceId;
use serde_json::Value;

use crate::kinds::GROUP;

/// The kind that is meant where a reference names none.
const DEFAULT_KIND: &str = "Gateway";

/// One of a route's `parentRefs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentRef {
    /// As it is written, for the status.
    pub written: Value,
    /// Group of the parent; empty for Kubernetes' own.
    pub group: Arc<str>,
    /// Kind of the parent.
    pub kind: Arc<str>,
    /// Namespace of the parent; the route's own where none is written.
    pub namespace: Arc<str>,
    /// Name of the parent.
    pub name: Arc<str>,
    /// Name of the one port of a Service that is meant.
    pub section_name: Option<Arc<str>>,
    /// Number of the one port of a Service that is meant. 0 stands for what is no port number:
    /// no Service has such a port.
    pub port: Option<u16>,
}

impl ParentRef {
    /// Reads a reference of an object in this namespace. `None` if it has no name: no schema
    /// allows it, and nothing could be reported about it.
    #[must_use]
    pub fn read(written: &Value, namespace: &str) -> Option<Self> {
        let text = |field: &str| written.get(field).and_then(Value::as_str);
        let some = |field: &str| text(field).filter(|text| !text.is_empty());
        let port = written.get("port").filter(|port| !port.is_null());
        Some(Self {
            name: some("name")?.into(),
            group: text("group").unwrap_or(GROUP).into(),
            kind: some("kind").unwrap_or(DEFAULT_KIND).into(),
            namespace: some("namespace").unwrap_or(namespace).into(),
            section_name: some("sectionName").map(Arc::from),
            port: port.map(|port| {
                let number = port.as_u64().and_then(|number| u16::try_from(number).ok());
                number.unwrap_or(0)
            }),
            written: written.clone(),
        })
    }

    /// The Service that is meant; `None` if the parent is of another kind, which other
    /// controllers look after.
    #[must_use]
    pub fn service(&self) -> Option<ServiceId> {
        let is_service = self.group.is_empty() && &*self.kind == "Service";
        is_service.then(|| ServiceId::new(self.namespace.clone(), self.name.clone()))
    }

    /// Namespace and name of the Gateway that is meant; `None` if the parent is of another kind.
    #[must_use]
    pub fn gateway(&self) -> Option<(&Arc<str>, &Arc<str>)> {
        let is_gateway = &*self.group == GROUP && &*self.kind == "Gateway";
        is_gateway.then_some((&self.namespace, &self.name))
    }

    /// Whether both mean the same, however it is written: the API server adds defaults to what it
    /// stores.
    #[must_use]
    pub fn means(&self, other: &Self) -> bool {
        let key = |one: &Self| {
            (
                one.group.clone(),
                one.kind.clone(),
                one.namespace.clone(),
                one.name.clone(),
                one.section_name.clone(),
                one.port,
            )
        };
        key(self) == key(other)
    }
}
