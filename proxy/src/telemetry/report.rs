//! Reports to the controller about the calls that this proxy saw: sums by edge and interval of five
//! seconds.
//!
//! A call costs nothing here: a task of the control thread closes an interval when it ends, with
//! what has come together in the cells since the one before. What was sent is kept for some minutes
//! and sent again on every new stream, because the controller that answers then may be another one,
//! or may have restarted. It recognises repeated intervals, so that nothing counts twice. After the
//! clock was set it could not: the controller dates intervals by how wrong the clock is now, so
//! those from before would lie beside themselves, and are not sent again.
//!
//! Nothing here waits: where an interval has too many edges, the rest of its calls lose their other
//! end and stay counted, and what is kept drops its oldest intervals.

mod routes;

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use policy::name::Kind;
use policy::protocol::Protocol;
use policy::reason::Reason;
use tokio::sync::{mpsc, watch};
use wire::v1;

use crate::telemetry::call_ends::{CallEnds, OUTSIDE};
use crate::telemetry::cell::{CallGroup, CellKey, Counts};
use crate::telemetry::cells::CellReading;
use crate::telemetry::labels::{Direction, Security};
use crate::telemetry::metrics::Metrics;

/// Length of an interval in seconds. Slots begin at multiples of it.
pub(crate) const INTERVAL: u64 = 5;
/// Edges of one interval, about 300 bytes each. A pod that talks to more others within five seconds
/// keeps its sums and loses the names of the others.
const EDGES: usize = 512;
/// Slots that are kept for a new stream: five minutes, the longest window that
/// the controller answers for.
const KEPT_INTERVALS: usize = 60;
/// Edges of all intervals that are kept, about 1 MiB.
const KEPT_EDGES: usize = 4096;
/// Slots by which a clock may go back without beginning anew: a minute, for which nothing is
/// reported then.
const MAX_STEP_BACK: u64 = 60 / INTERVAL;
/// A clock that shows something else than the time that passed, by more than this, was set.
/// From there on controllers shift intervals.
pub(crate) const CLOCK_SET: Duration = Duration::from_secs(INTERVAL);
/// From the end of an interval to its report: calls that end with it are in.
const LAG: Duration = Duration::from_millis(200);
/// Proxies spread their reports over this time, so that a controller does not
/// get all of them at once. With [`LAG`] far below the 5 s after which the
/// controller answers for an interval.
const SPREAD: u64 = 800;
/// While the pod ends, what the open interval holds so far goes out this often.
const LEAVING_EVERY: Duration = Duration::from_millis(500);

/// The intervals that were closed, and which one is open.
#[derive(Debug)]
pub struct Reports {
    process: u64,
    metrics: Metrics,
    /// They are those of a Gateway, which answers some calls itself.
    gateway: bool,
    state: Mutex<IntervalState>,
    leaving: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct IntervalState {
    interval: u64,
    /// What the clock showed at the last look, and when that was.
    looked: Option<(SystemTime, Instant)>,
    /// Numbered from 1 in the order of closing.
    closed: VecDeque<(u64, v1::Report)>,
    last: u64,
    /// The last one before the clock was set. A stream that was open then may still have to
    /// take it, and no new one does.
    before_set: u64,
    kept_edges: usize,
}

impl Reports {
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            process: rand::random(),
            metrics,
            gateway: false,
            state: Mutex::default(),
            leaving: watch::Sender::new(false),
        }
    }

    /// Those of a Gateway. What it answers itself is on no edge: that would lead out of the mesh,
    /// and nothing was sent there.
    #[must_use]
    pub(crate) fn of_gateway(self) -> Self {
        Self {
            gateway: true,
            ..self
        }
    }

    /// Looks at the clock, which shows `now` at the moment `at`, and closes the open interval if
    /// it is over.
    fn close(&self, now: SystemTime, at: Instant) {
        let mut state = self.state.lock();
        let before = state.looked.replace((now, at));
        self.close_before(&mut state, interval_of(now));
        if before.is_some_and(|before| was_set(before, (now, at))) {
            state.before_set = state.last;
        }
    }

    /// Closes the open interval if `next` is a later one: calls that end from now on are in
    /// that. A clock that went back a little must not tear an interval apart; one that was set
    /// back is followed, else nothing would be reported until it is there again.
    fn close_before(&self, state: &mut IntervalState, next: u64) {
        if next <= state.interval && state.interval - next <= MAX_STEP_BACK {
            return;
        }
        if state.interval == 0 {
            // None was open before.
            state.interval = next;
            return;
        }
        self.metrics.calls.refresh();
        let faults = self.metrics.fault_sums.take();
        let report = self.report(state.interval, self.metrics.calls.cells.read(), faults);
        state.interval = next;
        if report.edges.is_empty() && report.faults.is_empty() {
            return;
        }
        state.last += 1;
        state.kept_edges += weight(&report);
        let number = state.last;
        state.closed.push_back((number, report));
        while state.closed.len() > KEPT_INTERVALS || state.kept_edges > KEPT_EDGES {
            let Some((_, oldest)) = state.closed.pop_front() else {
                break;
            };
            state.kept_edges -= weight(&oldest);
            if oldest.slot / INTERVAL + KEPT_INTERVALS as u64 > next {
                self.metrics.limit("report-slots");
            }
        }
    }

    /// What the open interval holds so far; the interval goes on.
    fn so_far(&self) -> v1::Report {
        let state = self.state.lock();
        self.metrics.calls.refresh();
        let faults = self.metrics.fault_sums.so_far();
        self.report(
            state.interval,
            self.metrics.calls.cells.read_so_far(),
            faults,
        )
    }

    fn report(
        &self,
        interval: u64,
        readings: Vec<CellReading>,
        faults: Vec<v1::FaultCalls>,
    ) -> v1::Report {
        let (mut readings, mut routes) = routes::apart(readings);
        if self.gateway {
            readings.retain(|reading| !reading.key.call_ends.is_nowhere());
        }
        if readings.len() > EDGES {
            self.leave_ends_out(&mut readings);
        }
        let edge = |reading: &CellReading| v1::Edge {
            routes: routes.of_edge(&reading.key),
            ..message(reading)
        };
        let report = v1::Report {
            process: self.process,
            slot: interval * INTERVAL,
            edges: readings.iter().map(edge).collect(),
            routes: routes.rows(),
            faults,
        };
        if routes.is_cut() {
            self.metrics.limit("report-routes");
        }
        report
    }

    /// The edges with the most calls stay, of the others only their side is left.
    fn leave_ends_out(&self, readings: &mut Vec<CellReading>) {
        let calls = |reading: &CellReading| {
            reading.counts.calls(|_| true) + reading.counts.cancelled + reading.open
        };
        readings.sort_by_key(|reading| std::cmp::Reverse(calls(reading)));
        for one in readings.split_off(EDGES) {
            self.metrics.limit("report-edges");
            let call_ends = CallEnds::Rest(one.key.call_ends.direction());
            let opaque = one.key.is_opaque();
            let rest = readings.iter_mut().find(|reading| {
                reading.key.call_ends == call_ends && reading.key.is_opaque() == opaque
            });
            if let Some(rest) = rest {
                rest.counts.add(one.counts);
                rest.open += one.open;
            } else {
                let protocol = one.key.protocol;
                let key = CellKey {
                    call_ends,
                    protocol,
                    route: None,
                    group: CallGroup::None,
                };
                readings.push(CellReading { key, ..one });
            }
        }
    }

    /// The first closed interval after number `seen`.
    fn after(&self, seen: u64) -> Option<(u64, v1::Report)> {
        let state = self.state.lock();
        let at = state.closed.partition_point(|(number, _)| *number <= seen);
        state.closed.get(at).cloned()
    }

    /// Closes every interval when it ends, for ever, whether a controller listens or not.
    pub(crate) async fn keep_time(&self) {
        loop {
            let now = SystemTime::now();
            self.close(now, Instant::now());
            tokio::time::sleep(until_next_interval(now)).await;
        }
    }

    /// The pod ends: what is counted from now on is sent at once.
    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }

    /// The number of the last interval that a new stream does not get.
    fn last_skipped_interval(&self) -> u64 {
        self.close(SystemTime::now(), Instant::now());
        self.state.lock().before_set
    }

    /// Sends what is kept, and then every interval after its end, for as long as the
    /// stream takes them.
    pub async fn feed(&self, stream: mpsc::Sender<v1::Report>) {
        let spread = Duration::from_millis(self.process % SPREAD);
        let mut leaving = self.leaving.subscribe();
        let mut seen = self.last_skipped_interval();
        loop {
            let now = SystemTime::now();
            self.close(now, Instant::now());
            while let Some((number, report)) = self.after(seen) {
                if stream.send(report).await.is_err() {
                    return;
                }
                seen = number;
            }
            let going = *leaving.borrow();
            if going {
                let open = self.so_far();
                let is_empty = open.edges.is_empty() && open.faults.is_empty();
                if !is_empty && stream.send(open).await.is_err() {
                    return;
                }
            }
            let pause = if going {
                LEAVING_EVERY
            } else {
                until_next_interval(now) + LAG + spread
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = left(&mut leaving), if !going => {}
                () = stream.closed() => return,
            }
        }
    }
}

async fn left(leaving: &mut watch::Receiver<bool>) {
    // The sender lives as long as the task that waits.
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

/// What a report takes, as a number of edges: a route has a quarter of their bytes.
fn weight(report: &v1::Report) -> usize {
    let of_edges: usize = report.edges.iter().map(|edge| edge.routes.len()).sum();
    report.edges.len() + (of_edges + report.routes.len()) / 4
}

/// The other end of calls, and the way there. Nothing is counted.
pub(crate) fn ends(call_ends: &CallEnds, protocol: Protocol) -> v1::Edge {
    let known = !matches!(call_ends.peer_name(), OUTSIDE | "external");
    let peer = known.then(|| call_ends.peer_name().to_owned());
    let peer = peer.unwrap_or_default();
    let (side, pod, identity) = match call_ends.direction() {
        Direction::outbound => (v1::Side::Client, peer, String::new()),
        Direction::inbound => (v1::Side::Server, String::new(), peer),
    };
    // What a release chose shows in the backend; its name may be that of a split.
    let rule = call_ends.rule();
    let split = rule.filter(|rule| rule.kind() == Kind::TrafficSplit.as_str());
    let split = split.map(|split| split.label().to_string());
    let route = rule.and_then(|rule| {
        let mut kinds = Kind::GATEWAY_ROUTES.into_iter();
        let kind = kinds.find(|kind| rule.kind() == kind.as_str())?;
        Some(format!("{} {}", kind.word(), rule.label()))
    });
    v1::Edge {
        side: side.into(),
        pod,
        caller: call_ends
            .caller()
            .map(ToString::to_string)
            .unwrap_or_default(),
        identity,
        service: call_ends.service_name().to_owned(),
        port: u32::from(call_ends.port()),
        backend: call_ends.backend_name().to_owned(),
        split: split.unwrap_or_default(),
        rule: route.unwrap_or_default(),
        security: match call_ends.security() {
            Security::mtls => v1::Security::Mtls,
            Security::plaintext => v1::Security::Plaintext,
            Security::none => v1::Security::NotTold,
        }
        .into(),
        protocol: v1::Protocol::from(protocol).into(),
        remote: call_ends.remote().to_owned(),
        ..v1::Edge::default()
    }
}

/// One edge of a report.
fn message(reading: &CellReading) -> v1::Edge {
    let CellReading { key, counts, open } = reading;
    let call_ends = &key.call_ends;
    v1::Edge {
        success: counts.calls(|outcome| outcome.success),
        failure: counts.calls(|outcome| !outcome.success),
        latency: routes::buckets(&counts.latency),
        sent: counts.sent,
        received: counts.received,
        open: *open,
        opened: if key.is_opaque() { counts.started } else { 0 },
        cancelled: counts.cancelled,
        // Elsewhere nothing is chosen.
        attempts: matches!(
            call_ends,
            CallEnds::Outbound { .. } | CallEnds::Unserved { .. }
        )
        .then_some(counts.attempts),
        attempt_failures: counts.attempt_failures,
        client_errors: counts.calls(|outcome| outcome.is_client_error()),
        audit: counts.audit,
        reasons: reasons(counts),
        rules: counts
            .rules
            .iter()
            .map(|rule| rule.label().to_string())
            .collect(),
        ..ends(call_ends, key.protocol)
    }
}

fn reasons(counts: &Counts) -> Vec<v1::ReasonCalls> {
    let of = |reason: &Reason| v1::ReasonCalls {
        reason: reason.as_str().to_owned(),
        calls: counts.calls(|outcome| outcome.reason == Some(*reason)),
    };
    let all = Reason::ALL.iter().map(of);
    all.filter(|reason| reason.calls > 0).collect()
}

/// Whether the clock was set between these two looks at it.
fn was_set(before: (SystemTime, Instant), now: (SystemTime, Instant)) -> bool {
    let expected = before.0 + now.1.saturating_duration_since(before.1);
    let off = now.0.duration_since(expected);
    off.unwrap_or_else(|behind| behind.duration()) > CLOCK_SET
}

fn interval_of(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / INTERVAL
}

fn until_next_interval(now: SystemTime) -> Duration {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs((since.as_secs() / INTERVAL + 1) * INTERVAL).saturating_sub(since)
}

#[cfg(test)]
mod tests;
