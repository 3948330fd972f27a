//! The texts that users read of a CanaryRelease, in its status and Events: times, shares, and the
//! summary of what happens and what comes next.

use std::time::Duration;

use crds::weft::ReleasePhase;
use crds::weft::validation::{Release, ReleaseStep};

use super::seen::{Seen, Verb};
use super::state::{Ended, Run, State};

/// A time in its largest unit that has two of them at least: `41 s`, `3 min`, `23 h`, `6 d`.
#[must_use]
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// What a step gives to the candidate.
pub(super) fn share(step: &ReleaseStep) -> String {
    match step.mirror {
        Some(percent) => format!("copies of {percent} %"),
        None if step.groups.is_empty() => format!("{} %", step.weight),
        None => format!("{} % of matching requests", step.weight),
    }
}

/// What happens and what comes next. Empty where nothing does.
pub(super) fn summary(spec: &Release, seen: &Seen, state: &State, now: Duration) -> String {
    let candidate = state.candidate.as_deref().unwrap_or_default();
    let Some(run) = &state.run else {
        return without_run(spec, seen, state);
    };
    match state.phase {
        ReleasePhase::Idle => String::new(),
        ReleasePhase::Waiting => format!("no pod of {candidate} serves yet"),
        ReleasePhase::Progressing => progressing(spec, run, now),
        ReleasePhase::Paused => format!("{}, paused: resume, promote or abort", step(spec, run)),
        ReleasePhase::Promoting => {
            let ready = seen.of(candidate).filter(|pod| pod.ready).count();
            let all = seen.pods.len();
            let held = if run.paused_at.is_some() {
                ", paused: resume or abort"
            } else if seen.deployment_paused {
                ", waits for the paused Deployment"
            } else {
                ""
            };
            format!("promoting: {ready} of {all} pods{held}")
        }
        ReleasePhase::RolledBack => {
            let reason = state.history.first().map(|ended| ended.reason.as_str());
            let serving = seen.pods.iter().filter(|pod| pod.ready).count();
            let all = seen.pods.len();
            format!(
                "{}; {serving} of {all} pods serve; {}",
                reason.unwrap_or("rolled back"),
                way_out(spec)
            )
        }
    }
}

fn without_run(spec: &Release, seen: &Seen, state: &State) -> String {
    let refused = state.let_through();
    let refused = refused.filter(|ended| seen.of(&ended.revision).next().is_some());
    let refused = refused.map(|ended| refused_serves(ended, &spec.deployment));
    let rest = match state.phase {
        _ if spec.suspend => "spec.suspend is true, so nothing is checked",
        ReleasePhase::Waiting => "waits until one revision is left",
        _ => "",
    };
    let rest = Some(rest.to_owned()).filter(|rest| !rest.is_empty());
    let parts: Vec<String> = refused.into_iter().chain(rest).collect();
    parts.join("; ")
}

/// What is said where the gates of a refused revision have opened. `ended`: by
/// [`State::let_through`].
#[must_use]
pub fn refused_serves(ended: &Ended, deployment: &str) -> String {
    format!(
        "refused revision {} serves: {}; kubectl rollout undo deployment/{deployment}",
        ended.revision, ended.reason
    )
}

fn progressing(spec: &Release, run: &Run, now: Duration) -> String {
    let step_text = step(spec, run);
    let Some(started) = run.step_started else {
        return format!("{step_text}, waits for the proxies");
    };
    let duration = run
        .present(spec)
        .map_or(Duration::ZERO, |step| step.duration);
    let left = started.saturating_add(duration).saturating_sub(now);
    if left.is_zero() {
        let had = run.evidence.in_step;
        return format!("{step_text}, {had} of {} requests", spec.min_requests);
    }
    format!("{step_text}, {} left", span(left))
}

/// `step 2 of 4: 20 %`.
fn step(spec: &Release, run: &Run) -> String {
    let share = run
        .present(spec)
        .map_or_else(|| format!("{} %", run.weight), share);
    format!("step {} of {}: {share}", run.step, spec.steps.len())
}

/// Of a command without effect. `met`: the state in which it was met.
pub(super) fn ignored(verb: Verb, met: &State) -> String {
    let phase = met.phase;
    let takes = match phase.commands() {
        commands if met.run.is_some() && !commands.is_empty() => commands.join(", "),
        _ => "no command without a run".to_owned(),
    };
    let (verb, phase) = (verb.as_str(), phase.as_str());
    format!("{verb} has no effect: the release was {phase}, which takes {takes}")
}

/// What ends a release that was rolled back.
pub(super) fn way_out(spec: &Release) -> String {
    format!("kubectl rollout undo deployment/{}", spec.deployment)
}
