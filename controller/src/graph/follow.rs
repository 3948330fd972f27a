//! The task that keeps the graph current as proxies report.
//!
//! Reports of a slot come within a second of its end, so every look folds what is new of the last
//! slots. That is 40 000 rows of 2 000 proxies, and the replica has one thread for all its
//! connections: so looks run on a thread of their own, and so do queries. That one thread never
//! waits for the state, and no waiter for the state holds the inventory, which is written there.

mod callers;
mod recalled;
mod set_clock;
mod shown;
mod startup;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crds::observe::NodeKind;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use self::startup::{Startup, StartupEvent};
use super::answer::{self, Extent, GraphSink, Sources};
use super::blocking::run_blocking;
use super::edges::EdgeRef;
use super::fold::Fold;
use super::history::{self, History};
use super::key::NodeKey;
use super::memory::{Memory, Seen};
use super::owners::Owners;
use super::wall_clock::WallClock;
use super::window::{self, Counted, Incomplete};
use super::workloads::{CachedWorkloads, workloads};
use super::written::Written;
use crate::inventory::Inventory;
use crate::metrics::GraphMetrics;
use crate::model::compiled::LatestModel;
use crate::observe::reports::{PodSlot, Reports, SETTLED, SLOT, slot_of};

/// Between two looks at what was reported.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Slots whose reports may still come in every look.
const FRESH: u64 = 3;
/// Every so many looks older slots are looked at too: proxies report them again when they connect
/// to another replica.
const LOOK_BACK: u64 = 5;
/// After a start other replicas and proxies send what they have. Until then nothing is put together
/// that what comes would have to be added to.
const GATHER: Duration = Duration::from_secs(30);
/// By then the last of that can be queried.
const YOUNG: Duration = GATHER.saturating_add(SETTLED);
/// Pods between which others get at the state.
const AT_ONCE: usize = 64;
/// What is not persisted is kept in memory for this long.
const SHORTEST_MEMORY: Duration = Duration::from_secs(3600);
/// Why a response is incomplete, beside the window's own reasons.
const HOARDED: &str = "pods of it reported more than their share, and some of that had no room in the controller's \
     memory";
const GATHERS: &str =
    "this controller began a moment ago, and not every proxy has reported yet what it counted";
pub(crate) const UNREAD: &str =
    "what was written down of earlier calls cannot be read; the controller's log says why";
const CLOCK_SET: &str = "the clock of the controller's node was set meanwhile, so calls may be missing or stand at \
     another time";

/// The graph of this replica. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Graph {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    reports: Reports,
    inventory: Arc<RwLock<Inventory>>,
    latest: LatestModel,
    remember: Duration,
    state: Mutex<GraphState>,
    /// Edges of the memory that were dropped since the last query of this number.
    truncated: AtomicUsize,
    startup: Mutex<Startup>,
    /// Why what was written down could not be read when that was last tried.
    unread: Mutex<Option<String>>,
    /// Responses since the last look.
    written: Mutex<Vec<Shared>>,
    /// Counts looks.
    looks: watch::Sender<u64>,
    metrics: GraphMetrics,
}

/// A response that several readers share.
#[derive(Debug)]
struct Shared {
    /// Slot and look.
    at: (u64, u64),
    requested: GraphWindow,
    written: Arc<Written>,
}

#[derive(Debug, Default)]
struct GraphState {
    history: History,
    memory: Memory,
    workloads: CachedWorkloads,
    /// The slot before which the memory has what only called sides reported.
    remembered_to: u64,
    /// Of the inventory: changes when other replicas report whose pods were.
    peer_revision: u64,
    /// The slot in which the clock was set last.
    clock_set_in: Option<u64>,
    /// As it was looked at last; `None` before it is followed.
    clock: Option<WallClock>,
}

/// Which window, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GraphWindow {
    /// Length in slots.
    pub slots: u64,
    /// Only what is settled.
    pub settled: bool,
    /// The slot before which it ends, if not now.
    pub end: Option<u64>,
    /// What of it.
    pub extent: Extent,
}

impl GraphState {
    /// Remembers what only called sides reported, of slots whose reports are complete: sooner, and
    /// it would be an edge of its own, by other names than its caller's proxy has.
    fn remember_served(&mut self, settled: u64) {
        let oldest = settled.saturating_sub(history::FINE);
        // What ends a call in the slot after it must be there too.
        for slot in self.remembered_to.max(oldest)..settled.saturating_sub(1) {
            for edge in self.history.only_served(slot) {
                if self.history.is_known(slot, &edge) {
                    self.memory.see(&edge, seen_in(slot));
                }
            }
            self.remembered_to = slot + 1;
        }
    }
}

impl Graph {
    /// An empty one. `remember`: how long edges without calls are remembered.
    pub(crate) fn new(
        reports: Reports,
        inventory: Arc<RwLock<Inventory>>,
        latest: LatestModel,
        remember: Duration,
        metrics: GraphMetrics,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                reports,
                inventory,
                latest,
                remember,
                state: Mutex::default(),
                truncated: AtomicUsize::new(0),
                startup: Mutex::new(Startup::of(!remember.is_zero())),
                unread: Mutex::default(),
                written: Mutex::default(),
                looks: watch::Sender::new(0),
                metrics,
            }),
        }
    }

    /// Folds what comes, without end. `whole`: whether it is known which workload owns which pod.
    /// From this call on responses report that the graph is starting up, before anything was folded
    /// too.
    pub(crate) fn follow(
        self,
        whole: impl Fn() -> bool + Send + Sync,
    ) -> impl Future<Output = ()> + Send {
        self.advance(StartupEvent::Followed);
        self.fold_forever(whole)
    }

    async fn fold_forever(self, whole: impl Fn() -> bool + Send + Sync) {
        let (graph, now, at) = (self.clone(), SystemTime::now(), std::time::Instant::now());
        run_blocking(move || graph.look_at_clock(now, at)).await;
        while !whole() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let started = Instant::now();
        for look in 0_u64.. {
            let (graph, now, at) = (self.clone(), SystemTime::now(), std::time::Instant::now());
            let age = started.elapsed();
            run_blocking(move || {
                graph.look_at_clock(now, at);
                if look == 0 {
                    graph.begins(now);
                }
                graph.look_now(now, look.is_multiple_of(LOOK_BACK));
                if age > GATHER {
                    graph.tidy(now);
                }
                if age > YOUNG {
                    graph.grow();
                }
                graph.looked();
            })
            .await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A look is over. Responses from before it are never shown again, and would stay until the
    /// next query.
    fn looked(&self) {
        self.inner.looks.send_modify(|looks| *looks += 1);
        let looks = *self.inner.looks.borrow();
        self.inner
            .written
            .lock()
            .retain(|cached| cached.at.1 == looks);
    }

    /// Changes with every look.
    pub(crate) fn looks(&self) -> watch::Receiver<u64> {
        self.inner.looks.subscribe()
    }

    /// One look, for tests that wait for it.
    #[cfg(test)]
    pub(crate) async fn look(&self, now: SystemTime, back: bool) {
        let graph = self.clone();
        run_blocking(move || graph.look_now(now, back)).await;
    }

    /// Folds the slots of which something is new; of older ones only if `back` is set, or where it
    /// became known whose pods of theirs were.
    fn look_now(&self, now: SystemTime, back: bool) {
        let current = slot_of(now);
        let back = self.peer_pods_changed() || back;
        let whole_from = self.inner.reports.whole_from();
        for (slot, revision) in self.inner.reports.revisions().into_iter().rev() {
            let fresh = slot + FRESH > current;
            // What went for want of room would be folded without it.
            let whole = slot >= whole_from;
            let lacks = || self.inner.state.lock().history.lacks(slot, revision);
            if (fresh || back) && whole && lacks() {
                self.fold(slot, revision);
            }
        }
        let mut state = self.inner.state.lock();
        state.remember_served(slot_of(now - SETTLED));
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let metrics = &self.inner.metrics;
        metrics.edges.set(gauge(state.history.edges.size().0));
        metrics.bytes.set(gauge(state.history.size()));
        metrics.remembered.set(gauge(state.memory.len()));
    }

    /// Whether other replicas reported whose pods were since the last look. What was folded without
    /// that is wrong.
    fn peer_pods_changed(&self) -> bool {
        let peer_revision = self.inner.inventory.read().peer_revision();
        let mut state = self.inner.state.lock();
        let is_new = state.peer_revision != peer_revision;
        if is_new {
            state.peer_revision = peer_revision;
            state.history.lack_unknown();
            state.remembered_to = 0;
        }
        is_new
    }

    fn fold(&self, slot: u64, revision: u64) {
        let reported = self.inner.reports.of_slot(slot);
        let mut fold = Fold::default();
        for pods in reported.chunks(AT_ONCE) {
            self.fold_some(&mut fold, pods);
        }
        let began = std::time::Instant::now();
        let mut folded = fold.done();
        // Read last: what is dropped in between counts as missing, and is there.
        folded.given_up = self.inner.reports.given_up(slot);
        let mut state = self.inner.state.lock();
        // A pod without a known owner is no workload, and would be taken for one for weeks.
        let sure = window::sure(&folded).filter(|edge| !folded.unknown.contains(*edge));
        for edge in sure {
            state.memory.see(edge, seen_in(slot));
        }
        if !folded.given_up.is_empty() {
            // What stays of before must not stand beside the same by its owners.
            let inventory = self.inner.inventory.read();
            let moved = |node: &NodeKey| {
                node.kind == NodeKind::Pod
                    && NodeKey::of_workload(inventory.topmost(&node.object, "")) != *node
            };
            state.history.let_go(slot, moved);
        }
        state.history.take(slot, revision, folded);
        let took = began.elapsed().as_secs_f64();
        self.inner.metrics.fold_seconds.inc_by(took);
    }

    fn fold_some(&self, fold: &mut Fold, pods: &[PodSlot]) {
        let began = std::time::Instant::now();
        let compiled = self.inner.latest.borrow().clone();
        let mut state = self.inner.state.lock();
        let inventory = self.inner.inventory.read();
        let owners = Owners {
            inventory: &inventory,
            model: compiled.as_ref().map(|compiled| &compiled.model),
        };
        for pod in pods {
            fold.add(owners, pod, &mut state.history.edges);
        }
        let took = began.elapsed().as_secs_f64();
        self.inner.metrics.fold_seconds.inc_by(took);
    }

    /// Puts together what is due and drops what is old.
    pub(crate) fn tidy(&self, now: SystemTime) {
        let mut state = self.inner.state.lock();
        let GraphState {
            history,
            memory,
            clock_set_in,
            ..
        } = &mut *state;
        let mut remember = self.inner.remember.max(SHORTEST_MEMORY);
        let forgets_from = |slot: u64| slot + SHORTEST_MEMORY.as_secs() / SLOT;
        if clock_set_in.is_some_and(|slot| slot_of(now) < forgets_from(slot)) {
            // A clock that is set wrong is mostly set right again, and what is forgotten is gone.
            remember = Duration::MAX;
        }
        let truncated = memory.tidy(seconds(now), remember);
        let all = &self.inner.truncated;
        all.fetch_add(truncated, Ordering::Relaxed);
        let before = (history.dropped, history.edges.left_out);
        history.tidy(slot_of(now));
        let metrics = &self.inner.metrics;
        metrics.dropped("minute", history.dropped - before.0);
        metrics.dropped("edge", std::mem::take(&mut history.edges.left_out));
        metrics.dropped("remembered", std::mem::take(&mut memory.dropped));
    }

    /// The response as an object, for tests that read it.
    #[cfg(test)]
    pub(crate) fn answer(&self, requested: &GraphWindow, now: SystemTime) -> crds::observe::Graph {
        answer::as_object(|to| self.write_answer(requested, now, to))
    }

    /// Writes the response; with the end of the window in seconds since 1970. As all that follows,
    /// it waits for the state on no thread that connections need, and holds it until the response
    /// is written: as objects it would be tens of megabytes beside its text.
    fn write_answer(
        &self,
        requested: &GraphWindow,
        now: SystemTime,
        to: &mut impl GraphSink,
    ) -> crds::observe::GraphMetadata {
        let compiled = self.inner.latest.borrow().clone();
        let inventory = &*self.inner.inventory;
        let mut state = self.inner.state.lock();
        let workloads = state.workloads.get(slot_of(now), || {
            let model = compiled.as_ref().map(|compiled| &compiled.model);
            let made = model.map(|model| workloads(model, &inventory.read()));
            made.unwrap_or_default()
        });
        // Before this slot nothing more comes.
        let settled = slot_of(now - SETTLED);
        let now = slot_of(now);
        let end = match requested.end {
            Some(end) => end.min(now),
            None if requested.settled => settled,
            None => now,
        };
        let bounds = history::bounds(requested.slots, end);
        let whole_from = self.inner.reports.whole_from();
        let known = (settled, whole_from);
        let keep = |nodes: &[&NodeKey]| requested.extent.owns_any(nodes);
        let mut window = state.history.window_of(bounds, known, keep);
        let is_meant = |namespace: &str| requested.extent.owns_namespace(namespace);
        let first = requested.extent.first_slot(bounds.0);
        if window.given_up.concerns(is_meant) || self.hoards(&requested.extent, bounds.0) {
            window.incomplete = Some(Incomplete::Lost(HOARDED));
        } else if state.clock_is_set() || state.clock_set_in.is_some_and(|slot| first <= slot) {
            window.incomplete = Some(Incomplete::Lost(CLOCK_SET));
        } else if self.gathers() {
            window.incomplete = Some(Incomplete::Lost(GATHERS));
        } else if self.lacks_recall() && !matches!(window.incomplete, Some(Incomplete::Lost(_))) {
            window.incomplete = Some(Incomplete::Lost(UNREAD));
        }
        let domain = compiled
            .as_ref()
            .map(|compiled| Arc::clone(&compiled.model.index.defaults.trust_domain));
        let sources = Sources {
            window: &window,
            history: &state.history,
            memory: &state.memory,
            workloads: &workloads,
            inventory,
            trust_domain: domain.as_deref().unwrap_or_default(),
            as_it_was: requested.end.is_some(),
        };
        answer::write(&sources, &requested.extent, to)
    }

    /// Whether pods of the requested extent lost some of their reports from `first` on, because
    /// they reported more than their share.
    fn hoards(&self, extent: &Extent, first: u64) -> bool {
        let mut hoarders = self.inner.reports.hoarders(first).into_iter();
        hoarders.any(|(reporter, _)| extent.owns_namespace(&reporter.pod.namespace))
    }

    /// What was counted in a slot, each call once.
    pub(crate) fn calls_of(&self, slot: u64) -> Vec<(EdgeRef, Counted)> {
        self.inner.state.lock().history.calls_of(slot)
    }

    /// Runs something on what is remembered.
    pub(crate) fn with_memory<T>(
        &self,
        run: impl FnOnce(&mut Memory, &mut super::edges::Edges) -> T,
    ) -> T {
        let mut state = self.inner.state.lock();
        let GraphState {
            history, memory, ..
        } = &mut *state;
        run(memory, &mut history.edges)
    }

    /// Counts edges that had no room where they are written down.
    pub(crate) fn count_unwritten(&self, edges: usize) {
        self.inner.metrics.dropped("unwritten", edges as u64);
    }

    /// Edges of the memory that were dropped for want of room since the last call.
    pub(crate) fn take_truncated(&self) -> usize {
        self.inner.truncated.swap(0, Ordering::Relaxed)
    }
}

/// When a slot's calls were.
const fn seen_in(slot: u64) -> Seen {
    Seen {
        first: slot * SLOT,
        last: (slot + 1) * SLOT,
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
