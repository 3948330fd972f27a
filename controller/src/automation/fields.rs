//! Reads and writes the fields that the statuses of releases and experiments have in common, and
//! makes the patch that changes one.

use std::time::{Duration, SystemTime};

use automation::judge::Counts;
use crds::item::Item;
use crds::weft::CheckCounts;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::calls::{CallFailed, within};
use crate::status::conditions;

/// The status of an object as it stands; an empty one where it cannot be read.
pub(super) fn status<S: DeserializeOwned + Default>(object: &DynamicObject) -> S {
    let stored = object.data.get("status");
    let read: Option<S> = stored.and_then(|stored| Deserialize::deserialize(stored).ok());
    read.unwrap_or_default()
}

/// Changes the status of exactly this version of an object, which is named by its uid. Returns the
/// object as it is then. One that has this status already is not written.
pub(super) async fn write_status(
    client: &Client,
    resource: &ApiResource,
    object: &DynamicObject,
    status: &impl Serialize,
) -> Result<DynamicObject, CallFailed> {
    let after = serde_json::to_value(status).unwrap_or_default();
    let before = object.data.get("status").unwrap_or(&Value::Null);
    let Some(change) = merge_patch(before, &after) else {
        return Ok(object.clone());
    };
    let meta = &object.metadata;
    let patch = json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": change,
    });
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let api: Api<Item<DynamicObject>> = Api::namespaced_with(client.clone(), namespace, resource);
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    let Item(written) = within(api.patch_status(name, &params, &patch)).await?;
    written.map_err(|_| CallFailed::NoAnswer)
}

/// The merge patch (RFC 7386) that makes `after` of `before`; `None`: they are equal.
fn merge_patch(before: &Value, after: &Value) -> Option<Value> {
    if before == after {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return Some(after.clone());
    };
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let mut patch: Map<String, Value> = gone.map(|name| (name.clone(), Value::Null)).collect();
    for (name, value) in after {
        let old = before.get(name).unwrap_or(&Value::Null);
        if let Some(change) = merge_patch(old, value) {
            patch.insert(name.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

pub(super) fn counts(counts: Counts) -> CheckCounts {
    CheckCounts {
        requests: signed(counts.calls),
        bad: signed(counts.bad),
    }
}

pub(super) fn read_counts(stored: CheckCounts) -> Counts {
    Counts {
        calls: unsigned(stored.requests),
        bad: unsigned(stored.bad),
    }
}

pub(super) fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Since 1970.
pub(super) fn time(text: Option<&str>) -> Option<Duration> {
    let time: Timestamp = text?.parse().ok()?;
    let seconds = u64::try_from(time.as_second()).ok()?;
    Some(Duration::from_secs(seconds))
}

/// As Kubernetes writes times.
pub(super) fn rfc3339(since_1970: Duration) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(since_1970);
    conditions::rfc3339(time.unwrap_or(SystemTime::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_patch_writes_changes_and_removes_what_is_gone() {
        let before = json!({"a": 1, "run": {"step": 1, "pausedAt": "t"}, "list": [1], "b": {}});
        let after = json!({"a": 1, "run": {"step": 2}, "list": [1, 2]});
        let patch = merge_patch(&before, &after).unwrap();
        let expected = json!({
            "run": {"step": 2, "pausedAt": null}, "list": [1, 2], "b": null,
        });
        assert_eq!(patch, expected);
        assert_eq!(merge_patch(&after, &after), None);
        assert_eq!(merge_patch(&Value::Null, &after), Some(after));
    }
}
