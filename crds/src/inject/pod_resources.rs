//! Extends the requests and limits of the pod as a whole (`spec.resources`) by those of the proxy.
//!
//! The API server refuses a pod whose containers request more than the pod does. So the proxy's
//! share is added to requests and limits: else it would be taken from the application's. The
//! proxy's environment records what was added, so that a second injection and a removal can
//! subtract it.

use serde_json::{Map, Value, json};

use super::{overrides::Overrides, pod::in_milli};
use crate::labels::quantity_in_milli;

/// Env variable of the proxy that holds what was added. Only injection reads it.
pub(super) const SHARE_ENV: &str = "WEFT_POD_SHARE";

/// Adds the proxy's share to what the pod names of cpu and memory, in place of the share
/// of an `earlier` run. Returns it by kind and resource.
pub(super) fn add(
    spec: &mut Map<String, Value>,
    overrides: &Overrides,
    earlier: &Map<String, Value>,
) -> Map<String, Value> {
    let entries = [
        ("cpu", &overrides.cpu_request, &overrides.cpu_limit),
        ("memory", &overrides.memory_request, &overrides.memory_limit),
    ];
    let mut share = Map::new();
    for kind in ["requests", "limits"] {
        let Some(amounts) = amounts(spec, kind) else {
            continue;
        };
        for (resource, request, limit) in entries {
            let ours = match limit {
                Some(limit) if kind == "limits" => limit,
                _ => request,
            };
            let before = earlier.get(kind).and_then(|before| before.get(resource));
            if let Some(plus) = quantity_in_milli(ours)
                && shift(amounts, resource, plus, before)
            {
                let of_kind = share.entry(kind).or_insert_with(|| json!({}));
                of_kind[resource] = ours.as_str().into();
            }
        }
    }
    share
}

/// Takes out what an `earlier` run added.
pub(super) fn take(spec: &mut Map<String, Value>, earlier: &Map<String, Value>) {
    for (kind, before) in earlier {
        let Some(amounts) = amounts(spec, kind) else {
            continue;
        };
        for (resource, before) in before.as_object().into_iter().flatten() {
            shift(amounts, resource, 0, Some(before));
        }
    }
}

fn amounts<'a>(spec: &'a mut Map<String, Value>, kind: &str) -> Option<&'a mut Map<String, Value>> {
    let resources = spec.get_mut("resources")?;
    resources.get_mut(kind)?.as_object_mut()
}

/// Puts `plus` thousandths in place of what was added `before`. False where the pod sets no
/// amount of the resource, or none that can be read. An amount that stays keeps its
/// text, which the API server may have rewritten.
fn shift(
    amounts: &mut Map<String, Value>,
    resource: &str,
    plus: i128,
    before: Option<&Value>,
) -> bool {
    let Some(current) = amounts.get(resource).and_then(in_milli) else {
        return false;
    };
    let minus = before.and_then(in_milli).unwrap_or(0);
    let wanted = (current - minus).max(0) + plus;
    if wanted != current {
        amounts.insert(resource.to_owned(), written(resource, wanted).into());
    }
    true
}

/// As people write such an amount.
fn written(resource: &str, milli: i128) -> String {
    const MI: i128 = 1024 * 1024 * 1000;
    if resource == "memory" && milli % MI == 0 {
        format!("{}Mi", milli / MI)
    } else if milli % 1000 == 0 {
        (milli / 1000).to_string()
    } else {
        format!("{milli}m")
    }
}
