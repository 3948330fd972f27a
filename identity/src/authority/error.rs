//! Errors of the certificate authority: why it is not usable, and why it issues no certificate.

use crate::request::{BadRequest, KeyError, RequestError};
use crate::verify::IdentityError;

/// Why an authority could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum BadAuthority {
    #[error("the certificate is not one PEM certificate")]
    Certificate,
    #[error("the key is not a PEM private key of a kind that can sign")]
    Key,
    #[error("the key does not belong to the certificate")]
    KeyMismatch,
    #[error("the certificate may not issue others")]
    NotAnAuthority,
    #[error("certificates of this authority would be refused")]
    NotTrusted(#[source] IdentityError),
    #[error("a probe certificate could not be issued")]
    Probe(#[source] IssueError),
    #[error("the time is out of range")]
    Time,
    #[error("the authority could not be made")]
    Generate(#[source] rcgen::Error),
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Request(#[from] BadRequest),
    #[error("{0:?} cannot stand in a certificate")]
    Name(String),
    #[error("the issuer is not valid now")]
    IssuerNotValid,
    #[error("the requested life is out of range")]
    Life,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    OwnRequest(#[from] RequestError),
    #[error("the certificate could not be signed")]
    Sign(#[source] rcgen::Error),
}
