//! Whether the server at one address reads the bodies of requests, as far as that shows.
//!
//! A server reads a body or closes the connection (RFC 9112, 9.3). Some leave it where it is
//! and take it for the beginning of the next request. A caller with a connection of its own
//! bears that itself; on a pooled one somebody else would. So a body is followed by requests
//! alone that can be sent again, until some of these were served well; and where one was not,
//! or was answered before anybody asked, each request with a body has a connection of its own.
//!
//! What is not known is not proven, so all of this may be forgotten at any time.
//!
//! Invariant: time is an argument.

use std::time::{Duration, Instant};

/// So many requests that were served well behind bodies prove that the server reads these.
const PROVEN: u8 = 3;
/// One that left a body is trusted with none for so long.
const DISTRUST: Duration = Duration::from_secs(3600);

/// How requests fared that followed a body.
#[derive(Debug, Default)]
pub(crate) struct BodyReading {
    served: u8,
    left: Option<Instant>,
    /// Nobody was told yet that it began to.
    news: bool,
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
    pub(crate) const fn is_proven(&self) -> bool {
        self.served >= PROVEN
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

    use super::{BodyReading, DISTRUST, PROVEN};

    #[test]
    fn a_server_is_proven_by_requests_that_it_understood_behind_bodies() {
        let mut reading = BodyReading::default();
        for _ in 0..PROVEN {
            assert!(!reading.is_proven());
            reading.followed(true);
        }
        assert!(reading.is_proven());
        reading.followed(false);
        assert!(!reading.is_proven());
    }

    #[test]
    fn a_server_that_left_a_body_is_distrusted_for_an_hour() {
        let now = Instant::now();
        let mut reading = BodyReading::default();
        assert!(!reading.leaves(now));
        reading.left(now);
        assert!(reading.take_news() && !reading.take_news());
        let later = now + DISTRUST - Duration::from_secs(1);
        assert!(reading.leaves(later) && !reading.is_proven());
        reading.left(later);
        assert!(!reading.take_news(), "it is known");
        assert!(reading.leaves(now + DISTRUST), "it did so again since");
        assert!(!reading.leaves(later + DISTRUST));
    }
}
