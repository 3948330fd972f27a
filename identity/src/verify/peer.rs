//! The identity of a verified peer, and the certificate that proves it.

use std::sync::Arc;
use std::time::SystemTime;

use policy::name::SpiffeId;
use policy::revoked::PeerFacts;

use super::authority_id::AuthorityId;

/// What follows the pod's uid in its DNS name.
const POD_SUFFIX: &str = ".pod.weft";
/// Length of a DNS label.
const MAX_LABEL: usize = 63;

/// The identity of a verified peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    pub spiffe: SpiffeId,
    /// `<pod-uid>.pod.weft`, when the certificate names its pod.
    pub pod_dns: Option<Box<str>>,
    /// What it has proved this by.
    pub certificate: Arc<PeerCertificate>,
}

/// The certificate by which a peer has proved its identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerCertificate {
    /// What signed it.
    pub authority: AuthorityId,
    /// The bytes of the number.
    pub serial: Box<[u8]>,
    /// When it was issued, which is [`policy::well_known::BACKDATE`] after it begins.
    pub issued: SystemTime,
    pub not_after: SystemTime,
}

impl PeerIdentity {
    /// The uid of the pod that the certificate was issued to.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        self.pod_dns.as_deref()?.strip_suffix(POD_SUFFIX)
    }

    /// What decides whether it is revoked.
    #[must_use]
    pub fn facts(&self) -> PeerFacts<'_> {
        PeerFacts {
            id: &self.spiffe,
            pod: self.pod_uid(),
            serial: &self.certificate.serial,
            issuer: self.certificate.authority.as_bytes(),
            issued: self.certificate.issued,
        }
    }
}

/// The DNS name of a pod in certificates, or None when `uid` cannot be one.
#[must_use]
pub fn pod_dns(uid: &str) -> Option<String> {
    let name = format!("{uid}{POD_SUFFIX}");
    is_pod_dns(&name).then_some(name)
}

pub(crate) fn is_pod_dns(name: &str) -> bool {
    name.strip_suffix(POD_SUFFIX).is_some_and(|uid| {
        !uid.is_empty()
            && uid.len() <= MAX_LABEL
            && uid
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    })
}
