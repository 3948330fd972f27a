//! Finds the pod template in a manifest.

use serde_json::{Map, Value};

use crate::yaml::tree::Step;

/// A pod, or what pods are made from.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Template {
    /// Kind and name of the object that it stands in, for messages.
    pub(in crate::commands) owner: String,
    /// Namespace of that object, if it names one.
    pub(super) namespace: Option<String>,
    /// Where it stands in its document.
    pub(super) path: Vec<String>,
    /// It, with `metadata` and `spec`.
    pub(in crate::commands) value: Value,
}

impl Template {
    /// Where it stands, for the line of it.
    pub(super) fn steps(&self) -> Vec<Step> {
        let step = |token: &String| match token.parse() {
            Ok(number) => Step::Item(number),
            Err(_) => Step::Key(token.clone()),
        };
        self.path.iter().map(step).collect()
    }
}

/// Path of the template in an object of this kind.
fn below(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "Pod" => &[],
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job"
        | "Rollout" => &["spec", "template"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        "PodTemplate" => &["template"],
        _ => return None,
    })
}

/// Every template of a document.
pub(in crate::commands) fn all(document: &Value) -> Vec<Template> {
    let mut found = Vec::new();
    collect(document, &mut Vec::new(), &mut found);
    found
}

fn collect(object: &Value, at: &mut Vec<String>, found: &mut Vec<Template>) {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if kind.ends_with("List")
        && let Some(items) = object.get("items").and_then(Value::as_array)
    {
        for (number, item) in items.iter().enumerate() {
            at.extend(["items".to_owned(), number.to_string()]);
            collect(item, at, found);
            at.truncate(at.len() - 2);
        }
        return;
    }
    let Some(below) = below(kind) else {
        return;
    };
    let Some(value) = below.iter().try_fold(object, |value, key| value.get(key)) else {
        return;
    };
    // A custom kind of the same name may hold anything there.
    if !value.is_object() {
        return;
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").or_else(|| text("/metadata/generateName"));
    let path = below.iter().map(|key| (*key).to_owned());
    found.push(Template {
        owner: format!("{kind} {}", name.unwrap_or("without a name")),
        namespace: text("/metadata/namespace").map(ToOwned::to_owned),
        path: at.iter().cloned().chain(path).collect(),
        value: value.clone(),
    });
}

/// A member that is an object, made if it is not there.
pub(super) fn object<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    member(value.as_object_mut()?, name)
}

/// The same of a map.
pub(super) fn member<'a>(
    map: &'a mut Map<String, Value>,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    let field = map.entry(name).or_insert(Value::Null);
    if field.is_null() {
        *field = Value::Object(Map::new());
    }
    field.as_object_mut()
}
