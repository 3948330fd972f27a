//! Arrivals and completions of the last 1.6 s, in intervals of 25 ms.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(25);
const INTERVALS: usize = 64;
/// What counts as lately: 500 ms, and for falling behind 100 ms.
const LATELY: usize = 20;
const SHORT: usize = 4;

/// Fewer completions in all intervals, five a second, show too little of what the application can
/// do: a limit that was reckoned from them would be chance.
const ENOUGH: f64 = 8.0;

/// Completions may be so much fewer than arrivals: a tenth.
const TENTH: f64 = 0.1;
/// And so many deviations of what chance brings beside that.
const DEVIATIONS: f64 = 3.0;

/// Where calls have waited for long: what little is missing each second adds up. A fifth, since
/// calls that become slower for half a minute make completions fall behind by as much.
const FIFTH: f64 = 0.2;

/// So many times what arrives in a calm call's time is in flight only where calls queue. Twice,
/// because the calm time of calls that vary much is learned too low.
const QUEUED: f64 = 2.0;

#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    arrived: u32,
    completed: u32,
    left: u32,
    /// Of the completed ones together, in seconds.
    took: f32,
}

/// Since calls wait.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    /// Up to [`INTERVALS`].
    intervals: usize,
    arrived: f64,
    completed: f64,
}

/// What was counted until an interval ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Mean time of the calls that completed in it, in seconds; `None`: none did.
    pub(super) mean: Option<f64>,
    /// Intervals that ended since one before in which some did.
    pub(super) intervals: u32,
}

#[derive(Debug)]
pub(super) struct Intervals {
    /// Those that ended, the newest at `newest`.
    ended: [Interval; INTERVALS],
    newest: usize,
    /// How many of them hold something, since the first call.
    filled: usize,
    current: Interval,
    began: Instant,
    /// Intervals that ended since the last one in which calls completed.
    without: u32,
    waiting: Waiting,
}

impl Intervals {
    pub(super) const fn new(now: Instant) -> Self {
        const EMPTY: Interval = Interval {
            arrived: 0,
            completed: 0,
            left: 0,
            took: 0.0,
        };
        Self {
            ended: [EMPTY; INTERVALS],
            newest: 0,
            filled: 0,
            current: EMPTY,
            began: now,
            without: 0,
            waiting: Waiting {
                intervals: 0,
                arrived: 0.0,
                completed: 0.0,
            },
        }
    }

    pub(super) fn arrived(&mut self) {
        self.current.arrived += 1;
    }

    /// What arrived last arrives later.
    pub(super) fn put_off(&mut self) {
        self.current.arrived = self.current.arrived.saturating_sub(1);
    }

    pub(super) fn completed(&mut self, took: Duration) {
        self.current.completed += 1;
        self.current.took += took.as_secs_f32();
    }

    pub(super) fn left(&mut self) {
        self.current.left += 1;
    }

    /// What was counted, where an interval ended. Those after it, if there are any, are empty.
    pub(super) fn advance(&mut self, now: Instant) -> Option<Ended> {
        let since = now.saturating_duration_since(self.began);
        let passed = (since.as_millis() / INTERVAL.as_millis()) as usize;
        if passed == 0 {
            return None;
        }
        let counted = self.current;
        for _ in 0..passed.min(INTERVALS) {
            self.newest = (self.newest + 1) % INTERVALS;
            self.ended[self.newest] = std::mem::take(&mut self.current);
        }
        self.filled = (self.filled + passed).min(INTERVALS);
        self.waiting.intervals = (self.waiting.intervals + passed).min(INTERVALS);
        self.waiting.arrived += f64::from(counted.arrived);
        self.waiting.completed += f64::from(counted.completed);
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        self.began += INTERVAL * passed;
        let intervals = self.without.saturating_add(passed);
        let completed = counted.completed > 0;
        self.without = if completed { 0 } else { intervals };
        Some(Ended {
            mean: completed.then(|| f64::from(counted.took) / f64::from(counted.completed)),
            intervals,
        })
    }

    /// Calls do not wait: what was counted shows nothing of whether completions keep up.
    pub(super) fn calm(&mut self) {
        self.waiting = Waiting::default();
    }

    /// Whether completions are clearly fewer than arrivals since calls wait: over a short time,
    /// or over a longer one without catching up lately. Very few show nothing. What was before
    /// does not count: when calls have become slower at once there is a time without any.
    pub(super) fn fall_behind(&self) -> bool {
        if self.sums(INTERVALS).1 < ENOUGH {
            return false;
        }
        let waiting = self.waiting;
        let last = |intervals: usize| self.sums(intervals.min(waiting.intervals));
        let ((arrived, completed), long) = (last(LATELY), last(INTERVALS));
        clearly_fewer(last(SHORT), TENTH)
            || clearly_fewer(long, TENTH) && arrived > completed
            || clearly_fewer((waiting.arrived, waiting.completed), FIFTH)
                && long.0 - long.1 > FIFTH * long.0
    }

    /// Whether more is in flight than a rise of arrivals explains. After one, completions stay
    /// behind for as long as calls take, and no more than arrive in that time are in flight.
    /// Arrivals whose callers went count off: callers that give up soon keep few in flight.
    pub(super) fn queue(&self, in_flight: u32, mean: f64) -> bool {
        let intervals = LATELY.min(self.filled).max(1);
        let left: u32 = (0..intervals)
            .map(|back| self.ended[(self.newest + INTERVALS - back) % INTERVALS].left)
            .sum();
        let stay = (self.sums(intervals).0 - f64::from(left)).max(0.0);
        let arrive = stay / (INTERVAL.as_secs_f64() * intervals as f64) * mean;
        f64::from(in_flight) > QUEUED * arrive + DEVIATIONS * arrive.sqrt()
    }

    pub(super) fn completions_per_second(&self) -> f64 {
        self.rate(INTERVALS)
    }

    pub(super) fn completions_per_second_lately(&self) -> f64 {
        self.rate(LATELY)
    }

    fn rate(&self, intervals: usize) -> f64 {
        let intervals = intervals.min(self.filled).max(1);
        self.sums(intervals).1 / (INTERVAL.as_secs_f64() * intervals as f64)
    }

    fn sums(&self, intervals: usize) -> (f64, f64) {
        (0..intervals).fold((0.0, 0.0), |(arrived, completed), back| {
            let interval = self.ended[(self.newest + INTERVALS - back) % INTERVALS];
            (
                arrived + f64::from(interval.arrived),
                completed + f64::from(interval.completed),
            )
        })
    }
}

/// Whether fewer completed than arrived by more than this part and chance.
fn clearly_fewer((arrived, completed): (f64, f64), part: f64) -> bool {
    let chance = DEVIATIONS * (arrived + completed).sqrt();
    arrived - completed > part * arrived + chance
}
