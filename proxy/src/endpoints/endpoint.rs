//! One endpoint: an address that serves a Service, with what this proxy has measured of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use policy::balance::Candidate;
use policy::health::{
    EjectedFor, Health, HealthChange, HealthSignal, Others, Probe, Recent, Returns,
};
use policy::name::SpiffeId;
use policy::traffic::endpoint::Ejection;
use prometheus_client::metrics::gauge::Gauge;

use crate::endpoints::learned::{Draw, Latency, Learned, now};
use crate::endpoints::location::{AtomicLocation, Location};
use crate::endpoints::presence::Presence;
use crate::telemetry::cell::CellCache;

/// A caller that waits so long in vain may wait for an endpoint that is gone.
const SUSPECTED_AFTER: Duration = Duration::from_secs(1);

/// One address that serves.
#[derive(Debug)]
pub struct Endpoint {
    pub addr: SocketAddr,
    /// Expected of the peer; `None`: plaintext.
    pub identity: Option<SpiffeId>,
    /// `namespace/name`, empty when no pod stands behind the address.
    pub pod: Arc<str>,
    /// Uid of that pod, which its certificate names; empty where none is known.
    pub pod_uid: Arc<str>,
    pub opaque: bool,
    /// What it contributes to the hashes of tenants.
    pub(super) seed: u64,
    /// Where calls to it are counted, by each route that leads here.
    pub cells: CellCache,
    pub(super) learned: Mutex<Learned>,
    pub(super) in_flight: AtomicU32,
    pub(super) presence: Presence,
    pub(super) location: AtomicLocation,
    /// Ejected endpoints, of all.
    pub(super) ejected: Gauge,
}

/// What is known of an endpoint, for the page of the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndpointView {
    pub(crate) candidate: Candidate,
    /// What it answered in the last ten seconds.
    pub(crate) recent: Recent,
    /// The load that it reports, in percent.
    pub(crate) load: u8,
    pub(crate) in_flight: u32,
}

impl Endpoint {
    #[must_use]
    pub const fn meshed(&self) -> bool {
        self.identity.is_some()
    }

    /// Takes over its location from the controller.
    pub(crate) fn runs_at(&self, location: Location) {
        self.location.set(location);
    }

    /// Whether it gets no requests because others failed there.
    pub(super) fn is_ejected(&self) -> bool {
        self.learned.lock().health.is_ejected()
    }

    /// What was learned, with what the probe has shown by now.
    pub(super) fn settled(&self, now: Instant) -> MutexGuard<'_, Learned> {
        let mut learned = self.learned.lock();
        if learned.health.settle(now) {
            self.ejected.dec();
        }
        learned
    }

    /// Whether it fails all that it is sent, as far as a call that goes by `draw` minds.
    pub(super) fn is_failing(&self, now: Instant, draw: &Draw<'_>) -> bool {
        !draw.tried.contains(&self.addr)
            && self.learned.lock().health.is_failing(now, draw.ejection)
    }

    /// What it is to a call that goes by `draw`.
    pub(super) fn look(&self, now: Instant, draw: &Draw<'_>) -> Candidate {
        if !draw.tried.is_empty() && draw.tried.contains(&self.addr) {
            return Candidate::Out;
        }
        let waiting = self.in_flight.load(Ordering::Relaxed) as usize;
        self.settled(now).look(now, waiting, draw)
    }

    /// The same, and what else is known of it.
    pub(super) fn view(&self, now: Instant, draw: &Draw<'_>) -> EndpointView {
        let candidate = self.look(now, draw);
        let learned = self.learned.lock();
        EndpointView {
            candidate,
            recent: learned.health.recent(now),
            load: learned.load.percent(now),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }

    /// It reports this load, in percent.
    pub(crate) fn record_load(&self, percent: u8) {
        self.learned.lock().load.record(now(), percent);
    }

    /// It answered that its own limit is reached, for this time where it sent one.
    pub(crate) fn limited(&self, time: Option<Duration>) {
        self.learned.lock().load.limited(now(), time);
    }

    /// It serves since then, and callers come to it little by little. Nothing changes where
    /// it is known from elsewhere.
    pub(crate) fn joined(self: &Arc<Self>, since: Instant) {
        if Arc::strong_count(self) == 1 {
            self.learned.lock().health = Health::new(now(), Some(since));
        }
    }

    /// Since when it works; `None`: for long.
    pub(super) fn works_since(&self) -> Option<Instant> {
        self.learned.lock().health.works_since()
    }

    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight {
            endpoint: Arc::clone(self),
            probe: None,
            returns_at_start: self.learned.lock().health.returns(),
        }
    }

    /// The same for the one request that probes it after its ejection; `None` when another one
    /// does.
    pub(super) fn probe(self: &Arc<Self>, now: Instant, draw: &Draw<'_>) -> Option<InFlight> {
        let taken = self.settled(now).health.begin_probe(now, draw.may_retry);
        taken.map(|probe| {
            let mut in_flight = self.begin();
            in_flight.probe = Some(probe);
            in_flight
        })
    }

    /// No caller waits for its response any more, which had not started after `waited`.
    pub(crate) fn attempt_abandoned(&self, waited: Duration) {
        let mut learned = self.learned.lock();
        learned.cost.observe_at_least(now(), waited);
        drop(learned);
        if waited >= SUSPECTED_AFTER {
            self.presence.suspect();
        }
    }

    /// Nothing arrived from it when something was due, so that a call may wait in vain.
    pub(crate) fn is_suspected(&self) -> bool {
        self.presence.is_suspected()
    }

    /// It gave a sign of life when it was checked, and no call went there since.
    pub(crate) fn is_vouched(&self) -> bool {
        self.presence.is_vouched()
    }

    /// The right to check whether it is there; `None` while another task does.
    pub(crate) fn begin_presence_check(self: &Arc<Self>) -> Option<PresenceCheck> {
        let begins = self.presence.begin_check();
        begins.then(|| PresenceCheck(Arc::clone(self)))
    }

    /// How long a good answer would take.
    pub(super) fn good_answer(&self, now: Instant) -> Duration {
        let waiting = self.in_flight.load(Ordering::Relaxed) as usize;
        self.learned.lock().cost.good_answer(now, waiting)
    }

    /// Its probe failed, and whether there is no place for another ejection.
    pub(super) fn returns_at_ejection_limit(&self, others: &Others, ejection: &Ejection) -> bool {
        let mut learned = self.learned.lock();
        let none = learned.health.returns_at_ejection_limit(others, ejection);
        if none {
            self.ejected.dec();
        }
        none
    }

    /// Ejects it if it is worse than the others.
    pub(super) fn evaluate(&self, others: &Others, ejection: &Ejection) -> Option<EjectedFor> {
        let mut learned = self.learned.lock();
        let evaluated = learned
            .health
            .evaluate(now(), others, ejection, rand::random());
        if evaluated.is_some() {
            self.ejected.inc();
        }
        evaluated
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.learned.get_mut().health.is_ejected() {
            self.ejected.dec();
        }
    }
}

/// A task checks whether an endpoint is there. Dropped, it was not.
#[derive(Debug)]
pub(crate) struct PresenceCheck(Arc<Endpoint>);

impl PresenceCheck {
    pub(crate) fn gave_sign(self) {
        self.0.presence.vouch();
    }
}

impl Drop for PresenceCheck {
    fn drop(&mut self) {
        self.0.presence.end_check();
    }
}

/// A request on its way to an endpoint, until its answer has ended.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    /// It probes the endpoint, and has no result yet.
    probe: Option<Probe>,
    /// Behind which return of the endpoint.
    returns_at_start: Returns,
}

impl InFlight {
    #[must_use]
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Whether it is the one request that probes the endpoint.
    pub(crate) const fn probes(&self) -> bool {
        self.probe.is_some()
    }

    /// Records the end of an attempt, or the head of its response.
    pub(super) fn record(
        &mut self,
        latency: Latency,
        signal: Option<HealthSignal>,
        ejection: &Ejection,
    ) -> HealthChange {
        let now = now();
        let mut learned = self.endpoint.settled(now);
        let counts = learned.health.counts(self.returns_at_start, self.probe);
        let shown = signal.filter(|_| counts);
        let change = learned.record(now, latency, shown, self.probe, ejection);
        // A probe that brought it back goes on behind that.
        if change == HealthChange::Returned {
            self.returns_at_start = learned.health.returns();
        }
        drop(learned);
        self.endpoint.presence.learn(latency, signal);
        if matches!(change, HealthChange::Returned | HealthChange::EjectedAgain) {
            self.probe = None;
        }
        if change == HealthChange::Returned {
            self.endpoint.ejected.dec();
        }
        change
    }

    /// It will show nothing of its endpoint, and another one may probe that.
    pub(crate) fn shows_nothing(&mut self) {
        if let Some(probe) = self.probe.take() {
            let now = now();
            let mut learned = self.endpoint.settled(now);
            learned.health.abandon_probe(now, probe);
        }
    }

    /// Learns what shows nothing of others: of an address that was called by itself.
    pub fn learn(&mut self, latency: Latency) {
        let draw = Draw::DEFAULT;
        let _ = self.record(latency, None, draw.ejection);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.shows_nothing();
    }
}
