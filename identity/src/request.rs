//! A workload's private key, and certificate signing requests, of which only the public key is
//! used.
//!
//! The key is made in memory, no user of this crate can write it out, and it does not appear in
//! debug output.
//!
//! A request may contain anything: the claim to be an authority, other names, other purposes. None
//! of it is read. What is checked is that the sender holds the private key (the request's own
//! signature) and that the key is P-256; the kind is checked first, so that no sender makes this
//! process verify a huge RSA key.

use std::fmt;

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use webpki::aws_lc_rs::ECDSA_P256_SHA256;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::FromDer;

/// Largest request in bytes. One with a P-256 key and no names has about 200;
/// the rest is room for clients that say more than they need to.
pub(crate) const MAX_REQUEST: usize = 4 * 1024;

/// An uncompressed P-256 point: a tag and two coordinates.
const POINT_LENGTH: usize = 65;
const UNCOMPRESSED: u8 = 4;

/// Why a signing request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error("the request has more than {MAX_REQUEST} bytes")]
    TooLarge,
    #[error("the request is not a DER certificate signing request")]
    Malformed,
    #[error("the key of the request is not P-256 with SHA-256")]
    WrongKey,
    #[error("the request is not signed by its own key")]
    BadSignature,
}

/// The request could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("the signing request could not be made")]
pub struct RequestError(#[source] rcgen::Error);

impl LeafKey {
    /// A signing request for this key, in DER. It requests no name: the names in the
    /// certificate follow from the token that goes with it.
    ///
    /// # Errors
    /// When signing fails.
    pub fn csr(&self) -> Result<Vec<u8>, RequestError> {
        let mut wish = CertificateParams::default();
        wish.distinguished_name = DistinguishedName::new();
        let request = wish.serialize_request(self.pair()).map_err(RequestError)?;
        Ok(request.der().to_vec())
    }
}

/// The public key of a request whose signature proves that its sender holds the
/// private one.
pub(crate) fn public_key(csr_der: &[u8]) -> Result<rcgen::SubjectPublicKeyInfo, BadRequest> {
    if csr_der.len() > MAX_REQUEST {
        return Err(BadRequest::TooLarge);
    }
    let (rest, request) =
        X509CertificationRequest::from_der(csr_der).map_err(|_| BadRequest::Malformed)?;
    if !rest.is_empty() {
        return Err(BadRequest::Malformed);
    }
    let info = &request.certification_request_info;
    let key = rcgen::SubjectPublicKeyInfo::from_der(info.subject_pki.raw)
        .map_err(|_| BadRequest::WrongKey)?;
    let point = key.der_bytes();
    let is_p256 = key.algorithm() == &PKCS_ECDSA_P256_SHA256
        && point.len() == POINT_LENGTH
        && point.first() == Some(&UNCOMPRESSED);
    if !is_p256 || request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        return Err(BadRequest::WrongKey);
    }
    ECDSA_P256_SHA256
        .verify_signature(point, info.raw, &request.signature_value.data)
        .map_err(|_| BadRequest::BadSignature)?;
    Ok(key)
}

/// A P-256 key for one certificate.
pub struct LeafKey {
    pair: KeyPair,
}

/// The system could not make a key.
#[derive(Debug, thiserror::Error)]
#[error("a key could not be made")]
pub struct KeyError(#[source] rcgen::Error);

impl LeafKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(KeyError)?;
        Ok(Self { pair })
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    /// The key for rustls.
    pub(crate) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }
}

impl fmt::Debug for LeafKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
