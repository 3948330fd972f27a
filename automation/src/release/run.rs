//! One run of a CanaryRelease, look by look: whether it is rolled back, aborted or promoted, and
//! which step it is in.

use std::time::Duration;

use crds::weft::{ReleasePhase, ReleaseResult};

use super::checks;
use super::seen::{EventKind, Gate, Pod, Seen, Verb};
use super::state::Run;
use super::steps::{advance, is_compared, is_due, promote, resume};
use super::turn::{Opens, Turn, milliseconds};
use super::words::{span, way_out};

/// So long there is no stable pod before the candidate serves as it is, and no candidate that
/// serves before it is rolled back: longer than a pod's state takes to get here.
const GONE: Duration = Duration::from_secs(10);

/// One look at a run that has not ended.
pub(super) fn go_on(turn: &mut Turn<'_>, candidate: &str) {
    if bypassed(turn, candidate) {
        return;
    }
    judge(turn);
    if let Some(by) = turn.take(Verb::Abort) {
        return roll_back(turn, candidate, "aborted by command", by);
    }
    if let Some(reason) = refusal(turn, candidate) {
        return roll_back(turn, candidate, &reason, None);
    }
    match turn.state.phase {
        ReleasePhase::Waiting => waiting(turn, candidate),
        ReleasePhase::Progressing => progressing(turn, candidate),
        ReleasePhase::Paused => paused(turn, candidate),
        ReleasePhase::Promoting => promoting(turn, candidate),
        ReleasePhase::Idle | ReleasePhase::RolledBack => {}
    }
}

/// Where calls go to the candidate whatever the release decides, there is nothing to decide.
fn bypassed(turn: &mut Turn<'_>, candidate: &str) -> bool {
    let no_gate = |pod: &Pod| pod.gate == Gate::Absent && pod.ready;
    if turn.seen.of(candidate).any(no_gate) {
        turn.bypass("pods of the candidate have no readiness gate", candidate);
        return true;
    }
    let is_left =
        turn.state.phase == ReleasePhase::Promoting && turn.seen.others(candidate).next().is_none();
    let gone = lasts(turn.state.unsaved.no_stable_since, turn.now);
    if gone && !is_left {
        turn.bypass("no pod of the stable revision is ready", candidate);
    }
    gone && !is_left
}

fn lasts(since: Option<Duration>, now: Duration) -> bool {
    since.is_some_and(|since| now >= since.saturating_add(GONE))
}

/// Counts the calls of this look. Before the first step there are none.
fn judge(turn: &mut Turn<'_>) {
    let (spec, seen) = (turn.spec, turn.seen);
    let promoting = turn.state.phase == ReleasePhase::Promoting;
    let Some(run) = turn.run() else {
        return;
    };
    let compared = promoting || run.present(spec).is_none_or(is_compared);
    if run.step > 0 {
        checks::look(spec, seen, run, compared);
    }
}

/// Why the candidate gets no more calls, if it is so.
fn refusal(turn: &Turn<'_>, candidate: &str) -> Option<String> {
    let run = turn.state.run.as_ref()?;
    if let Some(reason) = checks::worse(turn.spec, turn.seen, candidate, run) {
        return Some(reason);
    }
    let serves = turn.state.phase != ReleasePhase::Waiting;
    if serves && turn.seen.breaker_open_at_candidate {
        return Some("the mesh's breaker is open at the candidate alone".to_owned());
    }
    if serves && lasts(turn.state.unsaved.no_candidate_since, turn.now) {
        return Some(format!(
            "no pod of {candidate} has served for {}",
            span(GONE)
        ));
    }
    let deadline = turn.spec.deadline;
    (run.active(turn.now) >= deadline)
        .then(|| format!("the run has taken its deadline of {}", span(deadline)))
}

/// No more calls, and no more gates, until the template changes or `retry`.
fn roll_back(turn: &mut Turn<'_>, candidate: &str, reason: &str, by: Option<String>) {
    let promoting = turn.state.phase == ReleasePhase::Promoting;
    resume(turn, by.clone());
    let weight = if promoting {
        opened_weight(turn.seen, candidate)
    } else {
        0
    };
    if let Some(run) = turn.run() {
        run.weight = weight;
    }
    turn.state.phase = ReleasePhase::RolledBack;
    turn.opens = Opens::None;
    turn.end(ReleaseResult::RolledBack, reason.to_owned(), by);
    let message = format!("{reason}; {}", way_out(turn.spec));
    turn.event(EventKind::RolledBack, message);
}

/// What a candidate goes on to get whose gates are open in part: few pods of the stable revision
/// must not drown in all the calls.
fn opened_weight(seen: &Seen, candidate: &str) -> u8 {
    let opened = seen.of(candidate).filter(|pod| pod.ready).count();
    let stable = seen.others(candidate).filter(|pod| pod.ready).count();
    if opened == 0 {
        return 0;
    }
    let share = stable.saturating_mul(100) / (opened + stable);
    u8::try_from(100_usize.saturating_sub(share.saturating_mul(2))).unwrap_or(0)
}

/// After a rollback: the weight only falls, and `retry` starts again.
pub(super) fn rolled_back(turn: &mut Turn<'_>, candidate: &str) {
    if let Some(by) = turn.take(Verb::Retry) {
        let restarts = checks::all_restarts(turn.seen, candidate);
        turn.start(candidate, by);
        if let Some(run) = turn.run() {
            run.evidence.restarts_before = restarts;
        }
        return;
    }
    let weight = opened_weight(turn.seen, candidate);
    if let Some(run) = turn.run() {
        run.weight = run.weight.min(weight);
    }
}

/// Until a pod of the candidate serves.
fn waiting(turn: &mut Turn<'_>, candidate: &str) {
    let (serving, _) = turn.seen.serving(candidate);
    if serving > 0 {
        return advance(turn, candidate);
    }
    let reason = format!("CandidateNotReady: no pod of {candidate} has served");
    stalled(turn, candidate, &reason);
}

/// Rolls back where no pod has become ready for `progressDeadlineSeconds`, which do not run while
/// the Deployment is paused.
fn stalled(turn: &mut Turn<'_>, candidate: &str, reason: &str) {
    let (now, limit) = (turn.now, turn.seen.progress_deadline);
    let held = turn.seen.deployment_paused;
    let Some(run) = turn.run() else {
        return;
    };
    if held || run.paused_at.is_some() {
        run.evidence.progressed = milliseconds(now);
        return;
    }
    let since = Duration::from_millis(run.evidence.progressed);
    if now >= since.saturating_add(limit) {
        let reason = format!("{reason} for {}", span(limit));
        roll_back(turn, candidate, &reason, None);
    }
}

fn progressing(turn: &mut Turn<'_>, candidate: &str) {
    if let Some(by) = turn.take(Verb::Promote) {
        return promote(turn, by);
    }
    if let Some(by) = turn.take(Verb::Pause) {
        return pause(turn, by);
    }
    if !is_due(turn) {
        return;
    }
    let spec = turn.spec;
    let step = turn.state.run.as_ref().and_then(|run| run.present(spec));
    if step.is_some_and(|step| step.pause) {
        return pause(turn, None);
    }
    if turn.seen.serving(candidate).0 > 0 {
        advance(turn, candidate);
    }
}

/// Waits for `resume`; calls go on as they are, and are judged. `by`: the field manager of the
/// command; `None` where the step ends so.
fn pause(turn: &mut Turn<'_>, by: Option<String>) {
    let now = turn.now;
    let Some(run) = turn.run() else {
        return;
    };
    if run.paused_at.is_some() {
        return;
    }
    run.paused_at = Some(now);
    let author = by.as_ref().map(|by| format!(" by {by}"));
    run.by = by.or(run.by.take());
    let step = run.step;
    if turn.state.phase == ReleasePhase::Progressing {
        turn.state.phase = ReleasePhase::Paused;
    }
    let author = author.unwrap_or_default();
    let message = format!("step {step}{author}: `weft release` has resume, promote and abort");
    turn.event(EventKind::Paused, message);
}

fn paused(turn: &mut Turn<'_>, candidate: &str) {
    if let Some(by) = turn.take(Verb::Promote) {
        return promote(turn, by);
    }
    let due = is_due(turn);
    let Some(by) = turn.take(Verb::Resume) else {
        return;
    };
    resume(turn, by);
    turn.state.phase = ReleasePhase::Progressing;
    if due && turn.seen.serving(candidate).0 > 0 {
        advance(turn, candidate);
    }
}

/// Opens the gates one at a time: the next one when all pods before are ready.
fn promoting(turn: &mut Turn<'_>, candidate: &str) {
    if let Some(by) = turn.take(Verb::Pause) {
        pause(turn, by);
    }
    if let Some(by) = turn.take(Verb::Resume) {
        resume(turn, by);
    }
    let seen = turn.seen;
    if seen.others(candidate).next().is_none() {
        return promoted(turn, candidate);
    }
    let now = turn.now;
    let ready = seen.of(candidate).filter(|pod| pod.ready).count();
    let Some(run) = turn.run() else {
        return;
    };
    note_ready(run, ready, now);
    let held = run.paused_at.is_some() || seen.deployment_paused;
    let opens = |pod: &Pod| pod.gate == Gate::Open && !pod.ready;
    // The same one as long as it is not seen open, in whatever order pods come.
    let shut = seen.of(candidate).filter(|pod| pod.gate == Gate::Shut);
    let next = shut
        .filter(|pod| pod.containers_ready)
        .min_by(|one, other| one.name.cmp(&other.name));
    if !held
        && !seen.of(candidate).any(opens)
        && let Some(pod) = next
    {
        turn.opens = Opens::One(pod.name.clone());
    }
    stalled(turn, candidate, "no further pod has become ready");
}

/// More pods are ready than before: the rollout goes on.
fn note_ready(run: &mut Run, ready: usize, now: Duration) {
    if ready > run.evidence.ready {
        run.evidence.progressed = milliseconds(now);
    }
    run.evidence.ready = ready;
}

/// No pod of another revision is left.
fn promoted(turn: &mut Turn<'_>, candidate: &str) {
    let Some(run) = &turn.state.run else {
        return;
    };
    let by = run.by.clone();
    let total = run.evidence.total;
    let message = format!(
        "{candidate} is the stable revision: {} of {} requests failed, {} after its start",
        total.bad,
        total.calls,
        span(run.active(turn.now)),
    );
    turn.end(ReleaseResult::Promoted, String::new(), by);
    turn.event(EventKind::Promoted, message);
    turn.idle(candidate);
}
