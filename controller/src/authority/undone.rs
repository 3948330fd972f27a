//! Names why a running replica keeps what it serves where the Secret of the authority has another
//! content.

use std::fmt;

use super::secret::ROOT_CRT;

/// Why a running replica keeps what it serves, and takes no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// It is of this step, before the one that is served.
    Earlier(u64),
    /// So many roots that proxies trust are not in it.
    Lacks(usize),
    /// This key of it cannot be used, for this reason.
    Unusable(&'static str, String),
}

impl Undone {
    /// How its author has it taken.
    pub(super) fn way_out(&self) -> &'static str {
        match self {
            Self::Earlier(_) | Self::Lacks(_) => {
                "To take it on purpose, as without a root, scale Deployment weft-controller to 0, write \
                 the Secret, and scale it up again"
            }
            Self::Unusable(..) => "To change it, write a whole content that works at once",
        }
    }
}

impl fmt::Display for Undone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earlier(step) => write!(f, "is of an earlier step ({step})"),
            Self::Lacks(roots) => write!(
                f,
                "lacks {roots} of the roots that proxies trust ({ROOT_CRT})"
            ),
            Self::Unusable(key, why) => write!(f, "cannot be used ({key}: {why})"),
        }
    }
}
