//! Reads the state of a FaultExperiment from its status, and writes it there.
//!
//! The status is all that the next holder of the Lease goes on from. What cannot be read in it
//! begins anew, and then no run is under way: so a status that was forged starts none.

use std::time::Duration;

use automation::experiment::{Calls, Run, Saved, State, judges};
use automation::judge::{Counts, Judge, Verdict, needed};
use crds::weft::validation::{Experiment, ServiceCheck};
use crds::weft::{
    CheckCounts, ExperimentCalls, ExperimentCheckStatus, ExperimentHistory, ExperimentPhase,
    ExperimentRun, ExperimentVerdict, FaultExperimentStatus,
};
use kube::core::DynamicObject;

use crate::automation::fields::{counts, read_counts, rfc3339, signed, text, time, unsigned};

/// Runs that a history keeps.
const HISTORY: usize = 10;

/// Whether the status says that a run is under way.
pub(super) fn is_under_way(object: &DynamicObject) -> bool {
    let phase = object.data.pointer("/status/phase");
    let phase = phase.and_then(|phase| ExperimentPhase::named(phase.as_str()?));
    phase.is_some_and(ExperimentPhase::is_under_way)
}

/// The state that a status has.
pub(super) fn state(status: &FaultExperimentStatus, spec: &Experiment) -> State {
    let phase = status.phase.as_deref().and_then(ExperimentPhase::named);
    let Some(stored) = &status.run else {
        // No phase but the first has no run.
        return State::default();
    };
    let saved = Saved::of_text(stored.state.as_deref().unwrap_or_default());
    let groups: Vec<(Counts, Counts)> = spec
        .checks
        .iter()
        .map(|check| {
            let row = status.checks.iter().find(|row| row.name == title(check));
            let of = |counts: Option<CheckCounts>| counts.map_or_else(Counts::default, read_counts);
            row.map_or_else(Default::default, |row| (of(row.control), of(row.harmed)))
        })
        .collect();
    let began = time(stored.started_at.as_deref());
    let ends = time(stored.ends_at.as_deref());
    State {
        phase: phase.unwrap_or_default(),
        run: Some(Run {
            number: stored.number,
            by: stored.by.clone().unwrap_or_default(),
            generation: saved.generation(),
            requested: time(stored.requested_at.as_deref()).unwrap_or_default(),
            driven: saved.written(),
            looking: saved.looking(),
            harms: began.zip(ends),
            calls: status.calls.map_or_else(Calls::default, calls),
            checks: saved.checks(&groups),
        }),
        scheduled: saved.scheduled(),
    }
}

/// The status to write, but for its conditions, its summary and the last command.
pub(super) fn written(
    state: &State,
    history: &[ExperimentHistory],
    spec: &Experiment,
    now: Duration,
) -> FaultExperimentStatus {
    let run = state.run.as_ref();
    FaultExperimentStatus {
        phase: Some(state.phase.as_str().to_owned()),
        target: Some(target(spec)),
        // That of the run before is no word about the one that is under way.
        verdict: history
            .first()
            .filter(|_| !state.phase.is_under_way())
            .map(|last| last.verdict.clone()),
        run: run.map(|run| ExperimentRun {
            number: run.number,
            requested_at: Some(rfc3339(run.requested)),
            started_at: run.harms.map(|(began, _)| rfc3339(began)),
            ends_at: run.harms.map(|(_, ends)| rfc3339(ends)),
            by: text(&run.by),
            state: Some(Saved::of(state, run, now).to_text()),
        }),
        calls: run.map(|run| written_calls(run.calls)),
        checks: run.map_or_else(Vec::new, |run| checks(run, spec)),
        history: history.to_vec(),
        ..FaultExperimentStatus::default()
    }
}

/// Puts a run that has ended at the head of the history.
pub(super) fn remember(
    history: &mut Vec<ExperimentHistory>,
    run: &Run,
    spec: &Experiment,
    (verdict, reason): (ExperimentVerdict, &str),
    now: Duration,
) {
    let began = run.harms.is_some();
    let ended = ExperimentHistory {
        number: run.number,
        verdict: verdict.as_str().to_owned(),
        reason: text(reason),
        by: text(&run.by),
        started_at: run.harms.map(|(began, _)| rfc3339(began)),
        ended_at: Some(rfc3339(now)),
        hypothesis: text(&spec.hypothesis),
        calls: began.then(|| written_calls(run.calls)),
        checks: checks(run, spec),
    };
    history.insert(0, ended);
    history.truncate(HISTORY);
}

/// Brings the last run of the history up to date: callers' proxies report late.
pub(super) fn add_late_calls(history: &mut [ExperimentHistory], run: &Run) {
    if let Some(last) = history.first_mut()
        && last.number == run.number
        && last.calls.is_some()
    {
        last.calls = Some(written_calls(run.calls));
    }
}

/// What of a status changes by itself: times left, counts and evidence.
pub(super) fn without_counts(status: &FaultExperimentStatus) -> FaultExperimentStatus {
    let mut rest = status.clone();
    rest.summary = None;
    rest.checks.clear();
    rest.calls = None;
    if let Some(run) = &mut rest.run {
        run.state = None;
    }
    for ended in &mut rest.history {
        ended.calls = None;
    }
    for condition in &mut rest.conditions {
        condition.message.clear();
    }
    rest
}

/// What the experiment is about, for `kubectl get`.
fn target(spec: &Experiment) -> String {
    let name = &spec.target.name;
    spec.port
        .map_or_else(|| name.to_string(), |port| format!("{name}:{port}"))
}

fn title(check: &ServiceCheck) -> String {
    format!("{} errorRate", check.service.name)
}

/// A row for each judge.
fn checks(run: &Run, spec: &Experiment) -> Vec<ExperimentCheckStatus> {
    let needed = needed(judges(spec));
    let mut rows = Vec::new();
    for (check, asked) in run.checks.iter().zip(&spec.checks) {
        let rate = &asked.error_rate;
        let row = |name: String, judge: &Judge, all: Option<Counts>| {
            let verdict = Verdict::of(judge, needed, check.counts.all.calls);
            let all = all.map_or_else(String::new, |all| {
                format!("{} of {} calls, ", all.bad, all.calls)
            });
            ExperimentCheckStatus {
                name,
                verdict: Some(verdict.as_str().to_owned()),
                evidence: Some(format!("{all}{} of {needed:.0}", number(judge.evidence()))),
                control: Some(counts(check.counts.control)),
                harmed: Some(counts(check.counts.harmed)),
            }
        };
        if rate.tolerance.is_some() {
            rows.push(row(title(asked), &check.tolerance, None));
        }
        if rate.max.is_some() {
            let name = match rate.tolerance {
                Some(_) => format!("{} max", title(asked)),
                None => title(asked),
            };
            rows.push(row(name, &check.max, Some(check.counts.all)));
        }
    }
    rows
}

/// With two digits that say something: `0.4`, `12.0`, `2.1e4`.
fn number(evidence: f64) -> String {
    if evidence >= 10_000.0 {
        format!("{evidence:.1e}")
    } else {
        format!("{evidence:.1}")
    }
}

fn written_calls(calls: Calls) -> ExperimentCalls {
    ExperimentCalls {
        total: signed(calls.total),
        harmed: signed(calls.harmed),
        excluded: signed(calls.excluded),
        beyond_limit: signed(calls.beyond_limit),
        untraced: signed(calls.untraced),
    }
}

fn calls(stored: ExperimentCalls) -> Calls {
    Calls {
        total: unsigned(stored.total),
        harmed: unsigned(stored.harmed),
        excluded: unsigned(stored.excluded),
        beyond_limit: unsigned(stored.beyond_limit),
        untraced: unsigned(stored.untraced),
    }
}
