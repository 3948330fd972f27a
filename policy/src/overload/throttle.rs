//! The throttle of a caller's proxy, which holds requests to an overloaded backend back.
//!
//! A refusal costs the server something as well. A proxy of whose requests more than half are
//! refused sends fewer, and keeps sending a few, so that it notices when the overload is over.
//!
//! Refusals come at once and responses take as long as calls do. So a call counts as accepted when
//! it is sent, until it is refused: otherwise a server whose calls take two seconds would seem to
//! accept nothing for as long.

use std::time::{Duration, Instant};

use crate::balance::unit;
use crate::breaker::Window;

/// How long an answer counts.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// Nothing is held back before: what was accepted before the first refusal was not counted, and
/// with it half of all that was sent in the last ten seconds is refused after five at the
/// soonest.
const FIRST: Duration = Duration::from_secs(5);

/// It is over where the server has refused nothing for so long, of so many calls.
const OVER_AFTER: Duration = Duration::from_secs(1);
const OVER_CALLS: u32 = 10;

/// One per backend and class: what is refused to others shows nothing of the class that is
/// admitted before them.
#[derive(Debug)]
pub struct Throttle {
    /// Requests, and those of them that were refused, here or by the server.
    requests: Window,
    /// Requests, and those of them that were refused here.
    held_back: Window,
    began: Instant,
    /// When the server refused one last, and how many were sent since.
    refused: Instant,
    sent_since: u32,
}

impl Throttle {
    /// As of the first refusal: before, nothing has to be counted.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            requests: Window::new(now),
            held_back: Window::new(now),
            began: now,
            refused: now,
            sent_since: 0,
        }
    }

    /// Whether a request is refused here, with `overload`: with probability
    /// max(0, (sent - 2 x accepted) / (sent + 1)). Those that are refused count as sent,
    /// or the probability would fall with what is held back. One that is not counts as
    /// accepted from now on. `random` is uniform over all of `u64`.
    pub fn refuses(&mut self, now: Instant, random: u64) -> bool {
        let sum = self.requests.sum(now, INTERVAL);
        let sent = f64::from(sum.sent);
        let accepted = (sent - f64::from(sum.failed)).max(0.0);
        let refuses = now.saturating_duration_since(self.began) >= FIRST
            && unit(random) < (sent - 2.0 * accepted) / (sent + 1.0);
        self.requests.add(now, INTERVAL, 1, refuses.into());
        self.held_back.add(now, INTERVAL, 1, refuses.into());
        if !refuses {
            self.sent_since = self.sent_since.saturating_add(1);
        }
        refuses
    }

    /// What was sent was answered; `overloaded`: with the refusal `overload`. `counted`: by
    /// [`Self::refuses`], when it was sent.
    pub fn record(&mut self, now: Instant, counted: bool, overloaded: bool) {
        let sent = u32::from(!counted);
        self.requests.add(now, INTERVAL, sent, overloaded.into());
        if overloaded {
            (self.refused, self.sent_since) = (now, 0);
        }
    }

    /// The part of the requests of the last ten seconds that was refused here, in percent.
    #[must_use]
    pub fn percent(&self, now: Instant) -> u8 {
        self.held_back.sum(now, INTERVAL).percent()
    }

    /// Whether nothing was refused lately, so that there is nothing to remember.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        let quiet = now.saturating_duration_since(self.refused) >= OVER_AFTER;
        quiet && self.sent_since >= OVER_CALLS || self.requests.sum(now, INTERVAL).failed == 0
    }
}
