//! The private key of a workload. It is made in memory, has no way to be
//! written by this crate's users, and does not appear in debug output.

use std::fmt;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

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
mod tests {
    use super::*;

    #[test]
    fn debug_output_holds_no_key() {
        let key = LeafKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "LeafKey { .. }");
    }
}
