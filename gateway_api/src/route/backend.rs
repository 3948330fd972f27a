//! The backends of a rule: what its requests go to, and in which shares.

use std::ops::RangeInclusive;

use super::{
    filters::{self, Place, RuleFilters},
    target::{self, BackendTarget},
};
use crate::reader::{Broken, Field};

/// Weights that the API allows.
const WEIGHTS: RangeInclusive<u32> = 0..=1_000_000;
/// The weight of a backend without one.
const DEFAULT_WEIGHT: u32 = 1;

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

impl BackendRef {
    /// Reads an entry of `backendRefs`. `place` is where its filters stand; `None`: it can have
    /// none.
    pub(super) fn read(
        field: &Field<'_>,
        namespace: &str,
        place: Option<&Place<'_>>,
    ) -> Result<Self, Broken> {
        let written = field.object()?;
        let mut known = target::FIELDS.to_vec();
        known.push("weight");
        if place.is_some() {
            known.push("filters");
        }
        written.only(&known)?;
        let target = BackendTarget::read(&written, namespace)?;
        let weight = written.read("weight", |weight| weight.number(&WEIGHTS))?;
        let filters = match place {
            Some(place) => filters::read(&written.list("filters")?, place)?,
            None => RuleFilters::default(),
        };
        Ok(Self {
            target,
            weight: weight.unwrap_or(DEFAULT_WEIGHT),
            filters,
        })
    }
}
