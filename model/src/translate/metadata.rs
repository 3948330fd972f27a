//! Reads the metadata that objects of all kinds have, and names the reasons why an object gives no
//! fact to the World: it cannot be read, or does not concern the mesh.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::world::ObjectKey;

/// Why an object gives no fact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Its JSON does not have the shape of its kind.
    #[error("cannot be read: {0}")]
    Shape(String),
    /// It is of no interest to the mesh, such as a UDP-only slice.
    #[error("is of no interest to the mesh")]
    NotOurs,
}

/// The key of an object as the API server sent it.
pub fn key(meta: &ObjectMeta) -> ObjectKey {
    ObjectKey {
        namespace: text(meta.namespace.as_deref()),
        name: text(meta.name.as_deref()),
    }
}

/// Owned text; absent becomes empty.
pub(super) fn text(value: Option<&str>) -> Arc<str> {
    value.unwrap_or_default().into()
}

/// Creation time in seconds since 1970; 0 when absent.
pub(super) fn created(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp
        .as_ref()
        .map_or(0, |time| time.0.as_second())
}

/// One annotation.
pub(super) fn annotation(meta: &ObjectMeta, name: &str) -> Option<Arc<str>> {
    meta.annotations
        .as_ref()?
        .get(name)
        .map(|value| value.as_str().into())
}
