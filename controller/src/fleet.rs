//! Fleet breakers: sums what proxies report of calls to Services with a `breaker`, and applies the
//! decision of `policy::breaker::fleet` for the whole mesh.
//!
//! Every replica receives the breaker reports of its own proxies, passes them on to the others,
//! and comes to the same decision by itself; there is no leader. Counts are lost with their
//! replica: another one has new ones within an interval, and proxies decide alone meanwhile.
//!
//! A proxy reports only itself, and an account has one voice however many pods it has. A breaker
//! report about a Service without a breaker, about a backend that nothing leads to, or by an
//! account that may not call there, is not taken.
//!
//! May import `latest_model`.

mod announced;
mod authorization;
mod circuit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use policy::name::ObjectRef;
use prometheus_client::metrics::counter::Counter;
use prost::{Message as _, length_delimiter_len};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use wire::v1;

use self::authorization::{Authorizations, LOOKED_AT};
use self::circuit::{Decision, KnownCircuit};
use crate::latest_model::LatestModel;

pub(crate) use self::announced::{AnnouncedState, AnnouncedStates, Caller, Key, closed};
pub(crate) use self::circuit::BreakerReport;
#[cfg(test)]
pub(crate) use self::circuit::Phase;

/// Between two looks at what the breaker reports come to.
const EVERY: Duration = Duration::from_millis(250);
/// Breaker reports that are kept for other replicas; each receives them at once while it listens, and while
/// none does none are kept.
const KEPT: Duration = Duration::from_secs(3);
/// Callers of all breakers together: 2000 proxies that call 50 Services each. One takes 250
/// bytes where no other has its account.
const CALLERS: usize = 100_000;
/// Breakers that one breaker report may tell of: Services that one application calls at one time.
pub(crate) const CIRCUITS: usize = 1024;
/// Bytes of breaker reports that are kept for other replicas: what 2000 proxies that call 50 Services each
/// report in a second, of which each replica receives within a third of one.
const KEPT_BYTES: usize = 16 * 1024 * 1024;
/// Breaker reports in one message to another replica, and its bytes.
const TOGETHER: usize = 2000;
const TOGETHER_BYTES: usize = 1024 * 1024;

/// Shared by streams, peers and statuses. Clones are the same state.
#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    latest: LatestModel,
    state: Mutex<FleetState>,
    /// Counts changes of what is announced to proxies.
    announced: watch::Sender<u64>,
    /// Counts changes of which policies have a breaker with callers.
    called: watch::Sender<u64>,
    /// Counts breaker reports of this replica's own streams.
    own: watch::Sender<u64>,
    started: Notify,
    /// Counts callers of breakers beyond [`CALLERS`], and those whose rights take more than
    /// [`LOOKED_AT`] to know; what a breaker report says beyond [`CIRCUITS`] or of a breaker again; and
    /// breaker reports beyond [`KEPT_BYTES`], for each replica that did not get them.
    at_capacity: Counter,
}

#[derive(Debug, Default)]
struct FleetState {
    circuits: BTreeMap<Key, KnownCircuit>,
    /// Of all of them, each as often as it calls one.
    callers: usize,
    /// Policies that decided about one of them at the last look.
    policies: BTreeSet<ObjectRef>,
    announced: AnnouncedStates,
    /// Own breaker reports, the oldest first.
    own: VecDeque<OwnReport>,
    /// What they take.
    own_bytes: usize,
    /// Revision of the last one that went for want of room.
    cut: u64,
    revision: u64,
    authorizations: Authorizations,
}

/// What a pod of this replica's own streams said.
#[derive(Debug)]
struct OwnReport {
    revision: u64,
    at: Instant,
    bytes: usize,
    reported: v1::PodPulse,
}

impl FleetState {
    /// The policies that decide about a breaker of which something is known.
    fn objects(&self) -> BTreeSet<ObjectRef> {
        let circuits = self.circuits.values();
        circuits.map(|circuit| circuit.object().clone()).collect()
    }

    /// Keeps a breaker report for other replicas, for which the oldest may have to go.
    fn keep(&mut self, reported: v1::PodPulse, at: Instant) {
        self.revision += 1;
        let bytes = bytes_of(&reported);
        self.own_bytes += bytes;
        self.own.push_back(OwnReport {
            revision: self.revision,
            at,
            bytes,
            reported,
        });
        while self.own_bytes > KEPT_BYTES {
            let Some(oldest) = self.drop_oldest() else {
                return;
            };
            self.cut = oldest;
        }
    }

    /// Returns its revision.
    fn drop_oldest(&mut self) -> Option<u64> {
        let oldest = self.own.pop_front()?;
        self.own_bytes -= oldest.bytes;
        Some(oldest.revision)
    }

    fn forget_before(&mut self, now: Instant) {
        let old = |breaker_report: &OwnReport| now.duration_since(breaker_report.at) > KEPT;
        while self.own.front().is_some_and(old) {
            self.drop_oldest();
        }
    }
}

/// What a breaker report takes in memory.
fn bytes_of(reported: &v1::PodPulse) -> usize {
    let circuits = reported
        .pulse
        .iter()
        .flat_map(|breaker_report| &breaker_report.circuits);
    let circuits = circuits.map(|sample| {
        let names = sample.circuit.as_ref();
        let names = names.map_or(0, |of| of.service.len() + of.backend.len());
        size_of::<v1::CircuitPulse>() + names
    });
    let texts = reported.account.len() + reported.uid.len();
    size_of::<OwnReport>() + texts + circuits.sum::<usize>()
}

impl Fleet {
    /// Nothing has been received yet.
    pub(crate) fn new(latest: LatestModel, at_capacity: Counter) -> Self {
        Self {
            inner: Arc::new(Inner {
                latest,
                state: Mutex::default(),
                announced: watch::Sender::new(0),
                called: watch::Sender::new(0),
                own: watch::Sender::new(0),
                started: Notify::new(),
                at_capacity,
            }),
        }
    }

    /// Decides four times a second while any proxy calls a Service with a breaker.
    pub(crate) async fn run(self) {
        loop {
            let started = self.inner.started.notified();
            if self.inner.state.lock().circuits.is_empty() {
                started.await;
            }
            sleep(EVERY).await;
            self.tick(Instant::now(), SystemTime::now());
        }
    }

    /// Takes what a pod of this replica's own streams says.
    pub(crate) fn take(&self, from: &Caller, breaker_report: v1::Pulse, now: Instant) {
        let circuits = self.count(from, breaker_report, now);
        // A replica that starts to listen does not get earlier breaker reports.
        if circuits.is_empty() || self.inner.own.receiver_count() == 0 {
            return;
        }
        let reported = v1::PodPulse {
            account: from.account.to_string(),
            uid: from.uid.to_string(),
            pulse: Some(v1::Pulse { circuits }),
        };
        self.inner.state.lock().keep(reported, now);
    }

    /// Takes what another replica passes on of its own.
    pub(crate) fn receive(&self, breaker_reports: Vec<v1::PodPulse>, now: Instant) {
        for reported in breaker_reports {
            let from = Caller {
                account: reported.account.into(),
                uid: reported.uid.into(),
            };
            if let Some(breaker_report) = reported.pulse {
                self.count(&from, breaker_report, now);
            }
        }
    }

    /// Returns what of it was taken.
    fn count(
        &self,
        from: &Caller,
        breaker_report: v1::Pulse,
        now: Instant,
    ) -> Vec<v1::CircuitPulse> {
        let mut taken = Vec::new();
        let Some(compiled) = self.inner.latest.borrow().clone() else {
            return taken;
        };
        let mut state = self.inner.state.lock();
        let state = &mut *state;
        let mut left = LOOKED_AT;
        let beyond = breaker_report.circuits.len().saturating_sub(CIRCUITS);
        self.inner.at_capacity.inc_by(beyond as u64);
        let mut reported = BTreeSet::new();
        for sample in breaker_report.circuits.into_iter().take(CIRCUITS) {
            let Some(key) = sample.circuit.as_ref().and_then(Key::read) else {
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
            if !reported.insert(key.clone()) {
                self.inner.at_capacity.inc();
                continue;
            }
            let known = state.circuits.get(&key);
            if !known.is_some_and(|circuit| circuit.knows(from)) {
                if state.callers >= CALLERS {
                    self.inner.at_capacity.inc();
                    continue;
                }
                state.callers += 1;
            }
            let circuit = state.circuits.entry(key);
            let circuit = circuit.or_insert_with(|| KnownCircuit::new(now, decision));
            circuit.add_counts(now, from, (&sample).into());
            self.inner.started.notify_one();
            taken.push(sample);
        }
        taken
    }

    /// Goes on to what follows from the time and from the breaker reports.
    fn tick(&self, now: Instant, clock: SystemTime) {
        let compiled = self.inner.latest.borrow().clone();
        let mut state = self.inner.state.lock();
        let state = &mut *state;
        state.circuits.retain(|key, circuit| {
            let decision = compiled
                .as_deref()
                .and_then(|all| Decision::about(key, all));
            decision.is_some_and(|decision| circuit.tick(now, clock, decision))
        });
        state.callers = state.circuits.values().map(KnownCircuit::callers).sum();
        let policies = state.objects();
        let called = policies != state.policies;
        state.policies = policies;
        let circuits = state.circuits.iter();
        let next =
            circuits.filter_map(|(key, circuit)| Some((key.clone(), circuit.announced()?.clone())));
        let next: BTreeMap<Key, AnnouncedState> = next.collect();
        let news = next != *state.announced;
        if news {
            state.announced = Arc::new(next);
        }
        state.forget_before(now);
        let revision = state.revision;
        if news {
            self.inner.announced.send_modify(|count| *count += 1);
        }
        if called {
            self.inner.called.send_modify(|count| *count += 1);
        }
        self.inner.own.send_if_modified(|reported| {
            let changed = *reported != revision;
            *reported = revision;
            changed
        });
    }

    /// What is announced to proxies of the breakers that are not simply closed.
    pub(crate) fn announced(&self) -> AnnouncedStates {
        Arc::clone(&self.inner.state.lock().announced)
    }

    /// Notifies when that changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.announced.subscribe()
    }

    /// Notifies when a breaker of a policy gets its first caller or has none any more. Apart from
    /// [`Self::changes`], because it is no change for proxies, and every stream wakes for those.
    pub(crate) fn called_changes(&self) -> watch::Receiver<u64> {
        self.inner.called.subscribe()
    }

    /// Notifies when this replica's own proxies have sent something.
    pub(crate) fn own_changes(&self) -> watch::Receiver<u64> {
        self.inner.own.subscribe()
    }

    /// The revision of what its own proxies said last.
    pub(crate) fn revision(&self) -> u64 {
        self.inner.state.lock().revision
    }

    /// What its own proxies sent after revision `since`, as much as fits into one message, and the
    /// revision that this leads to; nothing when all is sent.
    pub(crate) fn own_since(&self, since: u64) -> (u64, Option<v1::Reports>) {
        let state = self.inner.state.lock();
        let lost = state.cut.saturating_sub(since);
        self.inner.at_capacity.inc_by(lost);
        let after = state
            .own
            .partition_point(|breaker_report| breaker_report.revision <= since);
        let news = state.own.range(after..).take(TOGETHER);
        let mut reported = state.revision;
        let mut message = v1::Reports::default();
        let mut bytes = 0;
        for breaker_report in news {
            bytes += framed(&breaker_report.reported);
            if bytes > TOGETHER_BYTES && !message.pulses.is_empty() {
                break;
            }
            reported = breaker_report.revision;
            message.pulses.push(breaker_report.reported.clone());
        }
        (reported, (!message.pulses.is_empty()).then_some(message))
    }

    /// The policies that decide about breakers of which something is known.
    pub(crate) fn objects(&self) -> BTreeSet<ObjectRef> {
        self.inner.state.lock().objects()
    }

    /// How the breakers of this policy fare: the one that is worst, and of those the one
    /// with most calls.
    pub(crate) fn report(&self, object: &ObjectRef, now: Instant) -> Option<BreakerReport> {
        let state = self.inner.state.lock();
        let circuit = state.circuits.iter();
        let circuit = circuit.filter(|(_, circuit)| circuit.object() == object);
        circuit
            .map(|(_, circuit)| circuit.report(now))
            .max_by_key(|report| (report.state, report.requests))
    }

    /// The breakers that have opened, with the policy of each and how they fare. One that is
    /// open because its policy says so has not.
    pub(crate) fn open(&self, now: Instant) -> BTreeMap<Key, (ObjectRef, BreakerReport)> {
        let state = self.inner.state.lock();
        let circuit = state
            .circuits
            .iter()
            .filter(|(_, circuit)| !circuit.is_written());
        let all = circuit.map(|(key, circuit)| (key, circuit.object(), circuit.report(now)));
        all.filter(|(_, _, report)| report.state.is_open())
            .map(|(key, object, report)| (key.clone(), (object.clone(), report)))
            .collect()
    }

    /// Whether a policy itself says that no call is sent there.
    pub(crate) fn is_written_open(&self, key: &Key) -> bool {
        let compiled = self.inner.latest.borrow().clone();
        let decision = compiled
            .as_deref()
            .and_then(|all| Decision::about(key, all));
        decision.is_some_and(|decision| decision.is_written_open())
    }
}

/// Bytes of a breaker report in a message: its field's number and its length stand before it.
fn framed(reported: &v1::PodPulse) -> usize {
    let bytes = reported.encoded_len();
    2 + length_delimiter_len(bytes) + bytes
}

#[cfg(test)]
mod tests;
