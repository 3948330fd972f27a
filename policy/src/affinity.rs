//! Session affinity: how long a client keeps the endpoint that it was given.
//!
//! A session lasts as long as the next call comes within the Service's time. After
//! that another one begins, and with it another *epoch*. The endpoint is chosen by the
//! epoch, so nothing about endpoints needs to be stored here.
//!
//! Invariant: time is an argument.

use std::time::{Duration, Instant};

/// What one client remembers of its calls to one Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    epoch: u64,
    last: Option<Instant>,
}

impl Session {
    /// The epoch of a call at `now`: the one of the call before, unless that was longer
    /// ago than `limit`.
    pub fn call(&mut self, now: Instant, limit: Duration) -> u64 {
        let over = |last: Instant| now.saturating_duration_since(last) > limit;
        if self.last.is_some_and(over) {
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.last = Some(now);
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_is_renewed_by_timely_calls_else_replaced() {
        let (start, limit) = (Instant::now(), Duration::from_secs(30));
        let mut session = Session::default();
        let mut at = |seconds: u64| session.call(start + Duration::from_secs(seconds), limit);
        assert_eq!(at(0), 0);
        assert_eq!(at(30), 0, "each call renews it");
        assert_eq!(at(60), 0);
        assert_eq!(at(91), 1);
        assert_eq!(at(121), 1);
        assert_eq!(at(400), 2, "however long ago");
        // Clocks of two threads may cross.
        assert_eq!(at(399), 2);
    }
}
