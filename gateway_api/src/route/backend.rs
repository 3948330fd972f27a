//! The backends of a rule: what its requests go to, and in which shares.

use super::{filters::RuleFilters, target::BackendTarget};

/// A backend that takes a share of a rule's requests.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendRef {
    /// What it refers to.
    pub target: BackendTarget,
    /// Share relative to the other backends of the rule.
    pub weight: u32,
    /// What is done to requests that it gets, and to their answers. No redirect and no CORS.
    pub filters: RuleFilters,
}
