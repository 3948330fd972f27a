//! Which policies decide something at a port, asked one after another in order of precedence.
//!
//! [`super::resolve`] says it of all at once. Whoever has room for some only has to know it of
//! each before the next one is asked: one that decides nothing takes no room, and one for which
//! there is none decides nothing.

use std::collections::BTreeMap;

use super::covered::Calls;
use crate::traffic::{Policy, Section};

/// What policies decide at a port so far.
#[derive(Debug)]
pub struct Decided<'a> {
    /// Of all policies, by place.
    calls: &'a [Calls],
    /// Places of those that decide a section.
    by: BTreeMap<Section, Vec<usize>>,
}

impl<'a> Decided<'a> {
    /// Nobody has been asked.
    #[must_use]
    pub const fn new(calls: &'a [Calls]) -> Self {
        Self {
            calls,
            by: BTreeMap::new(),
        }
    }

    /// Sections that a policy decides after those that were added. `place`: where its `calls`
    /// are.
    #[must_use]
    pub fn left_to(&self, policy: &Policy, place: usize) -> Vec<Section> {
        let says = Section::ALL
            .into_iter()
            .filter(|section| policy.says(*section));
        says.filter(|section| !self.is_decided(*section, place))
            .collect()
    }

    /// Adds a policy, which decides these sections.
    pub fn add(&mut self, sections: &[Section], place: usize) {
        for section in sections {
            self.by.entry(*section).or_default().push(place);
        }
    }

    fn is_decided(&self, section: Section, place: usize) -> bool {
        let Some(deciding) = self.by.get(&section) else {
            return false;
        };
        // They add up.
        if section == Section::RateLimits {
            return false;
        }
        // What cannot be limited is taken whole, and by one.
        !section.may_be_limited() || deciding.iter().any(|early| self.covers(*early, place))
    }

    fn covers(&self, early: usize, late: usize) -> bool {
        match (self.calls.get(early), self.calls.get(late)) {
            (Some(early), Some(late)) => late.is_within(early),
            _ => false,
        }
    }
}
