//! Drives one CanaryRelease: each second it sees the cluster, decides by the crate `automation`,
//! writes the status and then acts.
//!
//! The state in memory is that of the status, and newer by the counts since the last write. A
//! decision is written before it is acted on, against the version that it was made of. Where that
//! version is not the newest, or no answer comes, the status is read anew at the next look: it
//! either holds the decision, which is then acted on once, or the decision is made again.

use std::time::Duration;

use automation::release::{self, Command, Ended, Event, EventKind, Pod, Seen, State, Verb};
use crds::weft::validation::Release;
use crds::weft::{CanaryReleaseStatus, ReleasePhase, ReleaseResult};
use kube::api::DynamicObject;
use model::world::ObjectKey;
use tokio::time::Instant;
use tracing::warn;

use super::aside;
use super::commands::{self, Removals, Request};
use super::conditions::Conditions;
use super::context::{Around, resource};
use super::counts::ReleaseCounts;
use super::fields;
use super::plan::{Plan, record};
use super::rollouts::{Rollout, Rollouts};
use super::seen::{self, Ordered};
use super::standing::{self, Known};
use super::stored::{self, Shown};
use crate::apiserver::events::About;
use crate::status::apart;
use crate::status::conditions::COUNT_EVERY;

/// A Deployment whose pods keep their gates, but for these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) deployment: ObjectKey,
    /// Names of pods.
    pub(super) opens: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Driven {
    key: ObjectKey,
    uid: String,
    conditions: apart::Conditions,
    rollouts: Rollouts,
    counts: ReleaseCounts,
    ordered: Ordered,
    removals: Removals,
    /// The state, and the status that it was last written as or read from.
    known: Option<(State, CanaryReleaseStatus)>,
    /// What was written, when no answer came.
    unanswered: Option<Plan>,
    written: Option<Instant>,
    /// What the release of this name before it leaves in the history.
    inherited: Vec<Ended>,
}

/// Whether a release can be carried out.
enum Standing {
    InForce(Rollout),
    /// But for its Service or its Deployment.
    Missing,
    Aside,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Persisted {
    /// The status has what was decided; in this version, if it was written now.
    Yes(Option<String>),
    No,
}

impl Driven {
    pub(super) fn new(key: &ObjectKey, uid: &str) -> Self {
        Self {
            key: key.clone(),
            uid: uid.to_owned(),
            conditions: apart::Conditions::default(),
            rollouts: Rollouts::default(),
            counts: ReleaseCounts::default(),
            ordered: Ordered::default(),
            removals: Removals::default(),
            known: None,
            unanswered: None,
            written: None,
            inherited: Vec::new(),
        }
    }

    pub(super) fn is_of(&self, uid: &str) -> bool {
        self.uid == uid
    }

    /// Drives the release by what is seen now. Returns what it holds.
    pub(super) async fn look(&mut self, around: Around<'_>, object: &DynamicObject) -> Vec<Held> {
        let status: CanaryReleaseStatus = fields::status(object);
        let state = self.take_up(around, &status);
        let known = standing::known(around, &self.key, object, &mut self.conditions);
        // The model follows; until then nothing changes.
        let Some(known) = known else {
            return self.as_it_is(around, object, &state);
        };
        let mut conditions = known.conditions.clone();
        let spec = &known.facts.spec;
        let accepted = known.is_accepted(around);
        let standing = self.standing(around, (spec, accepted), &state, &mut conditions);
        let Some(standing) = standing.await else {
            return self.as_it_is(around, object, &state);
        };
        let last = status.last_command.clone();
        let verbs = Verb::ALL.map(Verb::as_str);
        let request = commands::read(&object.metadata, last.as_deref(), &verbs, around.wall);
        let looked = (&state, &conditions, request.as_ref());
        let mut plan = self.plan(around, &known, &standing, looked);
        note_command(&mut plan, request.as_ref(), last);
        if plan.shown.summary.is_empty() {
            plan.shown.summary = conditions.cautions();
        }
        let is_driven = matches!(standing, Standing::InForce(_)) && !spec.suspend;
        standing::add_progress(&mut conditions, &plan.state, is_driven);
        plan.status = stored::written(&plan.state, &plan.shown);
        plan.status.conditions = conditions.stored(&status.conditions, around.wall);
        // A suspended one holds no gate, and opens none that another release holds.
        let holds = is_driven || plan.state.is_absent();
        let mut held = if holds {
            self.held(around, &state, &spec.deployment)
        } else {
            Vec::new()
        };
        let opens = std::mem::take(&mut plan.opens);
        let persisted = self.persist(around, object, &status, plan).await;
        if persisted != Persisted::No
            && let Some(held) = held.first_mut()
        {
            held.opens = opens;
        }
        self.finish_command(around, object, request, persisted)
            .await;
        held
    }

    /// What follows from how the release stands.
    fn plan(
        &mut self,
        around: Around<'_>,
        known: &Known<'_>,
        standing: &Standing,
        (state, conditions, request): (&State, &Conditions, Option<&Request>),
    ) -> Plan {
        let spec = &known.facts.spec;
        let kept = match standing {
            Standing::InForce(rollout) => {
                let acknowledged = conditions.is_true(crds::smi::PROGRAMMED);
                let order = &known.facts.order;
                let programmed = self.ordered.is_programmed(order, state, acknowledged);
                let calls = seen::calls(&mut self.counts, around, spec, state);
                let mut seen = seen::seen(around, spec, state, rollout, calls);
                (seen.programmed, seen.command) = (programmed, command(request));
                return follow(spec, &seen, state, around.now);
            }
            Standing::Missing => aside::kept(around, spec, state, conditions, request),
            Standing::Aside => None,
        };
        kept.unwrap_or_else(|| aside::plan(around, &self.key, state, conditions, request))
    }

    /// Whether the release can be carried out; what is against it is added to the conditions.
    /// `None`: the Deployment could not be read.
    async fn standing(
        &mut self,
        around: Around<'_>,
        (spec, accepted): (&Release, bool),
        state: &State,
        conditions: &mut Conditions,
    ) -> Option<Standing> {
        if !accepted {
            return Some(Standing::Aside);
        }
        if !standing::has_service(around, spec) {
            return Some(Standing::Missing);
        }
        if !state.is_of(&spec.deployment) {
            standing::refuse_other(conditions, spec);
            return Some(Standing::Missing);
        }
        let rollout = self.rollout(around, spec, state).await?;
        let fits = standing::fits(conditions, spec, rollout.as_ref());
        Some(match rollout {
            Some(rollout) if fits => Standing::InForce(rollout),
            Some(_) => Standing::Aside,
            None => Standing::Missing,
        })
    }

    /// The state to go on from: the one in memory while the status is what it was.
    fn take_up(&mut self, around: Around<'_>, status: &CanaryReleaseStatus) -> State {
        let answered = self.unanswered.take();
        if let Some(plan) = answered.filter(|plan| plan.status == *status) {
            record(around.parts, &self.about(), &plan);
            self.known = Some((plan.state, status.clone()));
        }
        if let Some((state, known)) = &self.known
            && known == status
        {
            return state.clone();
        }
        let mut state = stored::state(status, around.now);
        if state.history.is_empty() {
            state.history.clone_from(&self.inherited);
        }
        self.known = Some((state.clone(), status.clone()));
        state
    }

    /// The release is gone: the gates of a revision that it refused open, which is said on the
    /// Deployment, and by the release that has taken its place.
    pub(super) fn gone(mut self, around: Around<'_>, successor: Option<&mut Self>) {
        let Some((mut state, _)) = self.known.take() else {
            return;
        };
        if state.phase != ReleasePhase::RolledBack {
            return;
        }
        let how = if successor.is_some() {
            "replaced"
        } else {
            "deleted"
        };
        let why = format!("CanaryRelease {} was {how}", self.key.name);
        let ended = state.end(ReleaseResult::Bypassed, why, None, around.now);
        let Some(message) = aside::refused(around, &self.key, ended.as_ref()) else {
            return;
        };
        if let Some(successor) = successor {
            self.uid.clone_from(&successor.uid);
            successor.inherited = state.history;
        }
        let kind = EventKind::Bypassed;
        let plan = Plan {
            events: vec![Event { kind, message }],
            ended,
            ..Plan::default()
        };
        record(around.parts, &self.about(), &plan);
    }

    /// Its pods keep their gates as they are, also those of the run's Deployment where the spec
    /// names another one by now.
    fn as_it_is(&self, around: Around<'_>, object: &DynamicObject, state: &State) -> Vec<Held> {
        let named = object.data.pointer("/spec/deployment");
        let named = named.and_then(|name| name.as_str()).unwrap_or_default();
        let mut held = self.held(around, state, named);
        if !state.is_of(named) {
            held.push(Held {
                deployment: ObjectKey::new(&self.key.namespace, named),
                opens: Vec::new(),
            });
        }
        held
    }

    /// The Deployment of the run, as it is; of none without pods of it.
    fn held(&self, around: Around<'_>, state: &State, named: &str) -> Vec<Held> {
        let world = &around.compiled.world;
        let deployment = seen::of_run(world, &self.key.namespace, state, named);
        let held = deployment.map(|deployment| Held {
            deployment,
            opens: Vec::new(),
        });
        held.into_iter().collect()
    }

    /// The Deployment's rollout, if there is one; `None`: it could not be read.
    async fn rollout(
        &mut self,
        around: Around<'_>,
        spec: &Release,
        state: &State,
    ) -> Option<Option<Rollout>> {
        let deployment = seen::deployment(&self.key.namespace, spec);
        let pods = seen::pods(&around.compiled.world, &deployment);
        let pods = pods.map(|(_, facts)| facts.uid.clone()).collect();
        let runs = release::is_running(state.phase) || state.is_absent();
        let client = &around.parts.client;
        match self.rollouts.look(client, &deployment, pods, runs).await {
            Ok(rollout) => Some(rollout.cloned()),
            Err(error) => {
                around.parts.metrics.failures.inc();
                warn!(release = %self.key, %error, "Deployment not read");
                None
            }
        }
    }

    /// Writes the plan's status where that is due, and then records its Events.
    async fn persist(
        &mut self,
        around: Around<'_>,
        object: &DynamicObject,
        status: &CanaryReleaseStatus,
        plan: Plan,
    ) -> Persisted {
        let now = Instant::now();
        let is_urgent =
            plan.decided || stored::without_counts(&plan.status) != stored::without_counts(status);
        let is_recent = |at: Instant| now.duration_since(at) < COUNT_EVERY;
        let waits = !is_urgent && self.written.is_some_and(is_recent);
        if plan.status == *status || waits {
            record(around.parts, &self.about(), &plan);
            self.known = Some((plan.state, status.clone()));
            return Persisted::Yes(None);
        }
        let client = &around.parts.client;
        match fields::write_status(client, &resource(), object, &plan.status).await {
            Ok(written) => {
                record(around.parts, &self.about(), &plan);
                self.written = Some(now);
                self.known = Some((plan.state, fields::status(&written)));
                Persisted::Yes(written.metadata.resource_version)
            }
            Err(error) => {
                if !error.is_conflict() && !error.is_not_found() {
                    around.parts.metrics.failures.inc();
                    warn!(release = %self.key, %error, "status of a release not written");
                }
                if !error.is_refused() {
                    self.unanswered = Some(plan);
                } else if !plan.decided {
                    self.known = Some((plan.state, status.clone()));
                }
                Persisted::No
            }
        }
    }

    /// Removes the annotation of a command that is done with.
    async fn finish_command(
        &mut self,
        around: Around<'_>,
        object: &DynamicObject,
        request: Option<Request>,
        persisted: Persisted,
    ) {
        let mut meta = object.metadata.clone();
        match (request, persisted) {
            (None, _) | (Some(Request::Do(_)), Persisted::No) => return,
            (Some(_), Persisted::Yes(Some(version))) => meta.resource_version = Some(version),
            (Some(_), Persisted::Yes(None) | Persisted::No) => {}
        }
        let (client, kind) = (&around.parts.client, resource());
        if let Err(error) = self.removals.remove(client, &kind, &meta).await {
            around.parts.metrics.failures.inc();
            warn!(release = %self.key, %error, "annotation of a command not removed");
        }
    }

    /// The objects of its Events: the release, then the Deployment where it is known.
    fn about(&self) -> Vec<About> {
        let release = resource();
        let mut about = vec![About {
            api_version: release.api_version,
            kind: release.kind,
            namespace: self.key.namespace.to_string(),
            name: self.key.name.to_string(),
            uid: self.uid.clone(),
        }];
        about.extend(self.rollouts.deployment().map(|(key, rollout)| About {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: rollout.uid.clone(),
        }));
        about
    }
}

/// What the crate decides by what is seen.
fn follow(spec: &Release, seen: &Seen, state: &State, now: Duration) -> Plan {
    let next = release::next(spec, seen, state, now);
    let candidate = next.state.candidate.as_deref();
    let of = |pod: &&Pod| candidate == Some(pod.revision.as_str());
    let candidates = seen.pods.iter().filter(of).filter(|pod| pod.serves());
    let others = seen.pods.iter().filter(|pod| !of(pod) && pod.ready);
    let pods = (others.count() + seen.foreign, candidates.count());
    Plan {
        state: next.state,
        shown: Shown {
            summary: next.summary,
            checks: next.checks,
            steps: spec.steps.len(),
            pods,
            last_command: None,
        },
        decided: next.decided,
        events: next.events,
        ended: next.ended,
        opens: next.gates,
        status: CanaryReleaseStatus::default(),
    }
}

fn command(request: Option<&Request>) -> Option<Command> {
    let Some(Request::Do(command)) = request else {
        return None;
    };
    Some(Command {
        verb: Verb::named(command.verb)?,
        by: command.by.clone(),
    })
}

/// What the status and the Events say of a command.
fn note_command(plan: &mut Plan, request: Option<&Request>, last: Option<String>) {
    plan.shown.last_command = last;
    match request {
        Some(Request::Do(command)) => {
            plan.decided = true;
            plan.shown.last_command = Some(command.value.clone());
        }
        Some(Request::Ignored(why)) => plan.events.push(Event {
            kind: EventKind::CommandIgnored,
            message: why.clone(),
        }),
        Some(Request::Done) | None => {}
    }
}
