//! Which authority signed a certificate, in sixteen bytes.
//!
//! The hash is of the signer's name and key, and of nothing else in its certificate: a verifier
//! finds the signer of a leaf by exactly these two. A hash of the whole certificate would not do.
//! A peer presents its issuer's certificate itself, and an ECDSA signature has two valid forms, so
//! it could choose between two hashes; and an authority that is renewed with its key stays the
//! same one.

use std::fmt;

use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;

/// Bytes of the hash that are kept.
const LENGTH: usize = 16;

/// The first bytes of the SHA-256 of an authority's name and public key (DER of `subject`, then
/// of `subjectPublicKeyInfo`). Written in lower hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
