//! What the expressions of one object may take.

/// Longest text of a pattern, in bytes. Hand-written patterns stay far below,
/// and it bounds what compiling can cost.
pub const MAX_REGEX_LEN: usize = 1024;

/// Largest compiled pattern, in bytes: repetitions of repetitions grow without
/// bound in a short text. Large enough for a Unicode class repeated a few times.
pub(crate) const MAX_REGEX_SIZE: usize = 256 * 1024;

/// What the compiled expressions of one HTTPRouteGroup may take together, in bytes:
/// one of 64 KiB in each of its 64 matches. Each proxy that a group concerns holds
/// them, and each reader of the group has to compile them.
pub(crate) const MAX_GROUP_SIZE: usize = 4 * 1024 * 1024;

/// What the compiled expressions of rules that are only tried may take together, in bytes: a
/// proxy may try eight such sets beside what it holds.
const MAX_TRIAL_SIZE: usize = 1024 * 1024;

/// What is left for the expressions of one object. What it refuses costs nothing to
/// compile.
#[derive(Debug)]
pub struct Budget {
    pub(super) whole: usize,
    pub(super) left: usize,
}

impl Budget {
    /// For all matches of one HTTPRouteGroup.
    #[must_use]
    pub const fn group() -> Self {
        Self {
            whole: MAX_GROUP_SIZE,
            left: MAX_GROUP_SIZE,
        }
    }

    /// For all rules that are tried together.
    #[must_use]
    pub const fn trial() -> Self {
        Self {
            whole: MAX_TRIAL_SIZE,
            left: MAX_TRIAL_SIZE,
        }
    }

    /// For one match of a group that was within its budget.
    pub(super) const fn single() -> Self {
        Self::group()
    }
}
