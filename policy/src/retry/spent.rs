//! Requests below which a retry was made in vain, by trace id.
//!
//! Where applications hand on no context, the trace id is what ties an outgoing call to
//! the request that it was made for. Only failures are remembered, and for ten seconds: a
//! trace id is a name that anybody may choose, and it must not keep others from retrying
//! for longer than one bad answer takes to travel up.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Longer than an answer takes to its caller.
pub const KEPT: Duration = Duration::from_secs(10);

/// Failures remembered; 32 bytes each, in two places. Beyond, the oldest make room.
pub const MOST: usize = 10_000;

/// Trace ids of requests that are marked.
#[derive(Debug, Default)]
pub struct Spent {
    until: HashMap<u128, Instant>,
    order: VecDeque<(Instant, u128)>,
}

impl Spent {
    pub fn mark(&mut self, trace: u128, now: Instant) {
        self.forget(now);
        while self.order.len() >= MOST {
            self.drop_oldest();
        }
        let until = now + KEPT;
        self.until.insert(trace, until);
        self.order.push_back((until, trace));
    }

    /// Whether a request of this trace was marked lately.
    #[must_use]
    pub fn is_marked(&self, trace: u128, now: Instant) -> bool {
        self.until.get(&trace).is_some_and(|until| now < *until)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.until.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
    }

    /// A trace that was marked again has a later entry, which keeps it.
    fn drop_oldest(&mut self) {
        if let Some((until, trace)) = self.order.pop_front()
            && self.until.get(&trace) == Some(&until)
        {
            self.until.remove(&trace);
        }
    }
}
