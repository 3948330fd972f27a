//! Checks the routes of the Gateway API whose parents are Services, by what the controller reports
//! of them in their status.

use std::time::Duration;

use gateway_api::conditions::{ConditionType, MESH_CONTROLLER};
use serde_json::Value;

use super::control::variable;
use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};

/// Each kind with its lists, one for each version.
const KINDS: [(&str, &[&str]); 3] = [
    ("HTTPRoute", &["httproutes"]),
    ("GRPCRoute", &["grpcroutes"]),
    (
        "TCPRoute",
        &["gateway-tcproutes", "gateway-tcproutes-v1alpha2"],
    ),
];
/// A controller reports within a few seconds, and another one takes the Lease within 17 s.
const REPORTED_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn gateway_routes(facts: &Facts) -> CheckResult {
    if variable(facts, "WEFT_GATEWAY_API") == Some("false") {
        // What was reported of routes before is out of date.
        let message = "gatewayApi.enabled is false, so no route has an effect";
        return Ok((CheckStatus::Ok, message.to_owned()));
    }
    let (mut all, mut worst, mut found) = (0, CheckStatus::Ok, Vec::new());
    for (kind, lists) in KINDS {
        for route in newest(facts, lists)? {
            if !has_service_parent(route) {
                continue;
            }
            all += 1;
            let is_ours = |entry: &&Value| entry["controllerName"] == MESH_CONTROLLER;
            let entries = route["status"]["parents"].as_array().into_iter().flatten();
            let entries: Vec<&Value> = entries.filter(is_ours).collect();
            let created = route["metadata"]["creationTimestamp"].as_str();
            let age = created.and_then(|created| facts.ago(created));
            if entries.is_empty() && age.is_some_and(|age| age > REPORTED_WITHIN) {
                worst = worst.max(CheckStatus::Warning);
                let name = name_of(route);
                found.push(format!(
                    "{kind} {name} has no status of Weft: see that gatewayApi.enabled is true"
                ));
            }
            for (condition, status, outcome) in [
                (ConditionType::Accepted, "False", CheckStatus::Error),
                (ConditionType::ResolvedRefs, "False", CheckStatus::Warning),
                (
                    ConditionType::PartiallyInvalid,
                    "True",
                    CheckStatus::Warning,
                ),
            ] {
                for entry in &entries {
                    if let Some(reason) = reason(entry, condition, status) {
                        worst = worst.max(outcome);
                        let (name, parent) = (name_of(route), parent(entry));
                        let condition = condition.as_str();
                        found.push(format!(
                            "{kind} {name} for Service {parent} {condition}={status} {reason}"
                        ));
                    }
                }
            }
        }
    }
    let message = match found.len() {
        0 => format!("{all} routes"),
        many => format!(
            "{many} are not in force as they are written: {}",
            few(&found)
        ),
    };
    Ok((worst, message))
}

/// The objects of the newest version that has any: all versions that are served have the same.
fn newest<'a>(facts: &'a Facts, lists: &[&str]) -> Result<&'a [Value], String> {
    for list in lists {
        match facts.list(list) {
            Ok([]) => {}
            // Rights are checked before it is known whether there is such a kind.
            Err(why) if facts.is_denied(&why) && facts.existing("gateway-api") == Ok(None) => {}
            found => return found,
        }
    }
    Ok(&[])
}

fn has_service_parent(route: &Value) -> bool {
    let parents = route["spec"]["parentRefs"].as_array();
    let mut parents = parents.into_iter().flatten();
    parents.any(|parent| parent["group"] == "" && parent["kind"] == "Service")
}

/// Of a condition that has this status.
fn reason<'a>(entry: &'a Value, condition: ConditionType, status: &str) -> Option<&'a str> {
    let mut conditions = entry["conditions"].as_array()?.iter();
    let name = condition.as_str();
    let found = conditions.find(|one| one["type"] == name && one["status"] == status)?;
    found["reason"].as_str()
}

fn parent(entry: &Value) -> String {
    let text = |field: &str| entry["parentRef"][field].as_str();
    let name = text("name").unwrap_or_default();
    match text("namespace") {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}
