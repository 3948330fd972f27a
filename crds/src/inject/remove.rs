//! Takes the proxy out of a pod again: what `inject` wrote, and nothing else.
//!
//! What the user may have written in the same words goes too. Where a pod means something else
//! without it, as without a sleep of just that length, the command line reports it. Probes and
//! hooks come back as the proxy got them, a port that had a name as its number. What a
//! namespace's annotations gave the pod stays: it has no effect without a proxy. So does the
//! processor that its nodes must have: a user may have set it for the application, and any other
//! pod can run there.

use serde_json::{Map, Value};

use super::{Refusal, drain, earlier::Earlier, handlers, pod, pod_resources};
use crate::labels::{ACCOUNT, DEFAULT_CONTAINER, DRAIN_DELAY, PROXY_VERSION, parse_drain_delay};
use crate::objects::VOLUMES;

/// The pod without its proxy; nothing where it has none that `inject` gave it.
///
/// # Errors
/// When it cannot be read what the pod's probes and hooks were.
pub fn remove(pod: &Value) -> Result<Option<Value>, Refusal> {
    let Some(spec) = pod.get("spec").and_then(Value::as_object) else {
        return Ok(None);
    };
    let earlier = Earlier::read(spec)?;
    if !earlier.present {
        return Ok(None);
    }
    let annotations = pod.pointer("/metadata/annotations");
    let requested = annotations.and_then(|all| all.get(DRAIN_DELAY)?.as_str());
    let requested = requested.and_then(|text| parse_drain_delay(text).ok());
    let delay = drain::seconds(spec, requested);
    let first = pod::list(spec, "containers").next().map(pod::name);

    let mut without = pod.clone();
    let Some(members) = without.as_object_mut() else {
        return Err(Refusal::NotAPod);
    };
    if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
        take_members(metadata, "labels", |name, _| name == ACCOUNT);
        take_members(metadata, "annotations", |name, value| {
            // kubectl takes the first container by itself.
            name == PROXY_VERSION || (name == DEFAULT_CONTAINER && value.as_str() == first)
        });
    }
    let metadata = members.get("metadata").and_then(Value::as_object);
    if metadata.is_some_and(Map::is_empty) {
        members.remove("metadata");
    }
    if let Some(spec) = members.get_mut("spec").and_then(Value::as_object_mut) {
        handlers::restore(spec, &earlier)?;
        drain::take_delay(spec, delay);
        pod_resources::take(spec, &earlier.share);
        take_items(spec, "initContainers", pod::is_ours);
        take_items(spec, "volumes", |volume| {
            VOLUMES.contains(&pod::name(volume))
        });
    }
    Ok(Some(without))
}

/// Takes members out of a map, and the map itself where it held nothing else.
fn take_members(
    parent: &mut Map<String, Value>,
    member: &str,
    is_ours: impl Fn(&str, &Value) -> bool,
) {
    let Some(map) = parent.get_mut(member).and_then(Value::as_object_mut) else {
        return;
    };
    let before = map.len();
    map.retain(|name, value| !is_ours(name, value));
    if map.is_empty() && before > 0 {
        parent.remove(member);
    }
}

/// The same of a list.
fn take_items(spec: &mut Map<String, Value>, member: &str, is_ours: impl Fn(&Value) -> bool) {
    let Some(list) = spec.get_mut(member).and_then(Value::as_array_mut) else {
        return;
    };
    let before = list.len();
    list.retain(|item| !is_ours(item));
    if list.is_empty() && before > 0 {
        spec.remove(member);
    }
}
