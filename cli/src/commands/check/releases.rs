//! Checks of the readiness gates by which CanaryReleases hold pods of a new revision.
//!
//! Only the controller opens a gate. Pods that no release holds, and whose gate stays shut all the
//! same, become ready never: after an uninstall without the chart's hook, for example.

use std::collections::BTreeSet;
use std::time::Duration;

use crds::labels::{POD_TEMPLATE_HASH, RELEASED_CONDITION};
use crds::smi::ACCEPTED;
use crds::weft::{CANARY_RELEASES, ReleasePhase};
use serde_json::Value;

use super::data::{is_being_deleted, is_over};
use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};
use crate::commands::restart::workload;

/// The controller opens gates that no release holds within seconds.
const OPENED_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn release_gates(facts: &Facts) -> CheckResult {
    let releases = facts.list(CANARY_RELEASES)?;
    let pods = facts.list("pods")?.iter();
    let pods: Vec<&Value> = pods
        .filter(|pod| !is_over(pod) && !is_being_deleted(pod))
        .collect();
    // A user may see the pods and not the mesh's own namespace.
    let is_driven = !matches!(facts.existing("controller"), Ok(None));
    let held = |pod: &Value| is_driven && releases.iter().any(|release| holds(release, pod));
    let gated = pods.iter().copied().filter(|pod| is_gated(pod)).count();
    let shut: Vec<&Value> = pods
        .iter()
        .copied()
        .filter(|pod| stays_shut(facts, pod) && !held(pod))
        .collect();
    if !shut.is_empty() {
        let names: Vec<String> = shut.iter().map(|pod| name_of(pod)).collect();
        let restarts: BTreeSet<String> = shut.iter().filter_map(|pod| restart(pod)).collect();
        let restarts: Vec<String> = restarts.into_iter().collect();
        return Ok((
            CheckStatus::Error,
            format!(
                "{} pods wait for a gate that nothing opens: {}; {}",
                names.len(),
                few(&names),
                few(&restarts)
            ),
        ));
    }
    let refused: Vec<String> = releases
        .iter()
        .filter_map(|release| rolled_back(release, &pods))
        .collect();
    Ok(if refused.is_empty() {
        (
            CheckStatus::Ok,
            format!("{} releases, {gated} gated pods", releases.len()),
        )
    } else {
        (CheckStatus::Warning, few(&refused))
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is_gated(pod: &Value) -> bool {
    let gates = pod["spec"]["readinessGates"].as_array();
    let mut gates = gates.into_iter().flatten();
    gates.any(|gate| gate["conditionType"] == RELEASED_CONDITION)
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|one| one["type"] == name)
}

fn is_true(object: &Value, name: &str) -> bool {
    condition(object, name).is_some_and(|one| one["status"] == "True")
}

/// Whether all containers have been ready for long and the gate alone keeps the pod from being so.
fn stays_shut(facts: &Facts, pod: &Value) -> bool {
    let ready = condition(pod, "ContainersReady").filter(|one| one["status"] == "True");
    let since = ready.map(|one| text(&one["lastTransitionTime"]));
    is_gated(pod)
        && !is_true(pod, RELEASED_CONDITION)
        && since
            .and_then(|since| facts.ago(since))
            .is_some_and(|ago| ago > OPENED_WITHIN)
}

/// Whether a release is about the pods of this one's Deployment.
fn is_about(release: &Value, pod: &Value) -> bool {
    let workload = workload(pod);
    let deployment = workload
        .as_deref()
        .and_then(|one| one.strip_prefix("deployment/"));
    release["metadata"]["namespace"] == pod["metadata"]["namespace"]
        && deployment.is_some_and(|name| release["spec"]["deployment"] == name)
}

/// Whether a release that is in force has a run, which holds this pod.
fn holds(release: &Value, pod: &Value) -> bool {
    let phase = ReleasePhase::named(text(&release["status"]["phase"]));
    let is_refused = condition(release, ACCEPTED).is_some_and(|one| one["status"] == "False");
    is_about(release, pod)
        && release["spec"]["suspend"] != true
        && !is_refused
        && phase.is_some_and(|phase| phase != ReleasePhase::Idle)
}

/// The command that replaces a pod by one without a gate.
fn restart(pod: &Value) -> Option<String> {
    let namespace = text(&pod["metadata"]["namespace"]);
    let workload = workload(pod)?;
    Some(format!("kubectl -n {namespace} rollout restart {workload}"))
}

/// How many pods serve while a revision is refused: Kubernetes puts a part of the pods of a
/// Deployment that is scaled up into it.
fn rolled_back(release: &Value, pods: &[&Value]) -> Option<String> {
    let status = &release["status"];
    if status["phase"] != ReleasePhase::RolledBack.as_str() {
        return None;
    }
    let own = pods.iter().filter(|pod| is_about(release, pod));
    let serving = own.clone().filter(|pod| is_true(pod, "Ready")).count();
    let refused = own
        .clone()
        .filter(|pod| {
            pod["metadata"]["labels"][POD_TEMPLATE_HASH] == status["candidate"]["revision"]
        })
        .count();
    Some(format!(
        "{}: {serving} of {} pods serve, {refused} are of the refused revision {}",
        name_of(release),
        own.count(),
        text(&status["candidate"]["revision"])
    ))
}
