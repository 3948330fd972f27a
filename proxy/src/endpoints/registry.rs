//! The registry of endpoints and of the state per Service port, both of which survive a change of
//! the configuration.
//!
//! The configuration replaces lists of endpoints. What was measured (latency, health, requests in
//! flight) belongs to the address and stays, as the retry budget stays with the Service port.
//! `Registry` keeps one `Endpoint` per address and identity for as long as it has a holder, and
//! afterwards remembers which addresses were meshed.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use policy::name::SpiffeId;
use policy::retry::RetryBudget;
use policy::sticky::Session;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

use crate::endpoints::circuit::Circuits;
use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::learned::{Learned, now};
use crate::endpoints::location::AtomicLocation;
use crate::endpoints::presence::Presence;
use crate::telemetry::cell::CellCache;

type Key = (SocketAddr, Option<SpiffeId>);

/// The pod behind an address; empty where none is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodRef<'a> {
    /// `namespace/name`.
    pub name: &'a str,
    pub uid: &'a str,
}

/// Session affinity of this pod's calls to one Service port: the same endpoint for the same caller,
/// while a session lasts.
#[derive(Debug)]
pub struct Affinity {
    limit: Duration,
    session: Mutex<Session>,
}

impl Affinity {
    /// The epoch of a call that is made at `now`.
    pub fn epoch(&self, now: Instant) -> u64 {
        self.session.lock().call(now, self.limit)
    }
}

/// Addresses kept as meshed: what a table of 65 536 places takes, 2.6 MiB.
const MESHED: usize = 57_344;

/// Addresses that were known as meshed, and when that was received last, as a count.
#[derive(Debug, Default)]
struct Meshed {
    seen_at: HashMap<SocketAddr, u64>,
    now: u64,
    /// Times that the oldest had to make room.
    overflows: u64,
    /// Some were added since that was looked at last.
    has_new: bool,
}

impl Meshed {
    fn insert(&mut self, addr: SocketAddr) {
        if self.seen_at.len() >= MESHED && !self.seen_at.contains_key(&addr) {
            self.overflows += 1;
            // An eighth at once, so that a full table is not sorted anew for each address.
            let mut ages: Vec<u64> = self.seen_at.values().copied().collect();
            let (_, oldest, _) = ages.select_nth_unstable(MESHED / 8);
            let oldest = *oldest;
            self.seen_at.retain(|_, seen_at| *seen_at > oldest);
        }
        self.now += 1;
        self.has_new |= self.seen_at.insert(addr, self.now).is_none();
    }
}

/// One `Endpoint` per address and identity, and one `Affinity`, one `RetryBudget` and one
/// `Circuits` per Service port.
#[derive(Debug, Default)]
pub struct Registry {
    known: Mutex<HashMap<Key, Weak<Endpoint>>>,
    meshed: Mutex<Meshed>,
    sessions: Mutex<HashMap<Arc<str>, Weak<Affinity>>>,
    budgets: Mutex<HashMap<Arc<str>, Weak<RetryBudget>>>,
    circuits: Mutex<HashMap<Arc<str>, Weak<Circuits>>>,
    /// Notified when there is something to report of breakers.
    circuits_reportable: Arc<Notify>,
    ejected: Gauge,
}

impl Registry {
    /// One that reports how many endpoints are ejected.
    #[must_use]
    pub(crate) fn with_gauge(ejected: Gauge) -> Self {
        Self {
            ejected,
            ..Self::default()
        }
    }

    /// What retries to a Service port may cost, by the name of its endpoints.
    pub fn budget(&self, endpoints: &str) -> Arc<RetryBudget> {
        let mut budgets = self.budgets.lock();
        if let Some(current) = budgets.get(endpoints).and_then(Weak::upgrade) {
            return current;
        }
        let budget = Arc::new(RetryBudget::new(now()));
        budgets.insert(endpoints.into(), Arc::downgrade(&budget));
        budget
    }

    /// The breakers of calls to a Service port, by the name of its endpoints.
    pub fn circuits(&self, endpoints: &str) -> Arc<Circuits> {
        let mut circuits = self.circuits.lock();
        if let Some(current) = circuits.get(endpoints).and_then(Weak::upgrade) {
            return current;
        }
        let new = Arc::new(Circuits::notifying(Arc::clone(&self.circuits_reportable)));
        circuits.insert(endpoints.into(), Arc::downgrade(&new));
        new
    }

    /// The same, if anybody holds them.
    pub(crate) fn existing_circuits(&self, endpoints: &str) -> Option<Arc<Circuits>> {
        self.circuits.lock().get(endpoints).and_then(Weak::upgrade)
    }

    /// Shows the breakers that are held, with the name of the endpoints that serve.
    pub(crate) fn each_circuits(&self, mut show: impl FnMut(&str, &Circuits)) {
        let current: Vec<_> = {
            let circuits = self.circuits.lock();
            let current = circuits.iter();
            current
                .filter_map(|(name, current)| Some((Arc::clone(name), current.upgrade()?)))
                .collect()
        };
        for (name, circuits) in current {
            show(&name, &circuits);
        }
    }

    /// Returns when there are breakers with something to report.
    pub(crate) async fn circuits_in_use(&self) {
        loop {
            let mut in_use = false;
            self.each_circuits(|_, circuits| in_use |= circuits.are_in_use());
            if in_use {
                return;
            }
            self.circuits_reportable.notified().await;
        }
    }

    /// The session with a Service port, by its resource's name; `None` without
    /// affinity. It goes on when the Service changes otherwise, or its time.
    pub fn affinity(&self, service: &str, seconds: u32) -> Option<Arc<Affinity>> {
        let limit = Duration::from_secs(seconds.into());
        if limit.is_zero() {
            return None;
        }
        let mut sessions = self.sessions.lock();
        let current = sessions.get(service).and_then(Weak::upgrade);
        let session = match current {
            Some(current) if current.limit == limit => return Some(current),
            Some(current) => *current.session.lock(),
            None => Session::default(),
        };
        let affinity = Arc::new(Affinity {
            limit,
            session: Mutex::new(session),
        });
        sessions.insert(service.into(), Arc::downgrade(&affinity));
        Some(affinity)
    }

    /// The endpoint, with what was learned of it while it still has a holder.
    pub fn at(
        &self,
        addr: SocketAddr,
        identity: Option<SpiffeId>,
        pod: PodRef<'_>,
        opaque: bool,
    ) -> Arc<Endpoint> {
        let mut known = self.known.lock();
        let key = (addr, identity);
        if let Some(endpoint) = known.get(&key).and_then(Weak::upgrade)
            && *endpoint.pod == *pod.name
            && *endpoint.pod_uid == *pod.uid
            && endpoint.opaque == opaque
        {
            return endpoint;
        }
        let endpoint = Arc::new(Endpoint {
            addr,
            identity: key.1.clone(),
            pod: pod.name.into(),
            pod_uid: pod.uid.into(),
            opaque,
            seed: policy::sticky::seed(addr),
            cells: CellCache::default(),
            learned: Mutex::new(Learned::new()),
            in_flight: AtomicU32::new(0),
            presence: Presence::default(),
            location: AtomicLocation::default(),
            ejected: self.ejected.clone(),
        });
        known.insert(key, Arc::downgrade(&endpoint));
        endpoint
    }

    /// Takes over what the controller sends of an address. Its last message counts: addresses are
    /// used again, by pods outside the mesh and by others.
    pub(crate) fn note_meshed(&self, addr: SocketAddr, meshed: bool) {
        let mut known = self.meshed.lock();
        if meshed {
            known.insert(addr);
        } else {
            known.seen_at.remove(&addr);
        }
    }

    /// Whether an address is meshed by the last message about it.
    #[must_use]
    pub(crate) fn was_meshed(&self, addr: SocketAddr) -> bool {
        self.meshed.lock().seen_at.contains_key(&addr)
    }

    /// Whether addresses have become meshed since the last time that this was called.
    pub(crate) fn has_new_meshed(&self) -> bool {
        std::mem::take(&mut self.meshed.lock().has_new)
    }

    /// Whether addresses had to be forgotten since the last call of this.
    pub(crate) fn forgot_meshed(&self) -> bool {
        std::mem::take(&mut self.meshed.lock().overflows) > 0
    }

    /// Forgets endpoints, sessions, budgets and breakers without a holder.
    pub fn sweep(&self) {
        self.circuits
            .lock()
            .retain(|_, circuits| circuits.strong_count() > 0);
        self.budgets
            .lock()
            .retain(|_, budget| budget.strong_count() > 0);
        self.sessions
            .lock()
            .retain(|_, session| session.strong_count() > 0);
        self.known
            .lock()
            .retain(|_, endpoint| endpoint.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{MESHED, PodRef, Registry};
    use crate::endpoints::set::EndpointSet;

    fn set(registry: &Registry, addrs: &[&str]) -> EndpointSet {
        let endpoints = addrs
            .iter()
            .map(|addr| registry.at(addr.parse().unwrap(), None, PodRef::default(), false))
            .collect();
        EndpointSet::default().with(endpoints)
    }

    #[test]
    fn new_endpoint_list_keeps_learned_state_of_address() {
        let registry = Registry::default();
        let old = set(&registry, &["10.0.0.1:80"]);
        let new = set(&registry, &["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(Arc::ptr_eq(&old.endpoints[0], &new.endpoints[0]));
    }

    #[test]
    fn learned_state_belongs_to_pod_uid_not_address() {
        let registry = Registry::default();
        let at = |uid| {
            let pod = PodRef {
                name: "shop/db-0",
                uid,
            };
            registry.at("10.0.0.1:80".parse().unwrap(), None, pod, false)
        };
        let first = at("a");
        assert!(Arc::ptr_eq(&first, &at("a")));
        assert!(!Arc::ptr_eq(&first, &at("b")));
    }

    #[test]
    fn excess_meshed_addresses_drop_oldest_and_are_reported() {
        let registry = Registry::default();
        let at = |number: usize| {
            let number = u32::try_from(number).unwrap();
            SocketAddr::from((std::net::Ipv4Addr::from(number), 80))
        };
        for number in 0..MESHED {
            registry.note_meshed(at(number), true);
        }
        assert!(!registry.forgot_meshed());
        registry.note_meshed(at(0), true);
        registry.note_meshed(at(MESHED), true);
        assert!(registry.forgot_meshed());
        for (number, retained) in [(0, true), (1, false), (MESHED - 1, true), (MESHED, true)] {
            assert_eq!(registry.was_meshed(at(number)), retained, "{number}");
        }
        assert!(registry.meshed.lock().seen_at.len() <= MESHED);
        registry.note_meshed(at(0), false);
        assert!(!registry.was_meshed(at(0)), "the last word counts");
    }

    #[test]
    fn a_session_outlives_a_change_of_its_service() {
        let registry = Registry::default();
        let of = |seconds| registry.affinity("service/shop/api:80", seconds);
        assert!(of(0).is_none());
        let (current, start) = (of(30).unwrap(), Instant::now());
        current.epoch(start);
        assert_eq!(current.epoch(start + Duration::from_secs(31)), 1);
        assert_eq!(of(30).unwrap().epoch(start + Duration::from_secs(40)), 1);
        assert_eq!(of(60).unwrap().epoch(start + Duration::from_secs(90)), 1);
        drop(current);
        registry.sweep();
        assert!(registry.sessions.lock().is_empty());
    }
}
