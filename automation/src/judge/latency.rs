//! Which calls are too slow: the threshold that a check counts by, and the calls beyond it, of
//! which some have not ended yet.

use std::time::Duration;

use policy::latency::Histogram;

use super::Counts;

/// A bucket of [`policy::latency`]: what ends in it or before is quick enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold {
    bucket: usize,
}

/// Cumulative counts of one pod since its proxy began to report them early.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Calls by time to the head of the response.
    pub latency: &'a Histogram,
    /// Calls that their caller cancelled before that.
    pub cancelled: u64,
    /// Calls that wait for it now.
    pub open: u64,
}

/// The calls of one pod, from look to look.
#[derive(Clone, Debug, Default)]
pub struct SlowCalls {
    _private: (),
}

impl SlowCalls {
    /// Calls that have become quick or slow since the look before. None at the first look, after
    /// another threshold, and when the pod counts anew.
    pub fn look(&mut self, _now: Duration, _sample: Sample<'_>, _threshold: Threshold) -> Counts {
        Counts::default()
    }
}

/// The stable set's latencies of the last 60 s.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    _private: (),
}

impl Recent {
    /// Adds the calls since the look before.
    pub fn add(&mut self, _now: Duration, _new: &Histogram) {}

    /// All of the last 60 s; `None` while these are fewer than 100 calls.
    #[must_use]
    pub fn histogram(&self, _now: Duration) -> Option<Histogram> {
        None
    }
}
