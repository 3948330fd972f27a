//! The calls that proxies have counted in the last minutes.
//!
//! Sums are kept by interval, pod and process as proxies report them, not added up: any window and
//! any grouping can still be queried, and a repeated report replaces itself. A replica sends the
//! others what its own proxies report, so that each holds the same: under intervals of its own
//! clock, whatever the reporter's clock shows.
//!
//! Of two reports of one interval the one with more calls is right: a pod that ends reports its
//! open interval several times, and streams may overtake each other.
//!
//! Any pod of the mesh may report whatever it likes about itself. So a pod has a share in bytes,
//! and when all together are too much, the pod with most loses its oldest intervals: no pod can
//! push out what others reported, nor shorten their windows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use policy::fault::MOST_RUNS;
use policy::name::Kind;
use policy::release::service_of;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::Instant;
use wire::v1;

use super::clock_offset::{ClockOffset, millis};
use super::dropped_reports::DroppedReports;
use super::report_store::{Author, ReportStore, StoredReport};
use super::stored_report::message;

use model::world::ObjectKey;

pub(crate) use super::clock_offset::INTERVAL;
pub(crate) use super::stored_report::{Edge, ReportedEdgeKey, Reporter, RouteCalls};
use crate::metrics::{ReportMetrics, ReportOutcome};

/// The longest window that can be queried.
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_secs(300);
/// Intervals end this long before they can be queried: proxies report within a second, and replicas
/// send each other reports at once.
pub(crate) const SETTLED: Duration = Duration::from_secs(5);
/// Intervals that are kept: the longest window, what is not settled, and one that a
/// clock may be ahead.
const INTERVALS: u64 = LONGEST_WINDOW.as_secs() / INTERVAL + 4;
/// Intervals by which a report of an own stream may be ahead. A clock that is wrong by an interval
/// is believed, see [`ClockOffset`], and a pod that ends reports the interval that is open.
const AHEAD: u64 = 1;
/// The same of what another replica sends, whose clock may be wrong by as much again.
const AHEAD_OF_PEERS: u64 = 2;
/// Edges of one report. A proxy has half of it.
const MAX_REPORT_EDGES: usize = 1024;
/// Routes of one report: 64 names on each of a few ports.
const MAX_REPORT_ROUTES: usize = 512;
/// Reasons, rules and routes of one edge. A proxy reports fewer.
const MAX_EDGE_PARTS: (usize, usize, usize) = (32, 8, 16);
/// Bytes of a reason, and of an address or host outside the mesh.
const MAX_TEXTS: (usize, usize) = (32, 260);
/// Encoded bytes of one report: 512 edges with long names.
const MAX_REPORT_BYTES: usize = 512 * 1024;
/// Processes of one pod in one slot: a proxy that restarts all the time.
const MAX_PROCESSES: usize = 4;
/// Bytes of a namespace and of any other name of Kubernetes.
pub(super) const MAX_NAMES: (usize, usize) = (63, 253);
/// Bytes of one name in a report: two names of Kubernetes and a slash.
const MAX_NAME: usize = MAX_NAMES.0 + 1 + MAX_NAMES.1;
/// Length of a kind, with its group where two have one name.
const MAX_KIND: usize = 64;
/// Encoded bytes of one message to another replica, unless a single report has more. The receiver
/// takes 64 MiB.
pub(super) const CHUNK: usize = 1024 * 1024;
/// Shared by streams, peers and the API. Clones are the same state.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    inner: Arc<Inner>,
}

/// What one process of one pod counted in one interval.
#[derive(Clone, Debug)]
pub(crate) struct PodInterval {
    /// The pod.
    pub reporter: Arc<Reporter>,
    /// Its calls, and those to it.
    pub edges: Arc<[Edge]>,
    /// What it served, by route.
    pub routes: Arc<[RouteCalls]>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<ReportStore>,
    /// Counts reports of this replica's own streams.
    own: watch::Sender<u64>,
    metrics: ReportMetrics,
}

impl Reports {
    /// An empty store that counts in `metrics`, with the bound of the default memory
    /// limit.
    #[cfg(test)]
    pub(crate) fn new(metrics: ReportMetrics) -> Self {
        Self::with_capacity(metrics, crate::settings::caps::Caps::default().report_edges)
    }

    /// An empty store for at most this many edges of all intervals, about 150 bytes each:
    /// 300 000 are 45 MB, or 1000 pods with five edges each over the longest window.
    pub(crate) fn with_capacity(metrics: ReportMetrics, most: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(ReportStore::with_capacity(most)),
                own: watch::Sender::new(0),
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
        let current = interval_of(now);
        let at = report.slot / INTERVAL;
        let ahead = if own { AHEAD } else { AHEAD_OF_PEERS };
        if let Some(refused) = refused(&report, current, ahead) {
            return refused;
        }
        let author: Author = (reporter.uid.clone(), report.process);
        let mut state = self.inner.state.lock();
        state.forget_before((current + 1).saturating_sub(INTERVALS));
        let calls = calls(&report);
        let stored = state.intervals.get(&at).and_then(|at| at.get(&author));
        let known = match stored {
            // A peer sent it first: now this replica has to send it.
            Some(stored) => stored.calls >= calls && (stored.revision.is_some() || !own),
            None => {
                let pods = state.intervals.get(&at).into_iter().flatten();
                pods.filter(|((uid, _), _)| *uid == author.0).count() >= MAX_PROCESSES
            }
        };
        if known {
            return ReportOutcome::Known;
        }
        let edges: Arc<[Edge]> = report
            .edges
            .into_iter()
            .map(|edge| state.edge(edge))
            .collect();
        let routes: Arc<[RouteCalls]> = report.routes.into_iter().map(RouteCalls::of).collect();
        let faults: Arc<[v1::FaultCalls]> = report.faults.into();
        let of_routes: usize = routes.iter().map(RouteCalls::bytes).sum();
        let of_faults: usize = faults.iter().map(fault_bytes).sum();
        let of_edges: usize = edges.iter().map(Edge::bytes_at_most).sum();
        let revision = own.then(|| {
            state.revision += 1;
            let revision = state.revision;
            state.own.insert(revision, (at, author.clone()));
            revision
        });
        let stored = StoredReport {
            reporter: Arc::new(reporter.clone()),
            revision,
            calls,
            bytes: of_routes + of_edges + of_faults + reporter.account_bytes(),
            edges,
            routes,
            faults,
        };
        state.drop_report(at, &author);
        state.keep(at, &author, stored);
        *state.changed.entry(at).or_default() += 1;
        let dropped = state.fit(&author.0);
        self.inner.metrics.intervals_dropped.inc_by(dropped);
        self.inner.metrics.bytes.set(gauge(state.bytes));
        self.inner.metrics.edges.set(gauge(state.edges));
        ReportOutcome::Taken
    }

    /// Drops what was reported of this interval and later ones, because the clock was set back and
    /// they come only now.
    pub(crate) fn forget_from(&self, at: u64) {
        let mut state = self.inner.state.lock();
        state.forget_from(at);
        self.inner.metrics.bytes.set(gauge(state.bytes));
        self.inner.metrics.edges.set(gauge(state.edges));
    }

    /// The first interval of which nothing was dropped for want of room, but of pods that hoard.
    /// Earlier ones are incomplete.
    pub(crate) fn whole_from(&self) -> u64 {
        self.inner.state.lock().whole_from
    }

    /// Pods that reported more than their share and lost intervals from `first` on for it, each
    /// with the first interval from which on its reports are whole. That a call of theirs is
    /// missing before does not mean that there was none.
    pub(crate) fn hoarders(&self, first: u64) -> Vec<(Arc<Reporter>, u64)> {
        self.inner.state.lock().hoarders(first)
    }

    /// Whose reports of an interval went because their pods hoard.
    pub(crate) fn dropped_reports(&self, at: u64) -> DroppedReports {
        let state = self.inner.state.lock();
        state.dropped_reports.get(&at).cloned().unwrap_or_default()
    }

    /// Shows every edge of the intervals from `first` up to but without `end`
    /// (numbers of intervals), with the pod that reported it.
    pub(crate) fn each(&self, first: u64, end: u64, mut see: impl FnMut(&Reporter, &Edge)) {
        let state = self.inner.state.lock();
        for stored in state
            .intervals
            .range(first..end)
            .flat_map(|(_, at)| at.values())
        {
            for edge in &*stored.edges {
                see(&stored.reporter, edge);
            }
        }
    }

    /// What the intervals from `first` on have of one run of a FaultExperiment, by interval.
    pub(crate) fn fault_calls(
        &self,
        first: u64,
        experiment: &str,
        seed: u64,
    ) -> BTreeMap<u64, v1::FaultCalls> {
        let state = self.inner.state.lock();
        let mut sums: BTreeMap<u64, v1::FaultCalls> = BTreeMap::new();
        for (at, reports) in state.intervals.range(first..) {
            let all = reports.values().flat_map(|stored| &*stored.faults);
            for one in all.filter(|one| one.seed == seed && one.experiment == experiment) {
                let sum = sums.entry(*at).or_default();
                for (sum, more) in [
                    (&mut sum.attempts, one.attempts),
                    (&mut sum.harmed, one.harmed),
                    (&mut sum.excluded, one.excluded),
                    (&mut sum.beyond_limit, one.beyond_limit),
                    (&mut sum.untraced, one.untraced),
                ] {
                    *sum = sum.saturating_add(more);
                }
            }
        }
        sums
    }

    /// What is held of one interval. The lock is held for a moment only.
    pub(crate) fn of_interval(&self, at: u64) -> Vec<PodInterval> {
        let state = self.inner.state.lock();
        let stored = state
            .intervals
            .get(&at)
            .into_iter()
            .flat_map(HashMap::values);
        stored
            .map(|stored| PodInterval {
                reporter: Arc::clone(&stored.reporter),
                edges: Arc::clone(&stored.edges),
                routes: Arc::clone(&stored.routes),
            })
            .collect()
    }

    /// The intervals that are held, each with a number that changes with what is held of it.
    pub(crate) fn revisions(&self) -> Vec<(u64, u64)> {
        let state = self.inner.state.lock();
        let intervals = state.intervals.keys();
        intervals
            .map(|at| (*at, state.changed.get(at).copied().unwrap_or_default()))
            .collect()
    }

    /// Changes of this replica's own reports; for peers.
    pub(crate) fn own_changes(&self) -> watch::Receiver<u64> {
        self.inner.own.subscribe()
    }

    /// Own reports after revision `since`, as many as fit into one message, and the revision that
    /// they lead to; nothing when all is sent. 0 begins with the first.
    pub(crate) fn own_since(&self, since: u64, now: SystemTime) -> (u64, Option<v1::Reports>) {
        let state = self.inner.state.lock();
        let mut news = v1::Reports {
            now: millis(now),
            ..v1::Reports::default()
        };
        let (mut bytes, mut sent) = (news.encoded_len(), since);
        for (revision, (at, author)) in state.own.range(since + 1..) {
            let stored = state.intervals.get(at).and_then(|at| at.get(author));
            let Some(stored) = stored else { continue };
            let report = v1::PodReport {
                namespace: stored.reporter.pod.namespace.to_string(),
                pod: stored.reporter.pod.name.to_string(),
                uid: stored.reporter.uid.to_string(),
                account: stored.reporter.account_name(),
                report: Some(v1::Report {
                    process: author.1,
                    slot: at * INTERVAL,
                    edges: stored.edges.iter().map(message).collect(),
                    routes: stored.routes.iter().map(RouteCalls::message).collect(),
                    faults: stored.faults.to_vec(),
                }),
            };
            bytes += report.encoded_len();
            if bytes > CHUNK && !news.reports.is_empty() {
                return (sent, Some(news));
            }
            sent = *revision;
            news.reports.push(report);
        }
        (state.revision, (!news.reports.is_empty()).then_some(news))
    }

    /// Takes in what another replica sends, whose clock this is, at this time of ours, which is
    /// this moment.
    pub(crate) fn receive(
        &self,
        news: v1::Reports,
        clock: &mut ClockOffset,
        now: SystemTime,
        at: Instant,
    ) {
        if news.now != 0 {
            clock.compare(news.now, now, at);
        }
        for one in news.reports {
            let account = (!one.account.is_empty()).then_some(&one.account);
            let reporter = Reporter {
                uid: one.uid.into(),
                account: account.map(|name| ObjectKey::new(&one.namespace, name)),
                pod: ObjectKey::new(&one.namespace, &one.pod),
            };
            if let Some(report) = one.report {
                self.take(&reporter, clock.dated(report), false, now);
            }
        }
    }
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Number of the interval that `now` lies in.
pub(crate) fn interval_of(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / INTERVAL
}

/// The figure by which the fuller of two reports of one interval is found.
fn calls(report: &v1::Report) -> u64 {
    report.edges.iter().fold(0_u64, |sum, edge| {
        let ended = [edge.success, edge.failure, edge.cancelled];
        let more = [edge.opened, edge.attempts.unwrap_or_default()];
        let counts = ended.into_iter().chain(more);
        counts.fold(sum, u64::saturating_add)
    })
}

/// Why a report cannot be taken, whatever is held, if it cannot. `ahead`: intervals that it may
/// lie ahead.
fn refused(report: &v1::Report, current: u64, ahead: u64) -> Option<ReportOutcome> {
    let at = report.slot / INTERVAL;
    if !report.slot.is_multiple_of(INTERVAL) || at > current + ahead || at + INTERVALS <= current {
        return Some(ReportOutcome::OutOfTime);
    }
    if report.edges.len() > MAX_REPORT_EDGES
        || report.routes.len() > MAX_REPORT_ROUTES
        || report.edges.iter().any(too_long)
        || report.routes.iter().any(is_long_route)
        || report.faults.len() > MOST_RUNS
        || report
            .faults
            .iter()
            .any(|one| one.experiment.len() > MAX_NAME)
        || report.encoded_len() > MAX_REPORT_BYTES
    {
        return Some(ReportOutcome::TooLarge);
    }
    let mut routes = report.routes.iter();
    let well_formed = report.edges.iter().all(is_well_formed);
    let readable = routes.all(|one| is_printable(&one.route));
    (!well_formed || !readable).then_some(ReportOutcome::Malformed)
}

fn fault_bytes(calls: &v1::FaultCalls) -> usize {
    size_of::<v1::FaultCalls>() + calls.experiment.len()
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
    let parts = (edge.reasons.len(), edge.rules.len(), edge.routes.len());
    let routes = edge.routes.iter().map(|one| &one.route);
    names
        .into_iter()
        .chain(&edge.rules)
        .chain(routes)
        .any(|name| name.len() > MAX_NAME)
        || parts.0 > MAX_EDGE_PARTS.0
        || parts.1 > MAX_EDGE_PARTS.1
        || parts.2 > MAX_EDGE_PARTS.2
        || edge.remote.len() > MAX_TEXTS.1
        || edge.rule.len() > MAX_KIND + MAX_NAME
        || edge.latency.len() > policy::latency::BUCKETS
}

fn is_long_route(calls: &v1::RouteCalls) -> bool {
    calls.route.len() > MAX_NAME || calls.latency.len() > policy::latency::BUCKETS
}

/// Whether all names are empty or names of Kubernetes; a backend may be a set of a release.
fn is_well_formed(edge: &v1::Edge) -> bool {
    let backend = service_of(&edge.backend);
    let objects = [&edge.pod, &edge.identity, &edge.service, &edge.split];
    let part = |text: &str, most: usize| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        (1..=most).contains(&text.len()) && text.bytes().all(plain)
    };
    let object = |text: &str| match text.split_once('/') {
        Some((namespace, name)) => part(namespace, MAX_NAMES.0) && part(name, MAX_NAMES.1),
        None => text.is_empty(),
    };
    let mut reasons = edge.reasons.iter().map(|one| &one.reason);
    let rule = match edge.rule.split_once(' ') {
        Some((kind, name)) => kind.parse::<Kind>().is_ok() && name.contains('/') && object(name),
        None => edge.rule.is_empty(),
    };
    rule && (edge.caller.is_empty() || part(&edge.caller, MAX_NAMES.0))
        && objects
            .into_iter()
            .chain(&edge.rules)
            .all(|text| object(text))
        && object(backend)
        && reasons.all(|reason| part(reason, MAX_TEXTS.0))
        && edge.remote.bytes().all(|b| b.is_ascii_graphic())
        && edge.routes.iter().all(|one| is_printable(&one.route))
}

/// What may become a name in an answer.
fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
