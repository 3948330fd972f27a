//! Finds requests for injection that have no effect because they are misspelled.

use serde_json::Value;

use crate::labels::{DISABLED, ENABLED, INJECT};

/// Kinds of objects that [`unheard`] judges.
pub const SPELLED: [&str; 6] = [
    "Namespace",
    "Pod",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
];

/// [`misspelled`] of an object's metadata.
#[must_use]
fn misspelled_in(metadata: &Value) -> Option<String> {
    let text = |map: &str| metadata.get(map)?.get(INJECT)?.as_str();
    misspelled(text("labels"), text("annotations"))
}

/// What is wrong with how an object (a Namespace, a Pod, or what pods are made from) requests
/// a proxy, and how to spell it; None when nothing is.
///
/// A label that is neither `enabled` nor `disabled` selects nothing, and an annotation of
/// that name is not read at all.
#[must_use]
pub fn misspelled(label: Option<&str>, annotation: Option<&str>) -> Option<String> {
    match label {
        Some(ENABLED | DISABLED) => None,
        Some(other) => Some(format!(
            "label {INJECT} is {:?}, which means nothing; write {INJECT}={ENABLED} for a proxy, \
             or {INJECT}={DISABLED} for none",
            short(other)
        )),
        None => {
            let annotation = annotation?;
            Some(format!(
                "annotation {INJECT} ({:?}) is not read: it must be a label; write \
                 {INJECT}={} under metadata.labels",
                short(annotation),
                meant(Some(annotation))
            ))
        }
    }
}

/// What is wrong with how an object of this kind requests a proxy: in its own metadata if
/// it is a Namespace or a Pod, else in the template of its pods.
#[must_use]
pub fn unheard(kind: &str, object: &Value) -> Option<String> {
    let metadata = &object["metadata"];
    match kind {
        "Namespace" | "Pod" => misspelled_in(metadata),
        _ => {
            let template = &object["spec"]["template"]["metadata"];
            misspelled_in(template)
                .map(|text| format!("spec.template.metadata: {text}"))
                .or_else(|| elsewhere(kind, metadata, template))
        }
    }
}

/// The label stands on what makes the pods and not on the pods.
fn elsewhere(kind: &str, metadata: &Value, template: &Value) -> Option<String> {
    let of = |metadata: &Value, map: &str| Some(metadata.get(map)?.get(INJECT)?.clone());
    let written = of(metadata, "labels").or_else(|| of(metadata, "annotations"))?;
    let meant = meant(written.as_str());
    let is_in_template = of(template, "labels").is_some();
    (!is_in_template).then(|| {
        format!(
            "{INJECT} on a {kind} is not read; write {INJECT}: {meant} under \
             spec.template.metadata.labels"
        )
    })
}

/// The value that a text in another place or spelling stands for.
fn meant(text: Option<&str>) -> &'static str {
    match text {
        Some(DISABLED | "false") => DISABLED,
        _ => ENABLED,
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_other_spelling_is_answered_with_the_right_one() {
        for odd in [
            json!({"labels": {"weft.dev/inject": "true"}}),
            json!({"labels": {"weft.dev/inject": "Enabled"}}),
            json!({"labels": {"weft.dev/inject": ""}}),
            json!({"annotations": {"weft.dev/inject": "enabled"}}),
            json!({"labels": {"app": "x"}, "annotations": {"weft.dev/inject": "true"}}),
        ] {
            let message = misspelled_in(&odd).unwrap();
            assert!(
                message.contains("write weft.dev/inject=enabled"),
                "{message}"
            );
        }
        let unwanted = json!({"annotations": {"weft.dev/inject": "disabled"}});
        let message = misspelled_in(&unwanted).unwrap();
        assert!(
            message.contains("write weft.dev/inject=disabled"),
            "{message}"
        );
        for right in [
            json!({}),
            json!(null),
            json!({"labels": {"weft.dev/inject": "enabled"}}),
            json!({"labels": {"weft.dev/inject": "disabled"}}),
            // The label decides, so the annotation beside it is harmless.
            json!({"labels": {"weft.dev/inject": "enabled"},
                   "annotations": {"weft.dev/inject": "enabled"}}),
        ] {
            assert_eq!(misspelled_in(&right), None, "{right}");
        }
    }
}
