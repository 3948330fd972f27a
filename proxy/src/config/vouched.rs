//! Authorities for whose certificates connections stay open, while a stolen root is replaced.
//!
//! A root that is no longer trusted refuses handshakes. Connections that stand made theirs before,
//! so the controller names what signs leaves under the roots that are left.

use std::collections::HashSet;
use std::sync::Arc;

use identity::verify::AuthorityId;
use wire::v1;

/// Those authorities, by their ids; every one of them while no root is replaced so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vouched(Option<Arc<HashSet<[u8; 16]>>>);

/// Why a connection ends that nothing else is wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate of the peer is of an authority that the mesh no longer trusts")]
pub(crate) struct Distrusted;

impl Vouched {
    /// As a bundle has them.
    ///
    /// # Errors
    /// When one of them is no id.
    pub(super) fn read(bundle: &v1::Bundle) -> Result<Self, String> {
        // None would end every connection, and each new one again.
        if !bundle.end_others || bundle.issuers.is_empty() {
            return Ok(Self::default());
        }
        let mut vouched = HashSet::new();
        for issuer in &bundle.issuers {
            let id = <[u8; 16]>::try_from(issuer.as_slice());
            let id = id.map_err(|_| format!("an issuer of {} bytes, not 16", issuer.len()))?;
            vouched.insert(id);
        }
        Ok(Self(Some(Arc::new(vouched))))
    }

    /// Whether connections stay whose peer has a certificate of this authority.
    pub(crate) fn check(&self, authority: &AuthorityId) -> Result<(), Distrusted> {
        match &self.0 {
            Some(vouched) if !vouched.contains(authority.as_bytes()) => Err(Distrusted),
            _ => Ok(()),
        }
    }
}
