//! Counts the calls that are too slow for a check of latency, of which some have not ended yet, and
//! chooses the threshold.
//!
//! A candidate that never answers ends no call. So a call that waits for longer than the threshold
//! is slow already, and it is not counted again when it ends.

use std::collections::VecDeque;
use std::time::Duration;

use policy::latency::{BOUNDS, Histogram};
use serde::{Deserialize, Serialize};

use super::Counts;

/// What the stable set's percentile is read from.
const WINDOW: Duration = Duration::from_secs(60);
const ENOUGH_CALLS: u64 = 100;
/// Calls within one are kept together, so that a window has so many parts.
const PART: Duration = Duration::from_secs(1);

/// A bucket of [`policy::latency`]: what ends in it or before is quick enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Threshold {
    bucket: usize,
}

impl Threshold {
    /// The first bound that is not below this time. `None`: it is beyond the last bound of 30 s,
    /// so no bucket keeps quick and slow calls apart.
    #[must_use]
    pub fn at(seconds: f64) -> Option<Self> {
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        (bucket < BOUNDS.len()).then_some(Self { bucket })
    }

    /// For a check by this percentile, which may be `tolerance` above that of these calls.
    #[must_use]
    pub fn above(stable: &Histogram, percentile: u8, tolerance: f64) -> Option<Self> {
        let seconds = stable.quantile(f64::from(percentile) / 100.0)?;
        Self::at(seconds * (1.0 + tolerance))
    }

    /// The time itself.
    #[must_use]
    pub fn seconds(self) -> f64 {
        BOUNDS.get(self.bucket).copied().unwrap_or(f64::INFINITY)
    }

    /// Calls that are quick enough, and those that are not.
    fn split(self, histogram: &Histogram) -> (u64, u64) {
        let counts = histogram.counts();
        let (quick, slow) = counts.split_at(counts.len().min(self.bucket.saturating_add(1)));
        let sum = |counts: &[u64]| counts.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
        (sum(quick), sum(slow))
    }
}

/// How far the candidate's share of slow calls may be above the stable set's: half of what the
/// percentile leaves, 0.5 points for 99.
#[must_use]
pub fn tolerance(percentile: u8) -> f64 {
    f64::from(100_u8.saturating_sub(percentile)) / 200.0
}

/// The largest share of calls that may be slower than a bound of the percentile itself.
#[must_use]
pub fn share(percentile: u8) -> f64 {
    f64::from(100_u8.saturating_sub(percentile)) / 100.0
}

/// Cumulative counts of one pod since its proxy began to report them early.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Calls by time to the head of the response.
    pub latency: &'a Histogram,
    /// Calls that their caller cancelled before that.
    pub cancelled: u64,
    /// Calls that wait for it now, by the time for which they have waited at least.
    pub waiting: &'a Histogram,
}

/// The calls of one pod, from look to look.
#[derive(Clone, Debug, Default)]
pub struct SlowCalls {
    last: Option<Last>,
}

/// What was counted up to the last look. Slow calls never get fewer: one that was overdue is
/// missing for a moment where its response has started and not ended.
#[derive(Clone, Copy, Debug)]
struct Last {
    threshold: Threshold,
    ended: u64,
    quick: u64,
    slow: u64,
}

impl SlowCalls {
    /// Calls that have become quick or slow since the look before. None at the first look, after
    /// another threshold, and when the pod counts anew.
    pub fn look(&mut self, sample: Sample<'_>, threshold: Threshold) -> Counts {
        let (quick, ended_slow) = threshold.split(sample.latency);
        let (_, overdue) = threshold.split(sample.waiting);
        let slow = ended_slow.saturating_add(sample.cancelled);
        let now = Last {
            threshold,
            ended: quick.saturating_add(slow),
            quick,
            slow: slow.saturating_add(overdue),
        };
        // Fewer calls have ended than before: the proxy counts from 0 again.
        let goes_on = |last: &Last| last.threshold == threshold && last.ended <= now.ended;
        let Some(last) = self.last.filter(goes_on) else {
            self.last = Some(now);
            return Counts::default();
        };
        let slow = now.slow.max(last.slow);
        self.last = Some(Last { slow, ..now });
        let bad = slow.saturating_sub(last.slow);
        Counts {
            calls: quick.saturating_sub(last.quick).saturating_add(bad),
            bad,
        }
    }
}

/// The stable set's latencies of the last 60 s.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    /// When each part started, the oldest first.
    parts: VecDeque<(Duration, Histogram)>,
}

impl Recent {
    /// Adds the calls since the look before.
    pub fn add(&mut self, now: Duration, new: &Histogram) {
        self.parts.retain(|(start, _)| now < *start + WINDOW);
        match self.parts.back_mut() {
            Some((start, part)) if now < *start + PART => part.add(new.counts().iter().copied()),
            Some(_) | None => self.parts.push_back((now, new.clone())),
        }
    }

    /// All of the last 60 s; `None` while these are fewer than 100 calls.
    #[must_use]
    pub fn histogram(&self, now: Duration) -> Option<Histogram> {
        let mut sum = Histogram::default();
        let recent = self.parts.iter().filter(|(start, _)| now < *start + WINDOW);
        for (_, part) in recent {
            sum.add(part.counts().iter().copied());
        }
        (sum.total() >= ENOUGH_CALLS).then_some(sum)
    }
}
