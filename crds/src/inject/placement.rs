//! Checks the node platforms that a pod's spec requires, such as Windows or another processor, and
//! limits the pod to nodes on which its proxy can run.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::{Refusal, pod};
use crate::objects::ARCHITECTURES;

/// Label of every node: its processor.
pub(super) const ARCH: &str = "kubernetes.io/arch";
/// The same with its deprecated name, which kubelets still write.
const ARCH_LABELS: [&str; 2] = [ARCH, "beta.kubernetes.io/arch"];
/// Labels of every node: its operating system.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// What the scheduler requires of a node.
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// The processors that the images of an installation are built for; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architectures(Vec<&'static str>);

/// A name that is none of the processors that Weft is built for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not one of {list}; write these, with commas between them", list = ARCHITECTURES.join(", "))]
pub struct NotAnArchitecture(String);

impl Default for Architectures {
    fn default() -> Self {
        Self(vec![ARCHITECTURES[0]])
    }
}

impl FromStr for Architectures {
    type Err = NotAnArchitecture;

    fn from_str(text: &str) -> Result<Self, NotAnArchitecture> {
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        match names.iter().find(|name| !ARCHITECTURES.contains(name)) {
            Some(unknown) => Err(NotAnArchitecture(cut(unknown))),
            // In one order, so that a second injection sees no difference.
            None => Ok(Self(
                ARCHITECTURES
                    .into_iter()
                    .filter(|known| names.contains(known))
                    .collect(),
            )),
        }
    }
}

impl fmt::Display for Architectures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" and "))
    }
}

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
            .all(|term| excludes(term, OS_LABELS, &["linux"]).is_some());
    all.then(|| "spec.affinity.nodeAffinity".to_owned())
}

/// Refuses a pod that can only run on nodes that the proxy is not built for.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub(super) fn check(
    spec: &Map<String, Value>,
    architectures: &Architectures,
) -> Result<(), Refusal> {
    let refused = |field: String, found: &str| Refusal::Architecture {
        field,
        found: cut(found),
        built: architectures.to_string(),
    };
    for label in ARCH_LABELS {
        if let Some(found) = selected(spec, label).and_then(Value::as_str)
            && !architectures.0.contains(&found)
        {
            return Err(refused(format!("spec.nodeSelector[{label}]"), found));
        }
    }
    // Any of the terms will do, so each must rule it out.
    let terms = terms(spec);
    let ruled_out: Vec<String> = terms
        .iter()
        .filter_map(|term| excludes(term, ARCH_LABELS, &architectures.0))
        .collect();
    match ruled_out.first() {
        Some(found) if ruled_out.len() == terms.len() => {
            Err(refused("spec.affinity.nodeAffinity".to_owned(), found))
        }
        _ => Ok(()),
    }
}

/// In a cluster with nodes of several kinds the pod must not come where its proxy cannot
/// start. A pod that requires such a node by itself has been refused before.
pub(super) fn require(spec: &mut Map<String, Value>, architectures: &Architectures) {
    if let [one] = architectures.0.as_slice() {
        if let Some(selector) = pod::object(spec, "nodeSelector") {
            selector.insert(ARCH.into(), (*one).into());
        }
        return;
    }
    let is_selected = |label| selected(spec, label).is_some_and(Value::is_string);
    if !ARCH_LABELS.into_iter().any(is_selected) {
        require_one_of(spec, &architectures.0);
    }
}

/// A selector names one value, so several are required by affinity: in each term, since any of the
/// terms will do.
fn require_one_of(spec: &mut Map<String, Value>, values: &[&str]) {
    let expression = json!({ "key": ARCH, "operator": "In", "values": values });
    let affinity = pod::object(spec, "affinity");
    let Some(nodes) = affinity.and_then(|affinity| pod::object(affinity, "nodeAffinity")) else {
        return;
    };
    let required = nodes.entry(REQUIRED).or_insert(Value::Null);
    if required.is_null() {
        *required = json!({ "nodeSelectorTerms": [{ "matchExpressions": [expression] }] });
        return;
    }
    let terms = required.get_mut("nodeSelectorTerms");
    let terms = terms.and_then(Value::as_array_mut).into_iter().flatten();
    for term in terms.filter(|term| matches_nodes(term) && !is_within(term, values)) {
        let Some(term) = term.as_object_mut() else {
            continue;
        };
        let expressions = term.entry("matchExpressions").or_insert(Value::Null);
        if expressions.is_null() {
            *expressions = json!([]);
        }
        if let Some(expressions) = expressions.as_array_mut() {
            expressions.push(expression.clone());
        }
    }
}

/// Whether the term requires anything: one that does not matches no node.
fn matches_nodes(term: &Value) -> bool {
    ["matchExpressions", "matchFields"]
        .iter()
        .any(|list| term[list].as_array().is_some_and(|list| !list.is_empty()))
}

/// Whether the term by itself lets the pod run on nodes with one of these values alone.
fn is_within(term: &Value, values: &[&str]) -> bool {
    let expressions = term["matchExpressions"].as_array();
    expressions.into_iter().flatten().any(|one| {
        let named = one["values"].as_array().into_iter().flatten();
        one["key"]
            .as_str()
            .is_some_and(|key| ARCH_LABELS.contains(&key))
            && one["operator"] == "In"
            && named
                .map(Value::as_str)
                .all(|value| value.is_some_and(|value| values.contains(&value)))
    })
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
        .and_then(|nodes| nodes.get(REQUIRED));
    let terms = required.and_then(|required| required.get("nodeSelectorTerms"));
    terms.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What the term requires of the labels instead, when no node with one of these values fits it.
fn excludes(term: &Value, labels: [&str; 2], values: &[&str]) -> Option<String> {
    let reasons = values.iter().map(|value| excludes_one(term, labels, value));
    let reasons: Option<Vec<String>> = reasons.collect();
    reasons?.into_iter().next()
}

fn excludes_one(term: &Value, labels: [&str; 2], value: &str) -> Option<String> {
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
            Some("NotIn") if named => Some(format!("anything but {}", values.join(", "))),
            Some("DoesNotExist") => Some("an unknown kind".to_owned()),
            _ => None,
        }
    })
}
