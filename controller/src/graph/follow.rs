//! The task that folds new reports into the graph, and runs queries on it.
//!
//! Reports of an interval come within a second of its end, so every run folds what is new of the
//! last intervals. That is 40 000 rows of 2 000 proxies, and the replica has one thread for all
//! its connections: so folding runs on a thread of its own, and so do queries. That one thread
//! never waits for the state, and no waiter for the state holds the inventory, which is written
//! there.

mod shown;
mod startup;
mod state;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crds::observe::RecentCalls;
use model::compiled::Compiled;
use model::world::ObjectKey;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use self::shown::SharedResponses;
use self::startup::StartupProgress;
use self::state::GraphState;
use super::answer::{self, Extent, GraphSink, Sources};
use super::edges::EdgeRef;
use super::fold::Fold;
use super::history;
use super::key::{EdgeKey, NodeKey};
use super::memory::Memory;
use super::run_blocking;
use super::wall_clock::ClockStep;
use super::window::{Counted, Incomplete};
use super::workloads::{Owners, workloads};
use super::written::Written;
use crate::inventory::Inventory;
use crate::latest_model::LatestModel;
use crate::metrics::GraphMetrics;
use crate::observe::reports::{INTERVAL, PodInterval, Reports, SETTLED, interval_of};

pub(crate) use self::shown::GraphWindow;
pub(crate) use self::startup::UNREAD;
pub(crate) use self::state::seconds;

/// Between two looks at what was reported.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Intervals whose reports may still come in every look.
const FRESH: u64 = 3;
/// Every so many looks older intervals are looked at too: proxies report them again when they connect
/// to another replica.
const LOOK_BACK: u64 = 5;
/// After a start other replicas and proxies send what they have. Until then nothing is put together
/// that what comes would have to be added to.
const COLLECTED_WITHIN: Duration = Duration::from_secs(30);
/// By then the last of that can be queried.
const STARTUP_TIME: Duration = COLLECTED_WITHIN.saturating_add(SETTLED);
/// Pods between which others get at the state.
const AT_ONCE: usize = 64;
/// Why a response is incomplete, beside the window's own reasons.
const HOARDED: &str = "pods of it reported more than their share, and some of that had no room in the controller's \
     memory";
const COLLECTING: &str =
    "this controller began a moment ago, and not every proxy has reported yet what it counted";
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
    retention: Duration,
    state: Mutex<GraphState>,
    /// Edges of the memory that were dropped since the last query of this number.
    truncated: AtomicUsize,
    startup: StartupProgress,
    written: SharedResponses,
    metrics: GraphMetrics,
}

impl Graph {
    /// An empty one. `retention`: how long edges without calls are remembered.
    pub(crate) fn new(
        reports: Reports,
        inventory: Arc<RwLock<Inventory>>,
        latest: LatestModel,
        retention: Duration,
        metrics: GraphMetrics,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                reports,
                inventory,
                latest,
                retention,
                state: Mutex::default(),
                truncated: AtomicUsize::new(0),
                startup: StartupProgress::new(!retention.is_zero()),
                written: SharedResponses::new(),
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
        self.inner.startup.followed();
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
                if age > COLLECTED_WITHIN {
                    graph.tidy(now);
                }
                if age > STARTUP_TIME {
                    graph.startup().grow();
                }
                graph.inner.written.looked();
            })
            .await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// How far it is with its start.
    pub(crate) fn startup(&self) -> &StartupProgress {
        &self.inner.startup
    }

    /// The first look. Of what was counted before, proxies send again what a window of max length
    /// would have that ends when all of them had time for that.
    fn begins(&self, now: SystemTime) {
        let grown = interval_of(now) + STARTUP_TIME.as_secs() / INTERVAL;
        let known = grown.saturating_sub(history::LONGEST);
        self.inner.state.lock().history.begins(known);
    }

    /// Looks at the clock, which shows `now` at the moment `at`.
    fn look_at_clock(&self, now: SystemTime, at: std::time::Instant) {
        let step = self.inner.state.lock().look_at_clock(now, at);
        if let Some(step) = step {
            self.clock_was_set(step, now);
        }
    }

    /// The clock was set, and shows `now`.
    fn clock_was_set(&self, step: ClockStep, now: SystemTime) {
        warn!(
            %step,
            "the clock of this node was set: answers of the service graph that go back to that \
             say that they are not complete"
        );
        self.inner.metrics.clock_sets.inc();
        let current = interval_of(now);
        self.inner.reports.forget_from(current);
        self.inner.state.lock().clock_was_set(current);
    }

    /// Changes with every look.
    pub(crate) fn looks(&self) -> watch::Receiver<u64> {
        self.inner.written.looks()
    }

    /// One look, for tests that wait for it.
    #[cfg(test)]
    pub(crate) async fn look(&self, now: SystemTime, back: bool) {
        let graph = self.clone();
        run_blocking(move || graph.look_now(now, back)).await;
    }

    /// Folds the intervals of which something is new; of older ones only if `back` is set, or where it
    /// became known whose pods of theirs were.
    fn look_now(&self, now: SystemTime, back: bool) {
        let current = interval_of(now);
        let peer_revision = self.inner.inventory.read().peer_revision();
        let peer_pods_changed = self.inner.state.lock().peer_pods_changed(peer_revision);
        let back = peer_pods_changed || back;
        let whole_from = self.inner.reports.whole_from();
        for (interval, revision) in self.inner.reports.revisions().into_iter().rev() {
            let fresh = interval + FRESH > current;
            // What went for want of room would be folded without it.
            let whole = interval >= whole_from;
            let lacks = || self.inner.state.lock().history.lacks(interval, revision);
            if (fresh || back) && whole && lacks() {
                self.fold(interval, revision);
            }
        }
        let mut state = self.inner.state.lock();
        state.persist_served(interval_of(now - SETTLED));
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let metrics = &self.inner.metrics;
        metrics.edges.set(gauge(state.history.edges.size().0));
        metrics.bytes.set(gauge(state.history.size()));
        metrics.persisted.set(gauge(state.memory.len()));
    }

    fn fold(&self, interval: u64, revision: u64) {
        let reported = self.inner.reports.of_interval(interval);
        let mut fold = Fold::default();
        for pods in reported.chunks(AT_ONCE) {
            self.fold_some(&mut fold, pods);
        }
        let began = std::time::Instant::now();
        let mut folded = fold.done();
        // Read last: what is dropped in between counts as missing, and is there.
        folded.dropped_reports = self.inner.reports.dropped_reports(interval);
        let mut state = self.inner.state.lock();
        state.take(interval, revision, folded, &self.inner.inventory);
        let took = began.elapsed().as_secs_f64();
        self.inner.metrics.fold_seconds.inc_by(took);
    }

    fn fold_some(&self, fold: &mut Fold, pods: &[PodInterval]) {
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
        let minutes = state.history.dropped;
        let truncated = state.tidy(now, self.inner.retention);
        let all = &self.inner.truncated;
        all.fetch_add(truncated, Ordering::Relaxed);
        let metrics = &self.inner.metrics;
        metrics.dropped("minute", state.history.dropped - minutes);
        metrics.dropped("edge", std::mem::take(&mut state.history.edges.left_out));
        metrics.dropped("remembered", std::mem::take(&mut state.memory.dropped));
    }

    /// A response as it is written. While nothing new was folded, readers share it.
    pub(crate) fn written(&self, requested: &GraphWindow, now: SystemTime) -> Arc<Written> {
        let write = || Written::of(|to| self.write_answer(requested, now, to));
        self.inner.written.response(requested, now, write)
    }

    /// What a reader was shown whose window ended before this interval, or more. `None` where that is
    /// not known any more. `now`: of the reader's next response, which was made before: it is what
    /// workloads are compared with.
    pub(crate) fn shown_before(
        &self,
        requested: &GraphWindow,
        end: u64,
        now: SystemTime,
    ) -> Option<Arc<Written>> {
        let current = interval_of(now);
        let is_held = requested.intervals <= history::FINE
            && end <= current
            && end + history::FINE_HISTORY >= current
            && self.inner.state.lock().workloads.known_from() <= end;
        if !is_held {
            return None;
        }
        let mut before = GraphWindow {
            end: Some(end),
            ..requested.clone()
        };
        // Ends of quiet edges may have gone since.
        before.extent.gone = true;
        let written = self.written(&before, now);
        (!written.lacks()).then_some(written)
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
        let workloads = state.workloads.get(interval_of(now), || {
            let model = compiled.as_ref().map(|compiled| &compiled.model);
            let made = model.map(|model| workloads(model, &inventory.read()));
            made.unwrap_or_default()
        });
        // Before this interval nothing more comes.
        let settled = interval_of(now - SETTLED);
        let now = interval_of(now);
        let end = match requested.end {
            Some(end) => end.min(now),
            None if requested.settled => settled,
            None => now,
        };
        let bounds = history::bounds(requested.intervals, end);
        let whole_from = self.inner.reports.whole_from();
        let known = (settled, whole_from);
        let keep = |nodes: &[&NodeKey]| requested.extent.owns_any(nodes);
        let mut window = state.history.window_of(bounds, known, keep);
        let is_meant = |namespace: &str| requested.extent.owns_namespace(namespace);
        let first = requested.extent.first_interval(bounds.0);
        if window.dropped_reports.concerns(is_meant) || self.hoards(&requested.extent, bounds.0) {
            window.incomplete = Some(Incomplete::Lost(HOARDED));
        } else if state.clock_is_set(first) {
            window.incomplete = Some(Incomplete::Lost(CLOCK_SET));
        } else if self.startup().is_collecting() {
            window.incomplete = Some(Incomplete::Lost(COLLECTING));
        } else if self.startup().lacks_loaded()
            && !matches!(window.incomplete, Some(Incomplete::Lost(_)))
        {
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

    /// What was counted in the max window on the edges that `chosen` accepts.
    pub(crate) fn between(
        &self,
        now: SystemTime,
        chosen: impl Fn(&EdgeKey) -> bool,
    ) -> RecentCalls {
        self.inner.state.lock().calls_between(now, chosen)
    }

    /// Accounts of the callers that these nodes ever had, and how many there were of which none is
    /// known.
    pub(crate) fn callers_of(
        &self,
        nodes: &BTreeSet<NodeKey>,
        compiled: &Compiled,
    ) -> (BTreeSet<ObjectKey>, usize) {
        let workloads = workloads(&compiled.model, &self.inner.inventory.read());
        self.inner.state.lock().callers_of(nodes, &workloads)
    }

    /// What was counted in an interval, each call once.
    pub(crate) fn calls_of(&self, interval: u64) -> Vec<(EdgeRef, Counted)> {
        self.inner.state.lock().history.calls_of(interval)
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

#[cfg(test)]
mod tests;
