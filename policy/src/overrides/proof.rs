//! By what right a request chooses another Service.

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
