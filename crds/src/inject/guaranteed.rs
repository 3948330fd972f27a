//! Decides whether a pod has QoS class Guaranteed, and keeps it so by limits on the proxy.
//!
//! Kubernetes calls a pod Guaranteed if every container's requests of cpu and memory are its
//! limits, and such a pod is killed last when its node runs out of memory. One container without
//! limits makes it Burstable. So the proxy has limits there, and only there: elsewhere an idle one
//! requests little and may use what is free.

use serde_json::{Map, Value};

use super::pod::{self, in_milli};

const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Whether a pod of this spec is Guaranteed without its proxy.
#[must_use]
pub fn is_guaranteed(spec: &Value) -> bool {
    let Some(spec) = spec.as_object() else {
        return false;
    };
    // What the pod as a whole names stands in place of what its containers do.
    if let Some(whole) = spec.get("resources").filter(|whole| names_any(whole)) {
        return is_bounded(whole);
    }
    let all = pod::list(spec, "initContainers").chain(pod::list(spec, "containers"));
    let mut theirs = all.filter(|container| !pod::is_ours(container)).peekable();
    theirs.peek().is_some()
        && theirs.all(|container| container.get("resources").is_some_and(is_bounded))
}

fn names_any(resources: &Value) -> bool {
    ["requests", "limits"].iter().any(|kind| {
        let amounts = resources.get(kind).and_then(Value::as_object);
        amounts.is_some_and(|amounts| !amounts.is_empty())
    })
}

/// Requests of both are their limits. Where only the limit is named, it is the request.
fn is_bounded(resources: &Value) -> bool {
    RESOURCES.iter().all(|resource| {
        let amount = |kind: &str| {
            let amount = resources.get(kind)?.get(resource);
            amount.filter(|it| !it.is_null())
        };
        let Some(limit) = amount("limits") else {
            return false;
        };
        // None is what cannot be read: Kubernetes knows more ways to write an amount.
        in_milli(limit) != Some(0) && amount("requests").is_none_or(|it| is_same(it, limit))
    })
}

fn is_same(one: &Value, other: &Value) -> bool {
    one == other || in_milli(one).is_some_and(|amount| in_milli(other) == Some(amount))
}

/// Takes the limits out of our container that an earlier run gave it, where this run gives
/// none (of cpu and memory): between the two, another webhook may have added a container that
/// is not bounded. They are known by the requests, which they equal.
pub(super) fn release(container: &mut Value, given: [Option<&str>; 2]) {
    let resources = container.get_mut("resources");
    let Some(resources) = resources.and_then(Value::as_object_mut) else {
        return;
    };
    for (resource, given) in RESOURCES.iter().zip(given) {
        if given.is_none() {
            take_equal(resources, resource);
        }
    }
}

fn take_equal(resources: &mut Map<String, Value>, resource: &str) {
    let request = resources.get("requests").and_then(|all| all.get(resource));
    let Some(request) = request.cloned() else {
        return;
    };
    let limits = resources.get_mut("limits").and_then(Value::as_object_mut);
    let Some(limits) = limits else {
        return;
    };
    let limit = limits.get(resource);
    if !limit.is_some_and(|limit| is_same(limit, &request)) {
        return;
    }
    limits.remove(resource);
    if limits.is_empty() {
        resources.remove("limits");
    }
}
