//! The trusted roots, each for one trust domain.
//!
//! A root itself names no trust domain. Two clusters whose authorities hang
//! below one corporate root would otherwise have each other's identities.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use policy::name::SpiffeId;
use policy::origin::Origin;
use policy::revoked::Revocations;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use super::authority_id::AuthorityId;
use super::peer::PeerIdentity;
use super::revoked::CurrentRevocations;

/// Roots at one time. A rotation needs two; the rest is room for users that join
/// several meshes. Each is tried for a chain, so the number is bounded.
pub(crate) const MAX_ROOTS: usize = 16;

/// Why a list of roots is refused. The list before it stays in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRoots {
    #[error("the trust bundle holds no certificate")]
    Empty,
    #[error("the trust bundle holds more than {MAX_ROOTS} certificates")]
    TooMany,
    #[error("the trust bundle is not a list of PEM certificates")]
    Malformed,
    #[error("certificate {0} of the trust bundle (counted from 1) is not an authority's")]
    NotAnAuthority(usize),
}

/// A replaceable list of roots, never empty, of one trust domain: they vouch for
/// its identities and for no others. Clones share the list: what one replaces, all
/// verifiers use from the next handshake on.
#[derive(Clone)]
pub struct Roots {
    trust_domain: Arc<str>,
    shared: Arc<RwLock<Arc<Trusted>>>,
    /// Which of the certificates that they vouch for are refused all the same.
    pub(super) revoked: CurrentRevocations,
}

pub(crate) struct Trusted {
    certificates: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    ids: Vec<AuthorityId>,
}

impl Roots {
    /// Roots of the trust domain that `member` belongs to.
    ///
    /// # Errors
    /// When the list is empty, too long, or holds something that is no authority.
    pub fn new(
        member: &SpiffeId,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BadRoots> {
        let trusted = Trusted::new(certificates)?;
        Ok(Self {
            trust_domain: member.trust_domain().into(),
            shared: Arc::new(RwLock::new(Arc::new(trusted))),
            revoked: CurrentRevocations::default(),
        })
    }

    /// Reads a bundle: PEM certificates one after another, of the trust domain that
    /// `member` belongs to.
    ///
    /// # Errors
    /// As [`Roots::new`], or when the text is not PEM.
    pub fn from_pem(member: &SpiffeId, bundle: &str) -> Result<Self, BadRoots> {
        Self::new(member, read_pem(bundle)?)
    }

    /// Trusts these instead.
    ///
    /// # Errors
    /// As [`Roots::new`]; then nothing changes.
    pub fn replace(&self, certificates: Vec<CertificateDer<'static>>) -> Result<(), BadRoots> {
        let trusted = Arc::new(Trusted::new(certificates)?);
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = trusted;
        Ok(())
    }

    /// Trusts the certificates of a PEM bundle instead.
    ///
    /// # Errors
    /// As [`Roots::from_pem`]; then nothing changes.
    pub fn replace_pem(&self, bundle: &str) -> Result<(), BadRoots> {
        self.replace(read_pem(bundle)?)
    }

    /// Refuses what is revoked, instead of what was before. `None`: nothing.
    pub fn revoke(&self, revocations: Option<Arc<Revocations>>) {
        self.revoked.replace(revocations);
    }

    /// The object that revokes a certificate, if one does.
    #[must_use]
    pub fn revokes(&self, peer: &PeerIdentity) -> Option<Origin> {
        self.revoked.find(peer)
    }

    /// The trust domain whose identities these roots vouch for.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// What is trusted now.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.current().certificates.clone()
    }

    /// Whether one of these vouches for what `root` does: one of its name, key and name constraints,
    /// so also the same root renewed with its key.
    #[must_use]
    pub fn vouch_as(&self, root: &CertificateDer<'_>) -> bool {
        let current = self.current();
        webpki::anchor_from_trusted_cert(root).is_ok_and(|anchor| current.anchors.contains(&anchor))
    }

    /// Which of these certificates `others` lack. One that has ended by `now` is not counted: nothing
    /// that it signed has to be trusted any more.
    #[must_use]
    pub fn missing_in(&self, others: &Self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let now = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let lasts = |certificate: &CertificateDer<'_>| {
            let parsed = x509_parser::parse_x509_certificate(certificate);
            parsed.is_ok_and(|(_, root)| {
                let end = u64::try_from(root.validity().not_after.timestamp());
                end.is_ok_and(|end| now < end)
            })
        };
        let mut missing = self.certificates();
        missing.retain(|root| !others.vouch_as(root) && lasts(root));
        missing
    }

    /// What is trusted now, each root by its name and key.
    #[must_use]
    pub fn ids(&self) -> Vec<AuthorityId> {
        self.current().ids.clone()
    }

    pub(crate) fn current(&self) -> Arc<Trusted> {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&shared)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots")
            .field("trust_domain", &self.trust_domain)
            .field("count", &self.current().certificates.len())
            .finish()
    }
}

impl Trusted {
    fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, BadRoots> {
        if certificates.is_empty() {
            return Err(BadRoots::Empty);
        }
        if certificates.len() > MAX_ROOTS {
            return Err(BadRoots::TooMany);
        }
        let mut anchors = Vec::with_capacity(certificates.len());
        let mut ids = Vec::with_capacity(certificates.len());
        for (index, certificate) in certificates.iter().enumerate() {
            let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
                .map_err(|_| BadRoots::Malformed)?;
            if !parsed.is_ca() {
                return Err(BadRoots::NotAnAuthority(index + 1));
            }
            let anchor =
                webpki::anchor_from_trusted_cert(certificate).map_err(|_| BadRoots::Malformed)?;
            anchors.push(anchor.to_owned());
            ids.push(AuthorityId::of(&parsed));
        }
        Ok(Self {
            certificates,
            anchors,
            ids,
        })
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

fn read_pem(bundle: &str) -> Result<Vec<CertificateDer<'static>>, BadRoots> {
    CertificateDer::pem_slice_iter(bundle.as_bytes())
        // One more than allowed is enough to know that it is too long.
        .take(MAX_ROOTS + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| BadRoots::Malformed)
}
