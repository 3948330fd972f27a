//! Errors of peer verification, with a kind for logs and metrics, passed through rustls without
//! loss.

use std::io;
use std::sync::Arc;

use policy::name::SpiffeId;
use policy::origin::Origin;
use rustls::{CertificateError, OtherError};
use rustls_pki_types::UnixTime;

/// Why a peer's certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("no trusted authority issued the certificate")]
    UnknownAuthority,
    #[error("the certificate ended at {} and it is {} (seconds of the Unix clock)", not_after.as_secs(), now.as_secs())]
    Expired { now: UnixTime, not_after: UnixTime },
    #[error("the certificate starts at {} and it is {} (seconds of the Unix clock)", not_before.as_secs(), now.as_secs())]
    NotYetValid { now: UnixTime, not_before: UnixTime },
    #[error("{} is not of trust domain {trusted:?}", presented.as_str())]
    UnknownTrustDomain {
        trusted: String,
        presented: SpiffeId,
    },
    #[error("expected {}, the peer is {}", expected.as_str(), presented.as_str())]
    WrongIdentity {
        expected: SpiffeId,
        presented: SpiffeId,
    },
    #[error("expected pod {expected}, the certificate is of pod {presented:?}")]
    WrongPod { expected: String, presented: String },
    #[error("the certificate carries no identity: {0}")]
    NoIdentity(&'static str),
    #[error("the certificate is not for this side of a connection")]
    WrongPurpose,
    /// `by` is not known of a handshake that failed: TLS has an alert for this, without a text.
    #[error("the certificate is revoked{}", by.as_ref().map_or_else(String::new, named))]
    Revoked { by: Option<Origin> },
    #[error("the peer sent no certificate")]
    NoCertificate,
    #[error("the certificate is malformed: {0}")]
    Malformed(&'static str),
}

fn named(by: &Origin) -> String {
    format!(" by {} {}", by.kind(), by.name())
}

impl IdentityError {
    /// A closed set of names, for metric labels.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::UnknownAuthority => "unknown-authority",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::UnknownTrustDomain { .. } => "unknown-trust-domain",
            Self::WrongIdentity { .. } => "wrong-identity",
            Self::WrongPod { .. } => "wrong-pod",
            Self::NoIdentity(_) => "no-identity",
            Self::WrongPurpose => "wrong-purpose",
            Self::Revoked { .. } => "revoked",
            Self::NoCertificate => "no-certificate",
            Self::Malformed(_) => "malformed",
        }
    }

    /// What our own verifiers said in a failed handshake; None when it failed
    /// for another reason (the peer refused us, or spoke no TLS).
    #[must_use]
    pub(crate) fn from_tls(error: &rustls::Error) -> Option<Self> {
        let certificate = match error {
            rustls::Error::NoCertificatesPresented => return Some(Self::NoCertificate),
            rustls::Error::InvalidCertificate(certificate) => certificate,
            _ => return None,
        };
        Some(match certificate {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::ExpiredContext { time, not_after } => Self::Expired {
                now: *time,
                not_after: *not_after,
            },
            CertificateError::NotValidYetContext { time, not_before } => Self::NotYetValid {
                now: *time,
                not_before: *not_before,
            },
            CertificateError::InvalidPurpose => Self::WrongPurpose,
            CertificateError::Revoked => Self::Revoked { by: None },
            CertificateError::BadEncoding => Self::Malformed("encoding"),
            CertificateError::Other(OtherError(error)) => error.downcast_ref::<Self>()?.clone(),
            _ => return None,
        })
    }

    /// As [`IdentityError::from_tls`], for the error of an asynchronous stream.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<Self> {
        Self::from_tls(error.get_ref()?.downcast_ref()?)
    }
}

/// Where TLS has an alert of the same meaning, the peer gets that alert, so that
/// its log is right too.
impl From<IdentityError> for rustls::Error {
    fn from(error: IdentityError) -> Self {
        Self::InvalidCertificate(match error {
            IdentityError::UnknownAuthority => CertificateError::UnknownIssuer,
            IdentityError::Expired { now, not_after } => CertificateError::ExpiredContext {
                time: now,
                not_after,
            },
            IdentityError::NotYetValid { now, not_before } => {
                CertificateError::NotValidYetContext {
                    time: now,
                    not_before,
                }
            }
            IdentityError::WrongPurpose => CertificateError::InvalidPurpose,
            IdentityError::Revoked { .. } => CertificateError::Revoked,
            IdentityError::NoCertificate => return Self::NoCertificatesPresented,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        })
    }
}

impl From<webpki::Error> for IdentityError {
    fn from(error: webpki::Error) -> Self {
        use webpki::Error;
        match error {
            // A forged issuer shows as a bad signature below a known name, and so does a new
            // authority of the same name; or as an algorithm that the known key cannot have.
            Error::UnknownIssuer
            | Error::InvalidSignatureForPublicKey
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Self::UnknownAuthority,
            Error::CertExpired { time, not_after } => Self::Expired {
                now: time,
                not_after,
            },
            Error::CertNotValidYet { time, not_before } => Self::NotYetValid {
                now: time,
                not_before,
            },
            Error::RequiredEkuNotFoundContext(_) => Self::WrongPurpose,
            Error::CaUsedAsEndEntity => Self::NoIdentity("the certificate is an authority's"),
            Error::EndEntityUsedAsCa | Error::PathLenConstraintViolated => {
                Self::Malformed("issued by something that may not issue")
            }
            Error::MaximumPathBuildCallsExceeded
            | Error::MaximumPathDepthExceeded
            | Error::MaximumSignatureChecksExceeded
            | Error::MaximumNameConstraintComparisonsExceeded => {
                Self::Malformed("the chain costs too much to verify")
            }
            Error::NameConstraintViolation => {
                Self::Malformed("a name that its authority may not give (name constraints)")
            }
            Error::UnsupportedCriticalExtension => Self::Malformed("unknown critical extension"),
            Error::UnsupportedSignatureAlgorithmContext(_) => {
                Self::Malformed("signature algorithm")
            }
            _ => Self::Malformed("not a valid X.509 chain"),
        }
    }
}
