//! What every section can do.

use crate::v1::policy_rule::Section;

/// A section that can be sent.
pub(super) trait ToSection {
    fn to_section(&self) -> Section;
}
