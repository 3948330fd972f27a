//! Decides what a FaultExperiment does next: whether a run starts, begins to harm, and ends.
//!
//! Creating an experiment starts nothing: a command or its schedule does. A run waits for a
//! release of its target, then looks for [`LOOK`] without harm: what is worse by itself already
//! would be blamed on the fault. Then calls are harmed until a check is worse, the time is over,
//! or something ends the run.
//!
//! It harms only as long as that is granted, which each replica decides by itself: what is
//! decided here may be late, and then a run is over before its verdict.
//!
//! Invariant: time is an argument, since 1970. `next` may run twice, late, or on another replica:
//! it goes on from the state, which the status holds.

use std::time::Duration;

use crds::weft::validation::{Experiment, ServiceCheck};
use crds::weft::{ExperimentPhase, ExperimentVerdict};

use crate::judge::{Allowed, Counts, Judge, Look, needed};
use crate::schedule::{Due, LATE};

mod saved;

pub use self::saved::Saved;

/// The longest wait for a release, or for weights that are being shifted.
pub const WAIT: Duration = LATE;
/// How long the checks are looked at before anything is harmed.
pub const LOOK: Duration = Duration::from_secs(10);
/// A run that nothing drove for so long is over: another holder of the Lease drives it within
/// 17 s, and one that a backup brings back must not go on.
const UNDRIVEN: Duration = Duration::from_secs(60);
/// For so long after a run its callers' proxies still report what they did in it.
pub const LATE_REPORTS: Duration = Duration::from_secs(15);
/// Name of the schedule as the one that started a run.
pub const BY_SCHEDULE: &str = "schedule";

/// What is seen of the world.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// A command of a user.
    pub order: Option<Order>,
    /// What the schedule wants.
    pub due: Option<Due>,
    /// Of the object: during a run nothing but `suspend` may change.
    pub generation: i64,
    /// Why nothing may be harmed, as a sentence: the object is not accepted or not allowed, or
    /// faults are stopped in the whole mesh.
    pub refused: Option<String>,
    /// Why it would be wrong to harm anything now, as a sentence: a release, or a split that
    /// shifts weights.
    pub busy: Option<String>,
    /// Why another run goes first, as a sentence.
    pub taken: Option<String>,
    /// The calls of each check since the last look, in the order of the spec.
    pub counts: Vec<GroupCounts>,
    /// The calls to the target since the last look.
    pub calls: Calls,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start a run, and the field manager.
    Run(String),
    /// End it, and the field manager.
    Stop(String),
}

/// Calls to the pods of a checked Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// All of them.
    pub all: Counts,
    /// Those of requests that are spared, of the same share.
    pub control: Counts,
    /// Those of requests that meet the fault.
    pub harmed: Counts,
}

/// What a run did to the calls to its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls that the experiment is about.
    pub total: u64,
    /// Those that met the fault.
    pub harmed: u64,
    /// Those that were spared, for their namespace does not allow faults.
    pub excluded: u64,
    /// Those that were spared, for the caller's proxy held as many as it may.
    pub beyond_limit: u64,
    /// Those without a trace.
    pub untraced: u64,
}

/// What the status holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub phase: ExperimentPhase,
    /// The last run.
    pub run: Option<Run>,
    /// The last time of the schedule that is done with, since 1970.
    pub scheduled: Option<Duration>,
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Counted from 1.
    pub number: i64,
    /// The field manager of its command, or [`BY_SCHEDULE`].
    pub by: String,
    /// The generation of the object that it is about.
    pub generation: i64,
    pub requested: Duration,
    /// When it was last decided about.
    pub driven: Duration,
    /// Since when the checks are looked at before it.
    pub looking: Option<Duration>,
    /// When calls are harmed, and until when at most.
    pub harms: Option<(Duration, Duration)>,
    pub calls: Calls,
    /// Of the look before, and anew of the run. In the order of the spec.
    pub checks: Vec<Check>,
}

/// What is known of one check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Check {
    pub counts: GroupCounts,
    /// Whether all calls fail more often than `max`; not used without one.
    pub max: Judge,
    /// Whether harmed calls fail more often than others, by more than `tolerance`; the same.
    pub tolerance: Judge,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    pub state: State,
    /// What happened, oldest first.
    pub happened: Vec<Happened>,
}

/// What happened to a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// It waits to begin.
    Requested,
    /// It harms.
    Began,
    /// It is over, with a reason as a sentence where the verdict does not say it.
    Ended(Ended),
    /// A command that means nothing now, as a sentence.
    Ignored(String),
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub verdict: ExperimentVerdict,
    pub reason: String,
}

/// Decides. `state` is what the status held; a lost write is decided anew.
#[must_use]
pub fn next(spec: &Experiment, seen: &Seen, state: &State, now: Duration) -> Next {
    let mut next = Next {
        state: state.clone(),
        happened: Vec::new(),
    };
    if state.phase.is_under_way() && next.state.run.is_some() {
        next.skip_scheduled(seen);
        if matches!(seen.order, Some(Order::Run(_))) {
            let words = "a run is under way; stop it first".to_owned();
            next.happened.push(Happened::Ignored(words));
        }
        next.go_on(spec, seen, now);
    } else {
        next.add_late(seen);
        next.start(spec, seen, now);
    }
    next
}

impl Next {
    /// Times of the schedule that pass while a run is under way start no other one.
    fn skip_scheduled(&mut self, seen: &Seen) {
        if let Some(Due::Now(time) | Due::Missed(time)) = seen.due {
            self.state.scheduled = Some(time);
        }
    }

    /// Adds what the callers' proxies report of a run that has ended.
    fn add_late(&mut self, seen: &Seen) {
        let run = self.state.run.as_mut();
        if let Some(run) = run.filter(|run| run.harms.is_some()) {
            run.calls.add(&seen.calls);
        }
    }

    /// Starts a run if a command or the schedule wants one.
    fn start(&mut self, spec: &Experiment, seen: &Seen, now: Duration) {
        self.skip_scheduled(seen);
        let (by, late) = match (&seen.order, seen.due) {
            (Some(Order::Run(by)), _) => (by.clone(), false),
            // Before the schedule: what is due just now shall not run either.
            (Some(Order::Stop(_)), _) => {
                let words = "no run is under way".to_owned();
                self.happened.push(Happened::Ignored(words));
                return;
            }
            // Suspended, it neither starts nor misses anything.
            (_, Some(Due::Now(_))) if !spec.suspend => (BY_SCHEDULE.to_owned(), false),
            (_, Some(Due::Missed(_))) if !spec.suspend => (BY_SCHEDULE.to_owned(), true),
            _ => return,
        };
        let last = self.state.run.as_ref().map_or(0, |run| run.number);
        self.state.run = Some(Run {
            number: last + 1,
            by,
            generation: seen.generation,
            requested: now,
            driven: now,
            looking: None,
            harms: None,
            calls: Calls::default(),
            checks: fresh(spec),
        });
        self.state.phase = ExperimentPhase::Waiting;
        self.happened.push(Happened::Requested);
        let why = if late {
            let minutes = LATE.as_secs() / 60;
            Some(format!(
                "no controller could start it within {minutes} minutes of its time"
            ))
        } else {
            against(spec, seen)
        };
        if let Some(why) = why {
            self.end(ExperimentVerdict::NotStarted, why);
        }
    }

    fn go_on(&mut self, spec: &Experiment, seen: &Seen, now: Duration) {
        let is_running = self.state.phase == ExperimentPhase::Running;
        let stopped = if is_running {
            ExperimentVerdict::Stopped
        } else {
            ExperimentVerdict::NotStarted
        };
        let Some(run) = &mut self.state.run else {
            return;
        };
        let changed = run.generation != seen.generation;
        let away = now.saturating_sub(std::mem::replace(&mut run.driven, now));
        let mut why = match &seen.order {
            Some(Order::Stop(by)) => Some(format!("stopped by {by}")),
            _ => against(spec, seen),
        };
        if changed && why.is_none() {
            why = Some("spec was changed during the run".to_owned());
        }
        if away > UNDRIVEN && why.is_none() {
            why = Some(format!("no controller drove it for {} s", away.as_secs()));
        }
        if is_running && why.is_none() {
            why.clone_from(&seen.busy);
        }
        if let Some(why) = why {
            self.count(spec, seen);
            return self.end(stopped, why);
        }
        if is_running {
            self.run(spec, seen, now);
        } else {
            self.wait(spec, seen, now);
        }
    }

    /// Waits until nothing stands against the run, then looks, then begins.
    fn wait(&mut self, spec: &Experiment, seen: &Seen, now: Duration) {
        let Some(run) = &mut self.state.run else {
            return;
        };
        if let Some(busy) = &seen.busy {
            run.looking = None;
            run.checks = fresh(spec);
            let waited = now.saturating_sub(run.requested);
            if waited > WAIT {
                let why = format!("{busy}, for {} minutes", WAIT.as_secs() / 60);
                self.end(ExperimentVerdict::NotStarted, why);
            }
            return;
        }
        let since = *run.looking.get_or_insert(now);
        if let Some(worse) = self.count(spec, seen) {
            let why = format!("{worse} before anything was harmed");
            return self.end(ExperimentVerdict::NotStarted, why);
        }
        if now.saturating_sub(since) < LOOK {
            return;
        }
        if let Some(run) = &mut self.state.run {
            run.harms = Some((now, now + spec.duration));
            run.calls = Calls::default();
            run.checks = fresh(spec);
        }
        self.state.phase = ExperimentPhase::Running;
        self.happened.push(Happened::Began);
    }

    /// Looks at a run that harms.
    fn run(&mut self, spec: &Experiment, seen: &Seen, now: Duration) {
        let worse = self.count(spec, seen);
        let Some(run) = &self.state.run else { return };
        let (began, ends) = run.harms.unwrap_or((now, now));
        if let Some(worse) = worse {
            let took = now.saturating_sub(began).as_secs_f64();
            let why = format!("{worse} after {took:.1} s");
            return self.end(ExperimentVerdict::Harmful, why);
        }
        // Whether any call was harmed is known from reports, which come late.
        let is_unknown = run.calls.harmed == 0 && now < ends + LATE_REPORTS;
        if now < ends || is_unknown {
            return;
        }
        match lacks(spec, run) {
            None => self.end(ExperimentVerdict::Tolerated, String::new()),
            Some(why) => self.end(ExperimentVerdict::Inconclusive, why),
        }
    }

    /// Adds what was counted. Returns the first check that is worse than it may be, as a sentence.
    fn count(&mut self, spec: &Experiment, seen: &Seen) -> Option<String> {
        let run = self.state.run.as_mut()?;
        run.calls.add(&seen.calls);
        let needed = needed(judges(spec));
        let mut worse = None;
        let known = run.checks.iter_mut().zip(&spec.checks).zip(&seen.counts);
        for ((check, asked), new) in known {
            let found = check.look(asked, new, needed);
            worse = worse.or(found);
        }
        worse
    }

    fn end(&mut self, verdict: ExperimentVerdict, reason: String) {
        self.state.phase = ExperimentPhase::Finished;
        self.happened
            .push(Happened::Ended(Ended { verdict, reason }));
    }
}

impl Check {
    /// Adds the calls since the last look. Returns what is worse than it may be, as a sentence.
    fn look(&mut self, asked: &ServiceCheck, new: &GroupCounts, needed: f64) -> Option<String> {
        let service = &asked.service.name;
        let which = |before: Counts| match before.calls {
            0 => Look::FirstOf(1),
            _ => Look::Later,
        };
        let (all, harmed) = (which(self.counts.all), which(self.counts.harmed));
        self.counts.add(new);
        let GroupCounts {
            all: every,
            control,
            harmed: met,
        } = self.counts;
        let mut worse = None;
        if let Some(most) = asked.error_rate.max {
            let allowed = Allowed::Share(most);
            self.max.look(allowed, Counts::default(), new.all, all);
            if self.max.is_worse(needed) {
                worse = Some(format!(
                    "{service} errorRate: {} of {} calls failed",
                    every.bad, every.calls
                ));
            }
        }
        if let Some(points) = asked.error_rate.tolerance {
            let allowed = Allowed::Above(points);
            self.tolerance
                .look(allowed, new.control, new.harmed, harmed);
            if self.tolerance.is_worse(needed) && worse.is_none() {
                worse = Some(format!(
                    "{service} errorRate: {} of {} harmed calls failed, {} of {} spared",
                    met.bad, met.calls, control.bad, control.calls
                ));
            }
        }
        worse
    }
}

/// How many judges may end a run.
#[must_use]
pub fn judges(spec: &Experiment) -> usize {
    let of = |check: &ServiceCheck| {
        let rate = &check.error_rate;
        usize::from(rate.max.is_some()) + usize::from(rate.tolerance.is_some())
    };
    spec.checks.iter().map(of).sum()
}

/// What forbids a run, and ends one.
fn against(spec: &Experiment, seen: &Seen) -> Option<String> {
    let refused = seen.refused.as_ref().or(seen.taken.as_ref());
    let suspended = || spec.suspend.then(|| "spec.suspend is true".to_owned());
    refused.cloned().or_else(suspended)
}

/// The checks without any count.
fn fresh(spec: &Experiment) -> Vec<Check> {
    vec![Check::default(); spec.checks.len()]
}

/// What is missing for a verdict, as a sentence.
fn lacks(spec: &Experiment, run: &Run) -> Option<String> {
    // The groups of checks are drawn by trace, whether a call was harmed or not.
    if run.calls.harmed == 0 {
        return Some("no call was harmed".to_owned());
    }
    let least = spec.min_requests;
    let few = |asked: &ServiceCheck, calls: u64, which: &str| {
        let service = &asked.service.name;
        (calls < least)
            .then(|| format!("{service} got {calls} {which}, and spec.minRequests is {least}"))
    };
    let mut checks = run.checks.iter().zip(&spec.checks);
    checks.find_map(|(check, asked)| {
        let GroupCounts {
            all,
            control,
            harmed,
        } = check.counts;
        let compared = asked.error_rate.tolerance.and_then(|_| {
            few(asked, harmed.calls, "harmed calls")
                .or_else(|| few(asked, control.calls, "spared calls"))
        });
        let unmeasured = || {
            let service = &asked.service.name;
            (harmed.calls == 0).then(|| {
                format!("no harmed call with a trace reached {service}, so nothing was measured")
            })
        };
        compared
            .or_else(|| few(asked, all.calls, "calls"))
            .or_else(unmeasured)
    })
}

impl GroupCounts {
    /// Adds others to these.
    pub fn add(&mut self, more: &Self) {
        self.all.add(more.all);
        self.control.add(more.control);
        self.harmed.add(more.harmed);
    }
}

impl Calls {
    /// Adds others to these.
    pub fn add(&mut self, more: &Self) {
        for (sum, new) in [
            (&mut self.total, more.total),
            (&mut self.harmed, more.harmed),
            (&mut self.excluded, more.excluded),
            (&mut self.beyond_limit, more.beyond_limit),
            (&mut self.untraced, more.untraced),
        ] {
            *sum = sum.saturating_add(new);
        }
    }
}

#[cfg(test)]
mod tests;
