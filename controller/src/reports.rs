//! What the proxies have counted in the last minutes.
//!
//! Sums are kept by slot, pod and process as proxies report them, not added up:
//! any window and any grouping can still be asked for, and what is told twice
//! replaces itself. A replica tells the others what its own proxies report, so
//! that each holds the same.
//!
//! Of two reports of one slot the one with more calls is right: a pod that ends
//! tells its open slot several times, and streams may overtake each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;
use wire::v1;

use crate::caps::Caps;
use crate::metrics::{ReportMetrics, ReportOutcome};
use crate::world::ObjectKey;

/// Length of a slot in seconds, as in the proxies.
pub const SLOT: u64 = 5;
/// The longest window that can be asked for.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(300);
/// Slots end this long before they can be asked for: proxies report within a
/// second, and replicas tell each other at once.
pub const SETTLED: Duration = Duration::from_secs(5);
/// Slots that are kept: the longest window, what is not settled, and one that a
/// clock may be ahead.
const SLOTS: u64 = LONGEST_WINDOW.as_secs() / SLOT + 4;
/// A proxy's clock may be ahead by this many slots.
const AHEAD: u64 = 2;
/// Edges of one report. A proxy has half of it.
const MAX_REPORT_EDGES: usize = 1024;
/// Processes of one pod in one slot: a proxy that restarts all the time.
const MAX_PROCESSES: usize = 4;
/// Bytes of one name in a report: two names of Kubernetes and a slash.
const MAX_NAME: usize = 600;
/// Reports in one message to another replica.
const CHUNK: usize = 50;

/// What an edge is about; shared by all slots that have it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// Whether the caller's proxy measured it.
    pub client: bool,
    /// Client side: the pod that was called.
    pub pod: Option<ObjectKey>,
    /// Server side: uid of the calling pod.
    pub caller: Arc<str>,
    /// Server side: namespace and service account of the caller.
    pub account: Option<ObjectKey>,
    /// The Service that was called.
    pub service: Option<ObjectKey>,
    /// Its port.
    pub port: u16,
    /// The Service whose endpoints served.
    pub backend: Option<ObjectKey>,
    /// The TrafficSplit that chose it.
    pub split: Option<ObjectKey>,
}

/// The sums of one edge in one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// What it is about.
    pub key: Arc<EdgeKey>,
    /// Calls that went well.
    pub success: u64,
    /// Calls that did not.
    pub failure: u64,
    /// HTTP requests by bucket of [`policy::latency`].
    pub latency: Box<[u32]>,
    /// Bytes from and to the caller.
    pub bytes: (u64, u64),
}

/// The pod that reported.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reporter {
    /// Uid of this incarnation.
    pub uid: Arc<str>,
    /// Namespace and name.
    pub pod: ObjectKey,
}

/// Shared by streams, peers and the API. Clones are the same state.
#[derive(Clone, Debug)]
pub struct Reports {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Counts reports of this replica's own streams.
    own: watch::Sender<u64>,
    /// Edges of all slots, about 150 bytes each: 300 000 are 45 MB, or 1000 pods
    /// with five edges each over the longest window.
    most: usize,
    metrics: ReportMetrics,
}

/// Pod uid and process.
type Author = (Arc<str>, u64);

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<u64, HashMap<Author, Held>>,
    edges: usize,
    keys: HashSet<Arc<EdgeKey>>,
    revision: u64,
    /// First slot of which nothing went early.
    whole_from: u64,
    /// Own reports by the revision at which they came.
    own: BTreeMap<u64, (u64, Author)>,
}

#[derive(Debug)]
struct Held {
    reporter: Arc<Reporter>,
    /// Set for a report of this replica's own stream.
    revision: Option<u64>,
    calls: u64,
    edges: Box<[Edge]>,
}

impl Reports {
    /// An empty store that counts in `metrics`, with the bound of the default memory
    /// limit.
    pub fn new(metrics: ReportMetrics) -> Self {
        Self::holding(metrics, Caps::default().report_edges)
    }

    /// An empty store for at most this many edges.
    pub fn holding(metrics: ReportMetrics, most: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                own: watch::Sender::new(0),
                most,
                metrics,
            }),
        }
    }

    /// Takes a report that came on a stream of this replica (`own`) or from
    /// another one. `reporter` is what the stream's certificate proves, never
    /// what the report says.
    pub fn take(&self, reporter: &Reporter, report: v1::Report, own: bool, now: SystemTime) {
        let outcome = self.try_take(reporter, report, own, now);
        self.inner.metrics.count(outcome);
        if own && outcome == ReportOutcome::Taken {
            self.inner.own.send_modify(|count| *count += 1);
        }
    }

    fn try_take(
        &self,
        reporter: &Reporter,
        report: v1::Report,
        own: bool,
        now: SystemTime,
    ) -> ReportOutcome {
        let current = slot_of(now);
        let slot = report.slot / SLOT;
        if !report.slot.is_multiple_of(SLOT) || slot > current + AHEAD || slot + SLOTS <= current {
            return ReportOutcome::OutOfTime;
        }
        if report.edges.len() > MAX_REPORT_EDGES || report.edges.iter().any(too_long) {
            return ReportOutcome::TooLarge;
        }
        let author: Author = (reporter.uid.clone(), report.process);
        let mut state = self.inner.state.lock();
        state.forget_before((current + 1).saturating_sub(SLOTS));
        let calls = report.edges.iter().fold(0_u64, |sum, edge| {
            sum.saturating_add(edge.success)
                .saturating_add(edge.failure)
        });
        let held = state.slots.get(&slot).and_then(|slot| slot.get(&author));
        let known = match held {
            // Told by a peer first: now it is this replica's to tell.
            Some(held) => held.calls >= calls && (held.revision.is_some() || !own),
            None => {
                let pods = state.slots.get(&slot).into_iter().flatten();
                pods.filter(|((uid, _), _)| *uid == author.0).count() >= MAX_PROCESSES
            }
        };
        if known {
            return ReportOutcome::Known;
        }
        let edges: Box<[Edge]> = report
            .edges
            .into_iter()
            .map(|edge| state.edge(edge))
            .collect();
        let revision = own.then(|| {
            state.revision += 1;
            let revision = state.revision;
            state.own.insert(revision, (slot, author.clone()));
            revision
        });
        state.edges += edges.len();
        let held = Held {
            reporter: Arc::new(reporter.clone()),
            revision,
            calls,
            edges,
        };
        if let Some(before) = state.slots.entry(slot).or_default().insert(author, held) {
            state.edges -= before.edges.len();
            if let Some(revision) = before.revision {
                state.own.remove(&revision);
            }
        }
        while state.edges > self.inner.most && state.slots.len() > 1 {
            self.inner.metrics.slots_dropped.inc();
            let oldest = state.slots.keys().next().copied().unwrap_or_default();
            state.forget_before(oldest + 1);
            state.whole_from = state.whole_from.max(oldest + 1);
        }
        self.inner
            .metrics
            .edges
            .set(i64::try_from(state.edges).unwrap_or(i64::MAX));
        ReportOutcome::Taken
    }

    /// The first slot of which nothing was dropped for want of room. What is told of
    /// earlier ones is a part.
    pub fn whole_from(&self) -> u64 {
        self.inner.state.lock().whole_from
    }

    /// Shows every edge of the slots from `first` up to but without `end`
    /// (numbers of slots), with the pod that reported it.
    pub fn each(&self, first: u64, end: u64, mut see: impl FnMut(&Reporter, &Edge)) {
        let state = self.inner.state.lock();
        for held in state
            .slots
            .range(first..end)
            .flat_map(|(_, slot)| slot.values())
        {
            for edge in &held.edges {
                see(&held.reporter, edge);
            }
        }
    }

    /// Changes of this replica's own reports; for peers.
    pub fn own_changes(&self) -> watch::Receiver<u64> {
        self.inner.own.subscribe()
    }

    /// Own reports after revision `since`, in messages of bounded size, and the
    /// revision that they lead to. 0 gives everything.
    pub fn own_since(&self, since: u64) -> (u64, Vec<v1::Reports>) {
        let state = self.inner.state.lock();
        let reports: Vec<v1::PodReport> = state
            .own
            .range(since + 1..)
            .filter_map(|(_, (slot, author))| {
                let held = state.slots.get(slot)?.get(author)?;
                Some(v1::PodReport {
                    namespace: held.reporter.pod.namespace.to_string(),
                    pod: held.reporter.pod.name.to_string(),
                    uid: held.reporter.uid.to_string(),
                    report: Some(v1::Report {
                        process: author.1,
                        slot: slot * SLOT,
                        edges: held.edges.iter().map(message).collect(),
                    }),
                })
            })
            .collect();
        let messages = reports.chunks(CHUNK).map(|chunk| v1::Reports {
            reports: chunk.to_vec(),
        });
        (state.revision, messages.collect())
    }

    /// Takes in what another replica tells.
    pub fn heard(&self, news: v1::Reports, now: SystemTime) {
        for one in news.reports {
            let reporter = Reporter {
                uid: one.uid.into(),
                pod: ObjectKey::new(&one.namespace, &one.pod),
            };
            if let Some(report) = one.report {
                self.take(&reporter, report, false, now);
            }
        }
    }
}

/// Number of the slot that `now` lies in.
pub fn slot_of(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / SLOT
}

fn too_long(edge: &v1::Edge) -> bool {
    let names = [
        &edge.pod,
        &edge.caller,
        &edge.identity,
        &edge.service,
        &edge.backend,
        &edge.split,
    ];
    names.iter().any(|name| name.len() > MAX_NAME) || edge.latency.len() > policy::latency::BUCKETS
}

/// `namespace/name`.
fn key(text: &str) -> Option<ObjectKey> {
    let (namespace, name) = text.split_once('/')?;
    Some(ObjectKey::new(namespace, name))
}

fn text(key: Option<&ObjectKey>) -> String {
    key.map_or_else(String::new, |key| format!("{}/{}", key.namespace, key.name))
}

fn message(edge: &Edge) -> v1::Edge {
    let key = &edge.key;
    let side = if key.client {
        v1::Side::Client
    } else {
        v1::Side::Server
    };
    v1::Edge {
        side: side.into(),
        pod: text(key.pod.as_ref()),
        caller: key.caller.to_string(),
        identity: text(key.account.as_ref()),
        service: text(key.service.as_ref()),
        port: u32::from(key.port),
        backend: text(key.backend.as_ref()),
        split: text(key.split.as_ref()),
        success: edge.success,
        failure: edge.failure,
        latency: edge.latency.to_vec(),
        sent: edge.bytes.0,
        received: edge.bytes.1,
    }
}

impl State {
    fn edge(&mut self, edge: v1::Edge) -> Edge {
        let fresh = EdgeKey {
            client: edge.side() == v1::Side::Client,
            pod: key(&edge.pod),
            caller: edge.caller.into(),
            account: key(&edge.identity),
            service: key(&edge.service),
            port: u16::try_from(edge.port).unwrap_or(0),
            backend: key(&edge.backend),
            split: key(&edge.split),
        };
        let shared = match self.keys.get(&fresh) {
            Some(held) => Arc::clone(held),
            None => {
                let fresh = Arc::new(fresh);
                self.keys.insert(Arc::clone(&fresh));
                fresh
            }
        };
        Edge {
            key: shared,
            success: edge.success,
            failure: edge.failure,
            latency: edge.latency.into(),
            bytes: (edge.sent, edge.received),
        }
    }

    /// Drops slots before `first`, and keys that nobody has any more.
    fn forget_before(&mut self, first: u64) {
        let mut dropped = false;
        while let Some(entry) = self.slots.first_entry() {
            if *entry.key() >= first {
                break;
            }
            dropped = true;
            for held in entry.remove().into_values() {
                self.edges -= held.edges.len();
                if let Some(revision) = held.revision {
                    self.own.remove(&revision);
                }
            }
        }
        if dropped {
            self.keys.retain(|key| Arc::strong_count(key) > 1);
        }
    }
}

#[cfg(test)]
#[path = "reports/tests.rs"]
mod tests;
