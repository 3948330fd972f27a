//! Early reports: sums of the calls to the pod, a second old at most, while the controller wants
//! them.
//!
//! The sums begin at 0 with an epoch, which ends when none are wanted. A controller takes the
//! difference between two of them, so one that is lost or comes twice counts nothing wrong.
//!
//! How long requests have waited for a response is known by looks alone, and no request is noted by
//! its time: of those that wait now, as many as began since an earlier look may be new, and the
//! others have waited since that look at least. So the times are never too long.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use policy::latency::{BUCKETS, bucket};
use tokio::sync::watch;
use tokio::time::Instant;
use wire::v1;

use crate::telemetry::metrics::Metrics;
use crate::telemetry::served::{ServedBy, ServedCalls};

/// The last bound of `policy::latency`: what has waited longer is in the last bucket.
const OLDEST: Duration = Duration::from_secs(30);
/// Looks that are kept: one in a second until [`OLDEST`], and some that came early.
const LOOKS: usize = 40;

/// Whether early reports are wanted, and what they hold.
#[derive(Debug)]
pub struct EarlyReports {
    metrics: Metrics,
    is_wanted: AtomicBool,
    changes: watch::Sender<bool>,
    /// While they are wanted.
    epoch: Mutex<Option<Epoch>>,
}

#[derive(Debug)]
struct Epoch {
    id: u64,
    /// Of the last look.
    number: u64,
    /// The oldest first.
    looks: VecDeque<Look>,
}

/// What was seen at one moment.
#[derive(Debug)]
struct Look {
    at: Instant,
    /// Requests that had come.
    started: BTreeMap<ServedBy, u64>,
}

impl EarlyReports {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            is_wanted: AtomicBool::new(false),
            changes: watch::Sender::new(false),
            epoch: Mutex::default(),
        }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Relaxed)
    }

    /// Notifies when that changes.
    pub(crate) fn changes(&self) -> watch::Receiver<bool> {
        self.changes.subscribe()
    }

    /// Begins an epoch, or ends it.
    pub(crate) fn want(&self, wanted: bool) {
        let mut epoch = self.epoch.lock();
        if epoch.is_some() == wanted {
            return;
        }
        // What was counted until now is of no epoch.
        self.metrics.calls.refresh();
        self.metrics.calls.cells.sum_served(wanted);
        *epoch = wanted.then(|| Epoch {
            id: rand::random(),
            number: 0,
            looks: VecDeque::new(),
        });
        self.is_wanted.store(wanted, Relaxed);
        self.changes.send_replace(wanted);
    }

    /// The sums as they are now; `None` while none are wanted.
    pub fn look(&self, now: Instant) -> Option<v1::EarlyReport> {
        let mut epoch = self.epoch.lock();
        let epoch = epoch.as_mut()?;
        // Before the counts: a request that begins in between counts as new, and not as waiting.
        let waits = self.metrics.calls.cells.waiting();
        self.metrics.calls.refresh();
        let served = self.metrics.calls.cells.served()?;
        if served.is_full() {
            self.metrics.limit("early-ports");
        }
        let mut waiting: BTreeMap<ServedBy, u64> = BTreeMap::new();
        for (by, requests) in waits {
            *waiting.entry(served.row_of(by)).or_default() += requests;
        }
        let sums = served.rows().iter().map(|(by, calls)| {
            let waiting = waiting.get(by).copied().unwrap_or_default();
            let waited = epoch.waited(*by, waiting, calls.started, now);
            message(*by, calls, waited)
        });
        let sums = sums.collect();
        let rows = served.rows().iter();
        epoch.keep(Look {
            at: now,
            started: rows.map(|(by, calls)| (*by, calls.started)).collect(),
        });
        epoch.number += 1;
        Some(v1::EarlyReport {
            epoch: epoch.id,
            number: epoch.number,
            sums,
        })
    }
}

impl Epoch {
    /// Of so many requests that wait, with so many that have come so far: how long each has waited
    /// at least, in buckets.
    fn waited(&self, by: ServedBy, waiting: u64, started: u64, now: Instant) -> Vec<u32> {
        let mut buckets = [0_u32; BUCKETS];
        let mut add = |bucket: usize, requests: u64| {
            let requests = u32::try_from(requests).unwrap_or(u32::MAX);
            buckets[bucket] = buckets[bucket].saturating_add(requests);
        };
        let (mut older, mut waited) = (waiting, 0);
        for look in self.looks.iter().rev() {
            let before = look.started.get(&by).copied().unwrap_or_default();
            let is_older = older.min(waiting.saturating_sub(started.saturating_sub(before)));
            add(waited, older - is_older);
            older = is_older;
            waited = bucket(now.saturating_duration_since(look.at).as_secs_f64());
            if older == 0 {
                break;
            }
        }
        add(waited, older);
        let used = buckets.iter().rposition(|requests| *requests > 0);
        buckets[..used.map_or(0, |last| last + 1)].to_vec()
    }

    fn keep(&mut self, look: Look) {
        let now = look.at;
        self.looks.push_back(look);
        let is_over = |look: &Look| now.saturating_duration_since(look.at) > OLDEST;
        while self.looks.len() > LOOKS || self.looks.get(1).is_some_and(is_over) {
            self.looks.pop_front();
        }
    }
}

fn message(by: ServedBy, calls: &ServedCalls, waiting: Vec<u32>) -> v1::EarlySums {
    v1::EarlySums {
        port: by.port.into(),
        group: by.group.into(),
        calls: calls.calls,
        failed: calls.failed,
        cancelled: calls.cancelled,
        latency: calls.latency.counts().to_vec(),
        waiting,
    }
}

#[cfg(test)]
mod tests;
