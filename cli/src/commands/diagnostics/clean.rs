//! Removes secrets, and fields without use, from the objects of a bundle.

use serde_json::Value;

/// Keys whose values are removed wherever they stand.
const HIDDEN: [&str; 3] = [
    "managedFields",
    "kubectl.kubernetes.io/last-applied-configuration",
    "token",
];

/// Removes from the response to this path the fields without use and those that must stay secret.
pub(super) fn clean(path: &str, answer: &mut Value) {
    if is_of_secrets(path) {
        empty(answer);
    }
    hide(answer);
}

/// Whether a path of the API server is of Secrets, of one or of a list.
fn is_of_secrets(path: &str) -> bool {
    let Some(below) = path.strip_prefix("/api/v1/") else {
        return false;
    };
    let mut parts = below.split(['/', '?']);
    let resource = match parts.next() {
        // Behind the namespace's name.
        Some("namespaces") => parts.nth(1),
        other => other,
    };
    resource == Some("secrets")
}

/// Empties a Secret, or all of a list: its items have no kind.
fn empty(secret: &mut Value) {
    let Some(fields) = secret.as_object_mut() else {
        return;
    };
    fields.remove("data");
    fields.remove("stringData");
    if let Some(Value::Array(items)) = fields.get_mut("items") {
        items.iter_mut().for_each(empty);
    }
}

/// Removes the same, whatever was requested. A Secret, or a list of them, under another path is
/// emptied, too.
pub(super) fn hide(value: &mut Value) {
    let kind = value.get("kind");
    if kind.is_some_and(|kind| kind == "Secret" || kind == "SecretList") {
        empty(value);
    }
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !HIDDEN.contains(&key.as_str()));
            for value in fields.values_mut() {
                hide(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}
