//! The breakers of this proxy, each of which can stop all calls to a Service port.
//!
//! `policy::breaker` decides. This file keeps its state across configurations, by the Service port
//! that serves the calls: a backend. Which section `breaker` of a TrafficPolicy applies? That of the
//! backend, else that of the Service that was called. So several sections may apply to one backend,
//! for calls by different Services, and each counts its own calls and no others.
//!
//! Claims: calls-67

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use policy::breaker::own::{Admit, Breaker, ShownState};
use policy::breaker::{BreakerCounts, FleetBreakerState, Stream, Sum};
use policy::traffic::endpoint::{Breaker as Settings, BreakerState};
use tokio::sync::Notify;

use crate::endpoints::learned::now;

/// Service ports whose policies decide about one port that serves: its own, and those of
/// Services whose splits lead to it. Of more, the one that came first begins anew.
const DECIDING: usize = 16;

/// A breaker without a call for so long, and that holds nothing back, is forgotten. As long as an
/// interval may be, of which it then has seen nothing.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// The Service port whose policy decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedBy {
    /// `namespace/name`.
    pub service: Arc<str>,
    pub port: u16,
}

/// The breakers of calls to one Service port.
#[derive(Debug, Default)]
pub struct Circuits {
    deciding: Mutex<Vec<Circuit>>,
    /// Notified when there is something to report of them.
    reportable: Arc<Notify>,
}

#[derive(Debug)]
struct Circuit {
    by: DecidedBy,
    breaker: Breaker,
    /// As the last call was decided by.
    settings: Settings,
    used: Instant,
    /// The value of the metric.
    shown: ShownState,
}

/// The report of one breaker.
#[derive(Debug)]
pub struct CircuitReport {
    pub by: DecidedBy,
    /// `None`: nothing has happened.
    pub counts: Option<BreakerCounts>,
    pub state: ShownState,
}

/// One breaker, for the page of the proxy.
#[derive(Debug)]
pub(crate) struct CircuitView {
    pub(crate) by: DecidedBy,
    pub(crate) state: ShownState,
    /// The attempts of its interval.
    pub(crate) seen: Sum,
}

impl Circuits {
    /// Such that `reportable` is notified when there is something to report of them.
    #[must_use]
    pub(crate) fn notifying(reportable: Arc<Notify>) -> Self {
        Self {
            reportable,
            ..Self::default()
        }
    }

    /// Whether a call is sent, and what the breaker is now, if that is to be shown.
    pub fn admit(&self, by: &DecidedBy, settings: &Settings) -> (Admit, Option<ShownState>) {
        self.admit_started(by, settings, now())
    }

    /// The same of a connection that was opened then, before anybody knew what for.
    pub(crate) fn admit_started(
        &self,
        by: &DecidedBy,
        settings: &Settings,
        started: Instant,
    ) -> (Admit, Option<ShownState>) {
        let now = now();
        self.with(by, |circuit| {
            (circuit.settings, circuit.used) = (*settings, now);
            let random = rand::random();
            let admit = circuit
                .breaker
                .admit_started(now, started, settings, random);
            let news = circuit.news();
            // A series that is not touched for long is forgotten.
            let open = (admit == Admit::Refuse).then_some(circuit.shown);
            (admit, news.or(open))
        })
    }

    /// Whether a call would be rejected now. Counts nothing.
    pub(crate) fn would_refuse(&self, by: &DecidedBy, settings: &Settings) -> bool {
        let now = now();
        let mut deciding = self.deciding.lock();
        match deciding.iter_mut().find(|circuit| circuit.by == *by) {
            Some(circuit) => circuit.breaker.would_refuse(now, settings),
            None => settings.state == BreakerState::Open,
        }
    }

    /// An attempt of a call has ended that was let in then. What the breaker is now, if that is
    /// another state.
    pub fn record(
        &self,
        by: &DecidedBy,
        settings: &Settings,
        let_in: Instant,
        failed: bool,
    ) -> Option<ShownState> {
        let now = now();
        self.with(by, |circuit| {
            if circuit.breaker.counts(let_in) {
                circuit.breaker.record(now, failed, settings);
            }
            circuit.news()
        })
    }

    /// The same of an attempt that a FaultExperiment harmed, which is not reported.
    pub(crate) fn record_injected(
        &self,
        by: &DecidedBy,
        settings: &Settings,
        let_in: Instant,
        failed: bool,
    ) -> Option<ShownState> {
        let now = now();
        self.with(by, |circuit| {
            if circuit.breaker.counts(let_in) {
                circuit.breaker.record_injected(now, failed, settings);
            }
            circuit.news()
        })
    }

    /// The same of a probe.
    pub(crate) fn record_probe(
        &self,
        by: &DecidedBy,
        settings: &Settings,
        failed: bool,
    ) -> Option<ShownState> {
        let now = now();
        self.with(by, |circuit| {
            circuit.breaker.record_probe(now, failed, settings);
            circuit.news()
        })
    }

    /// The head of a response is there whose trailers show how it went, that of a probe or of
    /// another call.
    pub(crate) fn begin_stream(&self, by: &DecidedBy, probe: bool) -> Stream {
        let now = now();
        self.with(by, |circuit| {
            circuit.breaker.begin_stream(now, probe, &circuit.settings)
        })
    }

    /// Such a response has ended, to a call that was admitted then; `None`: it shows nothing of
    /// the endpoint.
    pub(crate) fn end_stream(
        &self,
        by: &DecidedBy,
        settings: &Settings,
        let_in: Instant,
        (stream, failed): (Stream, Option<bool>),
    ) -> Option<ShownState> {
        let now = now();
        self.with(by, |circuit| {
            let failed = failed.filter(|_| circuit.breaker.counts(let_in));
            circuit.breaker.end_stream(now, stream, failed, settings);
            circuit.news()
        })
    }

    /// The controller sends the state of the fleet's breaker.
    pub fn set_fleet_state(&self, by: &DecidedBy, fleet_state: FleetBreakerState) {
        let now = now();
        let is_known = self.deciding.lock().iter().any(|circuit| circuit.by == *by);
        if is_known || fleet_state != FleetBreakerState::Closed {
            self.with(by, |circuit| {
                circuit.used = now;
                circuit.breaker.set_fleet_state(now, fleet_state);
            });
        }
    }

    /// The controller's stream has ended.
    pub fn controller_lost(&self) {
        let now = now();
        for circuit in &mut *self.deciding.lock() {
            circuit.breaker.controller_lost(now);
        }
    }

    /// Reports each since the last time. Those that are not in use are forgotten.
    pub fn report(&self, mut report: impl FnMut(CircuitReport)) {
        let now = now();
        self.deciding.lock().retain_mut(|circuit| {
            circuit.breaker.settle(now, &circuit.settings);
            let counts = circuit.breaker.take_counts();
            let is_idle = now.saturating_duration_since(circuit.used) >= FORGOTTEN;
            let forget = is_idle && counts.is_none() && circuit.breaker.is_at_rest(now);
            circuit.news();
            report(CircuitReport {
                by: circuit.by.clone(),
                counts,
                state: if forget {
                    ShownState::Closed
                } else {
                    circuit.shown
                },
            });
            !forget
        });
    }

    /// What each is by its last call.
    pub(crate) fn views(&self) -> Vec<CircuitView> {
        let now = now();
        let deciding = self.deciding.lock();
        let shown = deciding.iter().map(|circuit| CircuitView {
            by: circuit.by.clone(),
            state: circuit.breaker.state(&circuit.settings),
            seen: circuit.breaker.seen(now, &circuit.settings),
        });
        shown.collect()
    }

    /// Whether there may be something to report.
    #[must_use]
    pub(crate) fn are_in_use(&self) -> bool {
        !self.deciding.lock().is_empty()
    }

    fn with<T>(&self, by: &DecidedBy, change: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut deciding = self.deciding.lock();
        if let Some(at) = deciding.iter().position(|circuit| circuit.by == *by) {
            return change(&mut deciding[at]);
        }
        if deciding.len() >= DECIDING {
            deciding.remove(0);
        }
        let now = now();
        let mut new = Circuit {
            by: by.clone(),
            breaker: Breaker::new(now),
            settings: Settings::DEFAULT,
            used: now,
            shown: ShownState::Closed,
        };
        let answer = change(&mut new);
        deciding.push(new);
        self.reportable.notify_one();
        answer
    }
}

impl Circuit {
    fn news(&mut self) -> Option<ShownState> {
        let state = self.breaker.state(&self.settings);
        let before = std::mem::replace(&mut self.shown, state);
        (before != state).then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const SETTINGS: Settings = Settings::DEFAULT;

    fn by(service: &str) -> DecidedBy {
        DecidedBy {
            service: service.into(),
            port: 80,
        }
    }

    fn fails(circuits: &Circuits, by: &DecidedBy, times: u32) -> Option<ShownState> {
        let ends = (0..times).map(|_| circuits.record(by, &SETTINGS, now(), true));
        ends.fold(None, Option::or)
    }

    #[tokio::test(start_paused = true)]
    async fn breaker_opens_on_own_failures_probes_and_ramps_up() {
        let (circuits, by) = (Circuits::default(), by("shop/api"));
        assert_eq!(circuits.admit(&by, &SETTINGS), (Admit::Pass, None));
        assert_eq!(fails(&circuits, &by, 49), None);
        assert_eq!(fails(&circuits, &by, 1), Some(ShownState::Open));
        let refused = (Admit::Refuse, Some(ShownState::Open));
        assert_eq!(circuits.admit(&by, &SETTINGS), refused);
        advance(Duration::from_millis(4999)).await;
        assert_eq!(circuits.admit(&by, &SETTINGS), refused);
        advance(Duration::from_millis(1)).await;
        for probe in 0..5 {
            assert_eq!(circuits.admit(&by, &SETTINGS).0, Admit::Probe, "{probe}");
            assert_eq!(circuits.admit(&by, &SETTINGS).0, Admit::Refuse, "{probe}");
            let shown = circuits.record_probe(&by, &SETTINGS, false);
            assert_eq!(shown.is_some(), probe == 4);
            advance(Duration::from_secs(1)).await;
        }
        let mut passed = [0; 2];
        for of in &mut passed {
            for _ in 0..1000 {
                let (admit, _) = circuits.admit(&by, &SETTINGS);
                *of += u32::from(admit == Admit::Pass);
            }
            advance(Duration::from_secs(9)).await;
        }
        let [first, last] = passed;
        // A tenth and a second's worth of the ramp; then all of it.
        assert!((120..270).contains(&first), "{first}");
        assert_eq!(last, 1000);
        assert_eq!(circuits.record(&by, &SETTINGS, now(), false), None);
    }

    /// Calls that hung end by their time limit, long after others showed that all is well.
    #[tokio::test(start_paused = true)]
    async fn calls_admitted_before_breaker_closing_do_not_reopen_it() {
        for by_controller in [false, true] {
            let (circuits, by) = (Circuits::default(), by("shop/api"));
            let before = now();
            assert_eq!(fails(&circuits, &by, 50), Some(ShownState::Open));
            advance(Duration::from_secs(5)).await;
            if by_controller {
                circuits.set_fleet_state(&by, FleetBreakerState::Open);
                assert_eq!(circuits.admit(&by, &SETTINGS).0, Admit::Refuse);
                let since = Duration::from_secs(10);
                circuits.set_fleet_state(&by, FleetBreakerState::Closing { since });
            }
            for _ in 0..5 {
                circuits.admit(&by, &SETTINGS);
                circuits.record_probe(&by, &SETTINGS, false);
                advance(Duration::from_secs(1)).await;
            }
            circuits.report(|_| ());
            let stream = circuits.begin_stream(&by, false);
            for _ in 0..200 {
                circuits.record(&by, &SETTINGS, before, true);
            }
            circuits.end_stream(&by, &SETTINGS, before, (stream, Some(true)));
            circuits.report(|reported| {
                let failed = reported.counts.map_or(0, |counts| counts.failed);
                assert_eq!((failed, reported.state == ShownState::Open), (0, false));
            });
            // What was let in since then does.
            assert_eq!(fails(&circuits, &by, 50), Some(ShownState::Open));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn fleet_state_expires_15_seconds_after_controller_loss() {
        let (circuits, by) = (Circuits::default(), by("shop/api"));
        circuits.set_fleet_state(&by, FleetBreakerState::Closed);
        assert!(!circuits.are_in_use(), "that is nothing to remember");
        circuits.set_fleet_state(&by, FleetBreakerState::Open);
        assert!(circuits.are_in_use());
        assert_eq!(circuits.admit(&by, &SETTINGS).0, Admit::Refuse);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(circuits.admit(&by, &SETTINGS).0, Admit::Refuse);
        circuits.controller_lost();
        advance(Duration::from_secs(14)).await;
        assert_eq!(circuits.admit(&by, &SETTINGS).0, Admit::Refuse);
        advance(Duration::from_secs(1)).await;
        assert_eq!(
            circuits.admit(&by, &SETTINGS),
            (Admit::Pass, Some(ShownState::Closed))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn circuit_events_are_reported_once_and_unused_circuits_dropped() {
        let reportable = Arc::new(Notify::new());
        let circuits = Circuits::notifying(Arc::clone(&reportable));
        let by = by("shop/api");
        let reports = || {
            let mut all = Vec::new();
            circuits.report(|reports| all.push((reports.counts, reports.state)));
            all
        };
        assert_eq!(reports(), []);
        circuits.admit(&by, &SETTINGS);
        tokio::time::timeout(Duration::ZERO, reportable.notified())
            .await
            .unwrap();
        circuits.record(&by, &SETTINGS, now(), true);
        let one = BreakerCounts {
            sent: 1,
            failed: 1,
            ..BreakerCounts::default()
        };
        assert_eq!(reports(), [(Some(one), ShownState::Closed)]);
        assert_eq!(reports(), [(None, ShownState::Closed)]);
        circuits.set_fleet_state(&by, FleetBreakerState::Open);
        advance(FORGOTTEN).await;
        assert_eq!(reports(), [(None, ShownState::Closed)]);
        assert!(circuits.are_in_use(), "the mesh says that it is open");
        circuits.set_fleet_state(&by, FleetBreakerState::Closed);
        advance(FORGOTTEN).await;
        assert_eq!(reports(), [(None, ShownState::Closed)]);
        assert_eq!(reports(), []);
        assert!(!circuits.are_in_use());
    }

    /// Both here and by the mesh: of a hundred calls that went well nothing else may be reported.
    #[tokio::test(start_paused = true)]
    async fn streams_that_have_lasted_are_calls_that_went_well() {
        let (circuits, by) = (Circuits::default(), by("shop/api"));
        let counted = || {
            let mut counted = (0, 0);
            circuits.report(|reports| {
                let counts = reports.counts.unwrap_or_default();
                counted = (counted.0 + counts.sent, counted.1 + counts.failed);
            });
            counted
        };
        for _ in 0..60 {
            circuits.admit(&by, &SETTINGS);
            let _goes_on = circuits.begin_stream(&by, false);
        }
        assert_eq!(counted(), (0, 0), "not yet");
        advance(Duration::from_millis(1100)).await;
        assert_eq!(counted(), (60, 0));
        assert_eq!(counted(), (0, 0), "once");
        assert_eq!(fails(&circuits, &by, 50), None, "of 110 that is not half");
        assert_eq!(counted(), (50, 50));
        assert_eq!(fails(&circuits, &by, 9), None);
        assert_eq!(fails(&circuits, &by, 1), Some(ShownState::Open));
    }

    #[test]
    fn each_policy_counts_its_own_calls_within_bounded_circuits() {
        let circuits = Circuits::default();
        let (own, root) = (by("shop/v2"), by("shop/api"));
        fails(&circuits, &root, 50);
        assert_eq!(circuits.admit(&root, &SETTINGS).0, Admit::Refuse);
        assert_eq!(circuits.admit(&own, &SETTINGS).0, Admit::Pass);
        let port = DecidedBy {
            port: 81,
            ..root.clone()
        };
        assert_eq!(circuits.admit(&port, &SETTINGS).0, Admit::Pass);
        for other in 0..100 {
            circuits.admit(&by(&other.to_string()), &SETTINGS);
        }
        assert_eq!(circuits.deciding.lock().len(), DECIDING);
    }
}
