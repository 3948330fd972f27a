//! Whether an object can be read at all (A22): a field that has a type other than
//! its own makes the whole object unreadable. Unknown fields do not matter.

use serde_json::Value;

use crate::object::{list, rules, spec, version};

/// The most entries that lists may hold (S19).
fn most(field: &str) -> usize {
    match field {
        "sources" => 256,
        "ports" => 128,
        "methods" => 32,
        _ => 64,
    }
}

/// Whether the object has the shape of its kind.
pub(crate) fn readable(object: &Value) -> bool {
    // Where there is no place of its own for the fields there is nothing to be wrong.
    let spec_is_object = !std::ptr::eq(spec(object), &object["spec"])
        || object.get("spec").is_none_or(Value::is_object)
        || (object["kind"] == "TCPRoute" && version(object) < 4 && object["spec"].is_null());
    spec_is_object
        && match object["kind"].as_str() {
            Some("TrafficTarget") => target(object),
            Some("HTTPRouteGroup") => {
                objects(&spec(object)["matches"], spec(object), "matches", one_match)
            }
            Some("TCPRoute") => route(spec(object)),
            Some("TrafficSplit") => split(object),
            Some("IdentityBinding") => binding(spec(object)),
            _ => true,
        }
}

fn target(target: &Value) -> bool {
    let spec = spec(target);
    let rules_field = if version(target) == 1 {
        "specs"
    } else {
        "rules"
    };
    let oldest = version(target) <= 2;
    let subject = |subject: &Value| {
        text(subject, "kind")
            && text(subject, "name")
            && text_or_null(subject, "namespace")
            && text_or_null(subject, "group")
            && (number_or_null(subject, "port") || (oldest && port_as_text(&subject["port"])))
    };
    let destination = spec
        .get("destination")
        .is_none_or(|destination| destination.is_object() && subject(destination));
    destination
        && objects(&spec["sources"], spec, "sources", subject)
        && objects(rules(target), spec, rules_field, |rule| {
            text(rule, "kind") && text(rule, "name") && texts_or_null(rule, "matches")
        })
}

/// The oldest clients write numbers of ports in quotes.
fn port_as_text(port: &Value) -> bool {
    port.as_str()
        .is_some_and(|text| text.parse::<u16>().is_ok())
}

fn one_match(one: &Value) -> bool {
    text(one, "name") && text_or_null(one, "pathRegex") && texts_or_null(one, "methods")
}

fn route(spec: &Value) -> bool {
    let matches = &spec["matches"];
    matches.is_null()
        || (matches.is_object()
            && text_or_null(matches, "name")
            && (matches["ports"].is_null()
                || (matches["ports"].is_array()
                    && list(&matches["ports"]).len() <= most("ports")
                    && list(&matches["ports"]).iter().all(Value::is_i64))))
}

fn split(split: &Value) -> bool {
    let spec = &split["spec"];
    let quantities = version(split) == 1;
    text(spec, "service")
        && objects(&spec["backends"], spec, "backends", |backend| {
            text(backend, "service")
                && backend.get("weight").is_none_or(|weight| {
                    if quantities {
                        crate::quantity::quantity(weight).is_some()
                    } else {
                        weight.is_i64()
                    }
                })
        })
        && (spec["matches"].is_null()
            || objects(&spec["matches"], spec, "matches", |reference| {
                text(reference, "kind")
                    && text(reference, "name")
                    && text_or_null(reference, "apiGroup")
            }))
        && list(&spec["matches"]).len() <= 16
}

fn binding(spec: &Value) -> bool {
    let Some(schemes) = spec.get("schemes") else {
        return true;
    };
    let selector = &schemes["podLabelSelector"];
    let labels = &selector["matchLabels"];
    schemes.is_object()
        && text_or_null(schemes, "serviceAccount")
        && texts_or_null(schemes, "spiffeIdentities")
        && (selector.is_null()
            || (selector.is_object()
                && selector.get("matchLabels").is_none_or(Value::is_object)
                && labels.as_object().is_none_or(|labels| {
                    labels.len() <= 32 && labels.values().all(Value::is_string)
                })))
}

/// A list of objects of this shape, or no such field.
fn objects(value: &Value, holder: &Value, field: &str, shape: impl Fn(&Value) -> bool) -> bool {
    holder.get(field).is_none()
        || (value.is_array()
            && list(value).len() <= most(field)
            && list(value)
                .iter()
                .all(|entry| entry.is_object() && shape(entry)))
}

fn text(holder: &Value, field: &str) -> bool {
    holder.get(field).is_none_or(Value::is_string)
}

fn text_or_null(holder: &Value, field: &str) -> bool {
    holder[field].is_null() || holder[field].is_string()
}

fn texts_or_null(holder: &Value, field: &str) -> bool {
    let value = &holder[field];
    value.is_null()
        || (value.is_array()
            && list(value).len() <= most(field)
            && list(value).iter().all(Value::is_string))
}

fn number_or_null(holder: &Value, field: &str) -> bool {
    holder[field].is_null() || holder[field].is_i64()
}
