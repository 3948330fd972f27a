//! Builds the CustomResourceDefinitions of group `weft.dev` from the Rust types.

use kube::Resource;
use serde_json::{Value, json};

use super::{GROUP, TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus, VERSION};
use crate::smi::{FAILING_PATH, schema};

/// Short name of TrafficPolicy.
const SHORT_NAME: &str = "tp";

/// The CustomResourceDefinitions of all kinds of this group, each with its plural.
pub fn definitions() -> Vec<(String, Value)> {
    let plural = TrafficPolicy::plural(&()).into_owned();
    let kind = TrafficPolicy::kind(&());
    let mut spec = schema::<TrafficPolicySpec>();
    spec["description"] =
        "What is asked for. A section that is left out is another policy's.".into();
    let mut status = schema::<TrafficPolicyStatus>();
    status["description"] =
        "What the mesh says about it; left out until then. Written by Weft only.".into();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{GROUP}") },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": [SHORT_NAME],
                "categories": ["weft"],
            },
            "conversion": { "strategy": "None" },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "additionalPrinterColumns": columns(),
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": "Says how calls to Services are made and served: timeouts, \
                                    retries, limits and more.",
                    "required": ["spec"],
                    "properties": { "spec": spec, "status": status },
                } },
                "subresources": { "status": {} },
            }],
        },
    });
    vec![(plural, definition)]
}

/// What `kubectl get` shows; what has a priority above 0, with `-o wide` only.
fn columns() -> Value {
    let column = |name: &str, kind: &str, path: &str, description: &str, priority: u8| {
        json!({
            "name": name,
            "type": kind,
            "jsonPath": path,
            "description": description,
            "priority": priority,
        })
    };
    let condition = |name: &str, of: &str, field: &str, description: &str, priority: u8| {
        let path = format!(r#".status.conditions[?(@.type=="{of}")].{field}"#);
        column(name, "string", &path, description, priority)
    };
    let state =
        |of: &str, description: &str, priority| condition(of, of, "status", description, priority);
    json!([
        column("Target", "string", ".status.target", "What it is about.", 0),
        column(
            "Sections",
            "string",
            ".status.summary",
            "What it says something about.",
            0
        ),
        column(
            "Breaker",
            "string",
            ".status.breaker.state",
            "What its breaker does.",
            0
        ),
        state(
            "Accepted",
            "Whether it can be understood, and wins something.",
            1
        ),
        state(
            "ResolvedRefs",
            "Whether everything that it names exists and fits.",
            1
        ),
        state(
            "Programmed",
            "Whether the proxies that need it serve it.",
            0
        ),
        column(
            "Message",
            "string",
            FAILING_PATH,
            "What is wrong, by the first condition that is False.",
            1
        ),
        condition(
            "Proxies",
            "Programmed",
            "message",
            "How many proxies serve it.",
            1
        ),
        column(
            "Age",
            "date",
            ".metadata.creationTimestamp",
            "Time since it was made.",
            0
        ),
    ])
}

#[cfg(test)]
mod tests;
