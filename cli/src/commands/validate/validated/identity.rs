//! Checks the fields that identify an object: `apiVersion` and `kind`. Without this check an object
//! that lacks them, or misspells the group of a kind of ours, would count as a foreign object and
//! pass.
//!
//! Claims: observe-63

use crds::near::near;
use crds::smi::{ACCESS_GROUP, SPECS_GROUP, SPLIT_GROUP, SmiKind};
use crds::weft;
use serde_json::Value;

use crate::kinds;

/// Groups whose objects are validated.
const GROUPS: [&str; 4] = [ACCESS_GROUP, SPECS_GROUP, SPLIT_GROUP, weft::GROUP];
/// What all groups of SMI end with.
const SMI: &str = "smi-spec.io";

/// What keeps an object from being known; no cluster takes it.
pub(super) struct Missed {
    /// Empty for the whole document.
    pub(super) field: &'static str,
    pub(super) text: String,
}

/// Everything that keeps a document, or an item of a list, from being identified. An empty document
/// has no such errors.
pub(super) fn missed(object: &Value) -> Vec<Missed> {
    let Some(fields) = object.as_object() else {
        let text = "must be an object with apiVersion and kind";
        return match object {
            Value::Null => Vec::new(),
            _ => vec![Missed {
                field: "",
                text: text.to_owned(),
            }],
        };
    };
    let said = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut missed = Vec::new();
    for field in ["apiVersion", "kind"] {
        if said(field).is_empty() {
            let mut names = fields.keys().map(String::as_str);
            let written = names.find(|name| *name != field && near(name, [field]).is_some());
            let written = written.map(|name| format!("; {name} is another name"));
            let written = written.unwrap_or_default();
            let text = format!("is missing or no text, so it is not known what this is{written}");
            missed.push(Missed { field, text });
        }
    }
    let (api_version, kind) = (said("apiVersion"), said("kind"));
    if kind == "List" {
        let text = "must be a list of objects".to_owned();
        missed.push(Missed {
            field: "items",
            text,
        });
    }
    missed.extend(misspelt(api_version, kind));
    missed
}

/// A kind of ours in a group that is nearly ours.
fn misspelt(api_version: &str, kind: &str) -> Option<Missed> {
    let (group, version) = api_version.split_once('/').unwrap_or((api_version, ""));
    let of_smi = SmiKind::ALL.into_iter().find(|one| one.name() == kind);
    let is_own = kinds::of_group(weft::GROUP).contains(&kind);
    let of_smi = of_smi.map(SmiKind::group);
    let own = of_smi.or(is_own.then_some(weft::GROUP))?;
    let is_meant = group.ends_with(SMI) || near(group, GROUPS).is_some();
    let is_ours = GROUPS.contains(&group) && !version.is_empty();
    if !is_meant || is_ours {
        return None;
    }
    Some(Missed {
        field: "apiVersion",
        text: format!("is {api_version:?}, but kind {kind} is one of {own} in some version"),
    })
}

/// An item of a list, with the kind that the list's own kind implies, if the item has none: kubectl
/// does the same.
pub(super) fn by_list(item: &Value, (api_version, list): (&str, &str)) -> Option<Value> {
    let kind = list.strip_suffix("List").filter(|kind| !kind.is_empty())?;
    let fields = item.as_object()?;
    if fields.contains_key("apiVersion") || fields.contains_key("kind") {
        return None;
    }
    let mut fields = fields.clone();
    fields.insert("apiVersion".to_owned(), api_version.into());
    fields.insert("kind".to_owned(), kind.into());
    Some(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(object: &Value) -> Vec<&'static str> {
        let missed = missed(object).into_iter();
        missed.map(|one| one.field).collect()
    }

    #[test]
    fn object_without_kind_or_version_is_reported_unless_foreign() {
        let whole = |api_version: &str, kind: &str| {
            fields(&json!({"apiVersion": api_version, "kind": kind, "spec": {}}))
        };
        assert_eq!(fields(&json!([1])), [""]);
        assert_eq!(fields(&json!({"spec": {}})), ["apiVersion", "kind"]);
        let found = missed(&json!({"apiversion": "v1", "kind": "TrafficSplit"}));
        let [one] = &*found else {
            panic!("{}", found.len())
        };
        let meant = "; apiversion is another name";
        assert!(one.text.ends_with(meant), "{}", one.text);
        for api_version in [
            "split.smi-spec.io",
            "splt.smi-spec.io/v1alpha4",
            "split.smi-spce.io/v1alpha4",
        ] {
            let found = whole(api_version, "TrafficSplit");
            assert_eq!(found, ["apiVersion"], "{api_version}");
        }
        assert_eq!(whole("v1", "List"), ["items"]);
        // Control.
        for (api_version, kind) in [
            ("split.smi-spec.io/v1alpha4", "TrafficSplit"),
            ("kuadrant.io/v1", "TrafficPolicy"),
            ("example.com/v1", "AllowList"),
            ("v1", "Service"),
        ] {
            let found = whole(api_version, kind);
            assert_eq!(found, Vec::<&str>::new(), "{kind}");
        }
        assert_eq!(fields(&json!(null)), Vec::<&str>::new());
    }

    #[test]
    fn list_item_inherits_kind_of_list_unless_set() {
        let list = ("split.smi-spec.io/v1alpha4", "TrafficSplitList");
        let named = by_list(&json!({"spec": {}}), list).unwrap();
        assert_eq!(named["kind"], "TrafficSplit");
        assert_eq!(named["apiVersion"], list.0);
        assert_eq!(by_list(&json!({"kind": "Pod"}), list), None);
        assert_eq!(by_list(&json!({}), ("v1", "List")), None);
    }
}
