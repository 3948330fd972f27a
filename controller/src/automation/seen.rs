//! Collects what a CanaryRelease is decided by: the pods of its Deployment, what they count, and
//! whether proxies have the weight that was written last.

use std::collections::BTreeSet;
use std::time::Duration;

use automation::release::{Gate, Newest, Pod, Seen, State, thresholds};
use crds::weft::validation::Release;
use model::compiled::Compiled;
use model::world::{ObjectKey, PodFacts, ReleaseOrder, World};
use policy::release::ReleaseSet;
use policy::traffic::endpoint::Balance;
use tokio::time::Instant;

use super::context::Around;
use super::counts::{CountedPod, Counting, NewCalls, ReleaseCounts};
use super::gates;
use super::rollouts::Rollout;

/// From a model to the batches that streams make of it; they look every 100 ms.
const SENT_AFTER: Duration = Duration::from_secs(1);

/// Since when the model has the order that was written last.
#[derive(Debug, Default)]
pub(super) struct Ordered(Option<(ReleaseOrder, Instant)>);

impl Ordered {
    /// Whether proxies have the route of this state. `acknowledged`: those that need the release
    /// have all of it that was sent to them.
    pub(super) fn is_programmed(
        &mut self,
        order: &ReleaseOrder,
        state: &State,
        acknowledged: bool,
    ) -> bool {
        let (step, weight) = state
            .run
            .as_ref()
            .map_or((0, 0), |run| (run.step, run.weight));
        let is_written = order.phase == state.phase
            && order.candidate.as_deref() == state.candidate.as_deref()
            && usize::try_from(order.step) == Ok(step)
            && order.weight == weight;
        if !is_written {
            self.0 = None;
            return false;
        }
        let since = match &self.0 {
            Some((known, since)) if known == order => *since,
            _ => {
                let now = Instant::now();
                self.0 = Some((order.clone(), now));
                now
            }
        };
        acknowledged && since.elapsed() >= SENT_AFTER
    }
}

/// The pods of a Deployment that are neither gone nor being deleted.
pub(super) fn pods<'a>(
    world: &'a World,
    deployment: &'a ObjectKey,
) -> impl Iterator<Item = (&'a ObjectKey, &'a PodFacts)> {
    let first = ObjectKey::new(&deployment.namespace, "");
    let all = world.pods.range(first..);
    let all = all.take_while(move |(key, _)| key.namespace == deployment.namespace);
    let all = all.filter(|(_, facts)| !facts.ended && !facts.terminating);
    all.filter(move |(_, facts)| gates::deployment(facts) == Some(&*deployment.name))
        .map(|(key, facts)| (key, &**facts))
}

/// The Deployment that has pods of this revision, of those in the namespace with such a name.
pub(super) fn owner(
    world: &World,
    namespace: &str,
    revision: &str,
    is_meant: impl Fn(&str) -> bool,
) -> Option<ObjectKey> {
    let all = world.pods.range(ObjectKey::new(namespace, "")..);
    let all = all.take_while(|(key, _)| *key.namespace == *namespace);
    let there = all.filter(|(_, facts)| !facts.ended && !facts.terminating);
    let of_it = there.filter(|(_, facts)| *gates::revision(facts) == *revision);
    let mut owners = of_it.filter_map(|(_, facts)| gates::deployment(facts));
    let name = owners.find(|name| is_meant(name))?;
    Some(ObjectKey::new(namespace, name))
}

/// The Deployment of a release's run: the one that the spec names, unless that was changed since.
pub(super) fn of_run(
    world: &World,
    namespace: &str,
    state: &State,
    named: &str,
) -> Option<ObjectKey> {
    if state.is_of(named) {
        return Some(ObjectKey::new(namespace, named));
    }
    let candidate = state.candidate.as_deref()?;
    owner(world, namespace, candidate, |name| state.is_of(name))
}

/// The new calls of a release.
pub(super) fn calls(
    counts: &mut ReleaseCounts,
    around: Around<'_>,
    spec: &Release,
    state: &State,
) -> NewCalls {
    let service = ObjectKey::from(&spec.service);
    let deployment = deployment(&service.namespace, spec);
    let warmup = warmup(around.compiled, &service);
    let candidate = state.candidate.as_deref();
    let counted = pods(&around.compiled.world, &deployment).map(|(_, facts)| CountedPod {
        uid: facts.uid.clone(),
        is_candidate: candidate == Some(&*gates::revision(facts)),
        is_warm: is_warm(facts, warmup, around.now),
    });
    let counted: Vec<CountedPod> = counted.collect();
    let step = state.run.as_ref().and_then(|run| run.step.checked_sub(1));
    let step = step.and_then(|step| spec.steps.get(step));
    let counting = Counting {
        early: &around.parts.early,
        ports: &ports(around.compiled, &service),
        thresholds: thresholds(spec, state),
        mirrors: step.is_some_and(|step| step.mirror.is_some()),
        now: around.now,
    };
    counts.look(&counted, &counting)
}

/// What the release decides by, but for the command and whether proxies have its weight.
pub(super) fn seen(
    around: Around<'_>,
    spec: &Release,
    state: &State,
    rollout: &Rollout,
    calls: NewCalls,
) -> Seen {
    let service = ObjectKey::from(&spec.service);
    let deployment = deployment(&service.namespace, spec);
    let observed = &around.parts.observed;
    let pods = pods(&around.compiled.world, &deployment).map(|(key, facts)| Pod {
        name: key.name.to_string(),
        revision: gates::revision(facts).to_string(),
        gate: match facts.gate {
            None => Gate::Absent,
            Some(gate) if gate.released => Gate::Open,
            Some(_) => Gate::Shut,
        },
        containers_ready: facts.ready_since > 0 || facts.serves_gated(),
        ready: facts.ready_since > 0,
        connected: observed.is_connected(key),
        restarts: facts.gate.map_or(0, |gate| gate.restarts),
    });
    let stable = state.stable.as_deref();
    let newest = rollout.newest.as_ref().map(|revision| Newest {
        revision: revision.clone(),
        equals_stable: stable.is_some_and(|stable| rollout.equal(stable, revision)),
    });
    Seen {
        newest,
        pods: pods.collect(),
        foreign: foreign(around.compiled, &service, &deployment),
        deployment_paused: rollout.paused,
        progress_deadline: rollout.progress_deadline,
        programmed: false,
        breaker_open_at_candidate: is_open_at_candidate(around, &service),
        command: None,
        stable: calls.stable,
        candidate: calls.candidate,
        recent: calls.recent,
    }
}

/// Ready pods behind the Service that are not of the Deployment.
fn foreign(compiled: &Compiled, service: &ObjectKey, deployment: &ObjectKey) -> usize {
    let entry = compiled.model.index.services.get(service);
    let ports = entry.into_iter().flat_map(|entry| entry.ports.values());
    let ready = ports
        .flat_map(|port| &port.candidates)
        .filter(|one| one.ready);
    let pods: BTreeSet<&ObjectKey> = ready.filter_map(|one| one.endpoint.pod.as_ref()).collect();
    let others = pods.into_iter().filter(|pod| {
        let facts = compiled.world.pods.get(*pod);
        facts.is_some_and(|facts| gates::deployment(facts) != Some(&*deployment.name))
    });
    others.count()
}

/// The Deployment of a release.
pub(super) fn deployment(namespace: &str, spec: &Release) -> ObjectKey {
    ObjectKey::new(namespace, &spec.deployment)
}

/// The breaker of the whole mesh has opened at the candidate alone.
fn is_open_at_candidate(around: Around<'_>, service: &ObjectKey) -> bool {
    let open = around.parts.fleet.open(Instant::now());
    let is_open = |set: ReleaseSet| {
        let name = set.of(&service.name);
        let mut open = open.keys();
        open.any(|key| key.backend.namespace == service.namespace && *key.backend.name == *name)
    };
    is_open(ReleaseSet::Candidate) && !is_open(ReleaseSet::Stable)
}

/// Container ports behind a Service.
fn ports(compiled: &Compiled, service: &ObjectKey) -> BTreeSet<u16> {
    let entry = compiled.model.index.services.get(service);
    let ports = entry.into_iter().flat_map(|entry| entry.ports.values());
    let candidates = ports.flat_map(|port| &port.candidates);
    candidates
        .map(|candidate| candidate.endpoint.port)
        .collect()
}

/// How long new endpoints of a Service take to their full share: the longest of its ports.
fn warmup(compiled: &Compiled, service: &ObjectKey) -> Duration {
    let index = &compiled.model.index;
    let entry = index.services.get(service);
    let ports = entry.into_iter().flat_map(|entry| entry.ports.keys());
    let warmups = ports.map(|port| {
        let policies = index.policies.of(service, *port);
        let balance =
            policies.and_then(|policies| policies.traffic.balance.decide(None).0.as_ref());
        balance.map_or(Balance::DEFAULT.warmup, |balance| balance.warmup)
    });
    warmups.max().unwrap_or(Balance::DEFAULT.warmup)
}

/// `now` is since 1970, as is the time in the facts, by the clock of the pod's node.
fn is_warm(facts: &PodFacts, warmup: Duration, now: Duration) -> bool {
    let gated = facts.gate.map(|gate| gate.ready_since);
    let since = gated.filter(|since| *since > 0);
    let since = since.unwrap_or(facts.ready_since);
    since > 0 && Duration::from_secs(since) + warmup <= now
}
