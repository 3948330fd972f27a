//! Whether a release is in force, and its conditions.
//!
//! `Accepted` and `ResolvedRefs` come from compiling, which knows no Deployments: what is wrong
//! with that is added here. `Ready` and `Stalled` are for kstatus, by which `kubectl wait`, Flux
//! and Argo CD read any object: a run is in progress, a refused candidate has failed.

use std::time::Duration;

use automation::release::State;
use crds::weft::ReleasePhase;
use crds::weft::validation::Release;
use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use model::problem::Condition;
use model::world::{ObjectKey, ReleaseFacts};
use policy::name::{Kind, ObjectRef};

use super::context::Around;
use super::fields;
use super::rollouts::Rollout;
use crate::status::apart;

/// What is known of one release, but for its Deployment.
pub(super) struct Known<'a> {
    pub(super) facts: &'a ReleaseFacts,
    pub(super) conditions: Conditions,
}

/// The conditions of one release.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    generation: i64,
    all: Vec<(&'static str, Condition)>,
}

/// What the model has of it; `None`: it does not know this generation of the release yet.
pub(super) fn known<'a>(
    around: Around<'a>,
    key: &ObjectKey,
    object: &DynamicObject,
    conditions: &mut apart::Conditions,
) -> Option<Known<'a>> {
    let facts = around.compiled.world.releases.get(key)?;
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    let generation = object.metadata.generation.unwrap_or(0);
    if (facts.meta.generation, &*facts.meta.uid) != (generation, uid) {
        return None;
    }
    let name = ObjectRef {
        kind: Kind::CanaryRelease,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    };
    let observed = &around.parts.observed;
    let (generation, three) = conditions.update(&name, around.compiled, observed)?;
    Some(Known {
        facts,
        conditions: Conditions {
            generation,
            all: three.to_vec(),
        },
    })
}

impl<'a> Known<'a> {
    /// The release, where it may be carried out: as written, and with a Service to lead the calls
    /// of. What is wrong with its Deployment is not known here.
    pub(super) fn accepted(&self, around: Around<'_>) -> Option<&'a Release> {
        let spec = &self.facts.spec;
        let accepted = around.parts.enabled && self.conditions.is_true(crds::smi::ACCEPTED);
        let services = &around.compiled.world.services;
        (accepted && services.contains_key(&ObjectKey::from(&spec.service))).then_some(spec)
    }
}

impl Conditions {
    pub(super) fn is_true(&self, name: &str) -> bool {
        let found = self.all.iter().find(|(of, _)| *of == name);
        found.is_some_and(|(_, condition)| condition.status)
    }

    fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Condition)) {
        if let Some((_, condition)) = self.all.iter_mut().find(|(of, _)| *of == name) {
            edit(condition);
        }
    }

    /// Adds what is wrong with the Deployment. False: the release cannot be carried out.
    pub(super) fn fits(&mut self, spec: &Release, rollout: Option<&Rollout>) -> bool {
        let name = &spec.deployment;
        let Some(rollout) = rollout else {
            self.edit(crds::smi::RESOLVED_REFS, |condition| {
                condition.status = false;
                condition.reason = "RefNotFound";
                condition.message = format!(
                    "spec.deployment: there is no Deployment {name}: create it, or name another"
                );
            });
            return false;
        };
        if !rollout.is_rolling {
            self.edit(crds::smi::ACCEPTED, |condition| {
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
        self.edit(crds::smi::ACCEPTED, |condition| {
            let compiled = std::mem::take(&mut condition.message);
            let compiled = Some(compiled).filter(|compiled| !compiled.is_empty());
            let all: Vec<String> = compiled.into_iter().chain(warnings).collect();
            condition.message = all.join("; ");
        });
        true
    }

    /// Why the release is not in force, for its summary.
    pub(super) fn obstacle(&self) -> Option<&str> {
        let shown = [crds::smi::ACCEPTED, crds::smi::RESOLVED_REFS];
        let mut shown = self.all.iter().filter(|(name, _)| shown.contains(name));
        let failed = shown.find(|(_, condition)| !condition.status)?;
        Some(failed.1.message.as_str())
    }

    /// As they are stored, with the times of those before.
    pub(super) fn stored(&self, before: &[v1::Condition], now: Timestamp) -> Vec<v1::Condition> {
        fields::dated(&self.all, self.generation, before, now)
    }

    /// Adds `Ready` and `Stalled`. `in_force`: it is carried out; else it cannot be, or is
    /// suspended.
    pub(super) fn add_progress(&mut self, state: &State, in_force: bool) {
        let is_refused = !in_force && self.obstacle().is_some();
        let ended = state.history.first().map(|ended| ended.reason.clone());
        let (ready, stalled, reason, message) = match state.phase {
            _ if is_refused => (false, true, "NotAccepted", String::new()),
            _ if !in_force => (true, false, "Suspended", String::new()),
            ReleasePhase::RolledBack => (false, true, "RolledBack", ended.unwrap_or_default()),
            ReleasePhase::Idle => (true, false, "Idle", String::new()),
            phase => (false, false, phase.as_str(), String::new()),
        };
        let condition = |status, message: &str| Condition {
            status,
            reason,
            message: message.to_owned(),
        };
        self.all.push(("Ready", condition(ready, &message)));
        self.all.push(("Stalled", condition(stalled, &message)));
    }
}
