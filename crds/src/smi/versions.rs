//! Derives the schema of each older SMI version from that of the storage version.
//!
//! A field that a version does not have yet but that makes a rule narrower is refused
//! instead of silently removed: without it the object would allow more than its author
//! wrote.

use serde_json::{Map, Value, json};

use super::{
    SmiKind,
    SmiVersion::{self, V1alpha1, V1alpha3},
};

/// What a quantity that can be a weight looks like.
const QUANTITY: &str =
    r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?$";
/// Longest text of a quantity, in bytes.
const QUANTITY_LENGTH: usize = 64;
/// A port as the oldest clients write it: a number in quotes.
const PORT_TEXT: &str =
    r"^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";

/// Turns the schema of a whole object in storage into the one of `version`.
pub(super) fn narrow(kind: SmiKind, version: SmiVersion, whole: &mut Value) {
    match kind {
        SmiKind::TrafficTarget => target(version, whole),
        SmiKind::HttpRouteGroup => group(version, whole),
        SmiKind::TcpRoute => route(version, whole),
        SmiKind::TrafficSplit => split(version, whole),
        SmiKind::IdentityBinding | SmiKind::UdpRoute => {}
    }
}

fn target(version: SmiVersion, whole: &mut Value) {
    if version == SmiVersion::STORAGE {
        return;
    }
    for pointer in ["/destination", "/sources/items"] {
        let pointer = format!("/properties/spec/properties{pointer}");
        let Some(subject) = whole.pointer_mut(&pointer) else {
            continue;
        };
        remove(subject, "group");
        match version {
            V1alpha3 => refuse(
                subject,
                "port",
                "port is no field of v1alpha3: name the port in a TCPRoute, or use v1alpha2",
            ),
            V1alpha1 => {
                let port = &mut subject["properties"]["port"];
                *port = json!({
                    "description": port["description"],
                    "x-kubernetes-int-or-string": true,
                    "minimum": 1,
                    "maximum": 65535,
                    "pattern": PORT_TEXT,
                });
            }
            _ => {}
        }
    }
    // Only from v1alpha3 on must sources and rules be written, even if empty.
    if version < V1alpha3 {
        whole["properties"]["spec"]["required"] = json!(["destination"]);
    }
    if version == V1alpha1 {
        rename(&mut whole["properties"]["spec"], "rules", "specs");
        to_the_top(whole);
    }
}

fn group(version: SmiVersion, whole: &mut Value) {
    if version == V1alpha1
        && let Some(one) = whole.pointer_mut("/properties/spec/properties/matches/items")
    {
        // Typed, because rules cannot see a field without a type.
        one["properties"]["headers"] = json!({
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
        });
        let message = "headers is no field of v1alpha1: use v1alpha2 or later";
        refuse(one, "headers", message);
    }
    if version < V1alpha3 {
        to_the_top(whole);
    }
}

fn route(version: SmiVersion, whole: &mut Value) {
    if version == SmiVersion::STORAGE {
        return;
    }
    remove_required(whole);
    if version == V1alpha3 {
        let message = "matches is no field of v1alpha3: use v1alpha4 to name ports";
        refuse(&mut whole["properties"]["spec"], "matches", message);
    } else {
        let message = format!("spec is no field of {version}: use v1alpha4 to name ports");
        refuse(whole, "spec", &message);
    }
}

fn split(version: SmiVersion, whole: &mut Value) {
    let spec = &mut whole["properties"]["spec"];
    if version < V1alpha3 {
        let message = format!("matches is no field of {version}: use v1alpha3 or later");
        refuse(spec, "matches", &message);
    }
    if version == V1alpha1
        && let Some(backend) = spec.pointer_mut("/properties/backends/items")
    {
        backend["required"] = json!(["service"]);
        backend["properties"]["weight"] = json!({
            "description": "The share, relative to the sum of all weights, as a quantity: \
                            `500m` is half of `1`. 0 or left out means no traffic.",
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maxLength": QUANTITY_LENGTH,
            "pattern": QUANTITY,
        });
    }
}

/// Makes the API server refuse objects in which `field` of `schema` is set.
fn refuse(schema: &mut Value, field: &str, message: &str) {
    schema["x-kubernetes-validations"] =
        json!([{ "rule": format!("!has(self.{field})"), "message": message }]);
    if let Some(field) = schema["properties"][field].as_object_mut() {
        // A null would count as set or not, depending on the reader.
        field.remove("nullable");
        let description = format!("Must be left out: {message}.");
        field.insert("description".into(), description.into());
    }
}

/// Moves the fields of `spec` to the top of the object.
fn to_the_top(whole: &mut Value) {
    let Some(properties) = whole["properties"].as_object_mut() else {
        return;
    };
    let Some(Value::Object(mut spec)) = properties.remove("spec") else {
        return;
    };
    if let Some(Value::Object(fields)) = spec.remove("properties") {
        properties.extend(fields);
    }
    match spec.remove("required") {
        Some(required) => whole["required"] = required,
        None => remove_required(whole),
    }
}

fn remove_required(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("required");
    }
}

fn remove(schema: &mut Value, field: &str) {
    if let Some(properties) = properties(schema) {
        properties.remove(field);
    }
}

fn rename(schema: &mut Value, from: &str, to: &str) {
    if let Some(properties) = properties(schema)
        && let Some(field) = properties.remove(from)
    {
        properties.insert(to.to_owned(), field);
    }
}

fn properties(schema: &mut Value) -> Option<&mut Map<String, Value>> {
    schema.get_mut("properties")?.as_object_mut()
}
