//! With issuer source `files`: the issuers that this replica has read from its own folder, and
//! which of them signs.
//!
//! Their keys stay in this process: no object of the cluster has them. One whose owner has put
//! another in its place, below another root, is kept: it signs until that root is trusted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::Issuer;
use identity::authority::candidate::Candidate;
use identity::rotation::State;
use identity::verify::AuthorityId;

use super::secret::{CaError, date, named};

/// As many as a rotation has roots.
const MAX_KEPT: usize = 3;

/// See the module header.
#[derive(Debug, Default)]
pub(super) struct Brought {
    /// One for each root, the newest last.
    issuers: Vec<Arc<Candidate>>,
    /// How long after a step a root is with every pod.
    settle: Duration,
}

impl Brought {
    /// True if it is another one than the last.
    pub(super) fn take(&mut self, candidate: Candidate, settle: Duration) -> bool {
        self.settle = settle;
        let is_known = self.issuers.last().is_some_and(|last| {
            last.issuer.cert_pem() == candidate.issuer.cert_pem()
                && last.root_pem == candidate.root_pem
        });
        if is_known {
            return false;
        }
        self.issuers
            .retain(|kept| kept.root_id != candidate.root_id);
        self.issuers.push(Arc::new(candidate));
        let over = self.issuers.len().saturating_sub(MAX_KEPT);
        self.issuers.drain(..over);
        true
    }

    pub(super) fn newest(&self) -> Option<Arc<Candidate>> {
        self.issuers.last().cloned()
    }

    /// What signs below this root.
    pub(super) fn below(&self, root: AuthorityId, now: SystemTime) -> Option<Arc<Candidate>> {
        let mut issuers = self.issuers.iter();
        let found = issuers.find(|one| one.root_id == root && signs(one, now));
        found.cloned()
    }

    /// The roots below which one can sign.
    pub(super) fn roots(&self, now: SystemTime) -> Vec<AuthorityId> {
        let usable = self.issuers.iter().filter(|one| signs(one, now));
        usable.map(|one| one.root_id).collect()
    }

    /// What signs in this state: an issuer below the first root. A replica without one, as after
    /// another volume was mounted, signs below the next root once that is with every pod.
    pub(super) fn chosen(&self, state: &State, now: SystemTime) -> Option<&Candidate> {
        let below = |root: AuthorityId| {
            let mut issuers = self.issuers.iter();
            issuers.find(|one| one.root_id == root && signs(one, now))
        };
        let next = || {
            let rotation = state.rotation.as_ref()?;
            let is_everywhere = now >= rotation.phase_since + self.settle;
            state.next().filter(|_| is_everywhere).and_then(below)
        };
        let found = state.active().and_then(below).or_else(next);
        found.map(Arc::as_ref)
    }

    /// The same, ready to sign, and the root that it is below.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn signer(
        &self,
        state: &State,
        now: SystemTime,
    ) -> Result<(Issuer, AuthorityId), CaError> {
        let Some(chosen) = self.chosen(state, now) else {
            let root = state.active().map(named);
            return Err(CaError::NoOwnIssuer {
                root: root.unwrap_or_default(),
                now: date(now),
            });
        };
        let issuer = Issuer::from_pem(chosen.issuer.cert_pem(), &chosen.issuer.key_pem())?;
        Ok((issuer, chosen.root_id))
    }
}

fn signs(candidate: &Candidate, now: SystemTime) -> bool {
    candidate.issuer.not_before() <= now && now < candidate.issuer.not_after()
}
