//! Checks the node platforms that a pod's spec requires, such as Windows or another processor.

use serde_json::{Map, Value};

use super::Refusal;
use crate::objects::ARCHITECTURE;

/// Label of every node: its processor.
pub(super) const ARCH: &str = "kubernetes.io/arch";
/// The same with its deprecated name, which kubelets still write.
const ARCH_LABELS: [&str; 2] = [ARCH, "beta.kubernetes.io/arch"];
/// Labels of every node: its operating system.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// The field by which the pod requires Windows, if it does.
pub(super) fn on_windows(spec: &Map<String, Value>) -> Option<String> {
    let says = |value: Option<&Value>| value.and_then(Value::as_str) == Some("windows");
    if says(spec.get("os").and_then(|os| os.get("name"))) {
        return Some("spec.os.name".to_owned());
    }
    for label in OS_LABELS {
        if says(selected(spec, label)) {
            return Some(format!("spec.nodeSelector[{label}]"));
        }
    }
    let terms = terms(spec);
    let all = !terms.is_empty()
        && terms
            .iter()
            .all(|term| excludes(term, OS_LABELS, "linux").is_some());
    all.then(|| "spec.affinity.nodeAffinity".to_owned())
}

/// Refuses a pod that can only run on nodes that the proxy is not built for.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub(super) fn check(spec: &Map<String, Value>) -> Result<(), Refusal> {
    for label in ARCH_LABELS {
        if let Some(found) = selected(spec, label).and_then(Value::as_str)
            && found != ARCHITECTURE
        {
            return Err(Refusal::Architecture {
                field: format!("spec.nodeSelector[{label}]"),
                found: cut(found),
            });
        }
    }
    // Any of the terms will do, so each must rule it out.
    let terms = terms(spec);
    let ruled_out: Vec<String> = terms
        .iter()
        .filter_map(|term| excludes(term, ARCH_LABELS, ARCHITECTURE))
        .collect();
    match ruled_out.first() {
        Some(found) if ruled_out.len() == terms.len() => Err(Refusal::Architecture {
            field: "spec.affinity.nodeAffinity".to_owned(),
            found: cut(found),
        }),
        _ => Ok(()),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

fn selected<'a>(spec: &'a Map<String, Value>, label: &str) -> Option<&'a Value> {
    spec.get("nodeSelector")?.get(label)
}

fn terms(spec: &Map<String, Value>) -> &[Value] {
    let required = spec
        .get("affinity")
        .and_then(|affinity| affinity.get("nodeAffinity"))
        .and_then(|nodes| nodes.get("requiredDuringSchedulingIgnoredDuringExecution"));
    let terms = required.and_then(|required| required.get("nodeSelectorTerms"));
    terms.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What the term requires of the labels instead, when no node with this value fits it.
fn excludes(term: &Value, labels: [&str; 2], value: &str) -> Option<String> {
    let expressions = term["matchExpressions"].as_array();
    expressions.into_iter().flatten().find_map(|one| {
        if one["key"].as_str().is_none_or(|key| !labels.contains(&key)) {
            return None;
        }
        let values: Vec<&str> = one["values"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let named = values.contains(&value);
        match one["operator"].as_str() {
            Some("In") if !named => Some(values.join(", ")),
            Some("NotIn") if named => Some(format!("anything but {value}")),
            Some("DoesNotExist") => Some("an unknown kind".to_owned()),
            _ => None,
        }
    })
}
