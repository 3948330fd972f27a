//! Metrics of requests for certificates, by how each ended.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Answers to Certify by outcome.
#[derive(Clone, Debug, Default)]
pub struct CertifyMetrics {
    pub(super) answers: Family<OutcomeLabel, Counter<u64, AtomicU64>>,
}

/// How a request for a certificate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertifyResult {
    /// A certificate was issued.
    Issued,
    /// See [`crate::authority::certify::Refusal`] for these.
    BadRequest,
    /// The API server does not accept the token.
    NotAuthenticated,
    /// The token is for another audience.
    WrongAudience,
    /// The token is no service account's.
    NotAServiceAccount,
    /// The token is not bound to a pod.
    NotBound,
    /// The pod is gone.
    PodGone,
    /// Too many at once.
    Overloaded,
    /// Too many of one address or pod.
    Throttled,
    /// The API server could not be queried.
    Unavailable,
    /// A Revocation is about the bearer.
    Revoked,
    /// There is no usable issuer.
    CannotSign,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabel {
    outcome: CertifyResult,
}

impl CertifyResult {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::BadRequest => "bad-request",
            Self::NotAuthenticated => "not-authenticated",
            Self::WrongAudience => "wrong-audience",
            Self::NotAServiceAccount => "not-a-service-account",
            Self::NotBound => "not-bound",
            Self::PodGone => "pod-gone",
            Self::Overloaded => "overloaded",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Revoked => "revoked",
            Self::CannotSign => "cannot-sign",
        }
    }
}

impl EncodeLabelValue for CertifyResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl CertifyMetrics {
    /// Counts one answer.
    pub fn count(&self, outcome: CertifyResult) {
        self.answers.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Answers with this outcome so far.
    pub fn answers(&self, outcome: CertifyResult) -> u64 {
        self.answers.get_or_create(&OutcomeLabel { outcome }).get()
    }
}
