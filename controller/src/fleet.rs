//! Breakers of the whole mesh: sums what proxies tell of calls to Services with a
//! `breaker`, and asks `policy::breaker::fleet` what that means.
//!
//! Every replica hears its own proxies, tells the others what they said, and comes to the
//! same verdict by itself; none is asked and none leads. What was counted is gone with the
//! replica: another one has it within an interval, and proxies decide alone meanwhile.
//!
//! A proxy tells only of itself, and an account has one voice however many pods it has.
//! What is told of a Service without a breaker, of a backend that nothing leads to, or by
//! an account that may not call there, is not taken.
//!
//! May import `model` and `world`.

mod authorization;
mod circuit;
mod key;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use policy::name::ObjectRef;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use wire::v1;

use self::authorization::{Authorizations, LOOKED_AT};
use self::circuit::{Decision, Held};
use crate::model::compiled::Latest;

#[cfg(test)]
pub(crate) use self::circuit::Phase;
pub(crate) use self::circuit::Report;
pub(crate) use self::key::{Caller, Key};
pub(crate) use self::verdict::{CircuitVerdict, Verdicts, closed};

/// Between two looks at what the pulses come to.
const EVERY: Duration = Duration::from_millis(250);
/// Pulses that are kept for other replicas; each hears them at once while it listens.
const KEPT: Duration = Duration::from_secs(3);
/// Callers of all breakers together: 2000 proxies that call 50 Services each. One takes 250
/// bytes where no other has its account.
const CALLERS: usize = 100_000;
/// Breakers that one pulse may tell of: Services that one application calls at one time.
const CIRCUITS: usize = 1024;
/// Pulses in one message to another replica.
const TOGETHER: usize = 2000;

/// Shared by streams, peers and statuses. Clones are the same state.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    latest: Latest,
    state: Mutex<FleetState>,
    /// Counts changes of what proxies are told.
    verdicts: watch::Sender<u64>,
    /// Counts pulses of this replica's own streams.
    own: watch::Sender<u64>,
    begun: Notify,
    /// Counts callers of breakers beyond [`CALLERS`], and those whose rights take more than
    /// [`LOOKED_AT`] to know.
    at_capacity: Counter,
}

#[derive(Debug, Default)]
struct FleetState {
    circuits: BTreeMap<Key, Held>,
    /// Of all of them, each as often as it calls one.
    callers: usize,
    verdicts: Verdicts,
    /// Own pulses by revision, the oldest first.
    own: VecDeque<(u64, Instant, v1::PodPulse)>,
    revision: u64,
    authorizations: Authorizations,
}

impl Fleet {
    /// Nothing has been heard yet.
    pub(crate) fn new(latest: Latest, at_capacity: Counter) -> Self {
        Self {
            inner: Arc::new(Inner {
                latest,
                state: Mutex::default(),
                verdicts: watch::Sender::new(0),
                own: watch::Sender::new(0),
                begun: Notify::new(),
                at_capacity,
            }),
        }
    }

    /// Decides four times a second while anybody calls a Service with a breaker.
    pub(crate) async fn run(self) {
        loop {
            let begun = self.inner.begun.notified();
            if self.inner.state.lock().circuits.is_empty() {
                begun.await;
            }
            sleep(EVERY).await;
            self.tick(Instant::now(), SystemTime::now());
        }
    }

    /// Takes what a pod of this replica's own streams says.
    pub(crate) fn take(&self, from: &Caller, pulse: v1::Pulse, now: Instant) {
        let circuits = self.count(from, pulse, now);
        if circuits.is_empty() {
            return;
        }
        let mut state = self.inner.state.lock();
        state.revision += 1;
        let told = v1::PodPulse {
            account: from.account.to_string(),
            uid: from.uid.to_string(),
            pulse: Some(v1::Pulse { circuits }),
        };
        let revision = state.revision;
        state.own.push_back((revision, now, told));
    }

    /// Takes what another replica tells of its own.
    pub(crate) fn heard(&self, pulses: Vec<v1::PodPulse>, now: Instant) {
        for told in pulses {
            let from = Caller {
                account: told.account.into(),
                uid: told.uid.into(),
            };
            if let Some(pulse) = told.pulse {
                self.count(&from, pulse, now);
            }
        }
    }

    /// Returns what of it was taken.
    fn count(&self, from: &Caller, pulse: v1::Pulse, now: Instant) -> Vec<v1::CircuitPulse> {
        let mut taken = Vec::new();
        let Some(compiled) = self.inner.latest.borrow().clone() else {
            return taken;
        };
        let mut state = self.inner.state.lock();
        let state = &mut *state;
        let mut left = LOOKED_AT;
        for said in pulse.circuits.into_iter().take(CIRCUITS) {
            let Some(key) = said.circuit.as_ref().and_then(Key::read) else {
                continue;
            };
            let Some(decision) = Decision::about(&key, &compiled) else {
                continue;
            };
            let allowed = state.authorizations.allow(&compiled, &key, from, &mut left);
            if allowed.is_none() {
                self.inner.at_capacity.inc();
            }
            if allowed != Some(true) {
                continue;
            }
            let known = state.circuits.get(&key);
            if !known.is_some_and(|held| held.knows(from)) {
                if state.callers >= CALLERS {
                    self.inner.at_capacity.inc();
                    continue;
                }
                state.callers += 1;
            }
            let held = state.circuits.entry(key);
            let held = held.or_insert_with(|| Held::new(now, decision));
            held.pulse(now, from, (&said).into());
            self.inner.begun.notify_one();
            taken.push(said);
        }
        taken
    }

    /// Goes on to what follows from the time and from what was told.
    fn tick(&self, now: Instant, clock: SystemTime) {
        let compiled = self.inner.latest.borrow().clone();
        let mut state = self.inner.state.lock();
        let state = &mut *state;
        state.circuits.retain(|key, held| {
            let decision = compiled
                .as_deref()
                .and_then(|all| Decision::about(key, all));
            decision.is_some_and(|decision| held.tick(now, clock, decision))
        });
        state.callers = state.circuits.values().map(Held::callers).sum();
        let circuits = state.circuits.iter();
        let next = circuits.filter_map(|(key, held)| Some((key.clone(), held.verdict()?.clone())));
        let next: BTreeMap<Key, CircuitVerdict> = next.collect();
        let news = next != *state.verdicts;
        if news {
            state.verdicts = Arc::new(next);
        }
        let old = |(_, at, _): &(u64, Instant, v1::PodPulse)| now.duration_since(*at) > KEPT;
        while state.own.front().is_some_and(old) {
            state.own.pop_front();
        }
        let revision = state.revision;
        if news {
            self.inner.verdicts.send_modify(|count| *count += 1);
        }
        self.inner.own.send_if_modified(|told| {
            let changed = *told != revision;
            *told = revision;
            changed
        });
    }

    /// What proxies are told of the breakers that are not simply closed.
    pub(crate) fn verdicts(&self) -> Verdicts {
        Arc::clone(&self.inner.state.lock().verdicts)
    }

    /// Tells when that changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.verdicts.subscribe()
    }

    /// Tells when this replica's own proxies have said something.
    pub(crate) fn own_changes(&self) -> watch::Receiver<u64> {
        self.inner.own.subscribe()
    }

    /// The revision of what its own proxies said last.
    pub(crate) fn revision(&self) -> u64 {
        self.inner.state.lock().revision
    }

    /// What its own proxies said after revision `since`, and the revision that this leads
    /// to; nothing when all is told.
    pub(crate) fn own_since(&self, since: u64) -> (u64, Option<v1::Reports>) {
        let state = self.inner.state.lock();
        let after = state
            .own
            .partition_point(|(revision, ..)| *revision <= since);
        let news = state.own.range(after..).take(TOGETHER);
        let mut told = state.revision;
        let mut pulses = Vec::new();
        for (revision, _, pulse) in news {
            told = *revision;
            pulses.push(pulse.clone());
        }
        let message = v1::Reports {
            pulses,
            ..v1::Reports::default()
        };
        (told, (!message.pulses.is_empty()).then_some(message))
    }

    /// The policies that decide about breakers of which something is known.
    pub(crate) fn objects(&self) -> BTreeSet<ObjectRef> {
        let state = self.inner.state.lock();
        let held = state.circuits.values();
        held.map(|held| held.object().clone()).collect()
    }

    /// How the breakers of this policy fare: the one that is worst, and of those the one
    /// with most calls.
    pub(crate) fn report(&self, object: &ObjectRef, now: Instant) -> Option<Report> {
        let state = self.inner.state.lock();
        let held = state.circuits.iter();
        let held = held.filter(|(_, held)| held.object() == object);
        held.map(|(_, held)| held.report(now))
            .max_by_key(|report| (report.state, report.requests))
    }

    /// The breakers that have opened, with the policy of each and how they fare. One that is
    /// open because its policy says so has not.
    pub(crate) fn open(&self, now: Instant) -> BTreeMap<Key, (ObjectRef, Report)> {
        let state = self.inner.state.lock();
        let held = state.circuits.iter().filter(|(_, held)| !held.is_written());
        let all = held.map(|(key, held)| (key, held.object(), held.report(now)));
        all.filter(|(_, _, report)| report.state.is_open())
            .map(|(key, object, report)| (key.clone(), (object.clone(), report)))
            .collect()
    }

    /// Whether a policy says itself that nobody is sent there.
    pub(crate) fn is_written_open(&self, key: &Key) -> bool {
        let compiled = self.inner.latest.borrow().clone();
        let decision = compiled
            .as_deref()
            .and_then(|all| Decision::about(key, all));
        decision.is_some_and(|decision| decision.is_written_open())
    }
}

#[cfg(test)]
mod tests;
