//! The reasons why a pod gets no certificate: the message that its proxy gets, and the label by
//! which it is counted.

use std::time::Duration;

use crate::authority::SigningError;
use crate::metrics::CertifyResult;
use crate::settings::AUDIENCE;

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Missing or oversized token or request.
    #[error("the request is not usable: {0}")]
    BadRequest(String),
    /// The API server does not accept the token.
    #[error("the API server does not accept the token: {0}")]
    NotAuthenticated(String),
    /// The token is for another audience.
    #[error("the token is not for audience {AUDIENCE}")]
    WrongAudience,
    /// The token is no pod's.
    #[error("the token belongs to {0:?}, which is no service account")]
    NotAServiceAccount(String),
    /// The token is not bound to a pod.
    #[error("the token is not bound to a pod: it must be a projected one")]
    NotBound,
    /// The pod is gone.
    #[error("pod {0} of the token does not exist any more")]
    PodGone(String),
    /// Too many at once.
    #[error("too many requests at once, try again")]
    Overloaded,
    /// Too many of one caller.
    #[error("{who} requests certificates too often, try again in {} ms", wait.as_millis())]
    Throttled {
        /// An address or a pod.
        who: String,
        /// When it may request again.
        wait: Duration,
    },
    /// The API server could not be queried.
    #[error("the API server could not be reached, try again: {0}")]
    Unavailable(String),
    /// A Revocation is about the account, the pod or its node.
    #[error("{by} revokes {who}: no certificate is issued until it is deleted")]
    Revoked {
        /// The pod.
        who: String,
        /// The object.
        by: String,
    },
    /// There is no authority to sign with.
    #[error("certificates cannot be signed now, try again: {0}")]
    CannotSign(String),
}

impl From<SigningError> for Refusal {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::BadRequest(why) => Self::BadRequest(why),
            SigningError::Unavailable(why) => Self::CannotSign(why),
        }
    }
}

impl Refusal {
    /// The label under which it is counted.
    pub fn outcome(&self) -> CertifyResult {
        match self {
            Self::BadRequest(_) => CertifyResult::BadRequest,
            Self::NotAuthenticated(_) => CertifyResult::NotAuthenticated,
            Self::WrongAudience => CertifyResult::WrongAudience,
            Self::NotAServiceAccount(_) => CertifyResult::NotAServiceAccount,
            Self::NotBound => CertifyResult::NotBound,
            Self::PodGone(_) => CertifyResult::PodGone,
            Self::Overloaded => CertifyResult::Overloaded,
            Self::Throttled { .. } => CertifyResult::Throttled,
            Self::Unavailable(_) => CertifyResult::Unavailable,
            Self::Revoked { .. } => CertifyResult::Revoked,
            Self::CannotSign(_) => CertifyResult::CannotSign,
        }
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::BadRequest(_) => Self::invalid_argument(message),
            Refusal::NotAuthenticated(_) | Refusal::WrongAudience => Self::unauthenticated(message),
            Refusal::NotAServiceAccount(_)
            | Refusal::NotBound
            | Refusal::PodGone(_)
            | Refusal::Revoked { .. } => Self::permission_denied(message),
            Refusal::Overloaded | Refusal::Throttled { .. } => Self::resource_exhausted(message),
            Refusal::Unavailable(_) | Refusal::CannotSign(_) => Self::unavailable(message),
        }
    }
}
