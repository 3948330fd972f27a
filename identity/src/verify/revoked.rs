//! The revocations in force, as every verifier of handshakes looks them up.
//!
//! It stands beside the roots: every verifier has these, so no handshake can miss what is revoked.
//! While nothing is, a handshake costs one look.

use std::sync::{Arc, PoisonError, RwLock};

use policy::origin::Origin;
use policy::revoked::Revocations;

use super::error::IdentityError;
use super::peer::PeerIdentity;

/// What is revoked now. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct CurrentRevocations(Arc<RwLock<Option<Arc<Revocations>>>>);

impl CurrentRevocations {
    /// From the next handshake on.
    pub(super) fn replace(&self, revocations: Option<Arc<Revocations>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = revocations;
    }

    fn current(&self) -> Option<Arc<Revocations>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// The object that revokes the certificate of a peer.
    pub(super) fn find(&self, peer: &PeerIdentity) -> Option<Origin> {
        self.current()?.revoked(&peer.facts()).cloned()
    }

    /// Refuses a peer whose certificate is revoked. It is read only where something is.
    pub(super) fn check(
        &self,
        peer: impl FnOnce() -> Result<PeerIdentity, IdentityError>,
    ) -> Result<(), IdentityError> {
        let Some(revocations) = self.current() else {
            return Ok(());
        };
        match revocations.revoked(&peer()?.facts()) {
            None => Ok(()),
            Some(by) => Err(IdentityError::Revoked {
                by: Some(by.clone()),
            }),
        }
    }
}
