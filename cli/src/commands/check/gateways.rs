//! Checks the Gateways of Weft's classes, by what the controller reports in their status: whether
//! they are accepted and programmed, have an address, and serve certificates that do not end soon.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_api::conditions::{CERTIFICATE_ENDS, GATEWAY_CONTROLLER};
use serde_json::Value;

use super::control::variable;
use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};
use super::routes::newest;

/// Pods start, and the cluster assigns an address, within this time.
const READY_WITHIN: Duration = Duration::from_secs(120);

pub(super) fn gateways(facts: &Facts) -> CheckResult {
    let gateways = newest(facts, &["gateways"])?;
    if gateways.is_empty() {
        return Ok((CheckStatus::Ok, "0 Gateways".to_owned()));
    }
    let sees_controller = matches!(facts.existing("controller"), Ok(Some(_)));
    if sees_controller && variable(facts, "WEFT_GATEWAY_NAMESPACES").is_none() {
        let message = "gateway.enabled is false, so Weft runs no Gateway";
        return Ok((CheckStatus::Ok, message.to_owned()));
    }
    let classes: BTreeSet<&str> = (facts.list("gateway-classes")?.iter())
        .filter(|class| class["spec"]["controllerName"] == GATEWAY_CONTROLLER)
        .filter_map(|class| class["metadata"]["name"].as_str())
        .collect();
    let (mut all, mut worst, mut found) = (0, CheckStatus::Ok, Vec::new());
    for gateway in gateways {
        let class = gateway["spec"]["gatewayClassName"].as_str();
        if !class.is_some_and(|class| classes.contains(class)) {
            continue;
        }
        all += 1;
        let created = gateway["metadata"]["creationTimestamp"].as_str();
        let age = created.and_then(|created| facts.ago(created));
        let is_new = age.is_none_or(|age| age <= READY_WITHIN);
        for (outcome, what) in wrong(gateway, is_new) {
            worst = worst.max(outcome);
            found.push(format!("Gateway {} {what}", name_of(gateway)));
        }
    }
    let message = match found.len() {
        0 => format!("{all} Gateways"),
        many => format!("{many} are not as they should be: {}", few(&found)),
    };
    Ok((worst, message))
}

/// What is wrong with one Gateway.
fn wrong(gateway: &Value, is_new: bool) -> Vec<(CheckStatus, String)> {
    let mut all = Vec::new();
    let status = &gateway["status"];
    for (kind, waits) in [("Accepted", false), ("Programmed", true)] {
        let condition = condition(status, kind);
        let is_true = condition.is_some_and(|one| one["status"] == "True");
        // A new one has no pod and no address yet.
        if !is_true && !(is_new && (waits || condition.is_none())) {
            let reason = condition.and_then(|one| one["reason"].as_str());
            let reason = reason.unwrap_or("without a status of Weft");
            all.push((CheckStatus::Error, format!("{kind}=False {reason}")));
        }
    }
    let listeners = status["listeners"].as_array().into_iter().flatten();
    for listener in listeners {
        let name = listener["name"].as_str().unwrap_or_default();
        for kind in ["Accepted", "ResolvedRefs"] {
            let failed = condition(listener, kind).filter(|one| one["status"] == "False");
            if let Some(reason) = failed.and_then(|one| one["reason"].as_str()) {
                let what = format!("listener {name} {kind}=False {reason}");
                all.push((CheckStatus::Warning, what));
            }
        }
    }
    let ends = condition(status, CERTIFICATE_ENDS).filter(|one| one["status"] == "True");
    if let Some(message) = ends.and_then(|one| one["message"].as_str()) {
        all.push((CheckStatus::Warning, message.to_owned()));
    }
    all
}

fn condition<'a>(of: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut conditions = of["conditions"].as_array()?.iter();
    conditions.find(|one| one["type"] == kind)
}
