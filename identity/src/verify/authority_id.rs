//! `AuthorityId`: identifies the authority that signed a certificate, by a hash of sixteen bytes.
//!
//! The hash is of the signer's name and key, and of nothing else in its certificate: a verifier
//! finds the signer of a leaf by exactly these two. A hash of the whole certificate would not do.
//! A peer presents its issuer's certificate itself, and an ECDSA signature has two valid forms, so
//! it could choose between two hashes; and an authority that is renewed with its key stays the
//! same one.

use std::array::TryFromSliceError;
use std::fmt;

use rustls_pki_types::CertificateDer;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;

/// Bytes of the hash that are kept.
const LENGTH: usize = 16;

/// The first bytes of the SHA-256 of an authority's name and public key (DER of `subject`, then
/// of `subjectPublicKeyInfo`). Written in lower hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityId([u8; LENGTH]);

impl AuthorityId {
    /// Of the authority that has this certificate.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut hash = Sha256::new();
        hash.update(certificate.subject().as_raw());
        hash.update(certificate.public_key().raw);
        let mut id = [0; LENGTH];
        id.copy_from_slice(&hash.finalize()[..LENGTH]);
        Self(id)
    }

    /// Of the authority that has this certificate; none where it cannot be read.
    #[must_use]
    pub fn of_der(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(Self::of(&parsed))
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

impl fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<[u8; LENGTH]> for AuthorityId {
    fn from(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }
}

/// As proxies and replicas send it.
impl TryFrom<&[u8]> for AuthorityId {
    type Error = TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, TryFromSliceError> {
        <[u8; LENGTH]>::try_from(bytes).map(Self)
    }
}

impl Serialize for AuthorityId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AuthorityId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let malformed = || D::Error::custom("an authority is 32 hex digits");
        if text.len() != 2 * LENGTH || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let number = u128::from_str_radix(&text, 16).map_err(|_| malformed())?;
        Ok(Self(number.to_be_bytes()))
    }
}
