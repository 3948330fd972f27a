//! The validation webhook: refuses objects of SMI and of Weft that are invalid by themselves.
//!
//! `crds` validates, and the controller validates again: this webhook may be unreachable, and
//! objects may be older than it. A reference to a missing object is no error here: objects may
//! come in any order.

use crds::names;
use crds::smi::validation::{Cluster, Mistake, Severity, ValidationContext};
use crds::weft::{self, CanaryRelease, ExperimentPhase, FaultExperiment, ReleasePhase};
use kube::Resource as _;
use serde_json::Value;

use crate::review::{AdmissionResponse, Request};

/// Most validation errors that one answer names.
const MOST_MISTAKES: usize = 10;

/// The answer for one object.
pub(crate) fn validate(request: &Request, cluster: &Cluster) -> AdmissionResponse {
    if !concerns_us(request) {
        return AdmissionResponse::allow();
    }
    let at = cluster.around(&request.namespace);
    let Some(mistakes) = validated(request, &at) else {
        // It reaches us only through a wrong selector.
        let kind: String = request.kind.kind.chars().take(80).collect();
        return refusal(
            request,
            &format!("kind: {kind:?} is not a kind that Weft serves"),
        );
    };
    if changes_running_experiment(request) {
        let why = "spec: only suspend may change while the experiment runs; wait for its end, or \
                   set suspend to true first, which ends it";
        return refusal(request, why);
    }
    let named = |severity: Severity| {
        let mistakes = mistakes.iter();
        let mistakes = mistakes.filter(move |mistake| mistake.severity == severity);
        mistakes.map(|mistake| format!("{}: {}", mistake.field, mistake.text))
    };
    let mut refused: Vec<String> = named(Severity::Refuse).collect();
    if refused.is_empty() {
        let kind = &request.kind;
        let unread = names::warnings(&kind.group, &kind.kind, &request.object).into_iter();
        let unread = unread.map(|one| format!("{}: {}", one.field, one.text));
        return AdmissionResponse {
            warnings: named(Severity::Warn)
                .chain(unread)
                .chain(changes_releases_run(request))
                .collect(),
            ..AdmissionResponse::allow()
        };
    }
    let more = refused.len().saturating_sub(MOST_MISTAKES);
    if more > 0 {
        refused.truncate(MOST_MISTAKES);
        refused.push(format!("and {more} more"));
    }
    refusal(request, &refused.join("; "))
}

fn refusal(request: &Request, why: &str) -> AdmissionResponse {
    let kind: String = request.kind.kind.chars().take(80).collect();
    let name = &request.name;
    let whose = match request.namespace.as_str() {
        // Of no namespace, such as a Revocation.
        "" => name.clone(),
        namespace => format!("{namespace}/{name}"),
    };
    AdmissionResponse::refuse(format!("{kind} {whose} is invalid: {why}"))
}

/// Whether this write changes the object's spec. An object that was stored when it was still valid,
/// or while this webhook was away, must stay deletable, and its labels, finalizers and status
/// changeable.
fn concerns_us(request: &Request) -> bool {
    let applies = matches!(request.operation.as_str(), "CREATE" | "UPDATE");
    let itself = request.sub_resource.as_deref().is_none_or(str::is_empty);
    let spec_changed = request.old_object.is_null()
        || request.object.get("spec") != request.old_object.get("spec");
    let going = request
        .object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|t| !t.is_null());
    applies && itself && spec_changed && !going
}

/// Whether another field than `suspend` changes while calls are harmed: the run would not be about
/// what its report says. The controller ends such a run, should this webhook be away.
fn changes_running_experiment(request: &Request) -> bool {
    let kind = &request.kind;
    let is_experiment = kind.group == weft::GROUP && kind.kind == FaultExperiment::kind(&());
    let phase = request.old_object.pointer("/status/phase");
    let is_running = phase.is_some_and(|phase| *phase == *ExperimentPhase::Running.as_str());
    let spec = |object: &Value| {
        let mut spec = object.get("spec").cloned().unwrap_or_default();
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("suspend");
        }
        spec
    };
    is_experiment && is_running && spec(&request.object) != spec(&request.old_object)
}

/// What it means that the release gets another Deployment or Service while it has a run, or a
/// revision that it refused. It is no refusal: GitOps may take both away together.
fn changes_releases_run(request: &Request) -> Vec<String> {
    let kind = &request.kind;
    let old = &request.old_object;
    let phase = old.pointer("/status/phase").and_then(Value::as_str);
    let is_idle = phase.is_none_or(|phase| phase == ReleasePhase::Idle.as_str());
    if kind.group != weft::GROUP || kind.kind != CanaryRelease::kind(&()) || is_idle {
        return Vec::new();
    }
    let text = |object: &Value, field: &str| {
        let value = object.get("spec").and_then(|spec| spec.get(field));
        let value = value.and_then(Value::as_str).unwrap_or_default();
        value.chars().take(253).collect::<String>()
    };
    let changed = [
        ("deployment", "if that is not the one of the run"),
        ("service", "if there is no such Service"),
    ];
    let changed = changed.into_iter().filter_map(|(field, when)| {
        let (was, is) = (text(old, field), text(&request.object, field));
        (was != is).then(|| {
            format!(
                "spec.{field}: changes from {was} to {is} while the release is {}: {when}, the \
                 run ends after 60 s and all pods of the new revision serve without checks; name \
                 {was} again, or revert the Deployment first",
                phase.unwrap_or_default()
            )
        })
    });
    changed.collect()
}

/// What is wrong with the object; `None` if its kind is none of ours.
fn validated(request: &Request, at: &ValidationContext<'_>) -> Option<Vec<Mistake>> {
    let kind = &request.kind;
    crds::validate::object(&kind.group, &kind.kind, request.object.get("spec"), at)
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod automation;
#[cfg(test)]
mod external;
#[cfg(test)]
mod files;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod traffic;
