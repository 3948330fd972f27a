//! Requests below which a retry was made in vain, by trace id.
//!
//! Where applications hand on no context, the trace id is what ties an outgoing call to
//! the request that it was made for. Only failures are kept, and for ten seconds: any client
//! may choose a trace id, and it must not keep others from retrying for longer than one bad
//! response takes to travel up.

use std::time::{Duration, Instant};

use crate::expiring_set::ExpiringSet;

/// Longer than an answer takes to its caller.
pub const KEPT: Duration = Duration::from_secs(10);

/// Failures remembered; 32 bytes each, in two places. Beyond, the oldest make room.
pub const MOST: usize = 10_000;

/// Trace ids of requests that are marked.
#[derive(Debug)]
pub struct RetryExhaustedTraces(ExpiringSet<u128>);

impl Default for RetryExhaustedTraces {
    fn default() -> Self {
        Self(ExpiringSet::new(KEPT, MOST))
    }
}

impl RetryExhaustedTraces {
    pub fn mark(&mut self, trace: u128, now: Instant) {
        self.0.note(trace, now);
    }

    /// Whether a request of this trace was marked lately.
    #[must_use]
    pub fn is_marked(&self, trace: u128, now: Instant) -> bool {
        self.0.has(&trace, now)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
