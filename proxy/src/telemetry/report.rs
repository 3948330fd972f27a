//! What the controller is told of the calls that this proxy saw: sums by edge
//! and slot of five seconds.
//!
//! A call costs one look into a small table. A task of the control stream closes
//! a slot shortly after its end and sends it; what was sent is kept for some
//! minutes and sent again on every new stream, because the controller that
//! answers then may be another one, or may have started anew. It tells repeated
//! slots apart, so that nothing counts twice.
//!
//! Nothing here waits: where the table is full a call loses its other end and
//! stays counted, and what is kept gives up its oldest slots.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use policy::latency::Histogram;
use tokio::sync::{mpsc, watch};
use wire::v1;

use crate::telemetry::labels::Direction;
use crate::telemetry::metrics::Metrics;

/// Length of a slot in seconds. Slots begin at multiples of it.
pub(crate) const SLOT: u64 = 5;
/// Edges of one slot, about 300 bytes each. A pod that talks to more others
/// within five seconds keeps its sums and loses who the rest were.
const EDGES: usize = 512;
/// Slots that are kept for a new stream: five minutes, the longest window that
/// the controller answers for.
const KEPT_SLOTS: usize = 60;
/// Edges of all slots that are kept, about 1 MiB.
const KEPT_EDGES: usize = 4096;
/// From the end of a slot to its report: calls that end with it are in.
const LAG: Duration = Duration::from_millis(200);
/// Proxies spread their reports over this time, so that a controller does not
/// get all of them at once. With [`LAG`] far below the 5 s after which the
/// controller answers for a slot.
const SPREAD: u64 = 800;
/// While the pod ends, what the open slot holds so far goes out this often.
const LEAVING_EVERY: Duration = Duration::from_millis(500);

/// One other end, and one way to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    pub direction: Direction,
    /// Outbound: `namespace/name` of the pod called. Inbound:
    /// `namespace/service-account` of the caller. Empty: outside or unknown.
    pub peer: Arc<str>,
    /// Inbound: uid of the calling pod.
    pub caller: Option<Arc<str>>,
    pub service: Arc<str>,
    pub port: u16,
    pub backend: Arc<str>,
    /// `namespace/name` of the split that chose the backend.
    pub split: Option<Arc<str>>,
}

/// How one call ended.
#[derive(Clone, Copy, Debug)]
pub struct CallResult {
    pub success: bool,
    /// Of an HTTP request, in seconds.
    pub latency: Option<f64>,
    pub sent: u64,
    pub received: u64,
}

#[derive(Debug, Default)]
struct Sums {
    success: u64,
    failure: u64,
    latency: Histogram,
    sent: u64,
    received: u64,
}

/// The table of the open slot, and the slots that were closed.
#[derive(Debug)]
pub struct Reports {
    process: u64,
    metrics: Metrics,
    held: Mutex<Held>,
    leaving: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Held {
    slot: u64,
    edges: HashMap<Edge, Sums>,
    /// Numbered from 1 in the order of closing.
    closed: VecDeque<(u64, v1::Report)>,
    last: u64,
    kept_edges: usize,
}

impl Reports {
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            process: rand::random(),
            metrics,
            held: Mutex::default(),
            leaving: watch::Sender::new(false),
        }
    }

    /// Counts a call that ended now.
    pub fn count(&self, edge: Edge, outcome: CallResult) {
        self.count_at(slot_of(SystemTime::now()), edge, outcome);
    }

    fn count_at(&self, slot: u64, edge: Edge, outcome: CallResult) {
        let mut held = self.held.lock();
        // A clock that went back must not tear a slot apart.
        if slot > held.slot {
            self.close(&mut held, slot);
        }
        let edge = if held.edges.len() < EDGES || held.edges.contains_key(&edge) {
            edge
        } else {
            self.metrics.limit("report-edges");
            edge.without_ends()
        };
        let sums = held.edges.entry(edge).or_default();
        if outcome.success {
            sums.success += 1;
        } else {
            sums.failure += 1;
        }
        if let Some(seconds) = outcome.latency {
            sums.latency.observe(seconds);
        }
        sums.sent += outcome.sent;
        sums.received += outcome.received;
    }

    /// Closes the open slot if `next` is a later one.
    fn close(&self, held: &mut Held, next: u64) {
        if next <= held.slot {
            return;
        }
        let report = self.report(held);
        held.slot = next;
        held.edges.clear();
        if report.edges.is_empty() {
            return;
        }
        held.last += 1;
        held.kept_edges += report.edges.len();
        let number = held.last;
        held.closed.push_back((number, report));
        while held.closed.len() > KEPT_SLOTS || held.kept_edges > KEPT_EDGES {
            let Some((_, oldest)) = held.closed.pop_front() else {
                break;
            };
            held.kept_edges -= oldest.edges.len();
            if oldest.slot / SLOT + KEPT_SLOTS as u64 > next {
                self.metrics.limit("report-slots");
            }
        }
    }

    fn report(&self, held: &Held) -> v1::Report {
        v1::Report {
            process: self.process,
            slot: held.slot * SLOT,
            edges: held
                .edges
                .iter()
                .map(|(edge, sums)| edge.message(sums))
                .collect(),
            ..v1::Report::default()
        }
    }

    /// The first closed slot after number `seen`.
    fn after(&self, seen: u64) -> Option<(u64, v1::Report)> {
        let held = self.held.lock();
        let at = held.closed.partition_point(|(number, _)| *number <= seen);
        held.closed.get(at).cloned()
    }

    /// The pod ends: what is counted from now on is told at once.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// Sends what is kept, and then every slot after its end, for as long as the
    /// stream takes them.
    pub async fn feed(&self, stream: mpsc::Sender<v1::Report>) {
        let spread = Duration::from_millis(self.process % SPREAD);
        let mut leaving = self.leaving.subscribe();
        let mut seen = 0;
        loop {
            let now = SystemTime::now();
            self.close(&mut self.held.lock(), slot_of(now));
            while let Some((number, report)) = self.after(seen) {
                if stream.send(report).await.is_err() {
                    return;
                }
                seen = number;
            }
            let going = *leaving.borrow();
            if going {
                let open = self.report(&self.held.lock());
                if !open.edges.is_empty() && stream.send(open).await.is_err() {
                    return;
                }
            }
            let pause = if going {
                LEAVING_EVERY
            } else {
                until_next_slot(now) + LAG + spread
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told(&mut leaving), if !going => {}
                () = stream.closed() => return,
            }
        }
    }
}

async fn told(leaving: &mut watch::Receiver<bool>) {
    // The sender lives as long as whoever waits.
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

impl Edge {
    /// Where the table is full: only the side is left.
    fn without_ends(&self) -> Self {
        let nothing: Arc<str> = Arc::default();
        Self {
            direction: self.direction,
            peer: Arc::clone(&nothing),
            caller: None,
            service: Arc::clone(&nothing),
            port: 0,
            backend: nothing,
            split: None,
        }
    }

    fn message(&self, sums: &Sums) -> v1::Edge {
        let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
        let peer = self.peer.to_string();
        let (side, pod, identity) = match self.direction {
            Direction::outbound => (v1::Side::Client, peer, String::new()),
            Direction::inbound => (v1::Side::Server, String::new(), peer),
        };
        v1::Edge {
            side: side.into(),
            pod,
            caller: text(&self.caller),
            identity,
            service: self.service.to_string(),
            port: u32::from(self.port),
            backend: self.backend.to_string(),
            split: text(&self.split),
            success: sums.success,
            failure: sums.failure,
            latency: sums
                .latency
                .counts()
                .iter()
                .map(|count| u32::try_from(*count).unwrap_or(u32::MAX))
                .collect(),
            sent: sums.sent,
            received: sums.received,
            ..v1::Edge::default()
        }
    }
}

fn slot_of(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / SLOT
}

fn until_next_slot(now: SystemTime) -> Duration {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs((since.as_secs() / SLOT + 1) * SLOT).saturating_sub(since)
}

#[cfg(test)]
mod tests;
