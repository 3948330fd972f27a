//! Streams in the breaker: responses whose head was received and whose end decides how the call
//! counts. The end of a stream comes hours later, or never.
//!
//! A response that has lasted for a second shows as much as one that has ended well: the call
//! counts as a success then, and its end does not count again. By their ends alone streams would
//! count only where they fail, and a breaker would open when a server restarts and never see a
//! probe succeed.
//!
//! Only numbers are kept, by when the responses started, so their number has no bound and
//! none has to wait for another.

use std::time::{Duration, Instant};

/// How exactly it is known when an answer began.
const INTERVAL: Duration = Duration::from_millis(100);

/// After so many intervals an answer has lasted, and one more that is just filling.
const INTERVALS: usize = 11;

/// A response that has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    pub(super) since: Instant,
    pub(super) probe: bool,
}

/// How many responses have started of late and have not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    /// The current interval first.
    started: [u32; INTERVALS],
    /// Which one that is, from `start` on.
    current: u64,
    start: Instant,
}

impl Streams {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            started: [0; INTERVALS],
            current: 0,
            start: now,
        }
    }

    /// One begins, after [`Streams::lasted`] at the same moment.
    pub(super) const fn begin(&mut self) {
        self.started[0] = self.started[0].saturating_add(1);
    }

    /// How many have lasted since this was asked last.
    pub(super) fn lasted(&mut self, now: Instant) -> u32 {
        let current = self.interval(now).max(self.current);
        let passed = usize::try_from(current - self.current).unwrap_or(INTERVALS);
        let passed = passed.min(INTERVALS);
        self.current = current;
        self.started.rotate_right(passed);
        let old = &mut self.started[..passed];
        let lasted = old.iter().fold(0, |sum: u32, one| sum.saturating_add(*one));
        old.fill(0);
        lasted
    }

    /// One that began then has ended. Whether that counts: it had not lasted.
    pub(super) fn end(&mut self, now: Instant, since: Instant) -> bool {
        if since < self.start {
            // It began when another one counted.
            return now.saturating_duration_since(since) < INTERVAL * INTERVALS as u32;
        }
        let began = self.interval(since);
        if self.interval(now).saturating_sub(began) >= INTERVALS as u64 {
            return false;
        }
        let at = usize::try_from(self.current.saturating_sub(began)).unwrap_or(INTERVALS);
        if let Some(started) = self.started.get_mut(at) {
            *started = started.saturating_sub(1);
        }
        true
    }

    /// Whether none has started of late.
    pub(super) fn are_none(&self) -> bool {
        self.started == [0; INTERVALS]
    }

    fn interval(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        u64::try_from(since.as_nanos() / INTERVAL.as_nanos()).unwrap_or(u64::MAX)
    }
}
