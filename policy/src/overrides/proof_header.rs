//! What goes beside an override from proxy to proxy: on what grounds it stands, and which peers
//! it came through. Only the last of these is proven, by its connection. That one is trusted to
//! name the others, or the override ends with it; so a workload that may not pass it on ends
//! it, however many follow that may.

use crate::name::SpiffeId;
use crate::overrides::proof::Proof;

/// Accounts that an override may come through, beside the peer itself. Further ones do not
/// get it.
pub(crate) const HOPS: usize = 8;

/// Longest value of `weft-proof`, in bytes. It takes room of what all headers between proxies
/// may have, and is remembered with its request.
pub(super) const LONGEST: usize = 4096;

/// The value of `weft-proof`: the proof and the accounts, with commas between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofHeader {
    pub proof: Proof,
    /// From the first on; without the peer that sends it.
    pub through: Vec<SpiffeId>,
}

impl ProofHeader {
    /// `None`: unreadable, which proves nothing.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > LONGEST {
            return None;
        }
        let mut parts = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let proof = Proof::parse(parts.next()?)?;
        let account = |part: &[u8]| SpiffeId::try_from(std::str::from_utf8(part).ok()?).ok();
        let through: Option<Vec<SpiffeId>> = parts.map(account).collect();
        let through = through.filter(|through| through.len() <= HOPS)?;
        Some(Self { proof, through })
    }

    #[must_use]
    pub fn write(&self) -> String {
        let mut text = self.proof.write();
        for account in &self.through {
            text.push_str(", ");
            text.push_str(account.as_str());
        }
        text
    }

    /// What is sent to the next hop of what came from this peer; `None`: it came through too
    /// many, or their names are too long.
    #[must_use]
    pub fn after(&self, peer: &SpiffeId) -> Option<Self> {
        let mut through = self.through.clone();
        through.push(peer.clone());
        let after = Self {
            proof: self.proof.clone(),
            through,
        };
        let fits = after.through.len() <= HOPS && after.write().len() <= LONGEST;
        fits.then_some(after)
    }
}
