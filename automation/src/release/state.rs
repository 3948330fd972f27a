//! The state that a CanaryRelease persists in its status: the phase, the two revisions, the run
//! with its evidence, and the last runs.

use std::time::Duration;

use crds::weft::validation::{Release, ReleaseStep};
use crds::weft::{ReleasePhase, ReleaseResult};

use super::evidence::Evidence;

/// Runs that a history keeps.
pub const HISTORY: usize = 10;

/// A release as its status has it. Times are since 1970; all but `unsaved` is persisted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub phase: ReleasePhase,
    /// `pod-template-hash` of the revision that all calls went to before the run.
    pub stable: Option<String>,
    /// Of the revision that is released, or was rolled back.
    pub candidate: Option<String>,
    /// Also of a run that was rolled back, until another one starts or the release is idle.
    pub run: Option<Run>,
    /// The newest first, at most [`HISTORY`].
    pub history: Vec<Ended>,
    /// What a controller that takes over begins anew: `Unsaved::default()`.
    pub unsaved: Unsaved,
}

impl State {
    /// Puts the run at the head of the history, and returns what is written there; `None` without a
    /// run. The phase follows from the caller.
    pub fn end(
        &mut self,
        result: ReleaseResult,
        reason: String,
        by: Option<String>,
        now: Duration,
    ) -> Option<Ended> {
        let (run, candidate) = (self.run.as_ref()?, self.candidate.as_ref()?);
        let total = run.evidence.total;
        let ended = Ended {
            number: run.number,
            revision: candidate.clone(),
            result,
            reason,
            by,
            started: run.started,
            ended: now,
            requests: total.calls,
            bad: total.bad,
        };
        self.history.insert(0, ended.clone());
        self.history.truncate(HISTORY);
        Some(ended)
    }

    /// The end of the last run, if that was rolled back first and its gates opened all the same.
    #[must_use]
    pub fn let_through(&self) -> Option<&Ended> {
        let [last, before, ..] = self.history.as_slice() else {
            return None;
        };
        let is_same = last.number == before.number && last.revision == before.revision;
        let was_refused = is_same && before.result == ReleaseResult::RolledBack;
        (was_refused && last.result == ReleaseResult::Bypassed).then_some(last)
    }
}

/// One candidate from its first pod to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Counts the runs of a release from 1.
    pub number: u64,
    /// Counted from 1; 0 before the first. It stays at the last one in Promoting.
    pub step: usize,
    /// Percent of calls, before the cap by pods.
    pub weight: u8,
    pub started: Duration,
    /// When the step started: all proxies have its route, or 30 s have passed. `None` before that.
    pub step_started: Option<Duration>,
    /// When the pause started that is in force. In Promoting no gate opens until it ends.
    pub paused_at: Option<Duration>,
    /// All pauses that have ended.
    pub paused: Duration,
    /// Field manager of the command that last changed the run.
    pub by: Option<String>,
    /// `run.state` of the status, by [`Evidence::to_text`] and [`Evidence::of_text`].
    pub evidence: Evidence,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub number: u64,
    pub revision: String,
    pub result: ReleaseResult,
    pub reason: String,
    /// Field manager of the command that ended it.
    pub by: Option<String>,
    pub started: Duration,
    pub ended: Duration,
    /// Calls that the candidate got, and those of them that failed.
    pub requests: u64,
    pub bad: u64,
}

/// Since when something has been so, by this controller alone: a successor looks for itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unsaved {
    pub(super) no_stable_since: Option<Duration>,
    pub(super) no_candidate_since: Option<Duration>,
    /// When the present step was entered.
    pub(super) entered: Option<Duration>,
    /// The last Event about too few requests in it.
    pub(super) warned: Option<Duration>,
    pub(super) looked: Option<Duration>,
    /// Calls of both sets and the seconds in which they came, the older the less.
    pub(super) calls: f64,
    pub(super) seconds: f64,
}

impl Unsaved {
    /// Calls in a second, where any are known.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.seconds > 0.0 && self.calls > 0.0).then(|| self.calls / self.seconds)
    }
}

impl Run {
    /// The step that it is in. `None` before the first, and where the release has fewer by now.
    #[must_use]
    pub fn present<'a>(&self, spec: &'a Release) -> Option<&'a ReleaseStep> {
        spec.steps.get(self.step.checked_sub(1)?)
    }

    /// How long it has taken, without its pauses.
    #[must_use]
    pub fn active(&self, now: Duration) -> Duration {
        let pause = self
            .paused_at
            .map_or(Duration::ZERO, |at| now.saturating_sub(at));
        now.saturating_sub(self.started)
            .saturating_sub(self.paused)
            .saturating_sub(pause)
    }
}
