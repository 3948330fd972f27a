//! A caller that holds back by itself.
//!
//! A refusal costs the server something as well. Whoever is refused more than half of what
//! he asks for asks for less, and keeps asking for a little, so that he notices when it is
//! over.

use std::time::{Duration, Instant};

use crate::balance::unit;
use crate::breaker::Window;

/// How long an answer counts.
const INTERVAL: Duration = Duration::from_secs(10);

/// Nothing is held back before. Refusals come at once and answers take as long as calls
/// wait, so the first moments look worse than it is.
const FIRST: Duration = Duration::from_secs(1);

/// One per backend and class: what is refused to others says nothing of the class that is
/// let in before them.
#[derive(Debug)]
pub struct Throttle {
    /// Requests, and those of them that were refused, here or by the server.
    requests: Window,
    began: Instant,
}

impl Throttle {
    /// As of the first refusal: before, nothing has to be counted.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            requests: Window::new(now),
            began: now,
        }
    }

    /// Whether a request is refused here, with `overload`: with probability
    /// max(0, (sent - 2 x accepted) / (sent + 1)). Those that are refused count as sent,
    /// or the probability would fall with what is held back. `random` is uniform over all
    /// of `u64`.
    pub fn refuses(&mut self, now: Instant, random: u64) -> bool {
        if now.saturating_duration_since(self.began) < FIRST {
            return false;
        }
        let sum = self.requests.sum(now, INTERVAL);
        let sent = f64::from(sum.sent);
        let accepted = sent - f64::from(sum.failed);
        let refuses = unit(random) < (sent - 2.0 * accepted) / (sent + 1.0);
        if refuses {
            self.requests.add(now, INTERVAL, 1, 1);
        }
        refuses
    }

    /// What was sent was answered; `overloaded`: with the refusal `overload`.
    pub fn record(&mut self, now: Instant, overloaded: bool) {
        self.requests.add(now, INTERVAL, 1, overloaded.into());
    }

    /// Whether nothing was refused lately, so that there is nothing to remember.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.requests.sum(now, INTERVAL).failed == 0
    }
}
