//! The certificate of the own pod and the trusted roots, as handshakes use them.
//!
//! The snapshot decides about connections that stand, and handshakes look for themselves. Here both
//! get the same.

use std::sync::Arc;

use identity::Roots;
use identity::tls::{CertHandle, Leaf};

use crate::config::snapshot::Snapshot;

/// The own pod, as it proves itself and believes others.
#[derive(Debug, Default)]
pub(super) struct OwnPod {
    certs: CertHandle,
    /// None: of a proxy without connections.
    roots: Option<Roots>,
}

impl OwnPod {
    pub(super) const fn new(certs: CertHandle, roots: Roots) -> Self {
        Self {
            certs,
            roots: Some(roots),
        }
    }

    /// The certificate in use.
    pub(super) fn leaf(&self) -> Option<Arc<Leaf>> {
        self.certs.current()
    }

    /// What a snapshot that is about to be used is for the own pod, and for handshakes.
    pub(super) fn settle(&self, before: &Snapshot, next: &mut Snapshot) {
        let leaf = self.leaf();
        next.prove_pod(leaf.as_ref().and_then(|leaf| leaf.identity().pod_uid()));
        if before.revocations != next.revocations
            && let Some(roots) = &self.roots
        {
            roots.revoke(next.revocations.clone());
        }
    }
}
