//! The endpoints of one Service port, and the choice of one of them for a call.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::balance::{Candidate, Picked, choose};
use policy::egress::ExternalTarget;
use policy::health::{EjectedFor, HealthChange, HealthSignal, Others, max_ejected, share_after};
use policy::retry::RetryBudget;
use policy::sticky::{self, Key};
use policy::traffic::call::Budget;
use policy::traffic::endpoint::{Balance, Ejection, Locality, Subset};

use crate::endpoints::circuit::Circuits;
use crate::endpoints::endpoint::{Endpoint, EndpointView, InFlight};
use crate::endpoints::learned::{Draw, Fallback, Latency, now};
use crate::endpoints::location::{LocalInfo, Near, Nearness, TopologyHints};
use crate::endpoints::part::{PartSettings, Parts};
use crate::endpoints::throttle::ClientThrottle;

/// Other endpoints that one which failed an answer is compared with, so that it costs no
/// more in a large Service.
const COMPARED: usize = 16;

/// Times that a pick may lose the race for a probe.
const RACES: usize = 4;

/// The endpoints of one Service port.
#[derive(Debug)]
pub struct EndpointSet {
    /// The nearest first, as seen from the own pod.
    pub endpoints: Vec<Arc<Endpoint>>,
    near: Near,
    own: LocalInfo,
    parts: Parts,
    /// Where callers without a policy for it prefer to go.
    locality: Locality,
    /// Of a headless Service: clients that name it mean any of them.
    pub(crate) interchangeable: bool,
    /// Of a Service that stands for a host outside the mesh: how calls leave.
    pub(crate) external: Option<Arc<ExternalTarget>>,
    hints: Arc<TopologyHints>,
    /// What callers prefer by the hints, where they say anything for the own pod: they come before it, and
    /// decide which endpoints are near.
    hinted: Option<Locality>,
    /// Since when the oldest of them works, where all are new or came back; `None`: some have
    /// worked for long.
    oldest: Option<Instant>,
    /// What retries of calls to them may cost.
    pub budget: Arc<RetryBudget>,
    /// What this proxy holds back from them.
    pub throttle: Arc<ClientThrottle>,
    /// Whether it sends them anything.
    pub circuits: Arc<Circuits>,
}

impl Default for EndpointSet {
    fn default() -> Self {
        Self::new(
            Vec::new(),
            Arc::new(RetryBudget::new(now())),
            Arc::default(),
            Arc::default(),
        )
    }
}

impl EndpointSet {
    /// Of these endpoints, with what holds for all of them.
    pub(crate) fn new(
        endpoints: Vec<Arc<Endpoint>>,
        budget: Arc<RetryBudget>,
        throttle: Arc<ClientThrottle>,
        circuits: Arc<Circuits>,
    ) -> Self {
        Self {
            oldest: oldest(&endpoints),
            endpoints,
            near: Near::default(),
            own: LocalInfo::default(),
            parts: Parts::default(),
            locality: Locality::None,
            interchangeable: false,
            external: None,
            hints: Arc::default(),
            hinted: None,
            budget,
            throttle,
            circuits,
        }
    }

    /// The same for a pod that sees them from there.
    #[must_use]
    pub(crate) fn seen_from(mut self, own: LocalInfo) -> Self {
        let hints = Arc::clone(&self.hints);
        let addrs = self.endpoints.iter().map(|endpoint| endpoint.addr);
        let hinted = hints.locality(own.location, &addrs);
        let nearness = |endpoint: &Arc<Endpoint>| match hinted {
            Some(by) => hints.nearness(endpoint.addr, own.location, by),
            None => endpoint.location.get().from(own.location),
        };
        self.hinted = hinted;
        self.endpoints.sort_by_key(nearness);
        self.near = Near::among(self.endpoints.iter().map(nearness));
        self.own = own;
        self.parts = Parts::default();
        self
    }

    /// The same where callers prefer this.
    #[must_use]
    pub(crate) const fn preferring(mut self, locality: Locality) -> Self {
        self.locality = locality;
        self
    }

    /// The same with endpoints that are meant for certain callers.
    #[must_use]
    pub(crate) fn hinting(mut self, hints: Arc<TopologyHints>) -> Self {
        self.hints = hints;
        self
    }

    /// The same where clients that name the Service mean any of them.
    #[must_use]
    pub(crate) const fn of_interchangeable(mut self, interchangeable: bool) -> Self {
        self.interchangeable = interchangeable;
        self
    }

    /// The same where they are those of a host outside the mesh.
    #[must_use]
    pub(crate) fn standing_for(mut self, external: Option<Arc<ExternalTarget>>) -> Self {
        self.external = external;
        self
    }

    /// These endpoints with all else that is known of the Service port.
    #[must_use]
    pub(crate) fn with(&self, endpoints: Vec<Arc<Endpoint>>) -> Self {
        let (budget, throttle) = (Arc::clone(&self.budget), Arc::clone(&self.throttle));
        let set = Self::new(endpoints, budget, throttle, Arc::clone(&self.circuits));
        let set = Self {
            hints: Arc::clone(&self.hints),
            interchangeable: self.interchangeable,
            external: self.external.clone(),
            ..set
        };
        set.preferring(self.locality).seen_from(self.own)
    }

    /// Proxies of the own workload, as far as known: they share what it may retry without
    /// savings.
    pub(crate) fn peers(&self) -> u32 {
        self.own
            .positions
            .map_or(1, |positions| positions.all.peers)
    }

    /// Retries of calls to them that the savings would pay for now.
    pub(crate) fn saved(&self, settings: &Budget) -> u32 {
        self.budget.saved(now(), settings)
    }

    fn locality(&self, balance: &Balance) -> Locality {
        let of_service = self.hinted.unwrap_or(self.locality);
        balance.locality.unwrap_or(of_service)
    }

    /// How near an endpoint is, where calls go by that.
    pub(crate) fn nearness(&self, endpoint: &Endpoint, balance: &Balance) -> Option<Nearness> {
        let prefers_near = self.locality(balance) != Locality::None;
        prefers_near.then(|| endpoint.location.get().from(self.own.location))
    }

    /// What the oldest of them takes of its share, where all are new.
    fn oldest_share(&self, now: Instant, balance: &Balance) -> f64 {
        self.oldest.map_or(1.0, |since| {
            share_after(now.saturating_duration_since(since), balance.warmup)
        })
    }

    /// What one of them is to a call that goes by `draw`, and what else is known of it.
    pub(crate) fn view(&self, endpoint: &Endpoint, draw: &Draw<'_>) -> EndpointView {
        let now = now();
        let view = endpoint.view(now, draw);
        let oldest = self.oldest_share(now, draw.balance);
        EndpointView {
            candidate: view.candidate.relative_to(oldest),
            ..view
        }
    }

    /// The cheaper of two random endpoints that work, or one whose ejection is over and that this
    /// call probes. From near, where the policy or the Service prefers that.
    #[must_use]
    pub fn pick(&self, draw: &Draw<'_>) -> Option<InFlight> {
        let now = now();
        for _ in 0..RACES {
            let picked = self.choose(now, draw, |endpoint| endpoint.look(now, draw))?;
            let endpoint = &self.endpoints[picked.index];
            if !picked.probe {
                return Some(endpoint.begin());
            }
            if let Some(probe) = endpoint.probe(now, draw) {
                return Some(probe);
            }
        }
        Some(self.without_probing(now, draw)?.begin())
    }

    /// The one that a client chose by its address, unless it is ejected or was tried.
    #[must_use]
    pub fn at(&self, endpoint: &Arc<Endpoint>, draw: &Draw<'_>) -> Option<InFlight> {
        self.stands(endpoint, now(), draw)
    }

    /// One for a call of which nothing is to be learned, and which is not to be noticed.
    #[must_use]
    pub fn aside(&self) -> Option<Arc<Endpoint>> {
        self.without_probing(now(), &Draw::DEFAULT).cloned()
    }

    fn without_probing(&self, now: Instant, draw: &Draw<'_>) -> Option<&Arc<Endpoint>> {
        let picked = self.choose(now, draw, |endpoint| match endpoint.look(now, draw) {
            Candidate::Probe => Candidate::Ejected,
            other => other,
        })?;
        Some(&self.endpoints[picked.index])
    }

    fn choose(
        &self,
        now: Instant,
        draw: &Draw<'_>,
        look: impl Fn(&Endpoint) -> Candidate,
    ) -> Option<Picked> {
        let locality = self.locality(draw.balance);
        let near = self.near.preferred(locality);
        let oldest = self.oldest_share(now, draw.balance);
        let look = |at: usize| look(&self.endpoints[at]).relative_to(oldest);
        let subset = draw.balance.subset;
        if subset != Subset::All {
            let zone = if locality == Locality::None {
                0
            } else {
                self.near.zone
            };
            let settings = PartSettings { subset, zone, near };
            let part = self.parts.of(settings, &self.endpoints, &self.own);
            // An ejected endpoint is tried only when none outside of the part works either.
            let works = |at: usize| match look(at) {
                Candidate::Ejected => Candidate::Out,
                other => other,
            };
            let picked = part.and_then(|part| part.choose(works));
            if picked.is_some() {
                return picked;
            }
        }
        choose(self.endpoints.len(), &near, look, rand::random)
    }

    /// The same endpoint for the same caller and epoch while it exists: the highest of a hash
    /// over them and the address, so that other endpoints' coming and going moves no other
    /// caller. While it is ejected its callers go to the next, and come back.
    #[must_use]
    pub(crate) fn of_session(&self, caller: &str, epoch: u64, draw: &Draw<'_>) -> Option<InFlight> {
        let rank = |at: usize| {
            let mut hasher = DefaultHasher::new();
            (caller, epoch, self.endpoints[at].addr).hash(&mut hasher);
            hasher.finish()
        };
        let is_left = |at| self.is_left(at, draw);
        self.first_that_stands(draw, |take| {
            sticky::highest(self.endpoints.len(), rank, is_left, take)
        })
    }

    /// The same for a tenant, from any caller: see `policy::sticky`.
    #[must_use]
    pub(crate) fn of_tenant(&self, key: Key, draw: &Draw<'_>) -> Option<InFlight> {
        let seed = |at: usize| self.endpoints[at].seed;
        let is_left = |at| self.is_left(at, draw);
        self.first_that_stands(draw, |take| {
            sticky::endpoint(key, self.endpoints.len(), seed, is_left, take)
        })
    }

    /// The first that is neither ejected nor fails all that it gets, of those that `offer` hands
    /// to what it is given until that takes one. As many that fail as may be ejected are passed
    /// over.
    fn first_that_stands(
        &self,
        draw: &Draw<'_>,
        offer: impl FnOnce(&mut dyn FnMut(usize) -> Option<InFlight>) -> Option<InFlight>,
    ) -> Option<InFlight> {
        let now = now();
        let most = max_ejected(self.endpoints.len(), draw.ejection.max_percent);
        let mut first = None;
        let mut failing = Vec::new();
        let stands = offer(&mut |at| {
            let endpoint = &self.endpoints[at];
            first.get_or_insert(endpoint);
            if failing.len() < most && endpoint.is_failing(now, draw) {
                failing.push(endpoint);
                return None;
            }
            self.stands(endpoint, now, draw)
        });
        if stands.is_some() {
            return stands;
        }
        // No other endpoint is left to try.
        let ejected = first.filter(|_| draw.fallback == Fallback::Ejected);
        let failing = failing.first().copied();
        failing.or(ejected).map(Endpoint::begin)
    }

    /// A request to an endpoint unless that is ejected.
    fn stands(&self, at: &Arc<Endpoint>, now: Instant, draw: &Draw<'_>) -> Option<InFlight> {
        match at.look(now, draw) {
            Candidate::Probe => at.probe(now, draw),
            Candidate::Ejected | Candidate::Out => None,
            Candidate::Works { .. } => Some(at.begin()),
        }
    }

    /// Whether a call may still come to that one.
    fn is_left(&self, at: usize, draw: &Draw<'_>) -> bool {
        !draw.tried.contains(&self.endpoints[at].addr)
    }

    /// An attempt, or the head of its response, has shown this of its endpoint. Returns why,
    /// where the endpoint is ejected because of it.
    #[must_use]
    pub fn record(
        &self,
        attempt: &mut InFlight,
        latency: Latency,
        signal: Option<HealthSignal>,
        ejection: &Ejection,
    ) -> Option<EjectedFor> {
        let latency = match latency {
            Latency::FailedHead { took, .. } => self.failed_after(took, attempt),
            latency => latency,
        };
        match attempt.record(latency, signal, ejection) {
            HealthChange::Nothing | HealthChange::Returned => None,
            HealthChange::EjectedAgain => {
                let probed = attempt.endpoint();
                if probed.returns_at_ejection_limit(&self.others(probed), ejection) {
                    return None;
                }
                Some(match signal {
                    Some(HealthSignal::Unreachable) => EjectedFor::Unreachable,
                    _ => EjectedFor::Failures,
                })
            }
            HealthChange::RowIsFull => {
                // The data path is one thread and nothing waits between counting the ejected and
                // deciding, so no other decision takes the same last place.
                let evaluated = attempt.endpoint();
                evaluated.evaluate(&self.others(evaluated), ejection)
            }
        }
    }

    /// A response that was not good shows nothing of how fast the work is done.
    fn failed_after(&self, took: Duration, attempt: &InFlight) -> Latency {
        let (now, own) = (now(), attempt.endpoint());
        let first = rand::random_range(0..self.endpoints.len().max(1));
        let from = self.endpoints.iter().cycle().skip(first);
        let others = from.take(COMPARED.min(self.endpoints.len()));
        let good = others
            .filter(|other| !Arc::ptr_eq(other, own))
            .map(|other| other.good_answer(now));
        Latency::FailedHead {
            took,
            elsewhere: good.min(),
        }
    }

    /// What an endpoint is compared with. Made when a row is full, which is rare.
    fn others(&self, evaluated: &Arc<Endpoint>) -> Others {
        let now = now();
        let mut others = Others {
            endpoints: self.endpoints.len(),
            ..Others::default()
        };
        for endpoint in &self.endpoints {
            if Arc::ptr_eq(endpoint, evaluated) {
                continue;
            }
            let learned = endpoint.settled(now);
            others.ejected += usize::from(learned.health.counts_as_ejected(now));
            others.recent = others.recent + learned.health.recent(now);
        }
        others
    }
}

/// Since when the oldest works of endpoints that are all new.
fn oldest(endpoints: &[Arc<Endpoint>]) -> Option<Instant> {
    // `None` is less than any time: one that has worked for long is the oldest.
    let since = endpoints.iter().map(|endpoint| endpoint.works_since());
    since.min().flatten()
}

#[cfg(test)]
mod tests;
