//! Outlier ejection: when an endpoint is ejected, and how it comes back.
//!
//! Failures in a row eject an endpoint, because a dead one must go after a handful of requests even
//! when it served thousands well. A row alone would be unjust where all fail alike, so responses
//! and lost connections are compared with the other endpoints: an endpoint is ejected only when it
//! fails at least twice as often as they do together, and when chance alone would not bring its row
//! at their rate. Failed connects need no comparison.
//!
//! Few are ejected at a time, so that ejection can never take a Service away. After its ejection
//! one request probes the endpoint; a success brings it back over the warm-up, a failure doubles
//! the ejection.
//!
//! In use: one [`Health`] per endpoint, beside its cost under the same lock. The end of an attempt
//! goes to [`Health::record`]; where that returns [`HealthChange::RowIsFull`], which is rare, the
//! proxy adds up [`Health::recent`] of the other endpoints and calls [`Health::evaluate`]. No other
//! thread may evaluate the same set between the two, or more endpoints are ejected than may be; the
//! proxy has one thread for data and does not wait between them. [`Health::status`] is read when
//! endpoints are drawn, and [`Health::begin_probe`] is called for the one that is sent a probe.
//! [`Health::settle`] comes before each of these, at the same moment. Not recorded are responses of
//! the mesh itself ([`HealthSignal::of_refusal`]) and attempts that started before the endpoint
//! returned ([`Health::counts`]).
//!
//! Invariant: time and chance are arguments.

use std::time::{Duration, Instant};

use crate::balance::unit;
use crate::traffic::bounds::WARMUP;
use crate::traffic::endpoint::Ejection;
use crate::traffic::set::Percent;

mod signal;

use signal::Window;
pub use signal::{HealthSignal, Recent};

/// Responses that the others must have given before an endpoint is compared with them.
pub(crate) const COMPARED_WITH: u32 = 20;

/// A row that chance brings more seldom than this, at the rate at which the others fail,
/// is no chance. Where all fail 30 % that is a row of twelve, which 16 pairs of proxy and
/// endpoint with ten answers a second each see once in hours; five in a row they see many
/// times a minute.
const CHANCE: f64 = 1e-6;

/// What a new or returning endpoint takes of its share at first.
const FIRST_SHARE: f64 = 0.1;

/// A probe waits so long for a request that may be tried again elsewhere; after that any
/// request is one.
pub(crate) const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// A probe without an end by then was cancelled, and another one is sent.
pub(crate) const PROBE_LOST: Duration = Duration::from_secs(10);

/// An answer that has lasted for so long shows as much as one that has ended well, to a breaker
/// as well: streams end hours later, or never.
const LASTED: Duration = Duration::from_secs(1);

/// What is to be done after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthChange {
    Nothing,
    /// It failed often enough in a row: [`Health::evaluate`].
    RowIsFull,
    /// Its probe failed, and it is ejected again.
    EjectedAgain,
    /// Its probe succeeded, or what stands for one.
    Returned,
}

/// Label `cause` of `weft_ejections_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EjectedFor {
    Unreachable,
    Failures,
}

impl EjectedFor {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Failures => "failures",
        }
    }
}

/// One of the probes of an endpoint: one that is late must not be taken for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe(u8);

/// How often an endpoint had returned when an attempt there began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Returns(u8);

/// The endpoints that one is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// All endpoints, the judged one among them.
    pub endpoints: usize,
    /// Those that are ejected already, and may not be probed yet.
    pub ejected: usize,
    /// What the others answered lately, without the judged one.
    pub recent: Recent,
}

/// Whether an endpoint takes requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Status {
    /// With this part of its share: from 0.1 to 1.
    Works(f64),
    /// Its rest is over: this request may probe it.
    ProbeDue,
    Ejected,
}

/// What is known of the health of one endpoint. 88 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    phase: Phase,
    /// Since when it works, if that was lately: it became ready, or returned.
    works_since: Option<Instant>,
    recent: Window,
    in_a_row: u8,
    unreachable_in_a_row: u8,
    /// Ejections that followed each other without a longer time of work between.
    ejections: u8,
    /// Why it rested last.
    ejected_for: EjectedFor,
    probe: Probe,
    returns: Returns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Working,
    Ejected {
        until: Instant,
    },
    /// By the last probe.
    Probing {
        since: Instant,
    },
    /// The head of the last probe's answer came then, and its trailers are to tell the rest.
    Answering {
        since: Instant,
    },
}

impl Health {
    /// `ready`: when the endpoint became ready; `None` where it is not new.
    #[must_use]
    pub fn new(now: Instant, ready: Option<Instant>) -> Self {
        Self {
            phase: Phase::Working,
            works_since: ready,
            recent: Window::new(now),
            in_a_row: 0,
            unreachable_in_a_row: 0,
            ejections: 0,
            ejected_for: EjectedFor::Failures,
            probe: Probe(0),
            returns: Returns(0),
        }
    }

    /// Brings it back where its probe is an answer that has lasted. Whether that is so.
    pub fn settle(&mut self, now: Instant) -> bool {
        let Phase::Answering { since } = self.phase else {
            return false;
        };
        let lasted = now.saturating_duration_since(since) >= LASTED;
        if lasted {
            self.return_to_work(now);
        }
        lasted
    }

    /// To be kept with an attempt that begins.
    #[must_use]
    pub const fn returns(&self) -> Returns {
        self.returns
    }

    /// Whether the end of an attempt that began then still shows how the endpoint fares. Calls
    /// that hung until their time was over end long after it has shown that it works. `probe`:
    /// where it is the one that showed it, which may go on.
    #[must_use]
    pub fn counts(&self, at_start: Returns, probe: Option<Probe>) -> bool {
        self.returns == at_start || probe == Some(self.probe)
    }

    /// An attempt ended, or goes on. `probe`: what [`Health::begin_probe`] gave, where it sent
    /// it. `random` is uniform over all of `u64`.
    pub fn record(
        &mut self,
        now: Instant,
        signal: HealthSignal,
        probe: Option<Probe>,
        settings: &Ejection,
        random: u64,
    ) -> HealthChange {
        match self.phase {
            Phase::Probing { .. } | Phase::Answering { .. } if probe == Some(self.probe) => {
                self.probed(now, signal, settings, random)
            }
            // Where a policy ejects no endpoint calls go on all the while.
            Phase::Ejected { until }
                if settings.consecutive_failures == 0
                    && signal == HealthSignal::Good
                    && now >= until =>
            {
                self.return_to_work(now);
                HealthChange::Returned
            }
            // Answers to what was sent before.
            Phase::Probing { .. } | Phase::Answering { .. } | Phase::Ejected { .. } => {
                HealthChange::Nothing
            }
            Phase::Working => self.count(now, signal, settings),
        }
    }

    fn probed(
        &mut self,
        now: Instant,
        signal: HealthSignal,
        settings: &Ejection,
        random: u64,
    ) -> HealthChange {
        let cause = match signal {
            HealthSignal::Reached if self.ejected_for == EjectedFor::Failures => {
                self.phase = Phase::Answering { since: now };
                return HealthChange::Nothing;
            }
            HealthSignal::Good | HealthSignal::Reached => {
                self.return_to_work(now);
                return HealthChange::Returned;
            }
            HealthSignal::Failed => EjectedFor::Failures,
            HealthSignal::Unreachable => EjectedFor::Unreachable,
        };
        self.eject(now, cause, settings, random);
        HealthChange::EjectedAgain
    }

    fn count(&mut self, now: Instant, signal: HealthSignal, settings: &Ejection) -> HealthChange {
        if signal == HealthSignal::Reached {
            self.unreachable_in_a_row = 0;
            return HealthChange::Nothing;
        }
        self.recent.add(now, signal != HealthSignal::Good);
        let row = |row: u8, goes_on: bool| if goes_on { row.saturating_add(1) } else { 0 };
        self.in_a_row = row(self.in_a_row, signal != HealthSignal::Good);
        self.unreachable_in_a_row = row(
            self.unreachable_in_a_row,
            signal == HealthSignal::Unreachable,
        );
        let needed = settings.consecutive_failures;
        if needed > 0 && self.in_a_row >= needed {
            HealthChange::RowIsFull
        } else {
            HealthChange::Nothing
        }
    }

    /// Its probe failed, and it is to be ejected again. Where others have taken all places
    /// meanwhile it works on instead, and its next failure decides anew, as before a first
    /// ejection. Whether that is so.
    pub fn returns_at_ejection_limit(&mut self, others: &Others, settings: &Ejection) -> bool {
        let full = others.ejected >= max_ejected(others.endpoints, settings.max_percent);
        if !full || !matches!(self.phase, Phase::Ejected { .. }) {
            return false;
        }
        self.phase = Phase::Working;
        self.in_a_row = settings.consecutive_failures;
        if self.ejected_for == EjectedFor::Unreachable {
            self.unreachable_in_a_row = self.in_a_row;
        }
        true
    }

    /// Ejects it if it is worse than the others and few enough are ejected. `None`: it works
    /// on, and the next failure decides anew.
    pub fn evaluate(
        &mut self,
        now: Instant,
        others: &Others,
        settings: &Ejection,
        random: u64,
    ) -> Option<EjectedFor> {
        let needed = settings.consecutive_failures;
        if self.phase != Phase::Working || needed == 0 || self.in_a_row < needed {
            return None;
        }
        if others.ejected >= max_ejected(others.endpoints, settings.max_percent) {
            return None;
        }
        let cause = if self.unreachable_in_a_row >= needed {
            EjectedFor::Unreachable
        } else if others.endpoints >= 3 && self.is_worse(now, others.recent) {
            EjectedFor::Failures
        } else {
            return None;
        };
        if self.worked_for(now) >= settings.max_time {
            self.ejections = 0;
        }
        self.eject(now, cause, settings, random);
        Some(cause)
    }

    fn is_worse(&self, now: Instant, others: Recent) -> bool {
        let own = self.recent.sum(now);
        let chance = others.rate().powi(self.in_a_row.into());
        others.answers >= COMPARED_WITH && own.rate() >= 2.0 * others.rate() && chance <= CHANCE
    }

    /// Whether it failed so often in a row, and lately, that it would rest where the others
    /// had answered often enough to compare it with them: calls that go elsewhere find out.
    #[must_use]
    pub fn is_failing(&self, now: Instant, settings: &Ejection) -> bool {
        let needed = settings.consecutive_failures;
        needed > 0
            && self.phase == Phase::Working
            && self.in_a_row >= needed
            && self.recent.sum(now).failures > 0
    }

    /// What it answered in the last ten seconds.
    #[must_use]
    pub fn recent(&self, now: Instant) -> Recent {
        self.recent.sum(now)
    }

    /// Whether it counts among the ejected; a probe under way ends no ejection.
    #[must_use]
    pub const fn is_ejected(&self) -> bool {
        !matches!(self.phase, Phase::Working)
    }

    /// Whether it takes a place among the few that may be ejected: one whose ejection is over
    /// and that no caller probes, because it is far away, takes none.
    #[must_use]
    pub fn counts_as_ejected(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Working => false,
            Phase::Ejected { until } => now < until,
            Phase::Probing { .. } | Phase::Answering { .. } => true,
        }
    }

    /// Whether it takes a request now. `may_retry`: the request may be tried again
    /// elsewhere if this endpoint fails it.
    #[must_use]
    pub fn status(&self, now: Instant, may_retry: bool, warmup: Duration) -> Status {
        let due = match self.phase {
            Phase::Working => return Status::Works(self.share(now, warmup)),
            Phase::Ejected { until } if may_retry => until,
            Phase::Ejected { until } => until + PROBE_PATIENCE,
            Phase::Probing { since } => since + PROBE_LOST,
            // It shows how it is within a second.
            Phase::Answering { .. } => return Status::Ejected,
        };
        if now >= due {
            Status::ProbeDue
        } else {
            Status::Ejected
        }
    }

    /// Takes the place of the one probe. `None`: another request took it before, and this
    /// one goes elsewhere.
    pub fn begin_probe(&mut self, now: Instant, may_retry: bool) -> Option<Probe> {
        let due = self.status(now, may_retry, Duration::ZERO) == Status::ProbeDue;
        due.then(|| {
            self.phase = Phase::Probing { since: now };
            self.probe = Probe(self.probe.0.wrapping_add(1));
            self.probe
        })
    }

    /// A probe ended without showing anything: its caller left, or the mesh refused it.
    pub fn abandon_probe(&mut self, now: Instant, probe: Probe) {
        let is_probed = matches!(self.phase, Phase::Probing { .. } | Phase::Answering { .. });
        if is_probed && self.probe == probe {
            self.phase = Phase::Ejected { until: now };
        }
    }

    /// The part of its share that it takes of requests whose policy ejects no endpoint: from
    /// 0.1 to 1. Other Services with the same endpoint follow its ejection nevertheless.
    #[must_use]
    pub fn share(&self, now: Instant, warmup: Duration) -> f64 {
        share_after(self.worked_for(now), warmup)
    }

    /// Since when it works; `None`: for long.
    #[must_use]
    pub const fn works_since(&self) -> Option<Instant> {
        self.works_since
    }

    fn worked_for(&self, now: Instant) -> Duration {
        self.works_since
            .map_or(Duration::MAX, |since| now.saturating_duration_since(since))
    }

    fn return_to_work(&mut self, now: Instant) {
        self.phase = Phase::Working;
        // A request that lasts for 256 ejections may be taken for another one.
        self.returns = Returns(self.returns.0.wrapping_add(1));
        self.works_since = Some(now);
        self.recent = Window::new(now);
        self.in_a_row = 0;
        self.unreachable_in_a_row = 0;
    }

    /// Twice as long as the time before, give or take a fifth: proxies that began together
    /// do not probe together.
    fn eject(&mut self, now: Instant, cause: EjectedFor, settings: &Ejection, random: u64) {
        self.ejected_for = cause;
        let doubled = settings
            .base_time
            .saturating_mul(1 << self.ejections.min(16));
        let ejection = doubled.min(settings.max_time).max(settings.base_time);
        let ejection = ejection.mul_f64(0.8 + 0.4 * unit(random));
        self.phase = Phase::Ejected {
            until: now + ejection,
        };
        self.ejections = self.ejections.saturating_add(1);
        self.in_a_row = 0;
        self.unreachable_in_a_row = 0;
    }
}

/// What an endpoint takes of its share that has worked for so long.
#[must_use]
pub fn share_after(worked: Duration, warmup: Duration) -> f64 {
    if worked >= warmup {
        return 1.0;
    }
    FIRST_SHARE + (1.0 - FIRST_SHARE) * worked.as_secs_f64() / warmup.as_secs_f64()
}

/// When an endpoint became ready, by the clock of another machine. `since` and `unix`, the
/// own clock, are in seconds since 1970. Where the two clocks differ a warm-up is shorter by
/// that, or begins now. `None`: longer ago than any warm-up, or unknown (0).
#[must_use]
pub fn ready_at(now: Instant, unix: u64, since: u64) -> Option<Instant> {
    let age = Duration::from_secs(unix.saturating_sub(since));
    let is_new = since != 0 && age < *WARMUP.end();
    is_new.then(|| now.checked_sub(age)).flatten()
}

/// How many of so many endpoints may rest at once: the percentage, but one at least of two
/// or more, and a lone one never. None at 0 %.
#[must_use]
pub fn max_ejected(endpoints: usize, max: Percent) -> usize {
    match (endpoints, max) {
        (0 | 1, _) | (_, Percent::NONE) => 0,
        (endpoints, max) => (endpoints * usize::from(max.get()) / 100).max(1),
    }
}

#[cfg(test)]
mod tests;
