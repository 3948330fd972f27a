//! A release's state as its status has it, and the difference that is written.
//!
//! The status is all that the next holder of the Lease goes on from. What cannot be read in it
//! begins anew: only this controller may write it, so that is a status of a later version, or one
//! that was forged.

use std::time::Duration;

use automation::release::{CheckReport, Ended, Evidence, HISTORY, Run, State};
use crds::weft::{
    CanaryReleaseStatus, CheckCounts, ReleaseCheck, ReleaseHistory, ReleasePhase, ReleaseResult,
    ReleaseRun, RevisionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use model::problem;
use serde::Deserialize as _;
use serde_json::{Map, Value};

/// The status of a release as it stands; an empty one where it cannot be read.
pub(super) fn status(object: &DynamicObject) -> CanaryReleaseStatus {
    let stored = object.data.get("status");
    let read = stored.and_then(|stored| CanaryReleaseStatus::deserialize(stored).ok());
    read.unwrap_or_default()
}

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
    let counts = |counts: automation::judge::Counts| CheckCounts {
        requests: signed(counts.calls),
        bad: signed(counts.bad),
    };
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

/// Conditions with the times of their last changes, as far as `before` has them.
pub(super) fn conditions(
    all: &[(&'static str, problem::Condition)],
    generation: i64,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    // As it is stored: a time with parts of a second would differ from what is read back.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let stored = |name: &str, condition: &problem::Condition| Condition {
        type_: name.to_owned(),
        status: if condition.status { "True" } else { "False" }.to_owned(),
        reason: condition.reason.to_owned(),
        message: condition.message.clone(),
        observed_generation: Some(generation),
        last_transition_time: Time(now),
    };
    let dated = all.iter().map(|(name, condition)| {
        let mut new = stored(name, condition);
        let same = |old: &&Condition| old.type_ == new.type_ && old.status == new.status;
        if let Some(old) = before.iter().find(same) {
            new.last_transition_time = old.last_transition_time.clone();
        }
        new
    });
    dated.collect()
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

/// The merge patch (RFC 7386) that makes `after` of `before`; `None`: they are equal.
pub(super) fn merge_patch(before: &Value, after: &Value) -> Option<Value> {
    if before == after {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return Some(after.clone());
    };
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let mut patch: Map<String, Value> = gone.map(|name| (name.clone(), Value::Null)).collect();
    for (name, value) in after {
        let old = before.get(name).unwrap_or(&Value::Null);
        if let Some(change) = merge_patch(old, value) {
            patch.insert(name.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn time(text: Option<&str>) -> Option<Duration> {
    let time: Timestamp = text?.parse().ok()?;
    u64::try_from(time.as_second())
        .ok()
        .map(Duration::from_secs)
}

fn rfc3339(since_1970: Duration) -> String {
    let seconds = i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn promoting() -> State {
        let at = |seconds| Duration::from_secs(1_796_000_000 + seconds);
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
        super::state(&self::status(&object), Duration::ZERO)
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
        let of = |status: Value| state(&self::status(&object(status)), Duration::ZERO);
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

    #[test]
    fn merge_patch_writes_changes_and_removes_what_is_gone() {
        let before = json!({"a": 1, "run": {"step": 1, "pausedAt": "t"}, "list": [1], "b": {}});
        let after = json!({"a": 1, "run": {"step": 2}, "list": [1, 2]});
        let patch = merge_patch(&before, &after).unwrap();
        let expected = json!({
            "run": {"step": 2, "pausedAt": null}, "list": [1, 2], "b": null,
        });
        assert_eq!(patch, expected);
        assert_eq!(merge_patch(&after, &after), None);
        assert_eq!(merge_patch(&Value::Null, &after), Some(after));
    }

    #[test]
    fn condition_keeps_time_while_its_status_stays() {
        let condition = |status| problem::Condition {
            status,
            reason: "Idle",
            message: String::new(),
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = conditions(
            &[("Ready", condition(true))],
            1,
            &[],
            at("2026-11-29T14:00:00.5Z"),
        );
        let second = at("2026-11-29T14:00:00Z");
        assert_eq!(first[0].last_transition_time, Time(second));
        let later = at("2026-11-29T15:00:00Z");
        let same = conditions(&[("Ready", condition(true))], 2, &first, later);
        assert_eq!(same[0].last_transition_time, Time(second));
        let other = conditions(&[("Ready", condition(false))], 2, &first, later);
        assert_eq!(other[0].last_transition_time, Time(later));
    }
}
