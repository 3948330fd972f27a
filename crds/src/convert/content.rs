//! What an author wrote in an object, apart from what the API server adds to it.

use serde_json::{Map, Value};

/// The top-level keys of an object other than `apiVersion`, `kind`, `metadata` and
/// `status`: what the author wrote.
pub(super) type Content = Map<String, Value>;

/// Takes what the author wrote out of the object.
pub(super) fn take(object: &mut Map<String, Value>) -> Content {
    let keys: Vec<String> = object
        .keys()
        .filter(|key| !["apiVersion", "kind", "metadata", "status"].contains(&key.as_str()))
        .cloned()
        .collect();
    keys.into_iter()
        .filter_map(|key| object.remove_entry(&key))
        .collect()
}
