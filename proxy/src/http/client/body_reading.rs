//! Whether the server at one address reads the bodies of requests, as far as that shows.
//!
//! A server reads a body or closes the connection (RFC 9112, 9.3). Some leave it where it is
//! and take it for the beginning of the next request. A caller with a connection of its own
//! bears that itself; on a pooled one somebody else would. So where a request that followed a
//! body was not understood, which may have been its own fault, only those follow bodies that
//! can be sent again, until some were served well. And where it was understood on a connection
//! of its own, or the body was answered as a request, each body has a connection of its own.
//!
//! All of this may be forgotten at any time: what it costs is one more request to be sent again.
//!
//! Invariant: time is an argument.

use std::time::{Duration, Instant};

/// So many requests that were served well behind bodies clear a server of a doubt.
const CLEARED: u8 = 3;
/// One that left a body is trusted with none for so long.
const DISTRUST: Duration = Duration::from_secs(3600);

/// How requests fared that followed a body.
#[derive(Debug)]
pub(crate) struct BodyReading {
    /// Well, one after another.
    served: u8,
    left: Option<Instant>,
    /// Nobody was told yet that it began to.
    news: bool,
}

impl Default for BodyReading {
    fn default() -> Self {
        Self {
            served: CLEARED,
            left: None,
            news: false,
        }
    }
}

impl BodyReading {
    /// A request that followed a body was served as any other, or was not understood, which
    /// may have been its own fault.
    pub(crate) const fn followed(&mut self, understood: bool) {
        self.served = if understood {
            self.served.saturating_add(1)
        } else {
            0
        };
    }

    /// The server left a body.
    pub(crate) fn left(&mut self, now: Instant) {
        *self = Self {
            served: 0,
            left: Some(now),
            news: self.news || !self.leaves(now),
        };
    }

    /// Whether it began to leave bodies since this was asked last.
    pub(crate) const fn take_news(&mut self) -> bool {
        std::mem::replace(&mut self.news, false)
    }

    #[must_use]
    pub(crate) const fn is_doubted(&self) -> bool {
        self.served < CLEARED
    }

    #[must_use]
    pub(crate) fn leaves(&self, now: Instant) -> bool {
        self.left
            .is_some_and(|left| now.saturating_duration_since(left) < DISTRUST)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{BodyReading, CLEARED, DISTRUST};

    #[test]
    fn a_server_is_doubted_until_it_understood_requests_behind_bodies() {
        let mut reading = BodyReading::default();
        assert!(!reading.is_doubted());
        reading.followed(false);
        for _ in 0..CLEARED {
            assert!(reading.is_doubted());
            reading.followed(true);
        }
        assert!(!reading.is_doubted());
    }

    #[test]
    fn a_server_that_left_a_body_is_distrusted_for_an_hour() {
        let now = Instant::now();
        let mut reading = BodyReading::default();
        assert!(!reading.leaves(now));
        reading.left(now);
        assert!(reading.take_news() && !reading.take_news());
        let later = now + DISTRUST - Duration::from_secs(1);
        assert!(reading.leaves(later) && reading.is_doubted());
        reading.left(later);
        assert!(!reading.take_news(), "it is known");
        assert!(reading.leaves(now + DISTRUST), "it did so again since");
        assert!(!reading.leaves(later + DISTRUST));
    }
}
