//! The current snapshot, and the destinations that the application has called.
//!
//! The proxy subscribes to destinations on demand: the first call to an address waits a moment for
//! the controller, and later calls find the result. A destination that was ever used stays, however
//! long ago that was, because the controller may be disconnected at the next call. Only where there
//! is no room are addresses dropped, the longest unused first.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use arc_swap::ArcSwap;
use identity::Roots;
use identity::tls::CertHandle;
use parking_lot::Mutex;
use policy::log_filter::LogFilter;
use policy::protocol::Protocol;
use runtime::log::LevelRequest;
use runtime::rate::{Allowance, Rate};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use wire::v1;

use crate::config::apply::changes_destinations;
use crate::config::dry_run::DryRuns;
use crate::config::grants::Grants;
use crate::config::names::{LOOKUP_WAIT, QueriedNames};
use crate::config::own_pod::OwnPod;
use crate::config::snapshot::{Destination, PodTarget, Snapshot};
use crate::endpoints::registry::Registry;
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{OverloadLabels, Port};

/// Destinations held at most; the controller enforces the same bound. A pod
/// that calls more addresses than this is a crawler, and the least recently
/// used one makes room.
const DESTINATION_LIMIT: usize = 4096;
/// How often the log reports that none can make room.
const LOG_RATE: Allowance = Allowance {
    burst: 1,
    every: Duration::from_secs(60),
};
/// Bytes of configuration that are kept for destinations, as it came; in memory it is
/// about twice that. Endpoints are 100 bytes each.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// Destinations that are kept whatever they take.
const KEPT_AT_LEAST: usize = 1000;

/// As many destinations are in use as there may be, and each of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "connections to {} other addresses of the mesh are open, and the proxy asks for no more at \
     one time; close some of them",
    DESTINATION_LIMIT
)]
pub struct TooManyInUse;

#[derive(Debug)]
/// A subscription to a destination at the controller.
struct Subscription {
    /// Distinguishes it from another one of the same address.
    number: u64,
    users: usize,
    last_used: Instant,
    /// Notified when what stands at the address has changed, or may have.
    changed: Arc<Notify>,
}

/// The proxy's knowledge, and its wish for more. Shared by everything.
#[derive(Debug)]
pub struct Store {
    snapshot: ArcSwap<Snapshot>,
    changed: watch::Sender<u64>,
    policy: watch::Sender<u64>,
    pub registry: Registry,
    subscriptions: Mutex<HashMap<SocketAddr, Subscription>>,
    /// Numbers them.
    numbered: AtomicU64,
    pub(crate) names: QueriedNames,
    log_rate: Mutex<Rate>,
    /// Notified when `subscriptions` changed.
    pub subscriptions_changed: Notify,
    pub telemetry: Arc<Telemetry>,
    /// The log level of this workload; the log is one for the process.
    log: LevelRequest,
    /// Rules that are only tried.
    pub dry_runs: Arc<DryRuns>,
    /// Which pod this is.
    pub(super) own: OwnPod,
    /// How often the pod began to get nothing but copies.
    read_only_began: Arc<AtomicU64>,
    /// The runs of FaultExperiments that may harm calls.
    pub(crate) grants: Grants,
}

/// Keeps a destination subscribed while a connection uses it.
#[derive(Debug)]
pub struct DestinationGuard {
    store: Arc<Store>,
    addr: SocketAddr,
    number: u64,
    changed: Arc<Notify>,
}

impl DestinationGuard {
    /// Completes when what stands at the address has changed, or may have, since it was
    /// enabled.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

impl Drop for DestinationGuard {
    fn drop(&mut self) {
        let mut subscriptions = self.store.subscriptions.lock();
        if let Some(subscription) = subscriptions.get_mut(&self.addr)
            && subscription.number == self.number
        {
            subscription.users = subscription.users.saturating_sub(1);
            subscription.last_used = Instant::now();
        }
    }
}

impl Store {
    #[must_use]
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        Self {
            snapshot: ArcSwap::default(),
            changed: watch::Sender::new(0),
            policy: watch::Sender::new(0),
            registry: Registry::with_gauge(telemetry.metrics.ejected.clone()),
            subscriptions: Mutex::default(),
            numbered: AtomicU64::new(0),
            names: QueriedNames::default(),
            log_rate: Mutex::new(Rate::new(LOG_RATE)),
            subscriptions_changed: Notify::new(),
            telemetry,
            log: LevelRequest::of_the_start(),
            dry_runs: Arc::default(),
            own: OwnPod::default(),
            read_only_began: Arc::default(),
            grants: Grants::default(),
        }
    }

    /// Of the pod that these certificates are for. A proxy has one before any message arrives,
    /// and each later one is for the same pod. Its handshakes trust `roots`.
    #[must_use]
    pub fn of_pod(self, certs: CertHandle, roots: Roots) -> Self {
        let own = OwnPod::new(certs, roots);
        Self { own, ..self }
    }

    /// Of a Gateway's pod.
    pub(crate) fn of_gateway(self) -> Self {
        self.snapshot.store(Arc::new(Snapshot::of_gateway()));
        self
    }

    /// The newest snapshot. A decision takes one, and reads everything from it.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Reads one thing of the newest snapshot: what may be spoken, how something is counted.
    /// Nothing can keep that snapshot, and two results may be of two.
    pub fn inspect<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(&self.snapshot.load())
    }

    /// True once a controller has sent what this pod is.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.snapshot.load().is_complete()
    }

    /// Notifies when anything changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Notifies when the own policy changed.
    #[must_use]
    pub(crate) fn policy_changes(&self) -> watch::Receiver<u64> {
        self.policy.subscribe()
    }

    /// The same, with whatever came since a snapshot of this revision as a change.
    #[must_use]
    pub(crate) fn policy_changes_since(&self, revision: u64) -> watch::Receiver<u64> {
        let mut changes = self.policy.subscribe();
        if *changes.borrow() != revision {
            changes.mark_changed();
        }
        changes
    }

    /// The refusal by `check`, once a change of the own policy makes it refuse.
    pub(crate) async fn until_refused<E>(&self, check: impl Fn(&Snapshot) -> Result<(), E>) -> E {
        let mut changes = self.policy_changes();
        loop {
            if let Err(refused) = check(&self.snapshot.load()) {
                return refused;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// How often the pod has become read-only. Code that compares must read it before the decision
    /// whether something may begin.
    pub(crate) const fn read_only_epoch(&self) -> &Arc<AtomicU64> {
        &self.read_only_began
    }

    /// Puts a batch into use and returns what could not be used.
    pub fn apply(&self, batch: v1::Batch) -> Vec<v1::Nack> {
        let before = self.snapshot.load_full();
        let changes_destinations = changes_destinations(&batch);
        let (next, nacks) = before.after(batch, &self.registry);
        let metrics = &self.telemetry.metrics;
        metrics.batches.inc();
        metrics.nacks.inc_by(nacks.len() as u64);
        self.put(&before, next, changes_destinations);
        nacks
    }

    /// Puts into use what `change` makes of the one in use. Only the task that applies batches may
    /// call it.
    pub(super) fn change(&self, change: impl FnOnce(&Snapshot) -> Snapshot) {
        let before = self.snapshot.load_full();
        self.put(&before, change(&before), false);
    }

    fn put(&self, before: &Snapshot, mut next: Snapshot, changes_destinations: bool) {
        self.own.settle(before, &mut next);
        if before.log_filter != next.log_filter {
            self.request_log_filter(next.log_filter.as_ref());
        }
        if before.access_log != next.access_log {
            self.telemetry.log_as(next.access_log);
        }
        if before.tracing != next.tracing {
            self.telemetry.tracer.configure(next.tracing.clone());
        }
        self.telemetry.early.want(next.early_reports);
        let own = next.workload.as_ref();
        self.grants.limit(own.map(|own| own.fault_limit));
        let destinations = i64::try_from(next.destinations.len());
        let metrics = &self.telemetry.metrics;
        metrics.destinations.set(destinations.unwrap_or(i64::MAX));
        let policy = next.policy_revision;
        let read_only_began = before.takes_copies().is_none() && next.takes_copies().is_some();
        self.telemetry.declare(Arc::clone(&next.declared));
        if let Some(limited) = &before.guard {
            limited.ended_by(next.guard.as_deref(), |port, limit| {
                let labels = OverloadLabels {
                    port: Port::Number(port),
                };
                let shown = &self.telemetry.metrics.overload_limit;
                shown.at(&labels).set(limit);
            });
        }
        let next = Arc::new(next);
        self.snapshot.store(Arc::clone(&next));
        if self.registry.has_new_meshed() || changes_destinations {
            self.notify_destinations(before, &next);
        }
        if read_only_began {
            self.read_only_began.fetch_add(1, SeqCst);
        }
        self.registry.sweep();
        if self.registry.forgot_meshed() {
            self.telemetry.metrics.limit("meshed-addresses");
        }
        self.changed.send_modify(|revision| *revision += 1);
        self.policy.send_if_modified(|revision| {
            let changed = *revision != policy;
            *revision = policy;
            changed
        });
    }

    /// Notifies the connections to addresses at which something else stands now, or which are of
    /// the mesh now; all of them where a new control stream began.
    fn notify_destinations(&self, before: &Snapshot, next: &Snapshot) {
        let at = |snapshot: &Snapshot, addr| snapshot.destinations.get(addr).map(Arc::as_ptr);
        let joined = |addr: &SocketAddr| next.is_outside(addr) && self.registry.was_meshed(*addr);
        for (addr, subscription) in self.subscriptions.lock().iter() {
            if before.stream != next.stream || at(before, addr) != at(next, addr) || joined(addr) {
                subscription.changed.notify_waiters();
            }
        }
    }

    fn request_log_filter(&self, filter: Option<&LogFilter>) {
        if let Err(error) = self.log.set(filter.map(LogFilter::as_str)) {
            tracing::warn!(%error, "the log's level stays");
        }
    }

    /// Takes which runs of FaultExperiments may harm calls now, and no other ones.
    pub fn grant(&self, message: &v1::Grants) {
        self.grants.take(message);
    }

    /// What stands at `addr`. When the controller has not sent it within [`LOOKUP_WAIT`], the
    /// endpoint of that address if a Service has one that is meshed, else `None`.
    ///
    /// # Errors
    /// When there is no subscription, as too many other addresses are in use.
    pub async fn find(
        self: &Arc<Self>,
        addr: SocketAddr,
    ) -> Result<(Option<Arc<Destination>>, DestinationGuard), TooManyInUse> {
        let usage = self.want(addr)?;
        if let Some(found) = self.snapshot.load().destinations.get(&addr) {
            return Ok((Some(Arc::clone(found)), usage));
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
        if found.is_some() {
            return Ok((found, usage));
        }
        self.telemetry.metrics.unknown_destinations.inc();
        let snapshot = self.snapshot.load();
        let endpoint = snapshot.meshed_at(addr).map(|endpoint| {
            Arc::new(Destination::Pod(PodTarget {
                endpoint: Arc::clone(endpoint),
                protocol: if endpoint.opaque {
                    Protocol::Opaque
                } else {
                    Protocol::Detect
                },
                headless: Vec::new(),
            }))
        });
        Ok((endpoint, usage))
    }

    fn want(self: &Arc<Self>, addr: SocketAddr) -> Result<DestinationGuard, TooManyInUse> {
        let mut subscriptions = self.subscriptions.lock();
        let now = Instant::now();
        let (number, changed) = if let Some(entry) = subscriptions.get_mut(&addr) {
            entry.users += 1;
            entry.last_used = now;
            (entry.number, Arc::clone(&entry.changed))
        } else {
            if subscriptions.len() >= DESTINATION_LIMIT {
                self.telemetry.metrics.limit("destinations");
                let oldest = self.least_needed(&subscriptions);
                let oldest = oldest.ok_or_else(|| self.nothing_evictable(addr, now))?;
                subscriptions.remove(&oldest);
            }
            let number = self.numbered.fetch_add(1, Relaxed);
            let changed = Arc::new(Notify::new());
            let entry = Subscription {
                number,
                users: 1,
                last_used: now,
                changed: Arc::clone(&changed),
            };
            subscriptions.insert(addr, entry);
            self.subscriptions_changed.notify_one();
            (number, changed)
        };
        Ok(DestinationGuard {
            store: Arc::clone(self),
            addr,
            number,
            changed,
        })
    }

    /// What makes room: the longest unused address. If all are in use, an address outside the
    /// mesh, whose connections need nothing more of the controller; one of the mesh would lose
    /// the configuration of its calls.
    fn least_needed(&self, all: &HashMap<SocketAddr, Subscription>) -> Option<SocketAddr> {
        let snapshot = self.snapshot.load();
        let is_outside = |addr: &SocketAddr| {
            let found = snapshot.destinations.get(addr);
            found.is_some_and(|found| matches!(**found, Destination::External { .. }))
        };
        all.iter()
            .filter(|(addr, entry)| entry.users == 0 || is_outside(addr))
            .min_by_key(|(_, entry)| (entry.users > 0, entry.last_used))
            .map(|(addr, _)| *addr)
    }

    /// Nothing makes room for `addr`.
    fn nothing_evictable(&self, addr: SocketAddr, now: Instant) -> TooManyInUse {
        if self.log_rate.lock().take(now).is_ok() {
            tracing::warn!(%addr, reason = %TooManyInUse, "calls to new addresses are refused");
        }
        TooManyInUse
    }

    /// Addresses that the proxy should subscribe to now.
    #[must_use]
    pub fn subscriptions(&self) -> HashSet<SocketAddr> {
        let mut subscriptions = self.subscriptions.lock();
        if subscriptions.len() > KEPT_AT_LEAST {
            self.make_room(&mut subscriptions);
        }
        subscriptions.keys().copied().collect()
    }

    /// Drops the longest unused addresses until the others fit.
    fn make_room(&self, subscriptions: &mut HashMap<SocketAddr, Subscription>) {
        let snapshot = self.snapshot.load();
        let mut newest_first: Vec<(SocketAddr, bool, Instant)> = subscriptions
            .iter()
            .map(|(addr, entry)| (*addr, entry.users > 0, entry.last_used))
            .collect();
        newest_first.sort_unstable_by_key(|(_, used, last)| std::cmp::Reverse((*used, *last)));
        let (mut bytes, mut counted) = (0, HashSet::new());
        for (at, (addr, used, _)) in newest_first.into_iter().enumerate() {
            bytes += snapshot.bytes_for(addr, &mut counted);
            if bytes > KEPT_BYTES && at >= KEPT_AT_LEAST && !used {
                subscriptions.remove(&addr);
                self.telemetry.metrics.limit("destination-bytes");
            }
        }
    }
}

#[cfg(test)]
mod tests;
