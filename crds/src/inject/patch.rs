//! The JSON patch from a pod to the one with a proxy.

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, jsonptr::PointerBuf};
use serde_json::{Map, Value};

/// Replaces whole members of `spec`, of the annotations and of the labels. Finer differences would move
/// list entries about, and a difference by position can mix two containers.
pub(super) fn patch(old: &Value, new: &Value) -> Patch {
    let mut operations = Vec::new();
    if old.get("metadata").is_some() {
        for map in ["annotations", "labels"] {
            let path = ["metadata", map];
            let current = old.get("metadata").and_then(|metadata| metadata.get(map));
            if current.is_some_and(Value::is_object) {
                members(old, new, &path, &mut operations);
            } else if let Some(map) = new["metadata"].get(map).filter(|map| Some(*map) != current) {
                operations.push(add(&path, map));
            }
        }
    } else if let Some(metadata) = new.get("metadata") {
        operations.push(add(&["metadata"], metadata));
    }
    members(old, new, &["spec"], &mut operations);
    Patch(operations)
}

fn members(old: &Value, new: &Value, path: &[&str], operations: &mut Vec<PatchOperation>) {
    let empty = Value::Object(Map::new());
    let (old, new) = (
        at(old, path).unwrap_or(&empty),
        at(new, path).unwrap_or(&empty),
    );
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
        return;
    };
    for (key, value) in new {
        if old.get(key) != Some(value) {
            // "add" replaces an existing member, and needs no test for one.
            operations.push(add(&[path, &[key]].concat(), value));
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        let path = PointerBuf::from_tokens([path, &[key.as_str()]].concat());
        operations.push(PatchOperation::Remove(RemoveOperation { path }));
    }
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

fn add(path: &[&str], value: &Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: PointerBuf::from_tokens(path.iter().copied()),
        value: value.clone(),
    })
}
