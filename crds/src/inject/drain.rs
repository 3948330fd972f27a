//! Adds a preStop hook that keeps an application serving for a moment after its pod is deleted.
//!
//! Endpoints vanish from other proxies a little later than the application gets
//! its SIGTERM. An application without a preStop hook would close its listener
//! in that gap, so it gets one that sleeps.

use serde_json::{Map, Value, json};

/// Enough for an endpoint's removal to reach every proxy.
const DELAY: i64 = 3;
/// What the API server fills in, seconds.
const GRACE: i64 = 30;

/// Adds the sleep to every application container without a preStop hook. At most
/// half of the grace period, so that the application keeps time to end by itself.
pub(super) fn add_delay(
    spec: &mut Map<String, Value>,
    requested: Option<u32>,
    warnings: &mut Vec<String>,
) {
    let wanted = requested.map_or(DELAY, i64::from);
    let delay = seconds(spec, requested);
    if requested.is_some() && delay < wanted {
        warnings.push(format!(
            "weft: {} is {wanted} s, but only {delay} s are used, half of \
             spec.terminationGracePeriodSeconds",
            crate::labels::DRAIN_DELAY
        ));
    }
    if delay < 1 {
        return;
    }
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let Some(container) = container.as_object_mut() else {
            continue;
        };
        let lifecycle = container.entry("lifecycle").or_insert_with(|| json!({}));
        if lifecycle.is_null() {
            *lifecycle = json!({});
        }
        let Some(lifecycle) = lifecycle.as_object_mut() else {
            continue;
        };
        if lifecycle.get("preStop").is_none_or(Value::is_null) {
            lifecycle.insert("preStop".into(), sleep(delay));
        }
    }
}

/// How long an application sleeps, where so many seconds are asked for.
pub(super) fn seconds(spec: &Map<String, Value>, requested: Option<u32>) -> i64 {
    let grace = spec
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64);
    let half = grace.unwrap_or(GRACE).max(0) / 2;
    requested.map_or(DELAY, i64::from).min(half)
}

/// Takes a sleep of exactly so long out again: any other is the user's own.
pub(super) fn take_delay(spec: &mut Map<String, Value>, delay: i64) {
    let ours = sleep(delay);
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let Some(container) = container.as_object_mut() else {
            continue;
        };
        let Some(lifecycle) = container
            .get_mut("lifecycle")
            .and_then(Value::as_object_mut)
        else {
            continue;
        };
        if lifecycle.get("preStop") != Some(&ours) {
            continue;
        }
        lifecycle.remove("preStop");
        if lifecycle.is_empty() {
            container.remove("lifecycle");
        }
    }
}

fn sleep(seconds: i64) -> Value {
    json!({ "sleep": { "seconds": seconds } })
}
