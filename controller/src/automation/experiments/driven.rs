//! Drives one FaultExperiment: each second it sees the cluster, decides by the crate `automation`,
//! and writes the status.
//!
//! The state in memory is that of the status, and newer by the counts since the last write. A
//! decision is written against the version that it was made of. Where that version is not the
//! newest, or no answer comes, the status is read anew at the next look: it either holds the
//! decision, or the decision is made again.
//!
//! While a run is under way its status is written each [`MARK_EVERY`], whatever is new: by these
//! writes every replica sees that it is driven.

use std::time::{Duration, SystemTime};

use automation::experiment::{self, Ended, Happened, LATE_REPORTS, Order, Seen, State};
use automation::schedule::{Due, Schedule};
use crds::weft::validation::{Experiment, Schedule as Times};
use crds::weft::{ExperimentHistory, ExperimentPhase, ExperimentVerdict, FaultExperimentStatus};
use kube::api::DynamicObject;
use kube::core::ObjectMeta;
use model::faults;
use model::world::{ExperimentFacts, ObjectKey};
use policy::name::Kind;
use tokio::time::Instant;
use tracing::warn;

use super::context::{Around, resource};
use super::counted::RunCounts;
use super::obstacles::{self, Shifts};
use super::{stored, words};
use crate::automation::commands::{self, Command, Removals, Request};
use crate::automation::conditions::Conditions;
use crate::automation::fields;
use crate::observe::reports::interval_of;
use crate::status::apart;

/// Between two writes of a run that is under way.
const MARK_EVERY: Duration = Duration::from_secs(5);
const RUN: &str = "run";
const STOP: &str = "stop";

/// See the module.
#[derive(Debug)]
pub(super) struct Driven {
    key: ObjectKey,
    uid: String,
    conditions: apart::Conditions,
    schedule: Option<(Times, Result<Schedule, String>)>,
    /// Its next time after the first one here. A search may take milliseconds: one for 30
    /// February goes through thousands of years.
    next_time: Option<(Duration, Option<Duration>)>,
    shifts: Shifts,
    removals: Removals,
    /// The run that is counted, and the first interval of its calls.
    counts: Option<(i64, u64, RunCounts)>,
    known: Option<Known>,
    written: Option<Instant>,
    /// When the last run ended, as far as this replica saw it.
    ended: Option<Instant>,
    /// What it was at the last look, and since which generation.
    spec: Option<(i64, Experiment)>,
}

/// The state and the history, and the status that they were last written as or read from.
#[derive(Debug)]
struct Known {
    state: State,
    history: Vec<ExperimentHistory>,
    status: FaultExperimentStatus,
}

/// What a look decides.
struct Plan {
    state: State,
    history: Vec<ExperimentHistory>,
    happened: Vec<Happened>,
    status: FaultExperimentStatus,
}

impl Driven {
    pub(super) fn new(key: &ObjectKey, uid: &str) -> Self {
        Self {
            key: key.clone(),
            uid: uid.to_owned(),
            conditions: apart::Conditions::default(),
            schedule: None,
            next_time: None,
            shifts: Shifts::default(),
            removals: Removals::default(),
            counts: None,
            known: None,
            written: None,
            ended: None,
            spec: None,
        }
    }

    pub(super) fn is_of(&self, uid: &str) -> bool {
        self.uid == uid
    }

    /// Drives the experiment by what is seen now. Returns whether a run is under way.
    pub(super) async fn look(&mut self, around: &Around<'_>, object: &DynamicObject) -> bool {
        let before = stored::is_under_way(object);
        let Some(facts) = self.facts(around, object) else {
            // The model follows; until then nothing changes.
            return before;
        };
        let spec = &facts.spec;
        let status: FaultExperimentStatus = fields::status(object);
        let known = self.take_up(&status, facts);
        let conditions = Conditions::of(
            &mut self.conditions,
            Kind::FaultExperiment,
            &self.key,
            around.compiled,
            &around.parts.observed,
        );
        let Some(mut conditions) = conditions else {
            return before;
        };
        if let Some(why) = self.read_schedule(spec) {
            conditions.refuse("Invalid", why);
        }
        let last = status.last_command.as_deref();
        let request = commands::read(&object.metadata, last, &[RUN, STOP], around.wall);
        let seen = self.see(
            around,
            facts,
            &conditions,
            &known.state,
            (object, request.as_ref()),
        );
        let next_time = match seen.due {
            Some(Due::At(time)) => time,
            _ => None,
        };
        let waits = known.state.phase == ExperimentPhase::Waiting;
        let busy = seen.busy.as_ref().filter(|_| waits);
        let obstacle = seen.refused.as_ref().or(busy).cloned();
        let next = experiment::next(spec, &seen, &known.state, around.now);
        let mut plan = Plan {
            status: FaultExperimentStatus::default(),
            history: known.history,
            happened: next.happened,
            state: next.state,
        };
        self.conclude(&mut plan, facts, around);
        words::add_progress(&mut conditions, &plan.state);
        plan.status = stored::written(&plan.state, &plan.history, spec, around.now);
        plan.status.summary = Some(words::summary(
            &plan.state,
            plan.history.first(),
            obstacle.as_deref(),
            next_time,
            around.now,
        ));
        plan.status.last_command = match &request {
            Some(Request::Do(Command { value, .. })) => Some(value.clone()),
            _ => status.last_command.clone(),
        };
        plan.status.conditions = conditions.stored(&status.conditions, around.wall);
        self.persist(around, (object, spec), &status, (plan, request))
            .await
    }

    /// The object is gone, and with it a run that harmed calls, which is said on its target.
    pub(super) fn gone(&self, around: &Around<'_>) {
        let state = self.known.as_ref().map(|known| &known.state);
        let running = state.filter(|state| state.phase == ExperimentPhase::Running);
        let run = running.and_then(|state| state.run.as_ref());
        if let (Some(run), Some((_, spec))) = (run, &self.spec) {
            let ended = Happened::Ended(Ended {
                verdict: ExperimentVerdict::Stopped,
                reason: format!("FaultExperiment {} was deleted", self.key.name),
            });
            self.record(around, spec, (&ended, Some(run)));
        }
    }

    /// What the model knows of this version of the object.
    fn facts<'a>(
        &self,
        around: &Around<'a>,
        object: &DynamicObject,
    ) -> Option<&'a ExperimentFacts> {
        let facts = around.compiled.world.experiments.get(&self.key)?;
        let generation = object.metadata.generation.unwrap_or(0);
        let is_same = facts.meta.generation == generation && *facts.meta.uid == *self.uid;
        is_same.then_some(&**facts)
    }

    /// The state in memory where the status is what it was written as, else that of the status. A
    /// write that changes no meaning, such as a default that is written out, ends no run: it goes on
    /// by the generation of that write.
    fn take_up(&mut self, status: &FaultExperimentStatus, facts: &ExperimentFacts) -> Known {
        let mut known = match self.known.take() {
            Some(known) if known.status == *status => known,
            _ => Known {
                state: stored::state(status, &facts.spec),
                history: status.history.clone(),
                status: status.clone(),
            },
        };
        if let (Some(run), Some((generation, spec))) = (&mut known.state.run, &self.spec)
            && *generation <= run.generation
            && *spec == facts.spec
        {
            run.generation = facts.meta.generation;
        }
        known
    }

    /// Why the schedule has no times, if so.
    fn read_schedule(&mut self, spec: &Experiment) -> Option<String> {
        let times = spec.schedule.as_ref();
        if self.schedule.as_ref().map(|(times, _)| times) != times {
            self.next_time = None;
            self.schedule = times.map(|times| {
                let read = Schedule::read(&times.cron, Some(&times.time_zone));
                (times.clone(), read.map_err(|error| error.to_string()))
            });
        }
        let (_, read) = self.schedule.as_ref()?;
        let why = read.as_ref().err()?;
        Some(format!("spec.schedule: {why}; correct it"))
    }

    /// What the schedule wants, when its times up to `since` are done with.
    fn due(&mut self, since: Duration, now: Duration) -> Option<Due> {
        let (_, read) = self.schedule.as_ref()?;
        let schedule = read.as_ref().ok()?;
        let due = match self.next_time {
            Some((of, next)) if of == since && next.is_none_or(|next| now < next) => Due::At(next),
            _ => schedule.due(since, now),
        };
        self.next_time = match due {
            Due::At(next) => Some((since, next)),
            Due::Now(_) | Due::Missed(_) => None,
        };
        Some(due)
    }

    fn see(
        &mut self,
        around: &Around<'_>,
        facts: &ExperimentFacts,
        conditions: &Conditions,
        state: &State,
        (object, request): (&DynamicObject, Option<&Request>),
    ) -> Seen {
        let spec = &facts.spec;
        let since = state.scheduled.max(Some(spec_written(&object.metadata)));
        let mut seen = Seen {
            order: order(request),
            due: self.due(since.unwrap_or_default(), around.now),
            generation: facts.meta.generation,
            refused: obstacles::refused(around, &object.metadata, conditions),
            busy: self.shifts.busy(around, spec),
            taken: obstacles::taken(around),
            ..Seen::default()
        };
        let Some(run) = &state.run else { return seen };
        let is_under_way = state.phase.is_under_way();
        if !is_under_way && !self.awaits_reports() {
            self.counts = None;
            return seen;
        }
        if self
            .counts
            .as_ref()
            .is_none_or(|(of, ..)| *of != run.number)
        {
            // A run that another holder counted before: what it counted is in the status.
            let interval = interval_of(SystemTime::UNIX_EPOCH + around.now);
            let first = interval + u64::from(run.harms.is_some());
            self.counts = Some((run.number, first, RunCounts::default()));
        }
        if let Some((number, first, counts)) = &mut self.counts {
            let seed = faults::seed(&self.uid, *number);
            let label = self.key.to_string();
            seen.calls = counts.calls(&around.parts.reports, *first, &label, seed);
            if is_under_way {
                let index = &around.compiled.model.index;
                seen.counts = counts.look(spec, index, &around.parts.early);
            }
        }
        seen
    }

    /// Whether callers' proxies may still report calls of a run that has ended.
    fn awaits_reports(&self) -> bool {
        self.ended.is_some_and(|at| at.elapsed() < LATE_REPORTS)
    }

    /// Adds a run that has ended to the history, and to the last one what came late.
    fn conclude(&mut self, plan: &mut Plan, facts: &ExperimentFacts, around: &Around<'_>) {
        let generation = facts.meta.generation;
        let known = self.spec.as_ref();
        if known.is_none_or(|(_, spec)| *spec != facts.spec) {
            self.spec = Some((generation, facts.spec.clone()));
        }
        let Some(run) = &plan.state.run else { return };
        for happened in &plan.happened {
            if let Happened::Ended(Ended { verdict, reason }) = happened {
                let history = &mut plan.history;
                let how = (*verdict, reason.as_str());
                stored::remember(history, run, &facts.spec, how, around.now);
                self.ended = Some(Instant::now());
            }
        }
        stored::add_late_calls(&mut plan.history, run);
    }

    /// Writes what is due, and then records what happened. Returns whether a run is under way.
    async fn persist(
        &mut self,
        around: &Around<'_>,
        (object, spec): (&DynamicObject, &Experiment),
        before: &FaultExperimentStatus,
        (plan, request): (Plan, Option<Request>),
    ) -> bool {
        let is_under_way = plan.state.phase.is_under_way();
        let is_counted = is_under_way || self.awaits_reports();
        let is_ordered = matches!(request, Some(Request::Do(_)));
        let decided = !plan.happened.is_empty() || is_ordered;
        let changed = stored::without_counts(&plan.status) != stored::without_counts(before);
        let is_old = self.written.is_none_or(|at| at.elapsed() >= MARK_EVERY);
        // Summaries and messages of conditions differ without a run, too, and may wait as long.
        let calls = plan.status.calls != before.calls;
        let differs = is_counted || calls || shown(&plan.status) != shown(before);
        let mut meta = object.metadata.clone();
        let mut status = before.clone();
        if decided || changed || (is_old && differs) {
            let client = &around.parts.client;
            match fields::write_status(client, &resource(), object, &plan.status).await {
                Ok(written) => meta.resource_version = written.metadata.resource_version,
                Err(error) => {
                    warn!(experiment = %self.key, %error, "status not written");
                    // It is read anew, and decided anew.
                    return stored::is_under_way(object);
                }
            }
            self.written = Some(Instant::now());
            status = plan.status;
        }
        let run = plan.state.run.clone();
        self.known = Some(Known {
            state: plan.state,
            history: plan.history,
            status,
        });
        for happened in &plan.happened {
            self.record(around, spec, (happened, run.as_ref()));
        }
        if let Some(Request::Ignored(why)) = &request {
            let event = words::event(&self.uid, &self.key, "CommandIgnored", true, why.clone());
            around.parts.events.record(event);
        }
        if request.is_some() {
            let (client, kind) = (&around.parts.client, resource());
            if let Err(error) = self.removals.remove(client, &kind, &meta).await {
                warn!(experiment = %self.key, %error, "annotation of a command not removed");
            }
        }
        is_under_way
    }

    fn record(
        &self,
        around: &Around<'_>,
        spec: &Experiment,
        (happened, run): (&Happened, Option<&experiment::Run>),
    ) {
        let (reason, warning, text) = match (happened, run) {
            (Happened::Began, Some(run)) => {
                ("FaultStarted", false, words::began(&self.key, run, spec))
            }
            (Happened::Ended(ended), Some(run)) => {
                let warning = words::is_warning(ended.verdict);
                ("FaultEnded", warning, words::ended(run, ended))
            }
            (Happened::Ignored(why), _) => ("CommandIgnored", true, why.clone()),
            _ => return,
        };
        let event = words::event(&self.uid, &self.key, reason, warning, text);
        if !matches!(happened, Happened::Ignored(_))
            && let Some(event) = words::on_target(&event, spec, around)
        {
            around.parts.events.record(event);
        }
        around.parts.events.record(event);
    }
}

fn order(request: Option<&Request>) -> Option<Order> {
    let Some(Request::Do(Command { verb, by, .. })) = request else {
        return None;
    };
    let by = by.clone().unwrap_or_else(|| "unknown".to_owned());
    Some(if *verb == STOP {
        Order::Stop(by)
    } else {
        Order::Run(by)
    })
}

/// When the object was last written by anything but a status: its schedule is no older, and times
/// before that are none of it.
fn spec_written(meta: &ObjectMeta) -> Duration {
    let entries = meta.managed_fields.iter().flatten();
    let entries = entries.filter(|entry| entry.subresource.is_none());
    let times = entries.filter_map(|entry| entry.time.as_ref());
    let latest = times.chain(&meta.creation_timestamp).map(|time| time.0);
    let seconds = latest.max().map_or(0, |time| time.as_second());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// What a status shows without a run.
fn shown(status: &FaultExperimentStatus) -> (Option<&str>, Vec<&str>) {
    let conditions = status.conditions.iter();
    let messages = conditions.map(|condition| condition.message.as_str());
    (status.summary.as_deref(), messages.collect())
}
