//! Applies patches to objects, of each kind that Kubernetes takes.

use json_patch::merge;
use serde_json::Value;

/// How a patch is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PatchKind {
    /// RFC 6902.
    Operations,
    /// RFC 7386.
    Merge,
    /// The same, but for `status.conditions`, which Kubernetes' own kinds merge by type.
    Strategic,
}

impl PatchKind {
    pub(crate) fn of(content_type: &str) -> Self {
        match content_type {
            "application/json-patch+json" => Self::Operations,
            "application/strategic-merge-patch+json" => Self::Strategic,
            _ => Self::Merge,
        }
    }

    /// False where the patch does not fit the object.
    pub(crate) fn apply(self, patch: &Value, object: &mut Value) -> bool {
        match self {
            Self::Operations => {
                let patch = serde_json::from_value::<json_patch::Patch>(patch.clone());
                patch.is_ok_and(|patch| json_patch::patch(object, &patch).is_ok())
            }
            Self::Merge => {
                merge(object, patch);
                true
            }
            Self::Strategic => {
                let mut patch = patch.clone();
                merge_conditions(object, &mut patch);
                merge(object, &patch);
                true
            }
        }
    }
}

/// Puts the conditions that the patch does not name beside those that it does.
fn merge_conditions(object: &Value, patch: &mut Value) {
    let Some(Value::Array(named)) = patch.pointer_mut("/status/conditions") else {
        return;
    };
    let present = object["status"]["conditions"].as_array();
    let is_named = |one: &&Value| named.iter().any(|other| other["type"] == one["type"]);
    let others = present.into_iter().flatten().filter(|one| !is_named(one));
    let mut all: Vec<Value> = others.cloned().collect();
    all.append(named);
    *named = all;
}
