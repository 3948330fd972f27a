//! The authorities whose certificates keep open connections valid while a stolen root is replaced.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(issuers: &[&[u8]]) -> v1::Bundle {
        v1::Bundle {
            end_others: true,
            issuers: issuers.iter().map(|one| one.to_vec()).collect(),
            ..v1::Bundle::default()
        }
    }

    #[test]
    fn bundle_without_issuers_ends_no_connection() {
        assert_eq!(Vouched::read(&ending(&[])), Ok(Vouched::default()));
        let kept = v1::Bundle {
            end_others: false,
            ..ending(&[&[1; 16]])
        };
        assert_eq!(Vouched::read(&kept), Ok(Vouched::default()));
        assert_ne!(Vouched::read(&ending(&[&[1; 16]])), Ok(Vouched::default()));
    }

    #[test]
    fn bundle_with_malformed_issuer_is_refused() {
        let read = Vouched::read(&ending(&[&[1; 16], &[1; 15]]));
        assert_eq!(read, Err("an issuer of 15 bytes, not 16".to_owned()));
    }
}
