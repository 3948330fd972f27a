//! Stores reports by interval, pod and process, and bounds the memory of each pod.
//!
//! Any pod of the mesh may report whatever it likes about itself. So a pod has a share in bytes,
//! and when all together are too much, the pod with most loses its oldest intervals.
//!
//! The owner of a loss decides which windows it shortens. Where pods with little each are too
//! many, all of them lose old intervals, and every window begins after them. Where one pod reports
//! too much, only its own figures become incomplete, and responses report that. Else some pods
//! that fill the newest intervals would take every window from all others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tracing::warn;
use wire::v1;

use super::dropped_reports::ByInterval;
use super::latency_counts::LatencyCounts;
use super::stored_report::{Detail, Edge, ReportedEdgeKey, Reporter, RouteCalls, key};

/// Bytes of all edges, as if each had its key to itself: what the edges of the
/// default memory limit with usual names come to.
pub(super) const MAX_BYTES: usize = 96 * 1024 * 1024;
/// Edges of one pod. A proxy that has all its edges in every interval has 33 000.
const MAX_POD_EDGES: usize = 40_000;
/// Bytes of one pod's edges.
pub(super) const MAX_POD_BYTES: usize = 16 * 1024 * 1024;
/// A pod hoards when it has more than this part of everything: 1 180 edges by default, 18
/// in each interval. So many pods of one tenant would be needed to fill it without hoarding.
const FAIR_SHARES: usize = 256;
/// Edges with which no pod hoards, however little may be held: one in each interval.
const MODEST_EDGES: usize = 64;

/// Pod uid and process.
pub(super) type Author = (Arc<str>, u64);

#[derive(Debug, Default)]
pub(super) struct ReportStore {
    pub(super) intervals: BTreeMap<u64, HashMap<Author, StoredReport>>,
    /// Edges of all intervals that may be held.
    most: usize,
    pub(super) edges: usize,
    pub(super) bytes: usize,
    /// What each pod has, by uid.
    pub(super) pods: HashMap<Arc<str>, PodShare>,
    /// Pods by weight.
    pub(super) largest: BTreeSet<(usize, Arc<str>)>,
    /// Pods that lost intervals because they hoard, by uid.
    hoarders: HashMap<Arc<str>, Hoarder>,
    pub(super) dropped_reports: ByInterval,
    pub(super) keys: HashSet<Arc<ReportedEdgeKey>>,
    pub(super) revision: u64,
    /// Reports that were taken in, by interval.
    pub(super) changed: BTreeMap<u64, u64>,
    /// First interval of which nothing went early, but what hoarders lost.
    pub(super) whole_from: u64,
    /// Own reports by the revision at which they came.
    pub(super) own: BTreeMap<u64, (u64, Author)>,
}

/// What one pod has in all intervals.
#[derive(Debug, Default)]
pub(super) struct PodShare {
    pub(super) edges: usize,
    pub(super) bytes: usize,
    /// Interval and process.
    pub(super) reports: BTreeSet<(u64, u64)>,
}

impl PodShare {
    /// What it takes in bytes, or in edges of that many bytes: whichever is more. A pod with
    /// many small edges has more than one with few large ones where edges are what is scarce.
    fn weight(&self, of_an_edge: usize) -> usize {
        self.bytes.max(self.edges.saturating_mul(of_an_edge))
    }
}

/// A pod that lost intervals by its own excess.
#[derive(Debug)]
struct Hoarder {
    reporter: Arc<Reporter>,
    /// First of its intervals from which on nothing went.
    whole_from: u64,
}

#[derive(Debug)]
pub(super) struct StoredReport {
    pub(super) reporter: Arc<Reporter>,
    /// Set for a report of this replica's own stream.
    pub(super) revision: Option<u64>,
    pub(super) calls: u64,
    pub(super) bytes: usize,
    pub(super) edges: Arc<[Edge]>,
    /// What the pod served, by route.
    pub(super) routes: Arc<[RouteCalls]>,
    /// What FaultExperiments did with its calls, by run.
    pub(super) faults: Arc<[v1::FaultCalls]>,
}

impl ReportStore {
    /// An empty one for at most this many edges.
    pub(super) fn with_capacity(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    pub(super) fn edge(&mut self, mut edge: v1::Edge) -> Edge {
        let detail = Detail::of(&mut edge);
        let in_an_interval = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let fresh = ReportedEdgeKey {
            security: edge.security(),
            protocol: edge.protocol(),
            remote: std::mem::take(&mut edge.remote).into(),
            client: edge.side() == v1::Side::Client,
            pod: key(&edge.pod),
            caller: edge.caller.into(),
            account: key(&edge.identity),
            service: key(&edge.service),
            port: u16::try_from(edge.port).unwrap_or(0),
            backend: key(&edge.backend),
            split: key(&edge.split),
            rule: (!edge.rule.is_empty()).then(|| edge.rule.as_str().into()),
        };
        let shared = match self.keys.get(&fresh) {
            Some(stored) => Arc::clone(stored),
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
            latency: LatencyCounts::new(&edge.latency),
            bytes: (edge.sent, edge.received),
            attempts: edge.attempts.map(in_an_interval),
            detail,
        }
    }

    /// Takes a report in.
    pub(super) fn keep(&mut self, interval: u64, author: &Author, stored: StoredReport) {
        let (edges, bytes) = (stored.edges.len(), stored.bytes);
        self.share(&author.0, |share| {
            share.edges += edges;
            share.bytes += bytes;
            share.reports.insert((interval, author.1));
        });
        self.edges += edges;
        self.bytes += bytes;
        self.intervals
            .entry(interval)
            .or_default()
            .insert(author.clone(), stored);
    }

    /// Takes a report out, and keys that no other report has. Returns whose it was.
    pub(super) fn drop_report(&mut self, interval: u64, author: &Author) -> Option<Arc<Reporter>> {
        let reports = self.intervals.get_mut(&interval)?;
        let stored = reports.remove(author)?;
        if reports.is_empty() {
            self.intervals.remove(&interval);
        }
        self.edges -= stored.edges.len();
        self.bytes -= stored.bytes;
        if let Some(revision) = stored.revision {
            self.own.remove(&revision);
        }
        self.share(&author.0, |share| {
            share.edges -= stored.edges.len();
            share.bytes -= stored.bytes;
            share.reports.remove(&(interval, author.1));
        });
        for Edge { key, .. } in &*stored.edges {
            // One in the set, and this one.
            if Arc::strong_count(key) == 2 {
                self.keys.remove(key);
            }
        }
        Some(stored.reporter)
    }

    /// Changes what one pod has.
    pub(super) fn share(&mut self, uid: &Arc<str>, change: impl FnOnce(&mut PodShare)) {
        let of_an_edge = self.bytes_of_an_edge();
        let share = self.pods.entry(uid.clone()).or_default();
        self.largest
            .remove(&(share.weight(of_an_edge), uid.clone()));
        change(share);
        if share.reports.is_empty() {
            self.pods.remove(uid);
        } else {
            self.largest.insert((share.weight(of_an_edge), uid.clone()));
        }
    }

    /// Bytes that each edge may have when as many are held as may be.
    fn bytes_of_an_edge(&self) -> usize {
        MAX_BYTES / self.most.max(1)
    }

    /// Makes the pod `uid`, and then all together, fit. Returns how many intervals of pods
    /// went for it.
    pub(super) fn fit(&mut self, uid: &Arc<str>) -> u64 {
        let mut dropped = 0;
        while let Some((victim, hoards)) = self.victim(uid) {
            let share = self.pods.get(&victim);
            let oldest = share.and_then(|share| share.reports.first()).copied();
            let Some((interval, process)) = oldest else {
                return dropped;
            };
            let reporter = self.drop_report(interval, &(victim, process));
            match reporter.filter(|_| hoards) {
                Some(reporter) => self.note_hoarder(&reporter, interval),
                None => self.whole_from = self.whole_from.max(interval + 1),
            }
            dropped += 1;
        }
        dropped
    }

    /// Which pod has to give up its oldest interval, if one has, and whether it hoards.
    fn victim(&self, uid: &Arc<str>) -> Option<(Arc<str>, bool)> {
        let over = |share: &PodShare| share.edges > MAX_POD_EDGES || share.bytes > MAX_POD_BYTES;
        if self.pods.get(uid).is_some_and(over) {
            return Some((uid.clone(), true));
        }
        let full = self.edges > self.most || self.bytes > MAX_BYTES;
        let (weight, largest) = self.largest.last().filter(|_| full)?;
        let modest = MODEST_EDGES.saturating_mul(self.bytes_of_an_edge());
        let fair = (MAX_BYTES / FAIR_SHARES).max(modest);
        Some((largest.clone(), *weight > fair))
    }

    /// Notes that what this pod had of an interval went early.
    fn note_hoarder(&mut self, reporter: &Arc<Reporter>, interval: u64) {
        let dropped_reports = self.dropped_reports.entry(interval).or_default();
        dropped_reports.note(&reporter.pod.namespace);
        let whole_from = interval + 1;
        if let Some(known) = self.hoarders.get_mut(&reporter.uid) {
            known.whole_from = known.whole_from.max(whole_from);
            return;
        }
        warn!(pod = %reporter.pod, "pod reports more than its share: its oldest intervals are dropped");
        let hoarder = Hoarder {
            reporter: Arc::clone(reporter),
            whole_from,
        };
        self.hoarders.insert(reporter.uid.clone(), hoarder);
    }

    /// Pods of which intervals from `first` on went early because they hoard, each with the
    /// first interval from which on it is whole.
    pub(super) fn hoarders(&self, first: u64) -> Vec<(Arc<Reporter>, u64)> {
        let lost = self.hoarders.values().filter(|pod| pod.whole_from > first);
        lost.map(|pod| (Arc::clone(&pod.reporter), pod.whole_from))
            .collect()
    }

    /// Drops intervals before `first`.
    pub(super) fn forget_before(&mut self, first: u64) {
        while let Some((interval, stored)) = self.intervals.first_key_value() {
            let interval = *interval;
            if interval >= first {
                break;
            }
            let authors: Vec<Author> = stored.keys().cloned().collect();
            for author in &authors {
                self.drop_report(interval, author);
            }
            self.intervals.remove(&interval);
        }
        let before = self.changed.len();
        self.changed = self.changed.split_off(&first);
        self.dropped_reports = self.dropped_reports.split_off(&first);
        if self.changed.len() < before {
            self.hoarders.retain(|_, pod| pod.whole_from > first);
        }
    }

    /// Drops `interval` and later ones, which come only now: the clock was set back.
    pub(super) fn forget_from(&mut self, interval: u64) {
        let later = self.intervals.range(interval..);
        let later: Vec<(u64, Author)> = later
            .flat_map(|(interval, stored)| {
                stored.keys().map(move |author| (*interval, author.clone()))
            })
            .collect();
        for (interval, author) in &later {
            self.drop_report(*interval, author);
        }
        drop(self.changed.split_off(&interval));
        drop(self.dropped_reports.split_off(&interval));
        self.whole_from = self.whole_from.min(interval);
        for pod in self.hoarders.values_mut() {
            pod.whole_from = pod.whole_from.min(interval);
        }
    }
}
