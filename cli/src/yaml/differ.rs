//! Computes the smallest change from one value to another.
//!
//! Items of a list are matched by their `name`, so that a container inserted first does not change
//! all others.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::Value;

/// From `old` to `new`, below `at`.
#[must_use]
pub(crate) fn differences(at: &[String], old: &Value, new: &Value) -> Patch {
    let mut operations = Vec::new();
    let mut at = at.to_vec();
    compare(&mut at, old, new, &mut operations);
    Patch(operations)
}

fn compare(at: &mut Vec<String>, old: &Value, new: &Value, found: &mut Vec<PatchOperation>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Value::Object(was), Value::Object(is)) => {
            for name in was.keys().filter(|name| !is.contains_key(*name)) {
                at.push(name.clone());
                let path = pointer(at);
                found.push(PatchOperation::Remove(RemoveOperation { path }));
                at.pop();
            }
            for (name, value) in is {
                at.push(name.clone());
                match was.get(name) {
                    Some(former) => compare(at, former, value, found),
                    None => found.push(add(at, value)),
                }
                at.pop();
            }
        }
        (Value::Array(was), Value::Array(is)) if only_grew(was, is) => {
            let mut former = was.iter();
            let mut next = former.next();
            for (index, value) in is.iter().enumerate() {
                at.push(index.to_string());
                match next {
                    Some(old) if name(old) == name(value) => {
                        compare(at, old, value, found);
                        next = former.next();
                    }
                    _ => found.push(add(at, value)),
                }
                at.pop();
            }
        }
        (Value::Array(was), Value::Array(is)) if only_grew(is, was) => {
            let kept = without_lost(at, was, is, found);
            for (index, (old, value)) in kept.into_iter().zip(is).enumerate() {
                at.push(index.to_string());
                compare(at, old, value, found);
                at.pop();
            }
        }
        _ => found.push(PatchOperation::Replace(ReplaceOperation {
            path: pointer(at),
            value: new.clone(),
        })),
    }
}

/// Removes what the new list has no more, from the last on, so that those before keep their
/// numbers; what is left of the old one.
fn without_lost<'a>(
    at: &mut Vec<String>,
    was: &'a [Value],
    is: &[Value],
    found: &mut Vec<PatchOperation>,
) -> Vec<&'a Value> {
    let mut kept = Vec::new();
    let mut left = is.iter().rev().peekable();
    for (index, old) in was.iter().enumerate().rev() {
        if left.next_if(|new| name(new) == name(old)).is_some() {
            kept.push(old);
            continue;
        }
        at.push(index.to_string());
        let path = pointer(at);
        found.push(PatchOperation::Remove(RemoveOperation { path }));
        at.pop();
    }
    kept.reverse();
    kept
}

/// Whether every item has a name, and those of the old list stand in the new one in the
/// same order.
fn only_grew(was: &[Value], is: &[Value]) -> bool {
    let named = |list: &[Value]| list.iter().all(|item| name(item).is_some());
    let mut names = is.iter().map(name);
    named(was) && named(is) && was.iter().all(|old| names.any(|new| new == name(old)))
}

fn name(item: &Value) -> Option<&str> {
    item.get("name").and_then(Value::as_str)
}

fn add(at: &[String], value: &Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: pointer(at),
        value: value.clone(),
    })
}

fn pointer(at: &[String]) -> PointerBuf {
    PointerBuf::from_tokens(at.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn count(old: &Value, new: &Value) -> usize {
        let patch = differences(&[], old, new);
        let mut value = old.clone();
        json_patch::patch(&mut value, &patch).unwrap();
        assert_eq!(&value, new, "{patch:?}");
        patch.0.len()
    }

    #[test]
    fn a_container_that_comes_first_changes_no_other() {
        let old = json!({"c": [{"name": "app", "image": "a"}], "x": 1});
        let new = json!({"c": [{"name": "proxy"}, {"name": "app", "image": "a", "p": 1}], "x": 1});
        assert_eq!(count(&old, &new), 2, "one container and one field");
        let gone = json!({"c": [{"name": "proxy"}]});
        assert_eq!(count(&new, &gone), 2, "one container and one field");
        let changed = json!({"c": [{"name": "app", "image": "b", "p": 1}], "x": 1});
        assert_eq!(count(&new, &changed), 2, "one that went, and one field");
        let swapped = json!({"c": [{"name": "app"}, {"name": "proxy"}], "x": 1});
        assert_eq!(count(&new, &swapped), 1, "another order is written anew");
        assert_eq!(count(&json!([1, 2]), &json!([2])), 1);
        assert_eq!(count(&json!({}), &json!({})), 0);
    }
}
