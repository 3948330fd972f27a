//! The health signal of one attempt, by its response or by how it was lost, and the responses of an
//! endpoint in the last ten seconds, in 40 bytes.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::reason::Reason;
use crate::traffic::endpoint::Ejection;

/// What an attempt showed of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthSignal {
    Good,
    /// Reset, out of time, or an answer that counts as a failure.
    Failed,
    /// No connection, or no TLS.
    Unreachable,
    /// The head of a response that goes on: how good it is shows later.
    Reached,
}

impl HealthSignal {
    #[must_use]
    pub fn of_status(status: StatusCode, settings: &Ejection) -> Self {
        if settings.codes.contains(status) {
            Self::Failed
        } else {
            Self::Good
        }
    }

    /// By `grpc-status`: UNAVAILABLE alone is about the server.
    #[must_use]
    pub const fn of_grpc(code: u8) -> Self {
        if code == 14 { Self::Failed } else { Self::Good }
    }

    /// Of an attempt that a proxy ended. `None`: it shows nothing of the endpoint.
    #[must_use]
    pub const fn of_refusal(reason: Reason) -> Option<Self> {
        match reason {
            Reason::ConnectFailed | Reason::TlsFailed => Some(Self::Unreachable),
            Reason::ConnectionLost => Some(Self::Failed),
            Reason::NotAllowed
            | Reason::NoIdentity
            | Reason::NoBackend
            | Reason::NoEndpoint
            | Reason::UnknownDestination
            | Reason::NoConfiguration
            | Reason::BadRequest
            | Reason::Deadline
            | Reason::Limit
            | Reason::Overload
            | Reason::CircuitOpen
            | Reason::ShadowWrite
            | Reason::NoRoute
            | Reason::InvalidBackend
            | Reason::InvalidRoute
            | Reason::EgressDenied
            | Reason::Revoked => None,
        }
    }
}

const INTERVALS: usize = 5;
const INTERVAL: Duration = Duration::from_secs(2);

/// Answers, and those of them that were failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    pub answers: u32,
    pub failures: u32,
}

impl Recent {
    /// From 0 to 1; 0 without answers.
    #[must_use]
    pub fn rate(self) -> f64 {
        f64::from(self.failures) / f64::from(self.answers.max(1))
    }
}

impl std::ops::Add for Recent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            answers: self.answers.saturating_add(other.answers),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

/// Counts by intervals of two seconds; the oldest is dropped as a whole, so the window is
/// between eight and ten seconds long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Answers and failures, the current interval first.
    intervals: [(u16, u16); INTERVALS],
    /// When the current interval began.
    began: Instant,
}

impl Window {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            intervals: [(0, 0); INTERVALS],
            began: now,
        }
    }

    pub(super) fn add(&mut self, now: Instant, failed: bool) {
        let passed = self.passed(now);
        if passed > 0 {
            self.intervals.rotate_right(passed.min(INTERVALS));
            self.intervals[..passed.min(INTERVALS)].fill((0, 0));
            self.began = if passed < INTERVALS {
                self.began + INTERVAL * passed as u32
            } else {
                now
            };
        }
        let (answers, failures) = &mut self.intervals[0];
        // What an interval cannot hold is left out of both, so that the rate stays.
        if *answers < u16::MAX {
            *answers += 1;
            *failures += u16::from(failed);
        }
    }

    pub(super) fn sum(&self, now: Instant) -> Recent {
        let left = INTERVALS.saturating_sub(self.passed(now));
        let intervals = self.intervals[..left].iter();
        intervals.fold(Recent::default(), |sum, (answers, failures)| {
            sum + Recent {
                answers: (*answers).into(),
                failures: (*failures).into(),
            }
        })
    }

    /// Intervals that ended since the current one began.
    fn passed(&self, now: Instant) -> usize {
        let since = now.saturating_duration_since(self.began);
        (since.as_millis() / INTERVAL.as_millis()) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::HealthSignal::{Failed, Good, Unreachable};
    use super::*;
    use crate::traffic::set::Statuses;

    #[test]
    fn what_the_mesh_answered_says_nothing_of_the_endpoint() {
        for reason in Reason::ALL {
            let expected = match reason {
                Reason::ConnectFailed | Reason::TlsFailed => Some(Unreachable),
                Reason::ConnectionLost => Some(Failed),
                _ => None,
            };
            assert_eq!(HealthSignal::of_refusal(reason), expected, "{reason}");
        }
        let settings = Ejection {
            codes: Statuses::of(&[500]),
            ..Ejection::DEFAULT
        };
        assert_eq!(
            HealthSignal::of_status(StatusCode::INTERNAL_SERVER_ERROR, &settings),
            Failed
        );
        assert_eq!(
            HealthSignal::of_status(StatusCode::SERVICE_UNAVAILABLE, &settings),
            Good
        );
        assert_eq!(HealthSignal::of_grpc(14), Failed);
        assert!(
            (0..=16)
                .filter(|code| *code != 14)
                .all(|code| HealthSignal::of_grpc(code) == Good)
        );
    }
}
