//! Whether the server at one address keeps its connections, as far as that shows.
//!
//! A server may close a kept connection at any time, and a request that is on its way
//! in that moment is lost. A caller with a connection of its own would not have lost
//! it. So a request that cannot be sent again uses a pooled connection only where such
//! connections are proven to serve on, and only within half of an idle time that one
//! of them survived: timeouts of servers, whatever they are, end later.
//!
//! What is not known is not proven, so all of this may be forgotten at any time.
//!
//! Invariant: time is an argument.

use std::time::{Duration, Instant};

/// A connection that was still open after this long without a request proves that the
/// server keeps them. One that closes after every answer does it within milliseconds, or
/// a little later where it is loaded.
const SURVIVED: Duration = Duration::from_secs(1);
/// After an unannounced close sooner than that, nothing counts as proven for so long.
const DISTRUST: Duration = Duration::from_secs(60);
/// What nothing was heard of for so long is forgotten.
const REMEMBER: Duration = DISTRUST;

/// How the connections to one address fared.
#[derive(Debug, Default)]
pub(crate) struct KeepAlive {
    /// For how long a connection was idle and still open.
    survived: Duration,
    closed: Option<Instant>,
    heard: Option<Instant>,
}

impl KeepAlive {
    /// A connection was open after it had been idle for so long.
    pub(crate) fn survived(&mut self, idle: Duration, now: Instant) {
        self.survived = self.survived.max(idle);
        self.heard = Some(now);
    }

    /// The server closed a connection that had been idle for so long, unannounced.
    pub(crate) fn closed(&mut self, idle: Duration, now: Instant) {
        self.heard = Some(now);
        if idle < SURVIVED {
            self.closed = Some(now);
            self.survived = Duration::ZERO;
        } else {
            self.survived = self.survived.min(idle);
        }
    }

    /// Whether a request that cannot be sent again may use a connection that has been
    /// idle for so long.
    #[must_use]
    pub(crate) fn is_proven(&self, idle: Duration, now: Instant) -> bool {
        let distrusted = self
            .closed
            .is_some_and(|closed| now.saturating_duration_since(closed) < DISTRUST);
        !distrusted && self.survived >= SURVIVED && idle <= self.survived / 2
    }

    /// The longest idle time that a connection is known to have survived.
    #[must_use]
    pub(crate) const fn longest(&self) -> Duration {
        self.survived
    }

    #[must_use]
    pub(crate) fn is_forgotten(&self, now: Instant) -> bool {
        self.heard
            .is_none_or(|heard| now.saturating_duration_since(heard) >= REMEMBER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::KeepAlive;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_server_is_proven_by_a_connection_that_survives_a_second_of_idleness() {
        let now = Instant::now();
        let mut keeps = KeepAlive::default();
        assert!(!keeps.is_proven(ms(0), now), "unknown");
        keeps.survived(ms(999), now);
        assert!(!keeps.is_proven(ms(0), now));
        keeps.survived(ms(1000), now);
        assert!(keeps.is_proven(ms(0), now));
    }

    #[test]
    fn a_connection_is_used_within_half_the_idle_time_that_one_survived() {
        let now = Instant::now();
        let mut keeps = KeepAlive::default();
        keeps.survived(ms(2800), now);
        assert!(keeps.is_proven(ms(1400), now));
        assert!(!keeps.is_proven(ms(1401), now));
        // An idle timeout, such as the two seconds of gunicorn.
        keeps.closed(ms(2000), now);
        assert!(keeps.is_proven(ms(1000), now));
        assert!(!keeps.is_proven(ms(1001), now));
    }

    #[test]
    fn a_close_soon_after_an_answer_is_remembered_for_a_minute() {
        let start = Instant::now();
        let mut keeps = KeepAlive::default();
        keeps.survived(ms(2800), start);
        keeps.closed(ms(20), start);
        let proofs = start + ms(1000);
        keeps.survived(ms(2800), proofs);
        assert!(!keeps.is_proven(ms(0), start + ms(59_999)));
        assert!(keeps.is_proven(ms(0), start + ms(60_000)));
    }

    #[test]
    fn proofs_from_before_an_early_close_do_not_count_after_it() {
        let start = Instant::now();
        let mut keeps = KeepAlive::default();
        keeps.survived(ms(2800), start);
        keeps.closed(ms(20), start);
        assert!(!keeps.is_proven(ms(0), start + ms(120_000)));
    }

    #[test]
    fn a_silent_minute_is_the_end_of_what_is_remembered() {
        let start = Instant::now();
        let mut keeps = KeepAlive::default();
        assert!(keeps.is_forgotten(start));
        keeps.closed(ms(0), start);
        assert!(!keeps.is_forgotten(start + ms(59_999)));
        assert!(keeps.is_forgotten(start + ms(60_000)));
    }
}
