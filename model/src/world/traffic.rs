//! The fact of a TrafficPolicy.

use crds::weft::validation::Policy;

use super::{fact::Fact, smi::Meta};

/// A TrafficPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFacts {
    /// Metadata, and what is wrong.
    pub meta: Meta,
    /// What is configured, as far as it can be understood.
    pub spec: Policy,
}

impl Fact for PolicyFacts {}
