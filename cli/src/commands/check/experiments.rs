//! Checks whether a FaultExperiment harms calls at the moment: what looks like a fault of the mesh
//! may be one that is meant.

use std::time::{Duration, SystemTime};

use crds::labels::FAULTS;
use crds::weft::{ExperimentPhase, FAULT_EXPERIMENTS, FaultLimit, parse_faults};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::facts::{CheckResult, CheckStatus, Facts, few, name_of};

/// A controller ends a run within a second; another one takes the Lease within 17 s.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn faults_running(facts: &Facts) -> CheckResult {
    let experiments = facts.list(FAULT_EXPERIMENTS)?;
    let running = experiments.iter().filter(|one| is_running(one));
    let running: Vec<&Value> = running.collect();
    let stopped = if is_stopped(facts) {
        "; all of them are stopped, which weft fault allow --all ends"
    } else {
        ""
    };
    if running.is_empty() {
        let all = experiments.len();
        return Ok((CheckStatus::Ok, format!("{all} experiments{stopped}")));
    }
    let named: Vec<String> = running.iter().map(|one| shown(one, facts.now)).collect();
    Ok((
        CheckStatus::Warning,
        format!("calls fail on purpose: {}{stopped}", few(&named)),
    ))
}

fn is_running(experiment: &Value) -> bool {
    experiment["status"]["phase"] == ExperimentPhase::Running.as_str()
}

/// Whether annotation `weft.dev/faults` of the mesh's namespace stops all, as far as it may be
/// seen. A value that cannot be read does, too.
fn is_stopped(facts: &Facts) -> bool {
    let Ok(namespaces) = facts.list("namespaces") else {
        return false;
    };
    let mut namespaces = namespaces.iter();
    let mesh = namespaces.find(|one| one["metadata"]["name"] == *facts.weft);
    let annotation = mesh.and_then(|mesh| mesh["metadata"]["annotations"][FAULTS].as_str());
    annotation.is_some_and(|text| !matches!(parse_faults(text), Ok(FaultLimit::UpTo(_))))
}

fn shown(experiment: &Value, now: SystemTime) -> String {
    let name = name_of(experiment);
    let target = experiment["spec"]["targetRef"]["name"].as_str();
    let target = target.unwrap_or_default();
    let share = experiment["spec"]["share"].as_str().unwrap_or_default();
    let ends = experiment["status"]["run"]["endsAt"].as_str();
    let ends = ends.and_then(|ends| ends.parse::<Timestamp>().ok());
    match ends.map(|ends| now.duration_since(SystemTime::from(ends))) {
        Some(Ok(past)) if past > ENDED_WITHIN => format!(
            "{name} should have ended {} s ago, and harms nothing any more, but no controller \
             says so",
            past.as_secs()
        ),
        _ => format!("{name} harms {share} of the calls to {target}"),
    }
}
