//! Decides what a CanaryRelease does next, from what is seen of the cluster and the state before.
//!
//! The state says what is decided, and everything else follows from it and from what is seen: which
//! gates open, which pods belong to which set, what the weight in force is. So a controller that
//! takes over between any two writes goes on where the state stands, and repeats nothing.
//!
//! In use: [`next`] each second and after each change; its state is persisted, then its gates are
//! opened.

use std::time::Duration;

use crds::weft::validation::Release;
use crds::weft::{ReleasePhase, ReleaseResult};

use self::turn::{Opens, Turn};
use crate::judge::latency::Threshold;

mod checks;
mod evidence;
mod grace;
mod run;
mod seen;
mod state;
mod steps;
mod turn;
mod words;

pub use self::evidence::Evidence;
pub use self::grace::GRACE;
pub use self::seen::{
    CheckReport, Command, Event, EventKind, Gate, Newest, Next, Pod, Seen, SetCounts, Verb,
};
pub use self::state::{Ended, HISTORY, Run, State, Unsaved};
pub use self::words::{refused_serves, span};

/// The thresholds by which calls are slow; `None`: they are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// For [`SetCounts::latency`].
    pub tolerance: Option<Threshold>,
    /// For [`SetCounts::latency_max`].
    pub max: Option<Threshold>,
}

/// By which thresholds the next look's calls are counted.
#[must_use]
pub fn thresholds(spec: &Release, state: &State) -> Thresholds {
    let Some(run) = state.run.as_ref().filter(|_| is_running(state.phase)) else {
        return Thresholds::default();
    };
    Thresholds {
        tolerance: run.evidence.threshold,
        max: checks::max_threshold(&spec.checks),
    }
}

/// Whether a run goes on that looks at calls, or is about to.
#[must_use]
pub const fn is_running(phase: ReleasePhase) -> bool {
    match phase {
        ReleasePhase::Waiting
        | ReleasePhase::Progressing
        | ReleasePhase::Paused
        | ReleasePhase::Promoting => true,
        ReleasePhase::Idle | ReleasePhase::RolledBack => false,
    }
}

/// One look at the release. `now` is since 1970 and never goes back.
#[must_use]
pub fn next(spec: &Release, seen: &Seen, state: &State, now: Duration) -> Next {
    let mut turn = Turn::new(spec, seen, state, now);
    if let Some(newest) = &seen.newest {
        decide(&mut turn, newest);
    }
    finish(turn, state)
}

fn decide(turn: &mut Turn<'_>, newest: &Newest) {
    if turn.spec.suspend {
        return suspended(turn, newest);
    }
    let Some(stable) = turn.state.stable.clone() else {
        return made(turn, newest);
    };
    if newest.revision == stable || newest.equals_stable {
        return settled(turn, newest);
    }
    let candidate = turn.state.candidate.clone();
    let has_run = turn.state.run.is_some();
    let (running, rolled_back) = (
        has_run && is_running(turn.state.phase),
        has_run && turn.state.phase == ReleasePhase::RolledBack,
    );
    match candidate {
        Some(candidate) if candidate == newest.revision && running => {
            run::go_on(turn, &candidate);
        }
        Some(candidate) if candidate == newest.revision && rolled_back => {
            run::rolled_back(turn, &candidate);
        }
        Some(candidate) if running => {
            let reason = format!("{} takes its place", newest.revision);
            turn.end(ReleaseResult::Superseded, reason, None);
            let message = format!("{candidate}: {} takes its place", newest.revision);
            turn.event(EventKind::Superseded, message);
            turn.start(&newest.revision, None);
        }
        Some(_) | None => turn.start(&newest.revision, None),
    }
}

/// Ordinary rolling updates. A refused revision serves by them, unless it was reverted before.
fn suspended(turn: &mut Turn<'_>, newest: &Newest) {
    let serves = turn.state.candidate.as_deref() == Some(newest.revision.as_str());
    if turn.state.run.is_some() && (serves || is_running(turn.state.phase)) {
        turn.bypass("spec.suspend is true", &newest.revision);
    }
    turn.idle(&newest.revision);
    turn.opens = Opens::All;
}

/// A release that knows no stable revision yet: the one that is left is it.
fn made(turn: &mut Turn<'_>, newest: &Newest) {
    if turn.seen.others(&newest.revision).next().is_none() {
        turn.idle(&newest.revision);
    } else {
        turn.state.phase = ReleasePhase::Waiting;
        turn.state.candidate = None;
        turn.state.run = None;
    }
    turn.opens = Opens::All;
}

/// The Deployment has the stable revision's template, or the same but for a restart.
fn settled(turn: &mut Turn<'_>, newest: &Newest) {
    if turn.state.run.is_some() && is_running(turn.state.phase) {
        let reason = "the Deployment has the template of the stable revision again";
        turn.end(ReleaseResult::Aborted, reason.to_owned(), None);
        turn.event(EventKind::Aborted, reason.to_owned());
    }
    turn.idle(&newest.revision);
}

fn finish(mut turn: Turn<'_>, before: &State) -> Next {
    if let Some(command) = turn.command.take() {
        let message = words::ignored(command.verb, before);
        turn.event(EventKind::CommandIgnored, message);
    }
    let Turn {
        spec,
        seen,
        now,
        mut state,
        opens,
        events,
        ended,
        ..
    } = turn;
    if let Some(run) = &mut state.run {
        grace::note_present(run, &spec.deployment);
    }
    let summary = words::summary(spec, seen, &state, now);
    let checks = match (&state.run, &state.candidate) {
        (Some(run), Some(candidate)) => checks::reports(spec, seen, candidate, run),
        _ => Vec::new(),
    };
    Next {
        decided: decisions(&state) != decisions(before),
        gates: gates(seen, &state, &opens),
        state,
        events,
        summary,
        checks,
        ended,
    }
}

/// A state without what is counted.
fn decisions(state: &State) -> State {
    let mut state = state.clone();
    state.unsaved = Unsaved::default();
    if let Some(run) = &mut state.run {
        run.evidence = Evidence::default();
    }
    state
}

/// Pods of the stable revision may have a gate too, where the injector could not read the release.
fn gates(seen: &Seen, state: &State, opens: &Opens) -> Vec<String> {
    if seen.newest.is_none() {
        return Vec::new();
    }
    let stable = state.stable.as_deref();
    let is_open = |pod: &&Pod| match opens {
        Opens::All => true,
        Opens::One(name) if *name == pod.name => true,
        Opens::One(_) | Opens::None => stable == Some(pod.revision.as_str()),
    };
    let shut = seen.pods.iter().filter(|pod| pod.gate == Gate::Shut);
    shut.filter(is_open).map(|pod| pod.name.clone()).collect()
}

#[cfg(test)]
mod tests;
