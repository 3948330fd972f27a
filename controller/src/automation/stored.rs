//! Reads the state of a CanaryRelease from its status, and writes it there.
//!
//! The status is all that the next holder of the Lease goes on from. What cannot be read in it
//! begins anew: only this controller may write it, so that is a status of a later version, or one
//! that was forged.

use std::time::Duration;

use automation::release::{CheckReport, Ended, Evidence, HISTORY, Run, State};
use crds::weft::{
    CanaryReleaseStatus, ReleaseCheck, ReleaseHistory, ReleasePhase, ReleaseResult, ReleaseRun,
    RevisionStatus,
};

use super::fields::{counts, rfc3339, signed, text, time, unsigned};

/// The state that a status has. A run without a time began `now`.
pub(super) fn state(status: &CanaryReleaseStatus, now: Duration) -> State {
    let revision = |one: &Option<RevisionStatus>| {
        let revision = one.as_ref().map(|one| one.revision.clone());
        revision.filter(|revision| !revision.is_empty())
    };
    let phase = status.phase.as_deref().and_then(ReleasePhase::named);
    let history = status.history.iter().filter_map(ended);
    State {
        phase: phase.unwrap_or_default(),
        stable: revision(&status.stable),
        candidate: revision(&status.candidate),
        run: status.run.as_ref().map(|stored| run(stored, now)),
        history: history.take(HISTORY).collect(),
        ..State::default()
    }
}

fn run(stored: &ReleaseRun, now: Duration) -> Run {
    Run {
        number: unsigned(stored.number),
        step: usize::try_from(stored.step).unwrap_or(0),
        weight: u8::try_from(stored.weight.clamp(0, 100)).unwrap_or(0),
        started: time(stored.started_at.as_deref()).unwrap_or(now),
        step_started: time(stored.step_started_at.as_deref()),
        paused_at: time(stored.paused_at.as_deref()),
        paused: Duration::from_secs(unsigned(stored.paused_seconds)),
        by: stored.by.clone(),
        evidence: Evidence::of_text(stored.state.as_deref().unwrap_or_default()),
    }
}

fn ended(stored: &ReleaseHistory) -> Option<Ended> {
    Some(Ended {
        number: unsigned(stored.number),
        revision: stored.revision.clone(),
        result: ReleaseResult::named(&stored.result)?,
        reason: stored.reason.clone().unwrap_or_default(),
        by: stored.by.clone(),
        started: time(stored.started_at.as_deref()).unwrap_or_default(),
        ended: time(stored.ended_at.as_deref()).unwrap_or_default(),
        requests: unsigned(stored.requests),
        bad: unsigned(stored.bad),
    })
}

/// What a look shows beside the state.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) summary: String,
    pub(super) checks: Vec<CheckReport>,
    /// How many steps the release has.
    pub(super) steps: usize,
    /// Pods that serve, of the stable revisions and of the candidate.
    pub(super) pods: (usize, usize),
    /// The last command that was honoured.
    pub(super) last_command: Option<String>,
}

/// The status to write, but for its conditions.
pub(super) fn written(state: &State, shown: &Shown) -> CanaryReleaseStatus {
    let revision = |revision: &Option<String>, pods: usize| {
        revision.as_ref().map(|revision| RevisionStatus {
            revision: revision.clone(),
            pods: signed(pods),
        })
    };
    let step = state.run.as_ref().map(|run| run.step);
    let step = step.filter(|step| *step > 0);
    CanaryReleaseStatus {
        phase: Some(state.phase.as_str().to_owned()),
        summary: text(&shown.summary),
        progress: step.map(|step| format!("{step}/{}", shown.steps)),
        stable: revision(&state.stable, shown.pods.0),
        candidate: revision(&state.candidate, shown.pods.1),
        run: state.run.as_ref().map(written_run),
        checks: shown.checks.iter().map(written_check).collect(),
        history: state.history.iter().take(HISTORY).map(history).collect(),
        last_command: shown.last_command.clone(),
        conditions: Vec::new(),
    }
}

fn written_run(run: &Run) -> ReleaseRun {
    ReleaseRun {
        number: signed(run.number),
        step: signed(run.step),
        weight: i64::from(run.weight),
        started_at: Some(rfc3339(run.started)),
        step_started_at: run.step_started.map(rfc3339),
        paused_at: run.paused_at.map(rfc3339),
        paused_seconds: signed(run.paused.as_secs()),
        by: run.by.clone(),
        state: text(&run.evidence.to_text()),
    }
}

fn written_check(check: &CheckReport) -> ReleaseCheck {
    ReleaseCheck {
        name: check.name.to_owned(),
        verdict: Some(check.verdict.as_str().to_owned()),
        evidence: text(&check.evidence),
        stable: check.stable.map(counts),
        candidate: check.candidate.map(counts),
    }
}

fn history(ended: &Ended) -> ReleaseHistory {
    ReleaseHistory {
        number: signed(ended.number),
        revision: ended.revision.clone(),
        result: ended.result.as_str().to_owned(),
        reason: text(&ended.reason),
        by: ended.by.clone(),
        started_at: Some(rfc3339(ended.started)),
        ended_at: Some(rfc3339(ended.ended)),
        requests: signed(ended.requests),
        bad: signed(ended.bad),
    }
}

/// What of a status changes by itself: times left, counts and evidence.
pub(super) fn without_counts(status: &CanaryReleaseStatus) -> CanaryReleaseStatus {
    let mut rest = status.clone();
    rest.summary = None;
    rest.checks.clear();
    let revisions = [&mut rest.stable, &mut rest.candidate];
    for revision in revisions.into_iter().flatten() {
        revision.pods = 0;
    }
    if let Some(run) = &mut rest.run {
        run.state = None;
    }
    for condition in &mut rest.conditions {
        condition.message.clear();
    }
    rest
}

#[cfg(test)]
mod tests {
    use kube::core::DynamicObject;
    use serde_json::{Value, json};

    use super::*;
    use crate::automation::fields;

    fn promoting() -> State {
        let at = |seconds: u64| Duration::from_secs(1_796_000_000 + seconds);
        State {
            phase: ReleasePhase::Promoting,
            stable: Some("a".to_owned()),
            candidate: Some("b".to_owned()),
            run: Some(Run {
                number: 7,
                step: 4,
                weight: 100,
                started: at(0),
                step_started: Some(at(60)),
                paused_at: Some(at(70)),
                paused: Duration::from_secs(5),
                by: Some("kubectl".to_owned()),
                ..Run::default()
            }),
            history: vec![Ended {
                number: 6,
                revision: "a".to_owned(),
                result: ReleaseResult::Promoted,
                reason: "all steps passed".to_owned(),
                by: None,
                started: at(0),
                ended: at(30),
                requests: 500,
                bad: 2,
            }],
            ..State::default()
        }
    }

    fn round_trip(state: &State) -> State {
        let status = serde_json::to_value(written(state, &Shown::default())).unwrap();
        let object = json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "CanaryRelease",
            "metadata": {"name": "web"}, "status": status,
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        super::state(&fields::status(&object), Duration::ZERO)
    }

    #[test]
    fn state_survives_its_status() {
        for state in [State::default(), promoting()] {
            assert_eq!(round_trip(&state), state);
        }
    }

    #[test]
    fn unreadable_status_begins_anew() {
        let object = |status: Value| -> DynamicObject {
            let object = json!({
                "apiVersion": "weft.dev/v1alpha1", "kind": "CanaryRelease",
                "metadata": {"name": "web"}, "status": status,
            });
            serde_json::from_value(object).unwrap()
        };
        let of = |status: Value| state(&fields::status(&object(status)), Duration::ZERO);
        for status in [
            json!("text"),
            json!({"phase": 5}),
            json!({"phase": "Someday", "history": [{"result": "Lost"}]}),
        ] {
            assert_eq!(of(status.clone()), State::default(), "{status}");
        }
        let odd = of(json!({"phase": "Progressing", "run": {"weight": 4000, "step": -1}}));
        let run = odd.run.unwrap();
        assert_eq!((run.weight, run.step), (100, 0));
    }
}
