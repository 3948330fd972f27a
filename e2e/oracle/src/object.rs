//! Finds objects and reads their fields, whatever their version calls them.

use serde_json::Value;

use crate::World;

impl World {
    /// All objects of a kind.
    pub(crate) fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects
            .iter()
            .filter(move |object| object["kind"] == kind)
    }

    pub(crate) fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.iter().find(|object| {
            object["kind"] == kind
                && crate::object::namespace(object) == namespace
                && crate::object::name(object) == name
        })
    }
}

pub(crate) fn name(object: &Value) -> &str {
    text(&object["metadata"]["name"])
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(&object["metadata"]["namespace"])
}

pub(crate) fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][name].as_str()
}

/// What says when the object was made. Equal lengths, so text order is time order.
pub(crate) fn created(object: &Value) -> &str {
    text(&object["metadata"]["creationTimestamp"])
}

/// The version's number, 1 to 4.
pub(crate) fn version(object: &Value) -> u32 {
    let version = text(&object["apiVersion"]);
    version
        .rsplit_once("v1alpha")
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(4)
}

/// Where the fields stand: the oldest versions have them at the top.
pub(crate) fn spec(object: &Value) -> &Value {
    let top = match object["kind"].as_str() {
        Some("TrafficTarget") => version(object) == 1,
        Some("HTTPRouteGroup") => version(object) <= 2,
        _ => false,
    };
    if top { object } else { &object["spec"] }
}

/// The rules of a TrafficTarget.
pub(crate) fn rules(target: &Value) -> &Value {
    let name = if version(target) == 1 {
        "specs"
    } else {
        "rules"
    };
    &spec(target)[name]
}

/// Text, or nothing.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The entries of a list, or none.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A pod's service account.
pub(crate) fn account(pod: &Value) -> &str {
    match text(&pod["spec"]["serviceAccountName"]) {
        "" => "default",
        account => account,
    }
}

/// Whether a pod or Service has all these labels.
pub(crate) fn has_labels(pod: &Value, wanted: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    let wanted = wanted.as_object();
    wanted.is_some_and(|wanted| {
        !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
    })
}
