//! The steps of a run: when one starts and ends, which one is next, and what it gives to the
//! candidate.

use std::time::Duration;

use crds::weft::ReleasePhase;
use crds::weft::validation::ReleaseStep;

use super::checks;
use super::seen::{EventKind, Seen};
use super::turn::{Turn, milliseconds};
use super::words::{share, span};

/// A step starts that late where some proxy has not acknowledged its route: one proxy that is cut
/// off holds up no release.
const UNPROGRAMMED: Duration = Duration::from_secs(30);
/// Between two Events about too few requests.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// Whether a step compares the candidate with the stable set: both get the same kind of calls.
pub(super) fn is_compared(step: &ReleaseStep) -> bool {
    step.mirror.is_none() && step.groups.is_empty()
}

/// Percent of calls that the candidate gets at most: its share of the pods that serve, and 1 at
/// least. 0 without a pod of it.
pub(super) fn cap(seen: &Seen, candidate: &str) -> u8 {
    let (candidates, others) = seen.serving(candidate);
    if candidates == 0 {
        return 0;
    }
    let all = candidates + others + seen.foreign;
    let percent = candidates.saturating_mul(100) / all;
    u8::try_from(percent.max(1)).unwrap_or(100)
}

/// Goes on to the first step after the present one that changes something, or to Promoting.
pub(super) fn advance(turn: &mut Turn<'_>, candidate: &str) {
    let Some(run) = &turn.state.run else {
        return;
    };
    let cap = cap(turn.seen, candidate);
    let before = run.present(turn.spec);
    let mut left = turn.spec.steps.iter().enumerate().skip(run.step);
    let next = left.find(|(_, step)| before.is_none_or(|before| changes(before, step, cap)));
    match next {
        Some((at, _)) => enter(turn, at),
        None => promote(turn, None),
    }
}

/// Whether a step differs from the one before where no more pods of the candidate are there.
fn changes(before: &ReleaseStep, step: &ReleaseStep, cap: u8) -> bool {
    let plain = is_compared(before) && is_compared(step) && !step.pause;
    !plain || before.weight.min(cap) != step.weight.min(cap)
}

/// Enters the step at this place. It starts when the proxies have its route.
fn enter(turn: &mut Turn<'_>, at: usize) {
    let (spec, seen, now) = (turn.spec, turn.seen, turn.now);
    let (Some(run), Some(step)) = (&mut turn.state.run, spec.steps.get(at)) else {
        return;
    };
    run.step = at + 1;
    run.weight = step.weight;
    run.step_started = None;
    run.evidence.in_step = 0;
    for test in &mut run.evidence.tests {
        test.looked = false;
    }
    checks::choose_threshold(spec, seen, run, true);
    turn.state.phase = ReleasePhase::Progressing;
    turn.state.unsaved.entered = Some(now);
    turn.state.unsaved.warned = None;
}

/// All steps are done: the gates open. `by`: the field manager of `promote`.
pub(super) fn promote(turn: &mut Turn<'_>, by: Option<String>) {
    let now = turn.now;
    let count = turn.spec.steps.len();
    resume(turn, by);
    let Some(run) = &mut turn.state.run else {
        return;
    };
    run.step = count;
    run.weight = 100;
    run.step_started = Some(now);
    // Pods that are ready already are counted in the first look.
    run.evidence.progressed = milliseconds(now);
    run.evidence.ready = 0;
    turn.state.phase = ReleasePhase::Promoting;
    let message = "promoting: the gates of its pods open one at a time".to_owned();
    turn.event(EventKind::StepStarted, message);
}

/// Ends a pause, if there is one. `by`: the field manager of the command.
pub(super) fn resume(turn: &mut Turn<'_>, by: Option<String>) {
    let now = turn.now;
    if let Some(run) = turn.run() {
        if let Some(at) = run.paused_at.take() {
            run.paused = run.paused.saturating_add(now.saturating_sub(at));
        }
        run.by = by.or(run.by.take());
    }
}

/// Starts the present step once the proxies have its route, and returns whether it is due: its
/// time has passed and it has had its requests.
pub(super) fn is_due(turn: &mut Turn<'_>) -> bool {
    let (seen, now) = (turn.seen, turn.now);
    let Some(run) = &turn.state.run else {
        return false;
    };
    let Some(step) = run.present(turn.spec) else {
        return true;
    };
    let (started, in_step) = (run.step_started, run.evidence.in_step);
    let Some(started) = started else {
        // After a takeover it is as if the step had just been entered. In the same look the
        // proxies can only have the route of the step before.
        let entered = *turn.state.unsaved.entered.get_or_insert(now);
        if entered < now && (seen.programmed || now >= entered + UNPROGRAMMED) {
            start(turn, step);
        }
        return false;
    };
    if now < started.saturating_add(step.duration) {
        return false;
    }
    let enough = in_step >= turn.spec.min_requests;
    if !enough && turn.state.phase == ReleasePhase::Progressing {
        warn(turn);
    }
    enough
}

fn start(turn: &mut Turn<'_>, step: &ReleaseStep) {
    let now = turn.now;
    let requests = turn.spec.min_requests;
    let rate = turn.state.unsaved.rate();
    let count = turn.spec.steps.len();
    let Some(run) = turn.run() else {
        return;
    };
    run.step_started = Some(now);
    let number = run.step;
    let percent = f64::from(step.mirror.unwrap_or(step.weight)) / 100.0;
    let estimate = rate
        .map(|rate| requests as f64 / (rate * percent))
        .filter(|seconds| step.groups.is_empty() && *seconds > step.duration.as_secs_f64())
        .map(|seconds| format!(", about {} for {requests} requests", seconds_span(seconds)))
        .unwrap_or_default();
    let message = format!(
        "step {number} of {count}: {}, {} at least{estimate}; `weft release promote` skips the \
         steps",
        share(step),
        span(step.duration),
    );
    turn.event(EventKind::StepStarted, message);
}

/// The step has had its time and too few requests: that is no reason to go on, nor to go back.
fn warn(turn: &mut Turn<'_>) {
    let now = turn.now;
    let recently = |warned: &Duration| now < warned.saturating_add(WARN_EVERY);
    if turn.state.unsaved.warned.as_ref().is_some_and(recently) {
        return;
    }
    turn.state.unsaved.warned = Some(now);
    let requests = turn.spec.min_requests;
    let deadline = turn.spec.deadline;
    let count = turn.spec.steps.len();
    let Some(run) = turn.run() else {
        return;
    };
    let had = run.evidence.in_step;
    let left = deadline.saturating_sub(run.active(now));
    let taken = run.step_started.map(|started| now.saturating_sub(started));
    let estimate = taken.filter(|_| had > 0).map_or_else(
        || "none has come".to_owned(),
        |taken| {
            let missing = requests.saturating_sub(had) as f64;
            let seconds = taken.as_secs_f64() * missing / had as f64;
            format!("about {} more at this rate", seconds_span(seconds))
        },
    );
    let message = format!(
        "step {} of {count}: {had} of {requests} requests, {estimate}; rolled back in {}; `weft \
         release promote` does not wait",
        run.step,
        span(left),
    );
    turn.event(EventKind::NotEnoughRequests, message);
}

/// An estimate may be any number.
fn seconds_span(seconds: f64) -> String {
    span(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}
