//! Facts of CanaryReleases and FaultExperiments.
//!
//! Of their statuses only what decides about calls is read: the phase, the revisions, the step and
//! its weight. Counts, evidence and times of looks are no part of a fact, so writing them compiles
//! nothing.

use std::sync::Arc;

use crds::smi::validation::Severity;
use crds::weft::validation::{Experiment, Release};
use crds::weft::{ExperimentPhase, ReleasePhase};

use super::{fact::Fact, smi::Meta};

/// A CanaryRelease.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReleaseFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// What is configured; a mistake costs all of it.
    pub spec: Release,
    /// What its status orders.
    pub order: ReleaseOrder,
}

impl ReleaseFacts {
    /// What it says, where it may have an effect, as far as it can be evaluated by itself.
    #[must_use]
    pub fn effective(&self) -> Option<&Release> {
        (!self.spec.suspend && is_valid(&self.meta)).then_some(&self.spec)
    }
}

impl Fact for ReleaseFacts {
    /// A weight that falls takes calls from a candidate that may harm them.
    fn urgent(old: Option<&Self>, new: Option<&Self>) -> bool {
        let candidate = |facts: &Self| facts.order.candidate.clone();
        let Some(old) = old.filter(|old| old.order.leads_calls()) else {
            return false;
        };
        new.is_none_or(|new| {
            new.order.phase != old.order.phase
                || new.order.weight < old.order.weight
                || candidate(new) != candidate(old)
        })
    }
}

/// What a CanaryRelease's status orders. It was written by the driver, after it decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReleaseOrder {
    /// Where the release is.
    pub phase: ReleasePhase,
    /// The `pod-template-hash` before the run.
    pub stable: Option<Arc<str>>,
    /// The one that the run is about. Pods of any other revision are stable.
    pub candidate: Option<Arc<str>>,
    /// The step in force, counted from 1 as users read it; 0 for none.
    pub step: u32,
    /// What the candidate gets at most, in percent: the step's weight, 0 in a mirror step, 100
    /// while promoting; after a rollback 0, or what stable pods that had gone already cannot
    /// carry. Compiling caps it by the pods that serve.
    pub weight: u8,
}

impl ReleaseOrder {
    /// Whether the release leads the calls to its Service.
    #[must_use]
    pub fn leads_calls(&self) -> bool {
        let led = self.is_run() || self.phase == ReleasePhase::RolledBack;
        led && self.candidate.is_some()
    }

    /// Whether the pods of both revisions are counted each second: also before the first step,
    /// which compares with the calls of the minute before.
    #[must_use]
    pub fn counts(&self) -> bool {
        let counted = self.is_run() || self.phase == ReleasePhase::Waiting;
        counted && self.candidate.is_some()
    }

    /// Whether calls are led to a new revision.
    #[must_use]
    pub const fn is_run(&self) -> bool {
        matches!(
            self.phase,
            ReleasePhase::Progressing | ReleasePhase::Paused | ReleasePhase::Promoting
        )
    }
}

/// A FaultExperiment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExperimentFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// What is configured; a mistake costs all of it.
    pub spec: Experiment,
    /// What its status orders. It is no permission: compiling checks again who may.
    pub order: ExperimentOrder,
}

impl ExperimentFacts {
    /// What it says, where it may have an effect, as far as it can be evaluated by itself.
    #[must_use]
    pub fn effective(&self) -> Option<&Experiment> {
        (!self.spec.suspend && is_valid(&self.meta)).then_some(&self.spec)
    }
}

impl Fact for ExperimentFacts {
    /// A run that ends takes its harm with it.
    fn urgent(old: Option<&Self>, new: Option<&Self>) -> bool {
        let Some(old) = old.filter(|old| old.order.phase == ExperimentPhase::Running) else {
            return false;
        };
        new.is_none_or(|new| new.order != old.order || new.spec != old.spec)
    }
}

/// What a FaultExperiment's status orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExperimentOrder {
    /// Where the experiment is.
    pub phase: ExperimentPhase,
    /// The number of the run, `status.run.number`; 0 for none.
    pub run: i64,
    /// When the run ends at the latest, in seconds since 1970; `None` without a run, or where
    /// `status.run.endsAt` is no time.
    pub ends_at: Option<i64>,
}

impl ExperimentOrder {
    /// Whether the pods of the checked Services are counted each second: also while the run looks
    /// at them before it harms.
    #[must_use]
    pub const fn counts(&self) -> bool {
        self.phase.is_under_way()
    }
}

fn is_valid(meta: &Meta) -> bool {
    let mut mistakes = meta.mistakes.iter();
    mistakes.all(|mistake| mistake.severity != Severity::Refuse)
}
