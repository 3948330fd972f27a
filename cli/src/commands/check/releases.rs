//! Checks of the readiness gates by which CanaryReleases hold pods of a new revision.
//!
//! Only the controller opens a gate. Pods that no release holds, and whose gate stays shut all the
//! same, become ready never: after an uninstall without the chart's hook, for example.

use std::collections::BTreeSet;
use std::time::Duration;

use crds::labels::{POD_TEMPLATE_HASH, RELEASED_CONDITION};
use crds::restart::Owner;
use crds::smi::{ACCEPTED, RESOLVED_REFS};
use crds::weft::{CANARY_RELEASES, ReleasePhase, ReleaseResult};
use serde_json::Value;

use super::data::{is_being_deleted, is_over};
use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};

/// The controller opens gates that no release holds within seconds.
const OPENED_WITHIN: Duration = Duration::from_secs(60);

/// The reason of condition Accepted where pods have no proxy.
const NOT_ENFORCED: &str = "NotEnforced";

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
        let ways_out = shut.iter().filter_map(|pod| way_out(releases, pod));
        let ways_out: BTreeSet<String> = ways_out.collect();
        let ways_out: Vec<String> = ways_out.into_iter().collect();
        return Ok((
            CheckStatus::Error,
            format!(
                "{} pods wait for a gate that nothing opens: {}; {}",
                names.len(),
                few(&names),
                few(&ways_out)
            ),
        ));
    }
    let refused = releases.iter().filter_map(|release| {
        rolled_back(release, &pods).or_else(|| {
            let warning = let_through(release, &pods).or_else(|| checks_nothing(release));
            Some((true, warning?))
        })
    });
    let (served, refused): (Vec<bool>, Vec<String>) = refused.unzip();
    Ok(if refused.is_empty() {
        (
            CheckStatus::Ok,
            format!("{} releases, {gated} gated pods", releases.len()),
        )
    } else if served.contains(&false) {
        (CheckStatus::Error, few(&refused))
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
    let workload = Owner::of(pod).and_then(|owner| owner.restartable());
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

/// The command that ends the wait of a pod: it replaces one of a refused revision by one of the
/// revision before, and any other by one without a gate.
fn way_out(releases: &[Value], pod: &Value) -> Option<String> {
    let mut releases = releases.iter();
    let is_refused = releases.any(|release| {
        let is_rolled_back = release["status"]["phase"] == ReleasePhase::RolledBack.as_str();
        let refused = &release["status"]["candidate"]["revision"];
        is_rolled_back && is_about(release, pod) && is_of(pod, refused)
    });
    rollout(if is_refused { "undo" } else { "restart" }, pod)
}

fn rollout(verb: &str, pod: &Value) -> Option<String> {
    let namespace = text(&pod["metadata"]["namespace"]);
    let workload = Owner::of(pod)?.restartable()?;
    Some(format!("kubectl -n {namespace} rollout {verb} {workload}"))
}

fn is_of(pod: &Value, revision: &Value) -> bool {
    revision.is_string() && pod["metadata"]["labels"][POD_TEMPLATE_HASH] == *revision
}

/// How many pods serve while a revision is refused, and whether any does: Kubernetes puts a part of
/// the pods of a Deployment that is scaled up into it, and all of one that is scaled from 0.
fn rolled_back(release: &Value, pods: &[&Value]) -> Option<(bool, String)> {
    let status = &release["status"];
    if status["phase"] != ReleasePhase::RolledBack.as_str() {
        return None;
    }
    let own = pods.iter().copied().filter(|pod| is_about(release, pod));
    let own: Vec<&Value> = own.collect();
    let serving = own.iter().filter(|pod| is_true(pod, "Ready")).count();
    let revision = &status["candidate"]["revision"];
    let refused = own.iter().filter(|pod| is_of(pod, revision)).count();
    let undo = own.first().and_then(|pod| rollout("undo", pod));
    let undo = undo.map(|undo| format!("; {undo}")).unwrap_or_default();
    Some((
        serving > 0 || own.is_empty(),
        format!(
            "{}: {serving} of {} pods serve, {refused} are of the refused revision {}{undo}",
            name_of(release),
            own.len(),
            text(revision)
        ),
    ))
}

/// What is said of a revision that was refused and whose gates have opened all the same, while pods
/// of it are there.
fn let_through(release: &Value, pods: &[&Value]) -> Option<String> {
    let history = &release["status"]["history"];
    let (last, before) = (&history[0], &history[1]);
    let was_refused = before["result"] == ReleaseResult::RolledBack.as_str()
        && ["number", "revision"]
            .iter()
            .all(|field| before[field] == last[field]);
    if !was_refused || last["result"] != ReleaseResult::Bypassed.as_str() {
        return None;
    }
    let namespace = &release["metadata"]["namespace"];
    let mut own = pods
        .iter()
        .filter(|pod| pod["metadata"]["namespace"] == *namespace);
    let pod = own.find(|pod| is_of(pod, &last["revision"]))?;
    Some(format!(
        "{}: refused revision {} serves: {}; {}",
        name_of(release),
        text(&last["revision"]),
        text(&last["reason"]),
        rollout("undo", pod)?
    ))
}

/// What is said of a release that looks healthy and has no calls to check: its Service or its
/// Deployment is missing or does not fit, or pods are outside the mesh.
fn checks_nothing(release: &Value) -> Option<String> {
    if release["spec"]["suspend"] == true {
        return None;
    }
    let unresolved = condition(release, RESOLVED_REFS).filter(|one| one["status"] == "False");
    let outside = condition(release, ACCEPTED).filter(|one| one["reason"] == NOT_ENFORCED);
    let message = text(&unresolved.or(outside)?["message"]);
    Some(format!("{}: {message}", name_of(release)))
}
