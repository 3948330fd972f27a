//! Overload protection: when an application gets fewer requests than arrive, and which ones.
//!
//! A server that gets three times what it can do answers no request in time: each
//! request waits behind all others. So while calls wait clearly longer than in calm times
//! *and* completions fall behind arrivals, no more are admitted than it completes in that
//! time: in flight <= completions/s x (calm time + `queueTime`). Both conditions, because
//! each alone lies: long polls wait and hurt no other call, and a burst falls behind and
//! recovers. Where calls take a second, completions fall behind each rise of arrivals for as
//! long; so more must be in flight, too, than arrive in twice the calm time.
//!
//! Slower is not overloaded. Where calls suddenly take longer, completions lag arrivals for a whole
//! new latency, although all of them will complete. So completions are counted from when calls
//! began to wait, both conditions must hold for most of the time that calls take now, and the first
//! limit is an experiment: calls that are admitted under it take what it allows where the
//! application is full, and as long as before where it is merely slower. In that case their time
//! becomes the calm time, and all are admitted again.
//!
//! What is measured under a limit is the limit itself, so two things look beyond it. Every five
//! seconds half as much again is admitted, and doubled while completions follow, so that a limit
//! that is too low is raised. And once a minute a second of short queue measures the calm time
//! anew.
//!
//! Where fewer than five calls a second complete, nothing is shed: so few do not show what
//! the application can do. The calm time is learned there too, over as many calls, and with
//! it the load that is reported to callers.
//!
//! No timer runs: arrivals and ends drive it, 25 milliseconds at a time.
//!
//! In use: one [`Limiter`] per container port with an `overload` section, under one lock.
//! [`Limiter::arrive`] before a request goes to the application, and after its admission
//! [`Limiter::done`] at the head of the response, or [`Limiter::left`] when its caller went.
//! A request that waits for something else before that is [put off](Limiter::put_off).
//! Without a policy, mode Off measures and sheds nothing: the load that is reported to callers
//! comes from the same numbers. Upgrades, probes of the kubelet and scrapes are not checked. A
//! caller's proxy has a [`Throttle`] per backend and class.

use std::time::{Duration, Instant};

use crate::traffic::guard::{Overload, OverloadMode, Priority};

mod baseline;
mod cap;
mod intervals;
mod throttle;

use baseline::Baseline;
use cap::Cap;
use intervals::Intervals;
pub use throttle::Throttle;

/// Between two attempts to let in more.
const TRY_EVERY: Duration = Duration::from_secs(5);
/// How long more is let in before completions are looked at, at least, and in times of a calm
/// call: sooner nothing of what was let in has completed. Never longer than `TRY_EVERY`.
const TRY_FOR: Duration = Duration::from_millis(500);
const TRY_CALLS: f64 = 1.5;
/// The first attempt, and each one after it that completions followed.
const TRY_MORE: f64 = 1.5;
const TRY_DOUBLE: f64 = 2.0;
/// Completions follow when they grow by this part at least.
const FOLLOWS: f64 = 1.2;

/// Between two measurements of the calm time, and how long one takes.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
const MEASURE_FOR: Duration = Duration::from_secs(1);

/// After so long without shedding anything it is over.
const CALM_AFTER: Duration = Duration::from_secs(2);

/// Both conditions hold for so long: half of what calls take now, and where they take more than
/// a second all of it but half a second. After a pause of the application completions catch up
/// by the second, and once its calls have become slower by the new latency.
const HOLDS_CALLS: f64 = 0.5;
const HOLDS_ALL_BUT: f64 = 0.5;
/// At least one look, and at most what calls of a few seconds need: in a queue calls take longer
/// by the second, and would never have been looked at for long enough.
const HOLDS: Duration = Duration::from_millis(25);
const HOLDS_AT_MOST: Duration = Duration::from_secs(3);

/// Calls that were let in under the first limit take so many times as long as it allows only
/// where the application is slower, and not full.
const SLOWER: f64 = 1.5;

/// No limit is lower.
const LEAST: f64 = 2.0;

/// What a class may use of the limit.
fn part(priority: Priority) -> f64 {
    match priority {
        Priority::Critical => 2.0,
        Priority::Normal => 1.0,
        Priority::Sheddable => 0.6,
    }
}

/// Whether a request goes to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    Pass,
    /// It passes, and would not in mode Adaptive.
    Audit,
    /// 503 `overload`, unsent.
    Shed,
}

impl Admit {
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(self, Self::Pass | Self::Audit)
    }
}

/// What one container port can take.
#[derive(Debug)]
pub struct Limiter {
    in_flight: u32,
    intervals: Intervals,
    baseline: Baseline,
    /// Since when both conditions hold.
    behind: Option<Instant>,
    shedding: Option<Shedding>,
    /// When it was over last, and the limit until then.
    ended: Option<(Instant, f64)>,
    cap: Cap,
}

#[derive(Clone, Copy, Debug)]
struct Shedding {
    limit: f64,
    last_shed: Instant,
    probe: LimitProbe,
    measure: Measure,
}

#[derive(Clone, Copy, Debug)]
enum LimitProbe {
    /// The first limit, until calls that were let in under it have ended. Where the
    /// application is full they take `stay` seconds.
    First {
        limit: f64,
        stay: f64,
    },
    At(Instant),
    /// Until then `limit` holds; completions were so many per second before.
    Until {
        end: Instant,
        limit: f64,
        before: f64,
    },
}

#[derive(Clone, Copy, Debug)]
enum Measure {
    At(Instant),
    Until(Instant),
}

impl Limiter {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            in_flight: 0,
            intervals: Intervals::new(now),
            baseline: Baseline::default(),
            behind: None,
            shedding: None,
            ended: None,
            cap: Cap::default(),
        }
    }

    /// A request that may be let in. `retry`: it counts one class lower, under a cap only where
    /// it is Critical.
    pub fn arrive(
        &mut self,
        now: Instant,
        priority: Priority,
        retry: bool,
        settings: &Overload,
    ) -> Admit {
        self.look(now, settings);
        self.intervals.arrived();
        if settings.mode == OverloadMode::Off {
            self.end(now);
            self.ended = None;
            self.let_in(now);
            return Admit::Pass;
        }
        let class = if retry { priority.lower() } else { priority };
        let room = self
            .limit()
            .is_none_or(|limit| f64::from(self.in_flight) < (limit * part(class)).max(1.0));
        let in_flight = self.in_flight;
        let capped = settings
            .max_concurrency
            .is_some_and(|most| !self.cap.has_room(now, priority, retry, in_flight, most));
        if let Some(shedding) = &mut self.shedding
            && !room
        {
            shedding.last_shed = now;
        }
        if room && !capped {
            self.let_in(now);
            Admit::Pass
        } else if settings.mode == OverloadMode::Audit {
            self.let_in(now);
            Admit::Audit
        } else {
            Admit::Shed
        }
    }

    fn let_in(&mut self, now: Instant) {
        self.in_flight += 1;
        self.baseline.began(now, self.in_flight);
    }

    /// The head of an answer came, so long after the request was let in.
    pub fn done(&mut self, now: Instant, took: Duration, settings: &Overload) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.look(now, settings);
        self.intervals.completed(took);
        self.baseline.saw(now, took);
    }

    /// The caller went before an answer came.
    pub fn left(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.intervals.left();
        self.baseline.left();
    }

    /// The request that was just admitted waits for something else first, and arrives again.
    /// It does not wait for the application.
    pub fn put_off(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.intervals.put_off();
        self.baseline.put_off();
    }

    /// The value of `weft_overload_limit`: the limit, and the last one while callers may still
    /// hold back by themselves; `None`: nothing is limited.
    #[must_use]
    pub fn shown_limit(&self, now: Instant) -> Option<f64> {
        let lately = self
            .ended
            .filter(|(ended, _)| now.saturating_duration_since(*ended) < throttle::INTERVAL);
        self.limit().or(lately.map(|(_, limit)| limit))
    }

    /// So many may be in flight; `None`: any number.
    #[must_use]
    pub fn limit(&self) -> Option<f64> {
        let shedding = self.shedding?;
        Some(match (shedding.measure, shedding.probe) {
            (Measure::Until(_), _) => {
                (self.intervals.completions_per_second() * self.baseline.mean()).max(LEAST)
            }
            (_, LimitProbe::First { limit, .. } | LimitProbe::Until { limit, .. }) => limit,
            _ => shedding.limit,
        })
    }

    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// `weft-load`, from 0 to 100: 50 where calls wait `queueTime` longer than when calm.
    #[must_use]
    pub fn load(&self, settings: &Overload) -> u8 {
        self.baseline.waiting_percent(settings.queue_time)
    }

    /// Once in each interval that something happens in.
    fn look(&mut self, now: Instant, settings: &Overload) {
        let Some(ended) = self.intervals.advance(now) else {
            return;
        };
        let waits = self.baseline.waits_longer_by(settings.queue_time);
        if let Some(mean) = ended.mean {
            self.baseline.saw_mean(mean);
        }
        match self.shedding {
            None => {
                if ended.mean.is_some() {
                    self.baseline.learn(waits, ended.intervals);
                }
                if !waits {
                    self.intervals.calm();
                }
                let behind = waits
                    && self.intervals.fall_behind()
                    && self.intervals.queue(self.in_flight, self.baseline.mean());
                if behind && settings.mode != OverloadMode::Off {
                    let since = *self.behind.get_or_insert(now);
                    if now.saturating_duration_since(since) >= self.holds() {
                        self.begin(now, settings);
                    }
                } else {
                    self.behind = None;
                }
            }
            Some(shedding) if self.is_over(now, shedding) => self.end(now),
            Some(shedding) => self.shedding = self.go_on(now, shedding, settings),
        }
    }

    /// For so long both conditions hold before anything is shed.
    fn holds(&self) -> Duration {
        let takes = self.baseline.takes();
        let holds = (takes * HOLDS_CALLS).max(takes - HOLDS_ALL_BUT);
        Duration::from_secs_f64(holds).clamp(HOLDS, HOLDS_AT_MOST)
    }

    fn begin(&mut self, now: Instant, settings: &Overload) {
        let (stay, limit) = (self.stay(settings), self.sustainable(settings));
        self.baseline.sample(now, (limit / 2.0).ceil() as u32);
        self.shedding = Some(Shedding {
            limit,
            last_shed: now,
            probe: LimitProbe::First { limit, stay },
            measure: Measure::At(now + MEASURE_EVERY),
        });
    }

    /// Nothing was shed lately although there was room: where callers hold back by themselves,
    /// nothing is shed either while a queue is worked off.
    fn is_over(&self, now: Instant, shedding: Shedding) -> bool {
        let room = self
            .limit()
            .is_none_or(|limit| f64::from(self.in_flight) < limit);
        room && now.saturating_duration_since(shedding.last_shed) >= CALM_AFTER
    }

    fn end(&mut self, now: Instant) {
        self.ended = self.limit().map(|limit| (now, limit)).or(self.ended);
        self.shedding = None;
        self.behind = None;
    }

    /// What a call takes, in seconds, that waits `queueTime`.
    fn stay(&self, settings: &Overload) -> f64 {
        self.baseline.mean() + settings.queue_time.as_secs_f64()
    }

    /// What is in flight while it completes all that it can and calls wait `queueTime`.
    fn sustainable(&self, settings: &Overload) -> f64 {
        (self.intervals.completions_per_second() * self.stay(settings)).max(LEAST)
    }

    fn try_for(&self) -> Duration {
        Duration::from_secs_f64(self.baseline.mean() * TRY_CALLS).clamp(TRY_FOR, TRY_EVERY)
    }

    fn go_on(
        &mut self,
        now: Instant,
        mut shedding: Shedding,
        settings: &Overload,
    ) -> Option<Shedding> {
        shedding.limit = self.sustainable(settings);
        match shedding.measure {
            Measure::At(at) if now >= at => {
                shedding.measure = Measure::Until(now + MEASURE_FOR);
                shedding.probe = LimitProbe::At(now + TRY_EVERY);
                return Some(shedding);
            }
            Measure::Until(end) if now < end => return Some(shedding),
            Measure::Until(_) => {
                self.baseline.adopt();
                shedding.measure = Measure::At(now + MEASURE_EVERY);
            }
            Measure::At(_) => {}
        }
        self.try_limit(now, shedding)
    }

    /// The same, where the calm time is not being measured.
    fn try_limit(&mut self, now: Instant, mut shedding: Shedding) -> Option<Shedding> {
        let rate = self.intervals.completions_per_second_lately();
        let lasts = self.try_for();
        match shedding.probe {
            LimitProbe::First { limit, stay } => {
                let Some(took) = self.baseline.sampled(limit) else {
                    return Some(shedding);
                };
                if took > SLOWER * stay {
                    self.baseline.adopt_sample();
                    self.end(now);
                    return None;
                }
                shedding.probe = LimitProbe::At(now + TRY_EVERY);
            }
            LimitProbe::At(at) if now >= at => {
                shedding.probe = LimitProbe::Until {
                    end: now + lasts,
                    limit: shedding.limit * TRY_MORE,
                    before: rate,
                };
            }
            LimitProbe::Until { end, limit, before } if now >= end => {
                let followed = rate * FOLLOWS >= before;
                if shedding.last_shed + lasts < now && followed {
                    // All that came was let in and completed: the calm time was wrong. Where
                    // next to nothing came that shows nothing.
                    self.baseline.adopt();
                    self.end(now);
                    return None;
                }
                shedding.probe = if rate >= before * FOLLOWS {
                    LimitProbe::Until {
                        end: now + lasts,
                        limit: limit * TRY_DOUBLE,
                        before: rate,
                    }
                } else {
                    LimitProbe::At(now + TRY_EVERY)
                };
            }
            LimitProbe::At(_) | LimitProbe::Until { .. } => {}
        }
        Some(shedding)
    }
}

#[cfg(test)]
mod tests;
