//! Checks of the cluster that the mesh runs in.
//!
//! They need nothing of the mesh, so that `--pre` can run them before it is installed.

use serde_json::Value;

use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};

/// The oldest minor version of Kubernetes 1.
const OLDEST_MINOR: u32 = 33;
/// Seconds by which two clocks may differ.
const MOST_AHEAD: i64 = 5;

pub(super) fn version(facts: &Facts) -> CheckResult {
    let text = |key: &str| facts.version[key].as_str().unwrap_or_default();
    // Some clouds write `33+`.
    let digits: String = text("minor")
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let minor: Option<u32> = digits.parse().ok();
    let whole = text("gitVersion");
    match minor {
        Some(minor) if text("major") == "1" && minor >= OLDEST_MINOR => {
            Ok((CheckStatus::Ok, whole.to_owned()))
        }
        Some(_) => Ok((
            CheckStatus::Error,
            format!("{whole} is older than 1.{OLDEST_MINOR}"),
        )),
        None => Err("the API server does not say its version".to_owned()),
    }
}

pub(super) fn clocks(facts: &Facts) -> CheckResult {
    let ahead = facts
        .clock_ahead
        .ok_or("the API server does not say its time")?;
    Ok(if ahead.abs() > MOST_AHEAD {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        (
            CheckStatus::Warning,
            format!(
                "this machine's clock is {} s {side} the API server's",
                ahead.abs()
            ),
        )
    } else {
        (CheckStatus::Ok, "agree".to_owned())
    })
}

pub(super) fn rights(facts: &Facts) -> CheckResult {
    let denied = facts.probes.denied.clone()?;
    Ok(if denied.is_empty() {
        (CheckStatus::Ok, "all that the chart needs".to_owned())
    } else {
        (
            CheckStatus::Error,
            format!("the user may not create {}", denied.join(", ")),
        )
    })
}

pub(super) fn foreign_definitions(facts: &Facts) -> CheckResult {
    let foreign: Vec<String> = facts
        .list("definitions")?
        .iter()
        .filter(|definition| {
            let group = definition["spec"]["group"].as_str().unwrap_or_default();
            group.ends_with(".smi-spec.io") && !is_ours(definition)
        })
        .map(name_of)
        .collect();
    Ok(if foreign.is_empty() {
        (CheckStatus::Ok, "none".to_owned())
    } else {
        (
            CheckStatus::Warning,
            format!("{} belong to another product", few(&foreign)),
        )
    })
}

/// Helm writes the release into what it owns; our definitions are named in its chart.
fn is_ours(definition: &Value) -> bool {
    let labels = &definition["metadata"]["labels"];
    let annotations = &definition["metadata"]["annotations"];
    labels["app.kubernetes.io/part-of"] == "weft"
        || annotations["meta.helm.sh/release-name"]
            .as_str()
            .is_some_and(|release| release.contains("weft"))
}

pub(super) fn aggregation(facts: &Facts) -> CheckResult {
    let Some(map) = facts.existing("aggregation")? else {
        return Ok((
            CheckStatus::Error,
            "ConfigMap extension-apiserver-authentication is missing".to_owned(),
        ));
    };
    let authority = map["data"]["requestheader-client-ca-file"].as_str();
    Ok(match authority {
        Some(pem) if !pem.trim().is_empty() => (CheckStatus::Ok, "is on".to_owned()),
        _ => (
            CheckStatus::Error,
            "the API server has no requestheader-client-ca-file".to_owned(),
        ),
    })
}
