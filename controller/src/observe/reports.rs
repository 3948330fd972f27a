//! What the proxies have counted in the last minutes.
//!
//! Sums are kept by slot, pod and process as proxies report them, not added up:
//! any window and any grouping can still be asked for, and what is told twice
//! replaces itself. A replica tells the others what its own proxies report, so
//! that each holds the same.
//!
//! Of two reports of one slot the one with more calls is right: a pod that ends
//! tells its open slot several times, and streams may overtake each other.
//!
//! Any pod of the mesh may report whatever it likes about itself. So a pod has a share
//! in bytes, and when all together are too much, the pod with most loses its oldest
//! slots: nobody can push out what others reported.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::watch;
use wire::v1;

use crate::metrics::{ReportMetrics, ReportOutcome};
use crate::world::ObjectKey;

/// Length of a slot in seconds, as in the proxies.
pub(crate) const SLOT: u64 = 5;
/// The longest window that can be asked for.
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_secs(300);
/// Slots end this long before they can be asked for: proxies report within a
/// second, and replicas tell each other at once.
pub(crate) const SETTLED: Duration = Duration::from_secs(5);
/// Slots that are kept: the longest window, what is not settled, and one that a
/// clock may be ahead.
const SLOTS: u64 = LONGEST_WINDOW.as_secs() / SLOT + 4;
/// A proxy's clock may be ahead by this many slots.
const AHEAD: u64 = 2;
/// Edges of one report. A proxy has half of it.
const MAX_REPORT_EDGES: usize = 1024;
/// Bytes of all edges, as if each had its key to itself: what the edges of the
/// default memory limit with usual names come to.
const MAX_BYTES: usize = 96 * 1024 * 1024;
/// Edges of one pod. A proxy that has all its edges in every slot has 33 000.
const MAX_POD_EDGES: usize = 40_000;
/// Bytes of one pod's edges.
const MAX_POD_BYTES: usize = 16 * 1024 * 1024;
/// Encoded bytes of one report: 512 edges with long names.
const MAX_REPORT_BYTES: usize = 512 * 1024;
/// Processes of one pod in one slot: a proxy that restarts all the time.
const MAX_PROCESSES: usize = 4;
/// Bytes of a namespace and of any other name of Kubernetes.
const MAX_NAMES: (usize, usize) = (63, 253);
/// Bytes of one name in a report: two names of Kubernetes and a slash.
const MAX_NAME: usize = MAX_NAMES.0 + 1 + MAX_NAMES.1;
/// Encoded bytes of one message to another replica, unless a single report has more.
/// Whoever listens takes 64 MiB.
const CHUNK: usize = 1024 * 1024;
/// What an edge takes besides its texts and its latencies.
const EDGE_BYTES: usize = 128;

/// What an edge is about; shared by all slots that have it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct EdgeKey {
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
pub(crate) struct Edge {
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
pub(crate) struct Reporter {
    /// Uid of this incarnation.
    pub uid: Arc<str>,
    /// Namespace and name.
    pub pod: ObjectKey,
}

/// Shared by streams, peers and the API. Clones are the same state.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
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
    bytes: usize,
    /// What each pod has, by uid.
    pods: HashMap<Arc<str>, PodShare>,
    /// Pods by bytes.
    largest: BTreeSet<(usize, Arc<str>)>,
    keys: HashSet<Arc<EdgeKey>>,
    revision: u64,
    /// First slot of which nothing went early.
    whole_from: u64,
    /// Own reports by the revision at which they came.
    own: BTreeMap<u64, (u64, Author)>,
}

/// What one pod has in all slots.
#[derive(Debug, Default)]
struct PodShare {
    edges: usize,
    bytes: usize,
    /// Slot and process.
    reports: BTreeSet<(u64, u64)>,
}

#[derive(Debug)]
struct Held {
    reporter: Arc<Reporter>,
    /// Set for a report of this replica's own stream.
    revision: Option<u64>,
    calls: u64,
    bytes: usize,
    edges: Box<[Edge]>,
}

impl Reports {
    /// An empty store that counts in `metrics`, with the bound of the default memory
    /// limit.
    #[cfg(test)]
    pub(crate) fn new(metrics: ReportMetrics) -> Self {
        Self::holding(metrics, crate::settings::caps::Caps::default().report_edges)
    }

    /// An empty store for at most this many edges.
    pub(crate) fn holding(metrics: ReportMetrics, most: usize) -> Self {
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
    pub(crate) fn take(&self, reporter: &Reporter, report: v1::Report, own: bool, now: SystemTime) {
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
        if report.edges.len() > MAX_REPORT_EDGES
            || report.edges.iter().any(too_long)
            || report.encoded_len() > MAX_REPORT_BYTES
        {
            return ReportOutcome::TooLarge;
        }
        if !report.edges.iter().all(is_well_formed) {
            return ReportOutcome::Malformed;
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
        let held = Held {
            reporter: Arc::new(reporter.clone()),
            revision,
            calls,
            bytes: edges.iter().map(Edge::bytes_at_most).sum(),
            edges,
        };
        state.drop_report(slot, &author);
        state.hold(slot, &author, held);
        let dropped = state.fit(&author.0, self.inner.most);
        self.inner.metrics.slots_dropped.inc_by(dropped);
        let bytes = i64::try_from(state.bytes).unwrap_or(i64::MAX);
        self.inner.metrics.bytes.set(bytes);
        self.inner
            .metrics
            .edges
            .set(i64::try_from(state.edges).unwrap_or(i64::MAX));
        ReportOutcome::Taken
    }

    /// The first slot of which nothing was dropped for want of room. What is told of
    /// earlier ones is a part.
    pub(crate) fn whole_from(&self) -> u64 {
        self.inner.state.lock().whole_from
    }

    /// Shows every edge of the slots from `first` up to but without `end`
    /// (numbers of slots), with the pod that reported it.
    pub(crate) fn each(&self, first: u64, end: u64, mut see: impl FnMut(&Reporter, &Edge)) {
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
    pub(crate) fn own_changes(&self) -> watch::Receiver<u64> {
        self.inner.own.subscribe()
    }

    /// Own reports after revision `since`, as many as fit into one message, and the
    /// revision that they lead to; nothing when all is told. 0 begins with the first.
    pub(crate) fn own_since(&self, since: u64) -> (u64, Option<v1::Reports>) {
        let state = self.inner.state.lock();
        let mut news = v1::Reports::default();
        let (mut bytes, mut told) = (0, since);
        for (revision, (slot, author)) in state.own.range(since + 1..) {
            let held = state.slots.get(slot).and_then(|slot| slot.get(author));
            let Some(held) = held else { continue };
            let report = v1::PodReport {
                namespace: held.reporter.pod.namespace.to_string(),
                pod: held.reporter.pod.name.to_string(),
                uid: held.reporter.uid.to_string(),
                report: Some(v1::Report {
                    process: author.1,
                    slot: slot * SLOT,
                    edges: held.edges.iter().map(message).collect(),
                }),
            };
            bytes += report.encoded_len();
            if bytes > CHUNK && !news.reports.is_empty() {
                return (told, Some(news));
            }
            told = *revision;
            news.reports.push(report);
        }
        (state.revision, (!news.reports.is_empty()).then_some(news))
    }

    /// Takes in what another replica tells.
    pub(crate) fn heard(&self, news: v1::Reports, now: SystemTime) {
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
pub(crate) fn slot_of(now: SystemTime) -> u64 {
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

/// Whether all names are empty or names of Kubernetes.
fn is_well_formed(edge: &v1::Edge) -> bool {
    let objects = [
        &edge.pod,
        &edge.identity,
        &edge.service,
        &edge.backend,
        &edge.split,
    ];
    let part = |text: &str, most: usize| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        (1..=most).contains(&text.len()) && text.bytes().all(plain)
    };
    let object = |text: &String| match text.split_once('/') {
        Some((namespace, name)) => part(namespace, MAX_NAMES.0) && part(name, MAX_NAMES.1),
        None => text.is_empty(),
    };
    (edge.caller.is_empty() || part(&edge.caller, MAX_NAMES.0)) && objects.into_iter().all(object)
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

    /// Drops slots before `first`.
    fn forget_before(&mut self, first: u64) {
        while let Some((slot, held)) = self.slots.first_key_value() {
            let slot = *slot;
            if slot >= first {
                break;
            }
            let authors: Vec<Author> = held.keys().cloned().collect();
            for author in &authors {
                self.drop_report(slot, author);
            }
            self.slots.remove(&slot);
        }
    }

    /// Takes a report in.
    fn hold(&mut self, slot: u64, author: &Author, held: Held) {
        let (edges, bytes) = (held.edges.len(), held.bytes);
        self.share(&author.0, |share| {
            share.edges += edges;
            share.bytes += bytes;
            share.reports.insert((slot, author.1));
        });
        self.edges += edges;
        self.bytes += bytes;
        self.slots
            .entry(slot)
            .or_default()
            .insert(author.clone(), held);
    }

    /// Takes a report out, and keys that nobody has any more.
    fn drop_report(&mut self, slot: u64, author: &Author) {
        let Some(reports) = self.slots.get_mut(&slot) else {
            return;
        };
        let Some(held) = reports.remove(author) else {
            return;
        };
        if reports.is_empty() {
            self.slots.remove(&slot);
        }
        self.edges -= held.edges.len();
        self.bytes -= held.bytes;
        if let Some(revision) = held.revision {
            self.own.remove(&revision);
        }
        self.share(&author.0, |share| {
            share.edges -= held.edges.len();
            share.bytes -= held.bytes;
            share.reports.remove(&(slot, author.1));
        });
        for Edge { key, .. } in held.edges {
            // One in the set, and this one.
            if Arc::strong_count(&key) == 2 {
                self.keys.remove(&key);
            }
        }
    }

    /// Changes what one pod has.
    fn share(&mut self, uid: &Arc<str>, change: impl FnOnce(&mut PodShare)) {
        let share = self.pods.entry(uid.clone()).or_default();
        self.largest.remove(&(share.bytes, uid.clone()));
        change(share);
        if share.reports.is_empty() {
            self.pods.remove(uid);
        } else {
            self.largest.insert((share.bytes, uid.clone()));
        }
    }

    /// Makes the pod `uid`, and then all together, fit. Returns how many slots of pods
    /// went for it.
    fn fit(&mut self, uid: &Arc<str>, most: usize) -> u64 {
        let mut dropped = 0;
        loop {
            let over =
                |share: &PodShare| share.edges > MAX_POD_EDGES || share.bytes > MAX_POD_BYTES;
            let crowded = self.edges > most || self.bytes > MAX_BYTES;
            let own = self.pods.get(uid).is_some_and(over);
            let victim = if own {
                uid.clone()
            } else if crowded {
                match self.largest.last() {
                    Some((_, largest)) => largest.clone(),
                    None => return dropped,
                }
            } else {
                return dropped;
            };
            let oldest = self
                .pods
                .get(&victim)
                .and_then(|share| share.reports.first());
            let Some((slot, process)) = oldest.copied() else {
                return dropped;
            };
            self.drop_report(slot, &(victim, process));
            if !own {
                // What a pod lost by its own excess is missing from nobody else's answer.
                self.whole_from = self.whole_from.max(slot + 1);
            }
            dropped += 1;
        }
    }
}

impl Edge {
    /// What it takes, if nobody shares its key.
    fn bytes_at_most(&self) -> usize {
        let key = &self.key;
        let objects = [
            &key.pod,
            &key.account,
            &key.service,
            &key.backend,
            &key.split,
        ];
        let texts = objects.into_iter().flatten();
        let texts: usize = texts.map(|key| key.namespace.len() + key.name.len()).sum();
        EDGE_BYTES + key.caller.len() + texts + std::mem::size_of_val(&*self.latency)
    }
}

#[cfg(test)]
mod tests;
