//! Checks whether pods that may call outside the mesh only what ExternalServices give can get past
//! that: a pod without a proxy, and what a pod's traffic capture skips, are seen by no proxy.

use std::collections::BTreeMap;

use crds::labels::{EGRESS, SKIP_OUTBOUND_CIDRS, SKIP_OUTBOUND_PORTS};
use policy::egress::EgressMode;
use policy::mode::resolve;
use serde_json::Value;

use super::control::variable;
use super::data::{has_proxy, is_being_deleted, is_gateway, is_over};
use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};

pub(super) fn egress_walls(facts: &Facts) -> CheckResult {
    let excluded = facts.excluded();
    let read = |text: &str| text.parse::<EgressMode>().ok();
    // Without the right to see the controller: what the chart says when it is left alone.
    let default = variable(facts, "WEFT_EGRESS_DEFAULT").and_then(read);
    let default = default.unwrap_or_default();
    let may_loosen = variable(facts, "WEFT_EGRESS_PODS_MAY_LOOSEN") == Some("true");
    let namespaces = facts.list("namespaces")?.iter();
    let namespaces: BTreeMap<&str, Option<EgressMode>> = namespaces
        .filter_map(|namespace| {
            Some((namespace["metadata"]["name"].as_str()?, own_mode(namespace)))
        })
        .collect();
    let (mut all, mut past) = (0, Vec::new());
    for pod in facts.list("pods")? {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        if excluded.contains(namespace) || is_over(pod) || is_being_deleted(pod) {
            continue;
        }
        let of_namespace = namespaces.get(namespace).copied().flatten();
        let mode = resolve(default, of_namespace, own_mode(pod), may_loosen);
        if mode != EgressMode::Deny {
            continue;
        }
        all += 1;
        if let Some(how) = gets_past(pod) {
            past.push(format!("{} {how}", name_of(pod)));
        }
    }
    Ok(if past.is_empty() {
        (
            CheckStatus::Ok,
            format!("{all} pods whose egress is denied"),
        )
    } else {
        let message = format!(
            "{} pods whose egress is denied get past it: {}",
            past.len(),
            few(&past)
        );
        (CheckStatus::Warning, message)
    })
}

/// What an object's annotation says; a value that cannot be read is the tightest.
fn own_mode(object: &Value) -> Option<EgressMode> {
    let text = object["metadata"]["annotations"][EGRESS].as_str()?;
    Some(text.parse().unwrap_or(EgressMode::Deny))
}

/// By what calls of a pod go past its proxy.
fn gets_past(pod: &Value) -> Option<&'static str> {
    if is_gateway(pod) {
        return None;
    }
    if !has_proxy(pod) {
        return Some("has no proxy");
    }
    let annotations = &pod["metadata"]["annotations"];
    let mut skipped = [SKIP_OUTBOUND_PORTS, SKIP_OUTBOUND_CIDRS].into_iter();
    skipped.find(|name| {
        let text = annotations[*name].as_str();
        text.is_some_and(|text| !text.trim().is_empty())
    })
}
