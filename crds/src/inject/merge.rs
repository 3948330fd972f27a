//! Lays what we want over what is there.

use serde_json::Value;

use crate::labels::quantity_in_milli;

/// Lists whose entries have a key, by the member they stand in.
const KEYS: [(&str, &str); 4] = [
    ("env", "name"),
    ("ports", "containerPort"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];

/// Sets every member of `ours` in `base` and keeps what only `base` has. Entries of
/// keyed lists are laid over the entry with the same key; other lists are replaced.
pub(super) fn overlay(base: &mut Value, ours: Value) {
    overlay_member("", base, ours);
}

fn overlay_member(member: &str, base: &mut Value, ours: Value) {
    match (base, ours) {
        (Value::Object(base), Value::Object(ours)) => {
            for (name, value) in ours {
                match base.get_mut(&name) {
                    Some(old) => overlay_member(&name, old, value),
                    None => {
                        base.insert(name, value);
                    }
                }
            }
        }
        (Value::Array(base), Value::Array(ours)) => {
            match KEYS.iter().find(|(list, _)| *list == member) {
                Some((_, key)) => overlay_list(key, member == "env", base, ours),
                None => *base = ours,
            }
        }
        // The API server stores an empty list as none.
        (Value::Null, Value::Array(ours)) if ours.is_empty() => {}
        (base, ours) if same_quantity(member, base, &ours) => {}
        (base, ours) => *base = ours,
    }
}

/// Whether both are amounts of CPU or memory and equal, however they are written.
fn same_quantity(member: &str, base: &Value, ours: &Value) -> bool {
    let amount = |value: &Value| value.as_str().and_then(quantity_in_milli);
    ["cpu", "memory"].contains(&member) && amount(base).is_some() && amount(base) == amount(ours)
}

fn overlay_list(key: &str, whole: bool, base: &mut Vec<Value>, ours: Vec<Value>) {
    for entry in ours {
        match base.iter_mut().find(|old| old.get(key) == entry.get(key)) {
            // An env entry has either a value or a source; a mixture is invalid.
            Some(old) if whole => *old = entry,
            Some(old) => overlay_member("", old, entry),
            None => base.push(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_additions_of_others_stay() {
        let mut base = json!({
            "args": ["old"],
            "terminationMessagePath": "/dev/termination-log",
            "env": [{"name": "A", "value": "old"}, {"name": "THEIRS", "value": "1"}],
        });
        overlay(
            &mut base,
            json!({"args": ["new"], "env": [{"name": "A", "value": "new"}]}),
        );
        assert_eq!(
            base,
            json!({
                "args": ["new"],
                "terminationMessagePath": "/dev/termination-log",
                "env": [{"name": "A", "value": "new"}, {"name": "THEIRS", "value": "1"}],
            })
        );
    }
}
