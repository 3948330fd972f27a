//! The baseline of overload protection: how long calls take, now and in calm times.
//!
//! It has two measures. Whether calls *wait* is read from the typical call, a median: a few long
//! polls among them show nothing. How many are *in flight* is computed from the mean, where each
//! long poll counts as long as it stays.
//!
//! The mean is stored as what it has beyond the typical call. A queue makes both longer by as much,
//! so that is measured under a limit too, and a typical call that is measured anew moves the mean
//! by as much as itself. A mean that still had long polls of an hour ago would admit a queue in the
//! second that is to have none, and be multiplied by what that shows.

use std::time::{Duration, Instant};

/// A step of the running median: 25 calls lead from 10 ms to 110 ms.
const STEP: f64 = 1.1;
/// Nothing is faster, so that steps stay steps.
const FASTEST: f64 = 1e-5;

/// Part of the way that the baseline goes towards the values of an interval. The typical call's
/// in ten minutes up, or a load that lasts would pass for calm, and in a second down,
/// because nothing makes calls faster than calm. What the mean has beyond it in half a
/// minute, and at first the plain average of all intervals. The last two are of intervals with calls,
/// and take longer where there are few.
const UP: f64 = 1.0 / 24_000.0;
const DOWN: f64 = 1.0 / 40.0;
const BEYOND_INTERVALS: u32 = 1200;

/// Intervals in which calls waited although nothing fell behind: after a minute that is what
/// they take.
const PATIENCE: u32 = 2400;

/// Where calls are few, one stands for the intervals without any before it as well, up to a second:
/// ten minutes are ten minutes then too, and a silence of an hour shows nothing.
const STANDS_FOR: u32 = 40;

/// There is no baseline before so many calls: by then the running median has come to what is
/// typical from ten times as much or as little, which the first call may have taken.
const FIRST: u32 = 25;

/// Nor before so many of the first [`FIRST`] have ended. What ends first after a cold start is
/// the fast calls, whatever the others take, and a calm time learned of them alone lies far
/// below the true one.
const ENDED: u32 = 22;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Baseline {
    /// Running median of what was seen, in seconds; 0 before the first call.
    typical: f64,
    /// Calls that were seen, up to [`FIRST`].
    calls: u32,
    /// Calls that were let in, up to [`FIRST`], and when the last of these was.
    began: u32,
    all_began: Option<Instant>,
    /// Those of them that ended, up to [`ENDED`].
    ended: u32,
    /// 0 while there is none.
    baseline_typical: f64,
    /// What the mean call takes beyond the typical one, in seconds: much where long polls are
    /// among them.
    beyond_typical: f64,
    /// Of the last interval with calls, in seconds.
    last_mean: f64,
    /// Intervals that it was learned from, up to [`BEYOND_INTERVALS`].
    intervals: u32,
    waited: u32,
    /// Calls under the first limit.
    sample: Option<Sample>,
}

/// The first calls to end of those that were let in since some moment: as many as half of them
/// that fit at once, so that they are not only the fast ones.
#[derive(Clone, Copy, Debug)]
struct Sample {
    since: Instant,
    /// So many are to end, and so many of them have not.
    calls: u32,
    more: u32,
    /// Sum of the logarithms of what they took: a long poll among them shows little.
    logs: f64,
    /// In seconds.
    longest: f64,
    /// Calls that were let in, and the sum of what was in flight with each of them.
    let_in: u32,
    in_flight: f64,
}

impl Baseline {
    /// A call was let in, and so many are in flight with it.
    pub(super) fn began(&mut self, now: Instant, in_flight: u32) {
        if let Some(sample) = &mut self.sample {
            sample.let_in += 1;
            sample.in_flight += f64::from(in_flight);
        }
        if self.all_began.is_none() {
            self.began += 1;
            if self.began >= FIRST {
                self.all_began = Some(now);
            }
        }
    }

    /// One whose caller went. When it began is not known: as long as callers go they must not
    /// keep the calm time unknown, so it counts among the first.
    pub(super) fn left(&mut self) {
        self.ended = (self.ended + 1).min(ENDED);
    }

    /// One that starts later. Once all of the first have started it is not known whether it was
    /// one of them, as of one whose caller went.
    pub(super) fn put_off(&mut self) {
        if self.all_began.is_none() {
            self.began = self.began.saturating_sub(1);
        } else {
            self.left();
        }
    }

    pub(super) fn saw(&mut self, now: Instant, took: Duration) {
        let is_of_first = self
            .all_began
            .is_none_or(|at| now.saturating_duration_since(at) <= took);
        if is_of_first {
            self.ended = (self.ended + 1).min(ENDED);
        }
        let took = took.as_secs_f64().max(FASTEST);
        self.calls = (self.calls + 1).min(FIRST);
        if self.typical == 0.0 {
            self.typical = took;
        } else if took > self.typical {
            self.typical = (self.typical * STEP).min(took);
        } else {
            self.typical = (self.typical / STEP).max(took);
        }
        self.saw_in_sample(now, took);
    }

    /// So many calls that are let in from now on are to show what they take.
    pub(super) fn sample(&mut self, now: Instant, calls: u32) {
        self.sample = Some(Sample {
            since: now,
            calls,
            more: calls,
            logs: 0.0,
            longest: 0.0,
            let_in: 0,
            in_flight: 0.0,
        });
    }

    fn saw_in_sample(&mut self, now: Instant, took: f64) {
        let Some(sample) = &mut self.sample else {
            return;
        };
        let since = now.saturating_duration_since(sample.since).as_secs_f64();
        if sample.more > 0 && took <= since {
            sample.more -= 1;
            sample.logs += took.ln();
            sample.longest = sample.longest.max(took);
        }
    }

    /// What they took, in seconds, as if never more than `limit` had been in flight: Critical
    /// calls may go beyond it. `None`: they have not ended yet.
    pub(super) fn sampled(&self, limit: f64) -> Option<f64> {
        let sample = self.sample.filter(|sample| sample.more == 0)?;
        let in_flight = sample.in_flight / f64::from(sample.let_in.max(1));
        let took = (sample.logs / f64::from(sample.calls.max(1))).exp();
        Some(took / (in_flight / limit).max(1.0))
    }

    /// What they took is the baseline. The first to end are the faster ones, so it is the
    /// longest of them.
    pub(super) fn adopt_sample(&mut self) {
        if let Some(sample) = self.sample.take() {
            self.typical = sample.longest;
            self.adopt();
        }
    }

    /// Whether the typical call takes so much longer than in calm times.
    pub(super) fn waits_longer_by(&self, queue_time: Duration) -> bool {
        self.baseline_typical > 0.0
            && self.typical > self.baseline_typical + queue_time.as_secs_f64()
    }

    /// An interval with calls ended, which took `mean` seconds.
    pub(super) fn saw_mean(&mut self, mean: f64) {
        self.last_mean = mean;
        self.intervals = (self.intervals + 1).min(BEYOND_INTERVALS);
        let deviation = mean - self.typical - self.beyond_typical;
        self.beyond_typical += deviation / f64::from(self.intervals);
    }

    /// The same, and nothing was shed. So many intervals ended since one before that had calls.
    pub(super) fn learn(&mut self, waits: bool, intervals: u32) {
        if self.baseline_typical == 0.0 {
            if self.calls >= FIRST && self.ended >= ENDED {
                self.baseline_typical = self.typical;
            }
            return;
        }
        let intervals = intervals.min(STANDS_FOR);
        if waits {
            self.waited += intervals;
            if self.waited >= PATIENCE {
                self.adopt();
            }
            return;
        }
        self.waited = 0;
        let part = if self.typical < self.baseline_typical {
            DOWN
        } else {
            UP * f64::from(intervals)
        };
        self.baseline_typical += (self.typical - self.baseline_typical) * part;
    }

    /// What is typical now is the baseline. The mean moves along.
    pub(super) fn adopt(&mut self) {
        if self.baseline_typical > 0.0 {
            self.baseline_typical = self.typical;
        }
        self.waited = 0;
    }

    /// What calls take now, in seconds: the typical one, and the last ones, as the running median
    /// follows a jump by steps.
    pub(super) const fn takes(&self) -> f64 {
        self.typical.max(self.last_mean)
    }

    /// Of calm times, in seconds.
    pub(super) fn mean(&self) -> f64 {
        self.baseline_typical + self.beyond_typical.max(0.0)
    }

    /// Half where the typical call waits `queue_time`, and never quite all: however long
    /// calls wait, a longer wait must show.
    pub(super) fn waiting_percent(&self, queue_time: Duration) -> u8 {
        if self.baseline_typical == 0.0 {
            // There is no baseline yet.
            return 0;
        }
        let waits = (self.typical - self.baseline_typical).max(0.0);
        let share = waits / (waits + queue_time.as_secs_f64());
        (share * 100.0) as u8
    }
}
