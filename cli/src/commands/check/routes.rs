//! Checks the routes of the Gateway API whose parents are Services or Gateways of Weft, by what the
//! controller reports of them in their status.

use std::time::Duration;

use gateway_api::conditions::{ConditionType, GATEWAY_CONTROLLER, MESH_CONTROLLER};
use serde_json::Value;

use super::control::variable;
use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};

/// Each kind with its lists, one for each version.
const KINDS: [(&str, &[&str]); 4] = [
    ("HTTPRoute", &["httproutes"]),
    ("GRPCRoute", &["grpcroutes"]),
    (
        "TCPRoute",
        &["gateway-tcproutes", "gateway-tcproutes-v1alpha2"],
    ),
    (
        "TLSRoute",
        &["tlsroutes", "tlsroutes-v1alpha3", "tlsroutes-v1alpha2"],
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
            let is_ours = |entry: &&Value| {
                let controller = entry["controllerName"].as_str().unwrap_or_default();
                [MESH_CONTROLLER, GATEWAY_CONTROLLER].contains(&controller)
            };
            let entries = route["status"]["parents"].as_array().into_iter().flatten();
            let entries: Vec<&Value> = entries.filter(is_ours).collect();
            // Of a Gateway it is not known here whose it is, but by who reports.
            let is_mesh = has_service_parent(route);
            if !is_mesh && entries.is_empty() {
                continue;
            }
            all += 1;
            let created = route["metadata"]["creationTimestamp"].as_str();
            let age = created.and_then(|created| facts.ago(created));
            let by_mesh = entries
                .iter()
                .any(|one| one["controllerName"] == MESH_CONTROLLER);
            if is_mesh && !by_mesh && age.is_some_and(|age| age > REPORTED_WITHIN) {
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
                            "{kind} {name} for {parent} {condition}={status} {reason}"
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
pub(super) fn newest<'a>(facts: &'a Facts, lists: &[&str]) -> Result<&'a [Value], String> {
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
    let kind = text("kind").unwrap_or("Gateway");
    match text("namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}
