//! What an attempt shows of its endpoint, by its answer or by how it was lost.

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
            | Reason::ShadowWrite => None,
        }
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
