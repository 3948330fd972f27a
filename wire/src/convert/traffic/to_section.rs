//! What every section can do: become the message that carries it.
//!
//! A trait, so that one table of rules is written by one function whatever its sections are.

use crate::v1::policy_rule::Section;

/// A section that can be sent.
pub(super) trait ToSection {
    fn to_section(&self) -> Section;
}
