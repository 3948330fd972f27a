//! Early reports: what pods count of the calls to them, a second old at most, while something
//! watches them.
//!
//! A pod's proxy sends sums since an epoch, not differences: a message that is lost, late or comes
//! twice counts nothing wrong, and a reader takes the difference between two looks of its own. A
//! replica passes on what its own proxies sent, so that the Lease holder has the sums of all pods,
//! whichever replica they stream from.
//!
//! A pod reports only itself, and only the pods whose configuration wants early reports are
//! received. Nothing here knows when a pod ends: a proxy reports at least every ten seconds, and a
//! pod of which nothing came for three times as long is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use policy::latency::{BUCKETS, Histogram};
use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::Instant;
use wire::v1;

use super::reports::CHUNK;

pub(crate) use wire::v1::early_sums::Group;

/// Pods of which sums are held: twice the streams of one replica.
const MAX_PODS: usize = 16 * 1024;
/// Bytes of all sums together. A pod with two ports takes 1 KiB.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Rows of one pod: four groups at each of eight ports. A proxy has no more.
const MAX_SUMS: usize = 32;
/// A pod of which nothing came for so long is forgotten.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two looks for those.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Early reports of a pod that come faster than this are not received; it sends one in a second.
const PACE: Duration = Duration::from_millis(500);

/// Shared by streams, peers and readers. Clones are the same state.
#[derive(Clone, Debug)]
pub(crate) struct EarlyCounts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<EarlyState>,
    /// Counts early reports of this replica's own streams.
    own: watch::Sender<u64>,
    /// Counts early reports that found no room, are too large, or came too fast.
    at_capacity: Counter,
}

#[derive(Debug, Default)]
struct EarlyState {
    /// By uid.
    pods: HashMap<Arc<str>, LastReport>,
    bytes: usize,
    /// Uids of the pods that stream from this replica, by the revision of their last report.
    own: BTreeMap<u64, Arc<str>>,
    revision: u64,
    swept: Option<Instant>,
}

/// The last early report of a pod.
#[derive(Debug)]
struct LastReport {
    report: v1::EarlyReport,
    /// When the replica received it to which the pod streams.
    at: Instant,
    bytes: usize,
    /// Of a pod that streams from this replica.
    revision: Option<u64>,
}

/// Sums of one pod, since its epoch.
#[derive(Clone, Debug)]
pub(crate) struct PodSums {
    /// Sums of another epoch began at 0 again: the proxy has started, or was not watched in
    /// between.
    pub epoch: u64,
    /// Each of another port or group.
    pub ports: Vec<PortSums>,
}

/// Sums of the calls of one group to one container port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortSums {
    /// 0: ports that the pod neither declares nor has ever served. Those of its containers and
    /// Services are declared.
    pub port: u16,
    /// Copies are in none of the other groups.
    pub group: Group,
    /// What was counted.
    pub sums: Sums,
}

/// What was counted of calls since an epoch, but for `waiting`, which is of now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Requests and opaque connections that have ended, cancelled requests not among them.
    pub calls: u64,
    /// Those of them that failed, but for reason `limit`.
    pub failed: u64,
    /// Requests whose caller cancelled before the head of a response.
    pub cancelled: u64,
    /// Requests that have ended, by time to the head of the response.
    pub latency: Histogram,
    /// Requests that wait for the head of the response, by the time that each has waited at least:
    /// its proxy looks once in a second.
    pub waiting: Histogram,
}

impl PodSums {
    /// The sums of one group at these ports, port 0 included where it is one of them.
    pub(crate) fn of(&self, group: Group, is_meant: impl Fn(u16) -> bool) -> Sums {
        let mut all = Sums::default();
        for row in &self.ports {
            if row.group == group && is_meant(row.port) {
                all.add(&row.sums);
            }
        }
        all
    }
}

impl Sums {
    /// Adds those of another port or pod.
    pub(crate) fn add(&mut self, more: &Self) {
        self.calls = self.calls.saturating_add(more.calls);
        self.failed = self.failed.saturating_add(more.failed);
        self.cancelled = self.cancelled.saturating_add(more.cancelled);
        self.latency.add(more.latency.counts().iter().copied());
        self.waiting.add(more.waiting.counts().iter().copied());
    }
}

impl EarlyCounts {
    /// Nothing has been received yet.
    pub(crate) fn new(at_capacity: Counter) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                own: watch::Sender::new(0),
                at_capacity,
            }),
        }
    }

    /// The last sums of the pod with this uid; `None`: nothing watches it, its proxy is older
    /// than early reports, or no replica has received one lately.
    pub(crate) fn get(&self, uid: &str, now: Instant) -> Option<PodSums> {
        let state = self.inner.state.lock();
        let last = state.pods.get(uid)?;
        (!last.is_old(now)).then(|| last.read())
    }

    /// Takes what a pod of this replica's own streams has sent.
    pub(crate) fn take(&self, uid: &Arc<str>, report: v1::EarlyReport, now: Instant) {
        let mut state = self.inner.state.lock();
        state.forget_old(now);
        let too_fast = state.pods.get(uid).is_some_and(|last| {
            last.revision.is_some() && now.saturating_duration_since(last.at) < PACE
        });
        if too_fast || is_too_large(&report) || !state.keep(uid, report, now, true) {
            self.inner.at_capacity.inc();
            return;
        }
        drop(state);
        self.inner.own.send_modify(|count| *count += 1);
    }

    /// Takes what another replica passes on of its own.
    pub(crate) fn receive(&self, reports: Vec<v1::PodEarlyReport>, now: Instant) {
        if reports.is_empty() {
            return;
        }
        let mut state = self.inner.state.lock();
        state.forget_old(now);
        for one in reports {
            let Some(at) = now.checked_sub(Duration::from_millis(one.ago)) else {
                continue;
            };
            let Some(report) = one.report else { continue };
            if is_too_large(&report) || !state.keep(&one.uid.into(), report, at, false) {
                self.inner.at_capacity.inc();
            }
        }
    }

    /// Notifies when this replica's own proxies have sent something.
    pub(crate) fn own_changes(&self) -> watch::Receiver<u64> {
        self.inner.own.subscribe()
    }

    /// The last early reports of its own proxies that came after revision `since`, as many as fit
    /// into one message, and the revision that they lead to; nothing when all is sent. 0 begins
    /// with the first.
    pub(crate) fn own_since(&self, since: u64, now: Instant) -> (u64, Option<v1::Reports>) {
        let state = self.inner.state.lock();
        let (mut news, mut bytes, mut sent) = (v1::Reports::default(), 0, since);
        for (revision, uid) in state.own.range(since + 1..) {
            let Some(last) = state.pods.get(uid).filter(|last| !last.is_old(now)) else {
                continue;
            };
            let ago = now.saturating_duration_since(last.at).as_millis();
            let message = v1::PodEarlyReport {
                uid: uid.to_string(),
                report: Some(last.report.clone()),
                ago: u64::try_from(ago).unwrap_or(u64::MAX),
            };
            bytes += message.encoded_len();
            if bytes > CHUNK && !news.early.is_empty() {
                return (sent, Some(news));
            }
            sent = *revision;
            news.early.push(message);
        }
        (state.revision, (!news.early.is_empty()).then_some(news))
    }
}

impl EarlyState {
    /// Keeps it instead of the pod's earlier one. False: there is no room for it.
    fn keep(&mut self, uid: &Arc<str>, report: v1::EarlyReport, at: Instant, own: bool) -> bool {
        let before = self.pods.get(uid);
        // The pod may have gone to another replica, whose message overtook this one.
        if before.is_some_and(|before| !before.is_before(&report, at)) {
            return true;
        }
        let bytes = bytes_of(uid, &report);
        let freed = before.map_or(0, |before| before.bytes);
        let is_full = before.is_none() && self.pods.len() >= MAX_PODS;
        if is_full || self.bytes - freed + bytes > MAX_BYTES {
            return false;
        }
        let revision = own.then(|| {
            self.revision += 1;
            self.own.insert(self.revision, Arc::clone(uid));
            self.revision
        });
        let last = LastReport {
            report,
            at,
            bytes,
            revision,
        };
        let before = self.pods.insert(Arc::clone(uid), last);
        if let Some(revision) = before.and_then(|before| before.revision) {
            self.own.remove(&revision);
        }
        self.bytes = self.bytes - freed + bytes;
        true
    }

    fn forget_old(&mut self, now: Instant) {
        let is_recent = |swept: Instant| now.saturating_duration_since(swept) < SWEEP_EVERY;
        if self.swept.is_some_and(is_recent) {
            return;
        }
        self.swept = Some(now);
        let (own, bytes) = (&mut self.own, &mut self.bytes);
        self.pods.retain(|_, last| {
            let stays = !last.is_old(now);
            if !stays {
                *bytes -= last.bytes;
                if let Some(revision) = last.revision {
                    own.remove(&revision);
                }
            }
            stays
        });
    }
}

impl LastReport {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) > SILENCE
    }

    /// Whether this report, received at this time, is a later one.
    fn is_before(&self, report: &v1::EarlyReport, at: Instant) -> bool {
        if self.report.epoch == report.epoch {
            self.report.number < report.number
        } else {
            self.at <= at
        }
    }

    fn read(&self) -> PodSums {
        PodSums {
            epoch: self.report.epoch,
            ports: self.report.sums.iter().filter_map(read).collect(),
        }
    }
}

/// `None`: what only a newer proxy counts.
fn read(row: &v1::EarlySums) -> Option<PortSums> {
    let mut sums = Sums {
        calls: row.calls,
        failed: row.failed,
        cancelled: row.cancelled,
        ..Sums::default()
    };
    sums.latency.add(row.latency.iter().copied());
    sums.waiting.add(row.waiting.iter().copied().map(u64::from));
    Some(PortSums {
        port: u16::try_from(row.port).ok()?,
        group: Group::try_from(row.group).ok()?,
        sums,
    })
}

fn is_too_large(report: &v1::EarlyReport) -> bool {
    let is_long = |row: &v1::EarlySums| row.latency.len().max(row.waiting.len()) > BUCKETS;
    report.sums.len() > MAX_SUMS || report.sums.iter().any(is_long)
}

/// What it takes in memory.
fn bytes_of(uid: &str, report: &v1::EarlyReport) -> usize {
    let of_row = |row: &v1::EarlySums| {
        size_of::<v1::EarlySums>()
            + size_of_val(row.latency.as_slice())
            + size_of_val(row.waiting.as_slice())
    };
    let rows: usize = report.sums.iter().map(of_row).sum();
    size_of::<LastReport>() + 3 * size_of::<Arc<str>>() + uid.len() + rows
}

#[cfg(test)]
mod tests;
