//! A wrapper for objects in a list or watch that always deserializes, also where its object is
//! invalid.
//!
//! A list is deserialized as a whole, so one object that its type refuses would make all others
//! unreadable. An [`Item`] holds the object, or the error.
//!
//! Claims: smi-13

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use crate::shallow::DepthLimitedValue;

/// Characters of a reason that are kept: it may quote a value of any length.
const LONGEST_REASON: usize = 300;

/// One object of a kind, or why it cannot be read.
#[derive(Clone, Debug)]
pub struct Item<K>(pub Result<K, Unreadable>);

/// An object that its type refuses.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("cannot be read: {reason}")]
pub struct Unreadable {
    /// What could still be found: name, namespace, uid and resource version.
    pub metadata: Box<ObjectMeta>,
    /// What is wrong.
    pub reason: String,
}

impl<K: Resource + Default> Item<K> {
    /// The object, or an empty one of its name.
    pub fn or_empty(self) -> K {
        self.0.unwrap_or_else(|unreadable| {
            let mut empty = K::default();
            *empty.meta_mut() = *unreadable.metadata;
            empty
        })
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let DepthLimitedValue(value) = DepthLimitedValue::deserialize(deserializer)?;
        let metadata = named(&value);
        Ok(Self(serde_json::from_value(value).map_err(
            |error: serde_json::Error| Unreadable {
                metadata: Box::new(metadata),
                reason: error.to_string().chars().take(LONGEST_REASON).collect(),
            },
        )))
    }
}

fn named(object: &Value) -> ObjectMeta {
    let text = |field: &str| {
        let value = object.get("metadata").and_then(|meta| meta.get(field));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        ..ObjectMeta::default()
    }
}

impl<K: Resource> Resource for Item<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn kind(of: &K::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &K::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &K::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &K::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::core::{ObjectList, PartialObjectMeta, WatchEvent};

    use super::*;

    const GOOD: &str = r#"{"metadata": {"name": "good", "resourceVersion": "7"}}"#;
    const BAD: &str = r#"{"metadata": {"name": "bad", "namespace": "n", "labels": 3}}"#;

    #[test]
    fn unreadable_object_is_named_without_blocking_its_list() {
        for text in [
            format!(r#"{{"metadata": {{}}, "items": [{BAD}, {GOOD}]}}"#),
            format!(r#"{{"metadata": {{}}, "items": [3, {GOOD}]}}"#),
        ] {
            let list: ObjectList<Item<Pod>> = serde_json::from_str(&text).unwrap();
            assert!(list.items[0].0.is_err());
            assert_eq!(list.items[1].meta().name.as_deref(), Some("good"));
            assert!(list.items[1].0.is_ok());
        }
        let event: WatchEvent<Item<Pod>> =
            serde_json::from_str(&format!(r#"{{"type": "ADDED", "object": {BAD}}}"#)).unwrap();
        let WatchEvent::Added(bad) = event else {
            panic!("not added");
        };
        assert_eq!(bad.meta().namespace.as_deref(), Some("n"));
        let why = bad.0.clone().unwrap_err().to_string();
        assert!(why.contains("cannot be read"), "{why}");
        assert_eq!(bad.or_empty().metadata.name.as_deref(), Some("bad"));
    }

    #[test]
    fn deep_managed_fields_hide_no_metadata() {
        let deep = format!("{}1{}", r#"{"f:a":"#.repeat(9000), "}".repeat(9000));
        let text = format!(
            r#"{{"metadata": {{"name": "x", "managedFields": [{{"manager": "m", "fieldsV1": {deep}}}]}}}}"#
        );
        let item: Item<PartialObjectMeta<Pod>> = serde_json::from_str(&text).unwrap();
        let meta = item.0.unwrap().metadata;
        assert_eq!(meta.name.as_deref(), Some("x"));
        let entries = meta.managed_fields.unwrap();
        assert_eq!(entries[0].manager.as_deref(), Some("m"));
    }
}
