//! The proof with a route override: the account or token that entitles the request to choose
//! another Service, and how proxies pass that on.

use std::fmt::Write;

use crate::name::SpiffeId;

/// Between a hash and an account.
const AND: char = '+';

/// On what grounds an override is handed on, between proxies alone.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// SHA-256 of the token that came with it; the token itself ends at the first proxy.
    Token([u8; 32]),
    /// The account whose application asked first.
    Account(SpiffeId),
    /// It showed a token as well: one that does not count takes no right away.
    Both([u8; 32], SpiffeId),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token"),
            Self::Account(id) => write!(f, "Account({id})"),
            Self::Both(_, id) => write!(f, "Both({id})"),
        }
    }
}

impl Proof {
    /// `None`: unreadable, which proves nothing.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (first, second) = match text.split_once(AND) {
            Some((first, second)) => (first, Some(second)),
            None => (text, None),
        };
        let account = |text| SpiffeId::try_from(text).ok();
        match (sha256(first), second) {
            (Some(hash), None) => Some(Self::Token(hash)),
            (Some(hash), Some(second)) => Some(Self::Both(hash, account(second)?)),
            (None, _) => account(text).map(Self::Account),
        }
    }

    #[must_use]
    pub fn write(&self) -> String {
        match self {
            Self::Token(hash) => hex(hash),
            Self::Account(id) => id.to_string(),
            Self::Both(hash, id) => format!("{}{AND}{id}", hex(hash)),
        }
    }
}

fn hex(hash: &[u8; 32]) -> String {
    let mut text = String::with_capacity(64);
    for byte in hash {
        // A String takes what is written.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads 64 lower hex digits; also for `tokens[].sha256`.
#[must_use]
pub fn sha256(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (to, pair) in hash.iter_mut().zip(bytes.chunks_exact(2)) {
        *to = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(hash)
}

/// Accounts that an override may come through, beside the peer itself. Further ones do not
/// get it.
pub(crate) const HOPS: usize = 8;

/// Longest value of `weft-proof`, in bytes. It takes room of what all headers between proxies
/// may have, and is remembered with its request.
pub(super) const LONGEST: usize = 4096;

/// The value of `weft-proof`: the proof and the accounts, with commas between.
///
/// What goes beside an override from proxy to proxy: on what grounds it stands, and which peers
/// it came through. Only the last of these is proven, by its connection. That one is trusted to
/// name the others, or the override ends with it; so a workload that may not pass it on ends
/// it, however many follow that may.
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
