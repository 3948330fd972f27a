//! With issuer source `files`: the issuers that the folders of the other replicas hold, as these
//! report. By them the Lease holder knows all that signs, and which replica could not sign below a
//! root.

use identity::verify::AuthorityId;
use rustls::pki_types::CertificateDer;
use wire::v1;

use crate::observe::acknowledged::{Observed, ReplicaStep};

/// The other replicas, until it is known which there are.
pub(super) const OTHERS: &str = "(the others)";

/// See the module header.
#[derive(Debug, Default)]
pub(super) struct OwnIssuers {
    /// What signs below the first root, this replica's first, each once.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// Replicas whose folder has none below the wanted root.
    pub(super) without: Vec<String>,
}

impl OwnIssuers {
    /// `own`: this replica's name, and what it reports. `wanted`: the root that replicas are to sign
    /// below.
    pub(super) fn of(
        (name, own): (&str, &v1::AuthorityStep),
        observed: &Observed,
        wanted: Option<AuthorityId>,
    ) -> Self {
        let mut all = Self::default();
        all.add(name, Some(own), own.step, wanted);
        let Some(others) = observed.replica_steps() else {
            all.add(OTHERS, None, own.step, wanted);
            return all;
        };
        for (peer, reported) in &others {
            let step = match reported {
                ReplicaStep::Serves { step, .. } => Some(step),
                ReplicaStep::Unheard | ReplicaStep::Former => None,
            };
            all.add(&peer.to_string(), step, own.step, wanted);
        }
        all
    }

    fn add(
        &mut self,
        name: &str,
        reported: Option<&v1::AuthorityStep>,
        step: u64,
        wanted: Option<AuthorityId>,
    ) {
        let below = reported.map(|reported| reported.signs_below.as_slice());
        let can_sign = |root: AuthorityId| {
            let mut below = below.into_iter().flatten();
            below.any(|one| one.as_slice() == root.as_bytes())
        };
        if wanted.is_some_and(|root| !can_sign(root)) {
            self.without.push(name.to_owned());
        }
        // Of another step it may be below another root.
        let current = reported.filter(|reported| reported.step == step);
        let issuer = current.map(|reported| reported.issuer.as_slice());
        let Some(issuer) = issuer.filter(|issuer| !issuer.is_empty()) else {
            return;
        };
        let issuer = CertificateDer::from(issuer.to_vec());
        if !self.certificates.contains(&issuer) {
            self.certificates.push(issuer);
        }
    }

    pub(super) fn ids(&self) -> Vec<AuthorityId> {
        let certificates = self.certificates.iter();
        certificates.filter_map(AuthorityId::of_der).collect()
    }
}
