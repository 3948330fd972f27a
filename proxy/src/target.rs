//! What stands at the address that the application called.
//!
//! Destinations come on demand: the first call to an address asks the
//! controller and waits a moment, later ones find the answer, and an address
//! that nobody used for a while is given back.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use wire::v1;

use crate::endpoint::Registry;
use crate::metrics::Metrics;
use crate::report::Reports;
use crate::snapshot::{Destination, Snapshot};

/// How long a call waits for the controller to say what an address is.
pub const LOOKUP_WAIT: Duration = Duration::from_secs(1);
/// Destinations held at most; the controller enforces the same bound. A pod
/// that calls more addresses than this is a crawler, and the least recently
/// used one makes room.
pub const DESTINATION_LIMIT: usize = 4096;
/// An address that no connection used for this long is given back.
const IDLE: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Wanted {
    users: usize,
    last_used: Instant,
}

/// The proxy's knowledge, and its wish for more. Shared by everything.
#[derive(Debug)]
pub struct State {
    snapshot: ArcSwap<Snapshot>,
    changed: watch::Sender<u64>,
    policy: watch::Sender<u64>,
    pub registry: Registry,
    wanted: Mutex<HashMap<SocketAddr, Wanted>>,
    /// Told when `wanted` changed.
    pub asked: Notify,
    pub metrics: Metrics,
    pub reports: Reports,
}

/// Keeps a destination subscribed while a connection uses it.
#[derive(Debug)]
pub struct Use {
    state: Arc<State>,
    addr: SocketAddr,
}

impl Drop for Use {
    fn drop(&mut self) {
        if let Some(wanted) = self.state.wanted.lock().get_mut(&self.addr) {
            wanted.users = wanted.users.saturating_sub(1);
            wanted.last_used = Instant::now();
        }
    }
}

impl State {
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            snapshot: ArcSwap::default(),
            changed: watch::Sender::new(0),
            policy: watch::Sender::new(0),
            registry: Registry::default(),
            wanted: Mutex::default(),
            asked: Notify::new(),
            reports: Reports::new(metrics.clone()),
            metrics,
        }
    }

    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Tells when the own policy changed.
    #[must_use]
    pub fn policy_changes(&self) -> watch::Receiver<u64> {
        self.policy.subscribe()
    }

    /// Puts a batch into use and returns what could not be used.
    pub fn apply(&self, batch: v1::Batch) -> Vec<v1::Nack> {
        let (next, nacks) = self.snapshot.load().after(batch, &self.registry);
        self.metrics.batches.inc();
        self.metrics.nacks.inc_by(nacks.len() as u64);
        self.metrics
            .destinations
            .set(i64::try_from(next.destinations.len()).unwrap_or(i64::MAX));
        let policy = next.policy_revision;
        self.snapshot.store(Arc::new(next));
        self.registry.sweep();
        self.changed.send_modify(|revision| *revision += 1);
        self.policy.send_if_modified(|revision| {
            let changed = *revision != policy;
            *revision = policy;
            changed
        });
        nacks
    }

    /// What stands at `addr`, or `None` when the controller has not told within
    /// [`LOOKUP_WAIT`].
    pub async fn find(self: &Arc<Self>, addr: SocketAddr) -> (Option<Arc<Destination>>, Use) {
        let usage = self.want(addr);
        if let Some(found) = self.snapshot.load().destinations.get(&addr) {
            return (Some(Arc::clone(found)), usage);
        }
        let mut changed = self.changed.subscribe();
        let found = timeout(LOOKUP_WAIT, async {
            loop {
                if let Some(found) = self.snapshot.load().destinations.get(&addr) {
                    return Some(Arc::clone(found));
                }
                changed.changed().await.ok()?;
            }
        })
        .await
        .ok()
        .flatten();
        if found.is_none() {
            self.metrics.unknown_destinations.inc();
        }
        (found, usage)
    }

    fn want(self: &Arc<Self>, addr: SocketAddr) -> Use {
        let mut wanted = self.wanted.lock();
        let now = Instant::now();
        if let Some(entry) = wanted.get_mut(&addr) {
            entry.users += 1;
            entry.last_used = now;
        } else {
            if wanted.len() >= DESTINATION_LIMIT {
                self.metrics.limit("destinations");
                let oldest = wanted
                    .iter()
                    .filter(|(_, entry)| entry.users == 0)
                    .min_by_key(|(_, entry)| entry.last_used)
                    .map(|(addr, _)| *addr);
                if let Some(oldest) = oldest {
                    wanted.remove(&oldest);
                }
            }
            wanted.insert(
                addr,
                Wanted {
                    users: 1,
                    last_used: now,
                },
            );
            self.asked.notify_one();
        }
        Use {
            state: Arc::clone(self),
            addr,
        }
    }

    /// Addresses that the controller should be asked for now.
    #[must_use]
    pub fn wanted(&self) -> HashSet<SocketAddr> {
        let mut wanted = self.wanted.lock();
        wanted.retain(|_, entry| entry.users > 0 || entry.last_used.elapsed() < IDLE);
        wanted.keys().copied().collect()
    }
}
