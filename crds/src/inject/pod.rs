//! Reads a pod's JSON, and detects which of its containers and ports are the proxy's.

use policy::well_known::PROXY_PORTS;
use serde_json::{Map, Value};

use crate::labels::quantity_in_milli;
use crate::objects::{CAPTURE_CONTAINER, PROXY_CONTAINER};

/// An init container with one of Weft's two names.
pub(super) fn is_ours(container: &Value) -> bool {
    [CAPTURE_CONTAINER, PROXY_CONTAINER].contains(&name(container))
}

pub(super) fn name(container: &Value) -> &str {
    container
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

pub(super) fn is_proxy_port(port: i64) -> bool {
    PROXY_PORTS.iter().any(|own| i64::from(*own) == port)
}

pub(super) fn list<'a>(
    spec: &'a Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a Value> {
    spec.get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The named member, made an object when it is missing or null; None when it is
/// something else.
pub(super) fn object<'a>(
    parent: &'a mut Map<String, Value>,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    let member = parent.entry(name).or_insert(Value::Null);
    if member.is_null() {
        *member = Value::Object(Map::new());
    }
    member.as_object_mut()
}

/// An amount as it stands in JSON, in thousandths; None where it cannot be read.
pub(super) fn in_milli(amount: &Value) -> Option<i128> {
    match amount {
        Value::String(text) if text == "0" => Some(0),
        Value::String(text) => quantity_in_milli(text),
        Value::Number(number) if number.as_u64() == Some(0) => Some(0),
        Value::Number(number) => quantity_in_milli(&number.to_string()),
        _ => None,
    }
}
