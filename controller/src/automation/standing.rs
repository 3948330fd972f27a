//! Decides whether a CanaryRelease is in force: by its conditions, and by its Deployment.
//!
//! The Model knows no Deployments, so what is wrong with one is added to the conditions here. The
//! conditions `Ready` and `Stalled` show a run as progress, and a refused candidate as a failure.

use std::time::Duration;

use automation::release::State;
use crds::weft::ReleasePhase;
use crds::weft::validation::Release;
use kube::core::DynamicObject;
use model::world::{ObjectKey, ReleaseFacts};
use policy::name::Kind;

use super::conditions::Conditions;
use super::context::Around;
use super::rollouts::Rollout;
use crate::status::apart;

/// What is known of one release, but for its Deployment.
pub(super) struct Known<'a> {
    pub(super) facts: &'a ReleaseFacts,
    pub(super) conditions: Conditions,
}

/// What the model has of it; `None`: it does not know this generation of the release yet.
pub(super) fn known<'a>(
    around: Around<'a>,
    key: &ObjectKey,
    object: &DynamicObject,
    kept: &mut apart::Conditions,
) -> Option<Known<'a>> {
    let facts = around.compiled.world.releases.get(key)?;
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or(0);
    if (facts.meta.generation, &*facts.meta.uid) != (generation, uid) {
        return None;
    }
    let conditions = Conditions::of(
        kept,
        Kind::CanaryRelease,
        key,
        around.compiled,
        &around.parts.observed,
    )?;
    Some(Known { facts, conditions })
}

impl Known<'_> {
    /// Whether the release may be carried out as it is written. Whether its Service and its
    /// Deployment are there is another question.
    pub(super) fn is_accepted(&self, around: Around<'_>) -> bool {
        around.parts.enabled && self.conditions.is_true(crds::smi::ACCEPTED)
    }
}

/// Whether there is a Service to lead the calls of; compiling has said so in the conditions.
pub(super) fn has_service(around: Around<'_>, spec: &Release) -> bool {
    let services = &around.compiled.world.services;
    services.contains_key(&ObjectKey::from(&spec.service))
}

/// Adds that the run is of another Deployment than the one that the spec names by now.
pub(super) fn refuse_other(conditions: &mut Conditions, spec: &Release) {
    conditions.edit(crds::smi::RESOLVED_REFS, |condition| {
        condition.status = false;
        condition.reason = "RefNotFound";
        condition.message = format!(
            "spec.deployment: the run is not of Deployment {}: name the one that it is of again",
            spec.deployment
        );
    });
}

/// Adds what is wrong with the Deployment. False: the release cannot be carried out.
pub(super) fn fits(conditions: &mut Conditions, spec: &Release, rollout: Option<&Rollout>) -> bool {
    let name = &spec.deployment;
    let Some(rollout) = rollout else {
        conditions.edit(crds::smi::RESOLVED_REFS, |condition| {
            condition.status = false;
            condition.reason = "RefNotFound";
            condition.message = format!(
                "spec.deployment: there is no Deployment {name}: create it, or name another"
            );
        });
        return false;
    };
    if !rollout.is_rolling {
        conditions.edit(crds::smi::ACCEPTED, |condition| {
            condition.status = false;
            condition.reason = "UnsupportedStrategy";
            condition.message = format!(
                "spec.deployment: the strategy of {name} is not RollingUpdate, so old and new \
                 pods never serve together: set spec.strategy.type of the Deployment"
            );
        });
        return false;
    }
    let steps: Duration = spec.steps.iter().map(|step| step.duration).sum();
    let mut warnings = Vec::new();
    if rollout.may_lack_pods {
        warnings.push(format!(
            "maxUnavailable of {name} is not 0, so pods are missing during the whole run: set \
             it to 0"
        ));
    }
    if steps > rollout.progress_deadline {
        warnings.push(format!(
            "the steps take {} s and progressDeadlineSeconds of {name} is {}, so kubectl \
             rollout status fails during the run: raise it",
            steps.as_secs(),
            rollout.progress_deadline.as_secs()
        ));
    }
    conditions.edit(crds::smi::ACCEPTED, |condition| {
        let compiled = std::mem::take(&mut condition.message);
        let compiled = Some(compiled).filter(|compiled| !compiled.is_empty());
        let all: Vec<String> = compiled.into_iter().chain(warnings).collect();
        condition.message = all.join("; ");
    });
    true
}

/// Adds `Ready` and `Stalled`. `in_force`: the release is carried out; else it cannot be, or is
/// suspended.
pub(super) fn add_progress(conditions: &mut Conditions, state: &State, in_force: bool) {
    let is_refused = !in_force && conditions.failed().is_some();
    let ended = state.history.first().map(|ended| ended.reason.as_str());
    let (progress, reason, message) = match state.phase {
        _ if is_refused => ((false, true), "NotAccepted", ""),
        _ if !in_force => ((true, false), "Suspended", ""),
        ReleasePhase::RolledBack => ((false, true), "RolledBack", ended.unwrap_or_default()),
        ReleasePhase::Idle => ((true, false), "Idle", ""),
        phase => ((false, false), phase.as_str(), ""),
    };
    conditions.add_progress(progress, reason, message);
}
