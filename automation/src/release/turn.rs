//! `Turn`: the working state of one look at a CanaryRelease (a look comes once a second): what was
//! seen of the cluster, the state as the decisions change it, and the Events and gates that follow.

use std::time::Duration;

use crds::weft::validation::Release;
use crds::weft::{ReleasePhase, ReleaseResult};

use super::seen::{Command, Event, EventKind, Seen, Verb};
use super::state::{Ended, Run, State};
use super::words::refused_serves;

/// A longer time without a look has shown nothing: no gate was opened in it, and what lasted before
/// it may have ended.
const UNSEEN: Duration = Duration::from_secs(10);
/// What estimates of the rate of calls go by.
const RATE_SECONDS: f64 = 30.0;

/// Which gates open besides those of the stable revision, which always do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Opens {
    #[default]
    None,
    /// This pod's.
    One(String),
    All,
}

#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) spec: &'a Release,
    pub(super) seen: &'a Seen,
    pub(super) now: Duration,
    pub(super) state: State,
    /// Until it is honoured.
    pub(super) command: Option<&'a Command>,
    pub(super) opens: Opens,
    pub(super) events: Vec<Event>,
    pub(super) ended: Option<Ended>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(spec: &'a Release, seen: &'a Seen, state: &State, now: Duration) -> Self {
        let mut turn = Self {
            spec,
            seen,
            now,
            state: state.clone(),
            command: seen.command.as_ref(),
            opens: Opens::None,
            events: Vec::new(),
            ended: None,
        };
        turn.observe();
        turn
    }

    /// What has been so for how long.
    fn observe(&mut self) {
        let (seen, now) = (self.seen, self.now);
        let candidate = self.state.candidate.as_deref().unwrap_or_default();
        let stable = seen.others(candidate).any(|pod| pod.ready);
        let served = |revision| {
            let mut pods = seen.of(revision);
            pods.any(|pod| pod.serves() && pod.connected)
        };
        let candidate = served(candidate);
        let unsaved = &mut self.state.unsaved;
        let last = unsaved.looked.replace(now);
        if last.is_none_or(|last| now >= last.saturating_add(UNSEEN)) {
            (unsaved.no_stable_since, unsaved.no_candidate_since) = (None, None);
            if let Some(run) = &mut self.state.run {
                run.evidence.progressed = milliseconds(now);
            }
        }
        let since = |since: Option<Duration>, is: bool| (!is).then(|| since.unwrap_or(now));
        unsaved.no_stable_since = since(unsaved.no_stable_since, stable);
        unsaved.no_candidate_since = since(unsaved.no_candidate_since, candidate);
        let seconds = last.map_or(0.0, |last| now.saturating_sub(last).as_secs_f64());
        if seconds > 0.0 {
            let (stable, candidate) = (seen.stable.errors, seen.candidate.errors);
            let calls = stable.calls.saturating_add(candidate.calls);
            let past = (-seconds / RATE_SECONDS).exp();
            unsaved.calls = unsaved.calls * past + calls as f64;
            unsaved.seconds = unsaved.seconds * past + seconds;
        }
    }

    /// Honours the command, if it has this verb; it returns its field manager.
    pub(super) fn take(&mut self, verb: Verb) -> Option<Option<String>> {
        let command = self.command.take_if(|command| command.verb == verb)?;
        Some(command.by.clone())
    }

    pub(super) fn event(&mut self, kind: EventKind, message: String) {
        self.events.push(Event { kind, message });
    }

    /// The run, in phases that have one.
    pub(super) fn run(&mut self) -> Option<&mut Run> {
        self.state.run.as_mut()
    }

    /// Starts a run of this candidate. `by`: the field manager of the command that asks for it.
    pub(super) fn start(&mut self, candidate: &str, by: Option<String>) {
        let last = self.state.history.iter().map(|ended| ended.number).max();
        let present = self.state.run.as_ref().map(|run| run.number);
        let number = last.max(present).unwrap_or(0).saturating_add(1);
        let mut run = Run {
            number,
            started: self.now,
            by,
            ..Run::default()
        };
        run.evidence.progressed = milliseconds(self.now);
        self.state.phase = ReleasePhase::Waiting;
        self.state.candidate = Some(candidate.to_owned());
        self.state.run = Some(run);
        self.state.unsaved.no_candidate_since = None;
        let steps = self.spec.steps.len();
        let message = format!(
            "run {number}: {candidate} in {steps} {}",
            if steps == 1 { "step" } else { "steps" }
        );
        self.event(EventKind::ReleaseStarted, message);
    }

    /// Writes the run into the history. The phase follows from the caller.
    pub(super) fn end(&mut self, result: ReleaseResult, reason: String, by: Option<String>) {
        if let Some(ended) = self.state.end(result, reason, by, self.now) {
            self.ended = Some(ended);
        }
    }

    /// No run: this revision is the stable one.
    pub(super) fn idle(&mut self, stable: &str) {
        self.state.phase = ReleasePhase::Idle;
        self.state.stable = Some(stable.to_owned());
        self.state.candidate = None;
        self.state.run = None;
    }

    /// All pods of the candidate serve as they are.
    pub(super) fn bypass(&mut self, reason: &str, stable: &str) {
        self.end(ReleaseResult::Bypassed, reason.to_owned(), None);
        let message = self.state.let_through().map_or_else(
            || format!("{reason}; all pods of {stable} serve without checks"),
            |ended| refused_serves(ended, &self.spec.deployment),
        );
        self.event(EventKind::Bypassed, message);
        self.idle(stable);
        self.opens = Opens::All;
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
