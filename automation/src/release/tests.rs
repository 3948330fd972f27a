//! Tests of a release's runs in a cluster of a few lines, second by second: a Deployment that rolls,
//! callers, a kubelet, and one controller that persists.

use std::time::Duration;

use crds::weft::ReleasePhase;
use crds::weft::validation::{LatencyCheck, RateCheck, Release, ReleaseChecks, ReleaseStep};
use policy::latency::Histogram;
use policy::name::ServiceId;

use crate::judge::Counts;
use crate::release::steps::cap;
use crate::release::{
    Command, Ended, Event, EventKind, Evidence, Gate, Newest, Next, Pod, Seen, SetCounts, State,
    Unsaved, Verb, next,
};
use crate::testing::Random;

mod commands;
mod ends;
mod steps;
mod takeover;

/// When the tests begin.
const START: Duration = Duration::from_secs(1_800_000_000);
/// Counts are persisted that often where nothing is decided.
const PERSIST_EVERY: u64 = 5;

fn step(weight: u8, seconds: u64) -> ReleaseStep {
    ReleaseStep {
        mirror: None,
        weight,
        duration: Duration::from_secs(seconds),
        pause: false,
        groups: Vec::new(),
    }
}

fn release(steps: Vec<ReleaseStep>) -> Release {
    Release {
        service: ServiceId {
            namespace: "shop".into(),
            name: "web".into(),
        },
        deployment: "web".into(),
        steps,
        min_requests: 20,
        checks: ReleaseChecks {
            error_rate: Some(RateCheck {
                tolerance: Some(0.01),
                max: None,
            }),
            latency: Some(LatencyCheck {
                percentile: 99,
                tolerance: Some(0.2),
                max: None,
            }),
            restarts: Some(0),
        },
        deadline: Duration::from_secs(24 * 3600),
        suspend: false,
    }
}

fn pod(revision: &str, number: usize) -> Pod {
    Pod {
        name: format!("web-{revision}-{number}"),
        revision: revision.to_owned(),
        gate: Gate::Open,
        containers_ready: true,
        ready: true,
        connected: true,
        restarts: 0,
    }
}

/// What callers and the kubelet do, and what has become of the release.
#[derive(Debug)]
struct World {
    spec: Release,
    /// What the next looks see; pods and counts are kept up by [`World::tick`].
    seen: Seen,
    replicas: usize,
    /// The revision of the Deployment's template.
    template: String,
    /// Share of bad calls by revision: of any other one, and of `v2`.
    bad: (f64, f64),
    /// The revision whose containers are not ready.
    broken: Option<&'static str>,
    /// Calls in a second.
    calls: f64,
    /// In the memory of the controller, and as it was persisted last.
    state: State,
    persisted: State,
    seconds: u64,
    events: Vec<Event>,
    ended: Vec<Ended>,
    /// Writes that were tried, and what happens at which.
    writes: usize,
    trouble: Trouble,
    last: Option<Next>,
    made: usize,
    random: Random,
}

/// What happens at the write of this number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    /// The API server refuses it.
    Refused(usize),
    /// The controller ends just after it, before a gate is open; another takes over 17 s later.
    Dies(usize),
}

impl World {
    /// Three pods of `v1` that serve, and a release that knows them.
    fn new(spec: Release) -> Self {
        let pods = (0..3).map(|number| pod("v1", number)).collect();
        let mut latency = Histogram::default();
        latency.add([0, 0, 0, 0, 0, 0, 0, 1000]);
        let mut world = Self {
            spec,
            seen: Seen {
                pods,
                progress_deadline: Duration::from_secs(600),
                programmed: true,
                recent: Some(latency),
                ..Seen::default()
            },
            replicas: 3,
            template: "v1".to_owned(),
            bad: (0.001, 0.001),
            broken: None,
            calls: 100.0,
            state: State::default(),
            persisted: State::default(),
            seconds: 0,
            events: Vec::new(),
            ended: Vec::new(),
            writes: 0,
            trouble: Trouble::None,
            last: None,
            made: 3,
            random: Random::new(7),
        };
        world.run(2);
        world
    }

    /// As [`World::new`], with `v2` as the Deployment's template.
    fn updated(spec: Release) -> Self {
        let mut world = Self::new(spec);
        world.template = "v2".to_owned();
        world
    }

    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.tick();
        }
    }

    /// Until the phase is this one; the seconds that it took.
    fn until(&mut self, phase: ReleasePhase, seconds: u64) -> u64 {
        for second in 0..seconds {
            if self.state.phase == phase {
                return second;
            }
            self.tick();
        }
        panic!(
            "{phase:?} is not reached in {seconds} s: {:?} {:?}",
            self.state.phase, self.events
        );
    }

    /// Until the run is in this step and it has started.
    fn until_step(&mut self, step: usize) {
        for _ in 0..1000 {
            let run = self.state.run.as_ref();
            if run.is_some_and(|run| run.step == step && run.step_started.is_some()) {
                return;
            }
            self.tick();
        }
        panic!("step {step} is not reached: {:?}", self.events);
    }

    fn command(&mut self, verb: Verb) {
        self.seen.command = Some(Command {
            verb,
            by: Some("kubectl".to_owned()),
        });
        self.tick();
        self.seen.command = None;
    }

    fn now(&self) -> Duration {
        START + Duration::from_secs(self.seconds)
    }

    fn weight(&self) -> u8 {
        self.state.run.as_ref().map_or(0, |run| run.weight)
    }

    fn summary(&self) -> &str {
        self.last.as_ref().map_or("", |next| next.summary.as_str())
    }

    /// The reasons of all Events, in their order.
    fn reasons(&self) -> Vec<EventKind> {
        self.events.iter().map(|event| event.kind).collect()
    }

    fn shut(&self, revision: &str) -> usize {
        let pods = self.seen.pods.iter();
        pods.filter(|pod| pod.revision == revision && pod.gate == Gate::Shut)
            .count()
    }

    fn count(&self, revision: &str) -> usize {
        let pods = self.seen.pods.iter();
        pods.filter(|pod| pod.revision == revision).count()
    }

    /// One second.
    fn tick(&mut self) {
        self.seconds += 1;
        self.kubelet();
        self.deployment();
        self.callers();
        self.look();
    }

    /// Containers are ready a second after a pod is made, and a pod is ready by its gate.
    fn kubelet(&mut self) {
        for pod in &mut self.seen.pods {
            let works = self.broken != Some(pod.revision.as_str());
            pod.ready = works && pod.containers_ready && pod.gate != Gate::Shut;
            pod.containers_ready = works;
        }
    }

    /// `maxSurge` 1, `maxUnavailable` 0.
    fn deployment(&mut self) {
        if self.seen.deployment_paused {
            return;
        }
        let newest = self.template.clone();
        let new = self.count(&newest);
        if new < self.replicas && self.seen.pods.len() <= self.replicas {
            self.made += 1;
            let gate = if self.state.stable.as_deref() == Some(newest.as_str()) {
                Gate::Absent
            } else {
                Gate::Shut
            };
            self.seen.pods.push(Pod {
                gate,
                containers_ready: false,
                ready: false,
                ..pod(&newest, self.made)
            });
        }
        let ready = self.seen.pods.iter().filter(|pod| pod.ready).count();
        let old = |pod: &Pod| pod.revision != newest;
        let unready = self.seen.pods.iter().position(|pod| old(pod) && !pod.ready);
        let spare = self.seen.pods.iter().position(old);
        match (unready, spare) {
            (Some(at), _) => drop(self.seen.pods.remove(at)),
            (None, Some(at)) if ready > self.replicas => drop(self.seen.pods.remove(at)),
            _ => {}
        }
    }

    /// Meshed callers go by the weight that was persisted, under the cap by pods.
    fn callers(&mut self) {
        let candidate = self.persisted.candidate.clone().unwrap_or_default();
        let cap = cap(&self.seen, &candidate);
        let run = self.persisted.run.as_ref();
        let weight = run.map_or(0, |run| run.weight).min(cap);
        let part = f64::from(weight) / 100.0;
        let bad = if candidate == "v2" {
            self.bad.1
        } else {
            self.bad.0
        };
        let mut set = |mean: f64, bad: f64| {
            let calls = self.random.count(mean);
            let errors = Counts {
                calls,
                bad: self.random.bad(calls, bad),
            };
            SetCounts {
                errors,
                latency: Counts { calls, bad: 0 },
                latency_max: Counts::default(),
            }
        };
        self.seen.stable = set(self.calls * (1.0 - part), self.bad.0);
        self.seen.candidate = set(self.calls * part, bad);
    }

    fn look(&mut self) {
        self.seen.newest = Some(Newest {
            revision: self.template.clone(),
            equals_stable: self.template.ends_with("-restarted"),
        });
        let before = self.state.clone();
        let next = next(&self.spec, &self.seen, &before, self.now());
        let writes = next.decided || self.seconds.is_multiple_of(PERSIST_EVERY);
        if writes {
            self.writes += 1;
            if self.trouble == Trouble::Refused(self.writes) {
                return;
            }
            obeys(&self.persisted, &next);
            self.persisted = persisted(&next.state);
        }
        self.state = next.state.clone();
        self.events.extend(next.events.iter().cloned());
        self.ended.extend(next.ended.iter().cloned());
        if writes && self.trouble == Trouble::Dies(self.writes) {
            self.take_over();
            return;
        }
        for name in &next.gates {
            let mut pods = self.seen.pods.iter_mut();
            let pod = pods.find(|pod| pod.name == *name);
            let pod = pod.expect("gates open of pods that are there");
            assert_eq!(pod.gate, Gate::Shut, "{name} is open already");
            pod.gate = Gate::Open;
        }
        self.last = Some(next);
    }

    /// Another controller: the cluster goes on for 17 s, and it knows what was persisted.
    fn take_over(&mut self) {
        for _ in 0..17 {
            self.seconds += 1;
            self.kubelet();
            self.deployment();
        }
        self.state = self.persisted.clone();
    }
}

/// What a status keeps of a state: whole seconds, and the evidence as a text.
fn persisted(state: &State) -> State {
    let mut state = state.clone();
    state.unsaved = Unsaved::default();
    let whole = |time: Duration| Duration::from_secs(time.as_secs());
    if let Some(run) = &mut state.run {
        let text = run.evidence.to_text();
        assert!(text.len() <= 1024, "{} bytes: {text}", text.len());
        run.evidence = Evidence::of_text(&text);
        run.started = whole(run.started);
        run.step_started = run.step_started.map(whole);
        run.paused_at = run.paused_at.map(whole);
    }
    state
}

/// What holds between any two writes.
fn obeys(before: &State, next: &Next) {
    let after = &next.state;
    let (Some(old), Some(new)) = (&before.run, &after.run) else {
        return;
    };
    if old.number != new.number {
        assert_eq!(new.number, old.number + 1);
        return;
    }
    assert!(new.step >= old.step, "no step comes twice");
    if after.phase == ReleasePhase::RolledBack {
        let promoting = before.phase == ReleasePhase::Promoting;
        assert!(promoting || new.weight == 0 || new.weight <= old.weight);
        if !promoting && before.phase != ReleasePhase::RolledBack {
            assert_eq!(new.weight, 0, "no call after a rollback");
        }
        assert!(next.gates.is_empty(), "gates stay shut: {:?}", next.gates);
    }
    if before.phase == ReleasePhase::RolledBack {
        assert_eq!(after.phase, ReleasePhase::RolledBack, "it stays so");
    }
}
