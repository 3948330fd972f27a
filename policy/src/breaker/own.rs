//! The breaker of one proxy for one backend: its own counts, and the fleet state that the
//! controller sends.
//!
//! In use: one per backend with a `breaker` section, under one lock. [`Breaker::admit`] before the
//! first attempt, [`Breaker::record`] or [`Breaker::record_probe`] with the end of each attempt, by
//! the rules of ejection, or [`Breaker::begin_stream`] and [`Breaker::end_stream`] where its
//! trailers decide; [`Breaker::set_fleet_state`] with each fleet state that the controller sends,
//! [`Breaker::controller_lost`] when its stream ends, [`Breaker::settle`] and
//! [`Breaker::take_counts`] every second.

use std::time::{Duration, Instant};

use crate::balance::unit;
use crate::breaker::streams::{Stream, Streams};
use crate::breaker::window::{Probes, Sum, Window};
use crate::breaker::{BreakerCounts, FleetBreakerState, RAMP, ramp};
use crate::traffic::endpoint::{Breaker as Settings, BreakerState};

/// What a controller said is obeyed for so long without it.
pub(crate) const WITHOUT_CONTROLLER: Duration = Duration::from_secs(15);

/// Alone, a proxy probes so often: a dozen of them stay about the probes of a mesh.
const OWN_PROBES_EVERY: Duration = Duration::from_secs(1);
/// A controller requests a probe at least so often; more than the callers that it counts
/// come to.
const LONGEST_GAP: Duration = Duration::from_secs(3600);
/// And so many of them are enough for it.
const OWN_PROBES: u32 = 5;

/// Whether a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    Pass,
    /// It is sent, and its end is recorded as a probe's.
    Probe,
    /// 503 `circuit-open`, or the fallback.
    Refuse,
}

/// Value of `weft_breaker_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShownState {
    Closed,
    Closing,
    Open,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { since: Instant },
    Probing { next: Instant, probes: Probes },
    Closing { since: Instant },
}

#[derive(Debug)]
pub struct Breaker {
    own: Window,
    /// Requests admitted before show nothing any more; `None`: it has never closed.
    counts_from: Option<Instant>,
    /// When it began to send nothing but probes last, here or by the controller's word.
    opened_at: Option<Instant>,
    phase: Phase,
    ordered: FleetBreakerState,
    ordered_at: Instant,
    /// Until when what was said holds, where no controller is there to say more.
    until: Option<Instant>,
    /// It has seen the failures that the controller reports.
    obeys: bool,
    /// Of those that the controller requests; `None` before the first.
    next_probe: Option<Instant>,
    /// A state was written down when it was asked last.
    was_written: bool,
    /// Calls whose trailers are to tell how they went, and probes.
    streams: Streams,
    probe_streams: Streams,
    counts: BreakerCounts,
}

impl Breaker {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            own: Window::new(now),
            counts_from: None,
            opened_at: None,
            phase: Phase::Closed,
            ordered: FleetBreakerState::Closed,
            ordered_at: now,
            until: None,
            obeys: false,
            next_probe: None,
            was_written: false,
            streams: Streams::new(now),
            probe_streams: Streams::new(now),
            counts: BreakerCounts::default(),
        }
    }

    /// Whether a request is sent. `random` is uniform over all of `u64`.
    pub fn admit(&mut self, now: Instant, settings: &Settings, random: u64) -> Admit {
        self.begin_anew(now, settings);
        self.settle(now, settings);
        let admit = match settings.state {
            BreakerState::Open => Admit::Refuse,
            BreakerState::Closed => Admit::Pass,
            BreakerState::Auto => self.decide(now, settings, random),
        };
        match admit {
            Admit::Pass => {}
            Admit::Probe => self.counts.sent_probes = self.counts.sent_probes.saturating_add(1),
            Admit::Refuse => self.counts.refused = self.counts.refused.saturating_add(1),
        }
        admit
    }

    /// The same of a request that started then and is sent only now: a connection that was
    /// opened before it was known what it is to carry. If that was before the breaker opened, it
    /// shows nothing of what came after: it is no probe, and rejected as all that is none.
    pub fn admit_started(
        &mut self,
        now: Instant,
        started: Instant,
        settings: &Settings,
        random: u64,
    ) -> Admit {
        let is_older = self.opened_at.is_some_and(|opened| started < opened);
        if is_older && self.is_open(now, settings) {
            self.counts.refused = self.counts.refused.saturating_add(1);
            return Admit::Refuse;
        }
        self.admit(now, settings, random)
    }

    /// Whether nothing is sent but probes.
    fn is_open(&mut self, now: Instant, settings: &Settings) -> bool {
        match settings.state {
            BreakerState::Open => return true,
            BreakerState::Closed => return false,
            BreakerState::Auto => self.expire(now),
        }
        if self.must_hold(now, settings) {
            return matches!(
                self.ordered,
                FleetBreakerState::Open | FleetBreakerState::Probing { .. }
            );
        }
        matches!(self.phase, Phase::Open { .. } | Phase::Probing { .. })
    }

    /// Whether a request would be rejected now. Counts nothing, so any number of requests
    /// may pass for a probe until one is sent as such.
    pub fn would_refuse(&mut self, now: Instant, settings: &Settings) -> bool {
        match settings.state {
            BreakerState::Open => return true,
            BreakerState::Closed => return false,
            BreakerState::Auto => self.expire(now),
        }
        if self.must_hold(now, settings) {
            return match self.ordered {
                FleetBreakerState::Open => true,
                FleetBreakerState::Probing { .. } => self.next_probe.is_some_and(|next| now < next),
                FleetBreakerState::Closed | FleetBreakerState::Closing { .. } => false,
            };
        }
        match self.phase {
            Phase::Open { since } => now < since + settings.open_time,
            Phase::Probing { next, .. } => now < next,
            Phase::Closed | Phase::Closing { .. } => false,
        }
    }

    /// Drops what was decided before a new state was set: that is no change afterwards, nor
    /// is what was seen until then.
    fn begin_anew(&mut self, now: Instant, settings: &Settings) {
        let is_written = settings.state != BreakerState::Auto;
        if is_written {
            self.phase = Phase::Closed;
        } else if self.was_written {
            self.own = Window::new(now);
            self.streams = Streams::new(now);
            self.probe_streams = Streams::new(now);
        }
        self.was_written = is_written;
    }

    fn decide(&mut self, now: Instant, settings: &Settings, random: u64) -> Admit {
        self.expire(now);
        let part = |since: Duration| {
            if unit(random) < ramp(since) {
                Admit::Pass
            } else {
                Admit::Refuse
            }
        };
        if self.must_hold(now, settings) {
            return match self.ordered {
                FleetBreakerState::Closed => Admit::Pass,
                FleetBreakerState::Open => Admit::Refuse,
                FleetBreakerState::Probing { every } => self.probe(now, every, random),
                FleetBreakerState::Closing { since } => {
                    part(since + now.saturating_duration_since(self.ordered_at))
                }
            };
        }
        match self.phase {
            Phase::Closed => Admit::Pass,
            Phase::Open { since } if now < since + settings.open_time => Admit::Refuse,
            Phase::Open { .. } => {
                self.phase = Phase::Probing {
                    next: now + OWN_PROBES_EVERY,
                    probes: Probes::default(),
                };
                Admit::Probe
            }
            Phase::Probing { next, .. } if now < next => Admit::Refuse,
            Phase::Probing { probes, .. } => {
                let next = now + OWN_PROBES_EVERY;
                self.phase = Phase::Probing { next, probes };
                Admit::Probe
            }
            Phase::Closing { since } => {
                let since = now.saturating_duration_since(since);
                if since >= RAMP {
                    self.phase = Phase::Closed;
                }
                part(since)
            }
        }
    }

    /// Whether the controller's command is what counts: it is another one than closed,
    /// and what this proxy has seen does not contradict it.
    fn must_hold(&mut self, now: Instant, settings: &Settings) -> bool {
        if self.ordered == FleetBreakerState::Closed {
            return false;
        }
        if !self.obeys {
            let own = self.own.sum(now, settings.interval);
            self.obeys = own.sent == 0 || own.fails(settings.failure_percent.get());
        }
        self.obeys
    }

    /// The first one at a random moment of the gap: a thousand proxies that get the command
    /// to probe at once do not probe at once.
    fn probe(&mut self, now: Instant, every: Duration, random: u64) -> Admit {
        if every.is_zero() {
            return Admit::Refuse;
        }
        let every = every.min(LONGEST_GAP);
        let first = self.ordered_at + every.mul_f64(unit(random));
        // The gap may have become shorter since.
        let next = self.next_probe.unwrap_or(first).min(now + every);
        let due = now >= next;
        self.next_probe = Some(if due { now + every } else { next });
        if due { Admit::Probe } else { Admit::Refuse }
    }

    fn forget_all(&mut self, now: Instant) {
        self.own = Window::new(now);
        self.counts_from = Some(now);
    }

    /// Whether the end of a call that was admitted then still shows how the Service fares. Calls
    /// that hung until their time was over end long after it was repaired.
    #[must_use]
    pub fn counts(&self, let_in: Instant) -> bool {
        self.counts_from.is_none_or(|from| let_in >= from)
    }

    /// Records the end of an attempt that was no probe; ends that show nothing are skipped.
    pub fn record(&mut self, now: Instant, failed: bool, settings: &Settings) {
        self.count(now, 1, failed.into(), settings);
    }

    /// The same of an attempt that a FaultExperiment harmed. The fleet's breaker does not learn
    /// of it: other callers would lose a Service that works.
    pub fn record_injected(&mut self, now: Instant, failed: bool, settings: &Settings) {
        let reported = self.counts;
        self.record(now, failed, settings);
        self.counts = reported;
    }

    fn count(&mut self, now: Instant, sent: u32, failed: u32, settings: &Settings) {
        self.counts.sent = self.counts.sent.saturating_add(sent);
        self.counts.failed = self.counts.failed.saturating_add(failed);
        let is_written = settings.state != BreakerState::Auto;
        // What a written state let in speaks neither for nor against what comes after it.
        if is_written && !self.was_written {
            return;
        }
        self.own.add(now, settings.interval, sent, failed);
        let sum = self.own.sum(now, settings.interval);
        let enough = !is_written
            && sum.sent >= settings.min_requests
            && sum.fails(settings.failure_percent.get());
        if enough && matches!(self.phase, Phase::Closed | Phase::Closing { .. }) {
            self.phase = Phase::Open { since: now };
            self.opened_at = Some(now);
        }
    }

    /// A probe ended, in the same way.
    pub fn record_probe(&mut self, now: Instant, failed: bool, settings: &Settings) {
        self.counts.probes = self.counts.probes.saturating_add(1);
        self.counts.failed_probes = self.counts.failed_probes.saturating_add(failed.into());
        if let Phase::Probing { probes, .. } = &mut self.phase {
            probes.add(failed);
            if probes.are_good(OWN_PROBES, settings.failure_percent.get()) {
                self.phase = Phase::Closing { since: now };
                self.forget_all(now);
            }
        }
    }

    /// The head of an answer is there whose trailers tell how it went. It counts as good where
    /// it lasts for a second without them.
    pub fn begin_stream(&mut self, now: Instant, probe: bool, settings: &Settings) -> Stream {
        self.settle(now, settings);
        self.streams_of(probe).begin();
        Stream { since: now, probe }
    }

    /// Such a response has ended; `None`: it shows nothing of the endpoint.
    pub fn end_stream(
        &mut self,
        now: Instant,
        stream: Stream,
        failed: Option<bool>,
        settings: &Settings,
    ) {
        let Stream { since, probe } = stream;
        let counts = self.streams_of(probe).end(now, since);
        let Some(failed) = failed.filter(|_| counts) else {
            return;
        };
        if probe {
            self.record_probe(now, failed, settings);
        } else {
            self.record(now, failed, settings);
        }
    }

    const fn streams_of(&mut self, probe: bool) -> &mut Streams {
        if probe {
            &mut self.probe_streams
        } else {
            &mut self.streams
        }
    }

    /// Counts the answers that have lasted by now.
    pub fn settle(&mut self, now: Instant, settings: &Settings) {
        let lasted = self.streams.lasted(now);
        if lasted > 0 {
            self.count(now, lasted, 0, settings);
        }
        for _ in 0..self.probe_streams.lasted(now) {
            self.record_probe(now, false, settings);
        }
    }

    /// A command of the controller. When it begins to close, what was seen before counts
    /// no longer, here neither.
    pub fn set_fleet_state(&mut self, now: Instant, ordered: FleetBreakerState) {
        let closes = |fleet_state| {
            matches!(
                fleet_state,
                FleetBreakerState::Closed | FleetBreakerState::Closing { .. }
            )
        };
        if closes(ordered) && !closes(self.ordered) && self.obeys {
            self.phase = Phase::Closed;
            self.forget_all(now);
        }
        if closes(self.ordered) && !closes(ordered) {
            self.opened_at = Some(now);
        }
        self.obeys &= ordered != FleetBreakerState::Closed;
        if self.ordered != ordered {
            self.ordered_at = now;
        }
        if !matches!(ordered, FleetBreakerState::Probing { .. }) {
            self.next_probe = None;
        }
        self.ordered = ordered;
        self.until = None;
    }

    /// The controller's stream ended. Its word holds for a while, as another one may come.
    pub fn controller_lost(&mut self, now: Instant) {
        self.until.get_or_insert(now + WITHOUT_CONTROLLER);
    }

    fn expire(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now >= until) {
            self.set_fleet_state(now, FleetBreakerState::Closed);
        }
    }

    /// What was done since the last time; `None`: nothing.
    pub fn take_counts(&mut self) -> Option<BreakerCounts> {
        let counts = std::mem::take(&mut self.counts);
        (counts != BreakerCounts::default()).then_some(counts)
    }

    #[must_use]
    pub fn state(&self, settings: &Settings) -> ShownState {
        let ordered = match self.ordered {
            FleetBreakerState::Open | FleetBreakerState::Probing { .. } if self.obeys => {
                ShownState::Open
            }
            FleetBreakerState::Closing { .. } if self.obeys => ShownState::Closing,
            _ => ShownState::Closed,
        };
        let own = match self.phase {
            Phase::Closed => ShownState::Closed,
            Phase::Closing { .. } => ShownState::Closing,
            Phase::Open { .. } | Phase::Probing { .. } => ShownState::Open,
        };
        match settings.state {
            BreakerState::Open => ShownState::Open,
            BreakerState::Closed => ShownState::Closed,
            BreakerState::Auto => ordered.max(own),
        }
    }

    /// Whether nothing would be lost by a fresh start: it holds nothing back, has no command
    /// to, and has reported everything.
    pub fn is_at_rest(&mut self, now: Instant) -> bool {
        self.expire(now);
        matches!(self.phase, Phase::Closed)
            && self.ordered == FleetBreakerState::Closed
            && self.counts == BreakerCounts::default()
            && self.streams.are_none()
            && self.probe_streams.are_none()
    }

    /// For the page of the proxy.
    #[must_use]
    pub fn seen(&self, now: Instant, settings: &Settings) -> Sum {
        self.own.sum(now, settings.interval)
    }
}
