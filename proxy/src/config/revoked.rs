//! Decides what becomes of open connections, and of the own certificate, when certificates are
//! revoked.
//!
//! Handshakes look for themselves, by what stands beside the roots. What was opened before goes by
//! the snapshot. A certificate that is revoked for good ends everything at once. One that is only
//! older than it may be ends its byte streams at once and takes no further request: those that are
//! under way go on for a few seconds, as where a root is replaced.

use std::sync::Arc;

use identity::tls::Leaf;
use identity::verify::PeerIdentity;
use policy::origin::Origin;
use policy::revoked::{Revocation, Revocations, Revoked, Subject};

use crate::config::snapshot::{Snapshot, Version};
use crate::config::store::Store;

/// Connections of a peer go, and nothing is wrong with them but its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotKept;

impl Snapshot {
    /// Takes what is revoked. Where nothing is, nothing is kept, and a request costs one branch.
    pub(super) fn revoke(&mut self, revocations: Revocations) {
        self.revocations = (!revocations.is_empty()).then(|| Arc::new(revocations));
    }

    /// The same with one Revocation more, until the next stream brings what is revoked.
    fn revoking(&self, one: Revocation) -> Self {
        let mut next = self.clone();
        let mut revocations = self.revocations.as_deref().cloned().unwrap_or_default();
        revocations.add(one);
        next.revoke(revocations);
        let version = Version {
            // No controller's: the first batch of a stream replaces it or drops it.
            version: String::new(),
            bytes: 0,
        };
        next.versions
            .insert(wire::names::REVOCATIONS.to_owned(), version);
        next.policy_revision += 1;
        next
    }

    /// What revokes the certificate of a peer, of which bytes pass no longer.
    pub(crate) fn revoked(&self, peer: &PeerIdentity) -> Option<&Revoked> {
        self.revocations.as_ref()?.find(&peer.facts())
    }

    /// The same where requests of it do not pass either. Else it has a newer certificate or gets
    /// one, and its connections are about to be closed.
    pub(crate) fn revoked_for_good(&self, peer: &PeerIdentity) -> Option<&Revoked> {
        let revoked = self.revoked(peer);
        revoked.filter(|revoked| revoked.issued_before.is_none())
    }

    /// Whether connections stay on which a peer has proved this.
    pub(crate) fn keep(&self, peer: &PeerIdentity) -> Result<(), NotKept> {
        let vouched = self.vouched.check(&peer.certificate.authority);
        match (vouched, self.revoked(peer)) {
            (Ok(()), None) => Ok(()),
            _ => Err(NotKept),
        }
    }
}

impl Store {
    /// What is revoked now.
    pub(crate) fn revocations(&self) -> Option<Arc<Revocations>> {
        self.inspect(|now| now.revocations.clone())
    }

    /// Whether connections stay on which a peer has proved this.
    pub(crate) fn keeps(&self, peer: &PeerIdentity) -> bool {
        self.inspect(|now| now.keep(peer).is_ok())
    }

    /// Whether the certificate of a peer is revoked.
    pub(crate) fn refuses(&self, peer: &PeerIdentity) -> bool {
        self.inspect(|now| now.revoked(peer).is_some())
    }

    /// Whether what a peer has open ends at once.
    pub(crate) fn ends(&self, peer: &PeerIdentity) -> bool {
        self.inspect(|now| now.revoked_for_good(peer).is_some())
    }

    /// The object that revokes the own certificate, if one does.
    pub(crate) fn own_revoked(&self) -> Option<Origin> {
        let leaf = self.own_leaf()?;
        self.inspect(|now| {
            let revoked = now.revoked(leaf.identity());
            revoked.map(|revoked| revoked.by.clone())
        })
    }

    /// The object `by` revokes the own certificate, and no stream could bring that. Only the task
    /// that applies batches may call it.
    pub(crate) fn revoke_own(&self, leaf: &Leaf, by: Origin) {
        let revocation = Revocation {
            subject: Subject::Serial(leaf.identity().certificate.serial.clone()),
            issued_before: None,
            announced: false,
            by,
        };
        self.change(|now| now.revoking(revocation));
    }

    /// Whether what the own pod has open ends at once.
    pub(crate) fn own_ends(&self) -> bool {
        let leaf = self.own_leaf();
        leaf.is_some_and(|leaf| self.ends(leaf.identity()))
    }

    /// Whether the own certificate is to be replaced by one that is issued now: it is revoked, or
    /// about to be, and a newer one is not.
    pub(crate) fn own_is_outdated(&self) -> bool {
        self.own_leaf().is_some_and(|leaf| {
            let own = leaf.identity().facts();
            let revocations = self.revocations();
            revocations.is_some_and(|revocations| {
                revocations.outdates(&own) && revocations.issuance(own.id, own.pod).is_ok()
            })
        })
    }

    /// Whether the own pod may have connections that it opened with an outdated certificate.
    pub(crate) fn own_was_outdated(&self) -> bool {
        self.own_leaf().is_some_and(|leaf| {
            let own = leaf.identity().facts();
            let revocations = self.revocations();
            revocations.is_some_and(|revocations| {
                let issued = revocations.issuance(own.id, own.pod);
                revocations.outdates(&own) || matches!(issued, Ok(Some(_)))
            })
        })
    }

    fn own_leaf(&self) -> Option<Arc<Leaf>> {
        self.own.leaf()
    }
}
