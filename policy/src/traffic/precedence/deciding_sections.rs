//! Tracks which policies decide each section at a port, while they are evaluated one after another
//! in order of precedence.
//!
//! [`super::resolve`] decides it for all at once. A caller with room for some policies only needs
//! the result of each before the next one: a policy that decides nothing takes no room, and one for
//! which there is no room decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::covered::Calls;
use crate::traffic::Section;

/// What policies decide at a port so far.
#[derive(Debug)]
pub struct Decided<'a> {
    /// Of all policies, by place.
    calls: &'a [Calls],
    /// Places of those that decide a section.
    by: BTreeMap<Section, Vec<usize>>,
}

/// What becomes of the sections of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectionOutcome {
    pub decides: Vec<Section>,
    /// Those that others decide, each with the place of the first of them.
    pub lost: Vec<(Section, usize)>,
}

impl<'a> Decided<'a> {
    /// Before the first policy.
    #[must_use]
    pub const fn new(calls: &'a [Calls]) -> Self {
        Self {
            calls,
            by: BTreeMap::new(),
        }
    }

    /// What remains of a policy's sections after those that were added. `says`: the sections
    /// that it sets. `place`: where its `calls` are.
    #[must_use]
    pub fn outcome_of(
        &self,
        says: impl IntoIterator<Item = Section>,
        place: usize,
    ) -> SectionOutcome {
        let mut outcome = SectionOutcome::default();
        let covering = self.covering(place);
        for section in says {
            match self.winner(section, &covering) {
                Some(winner) => outcome.lost.push((section, winner)),
                None => outcome.decides.push(section),
            }
        }
        outcome
    }

    /// Adds a policy, which decides these sections.
    pub fn add(&mut self, sections: &[Section], place: usize) {
        for section in sections {
            self.by.entry(*section).or_default().push(place);
        }
    }

    /// Which one decides a section already; `None`: none. `covering`: those that cover this one.
    fn winner(&self, section: Section, covering: &BTreeSet<usize>) -> Option<usize> {
        let mut deciding = self.by.get(&section)?.iter();
        let winner = match section {
            // They add up.
            Section::RateLimits => None,
            limited if limited.may_be_limited() => deciding.find(|early| covering.contains(*early)),
            // What cannot be limited is taken whole, and by one.
            _ => deciding.next(),
        };
        winner.copied()
    }

    /// Those that decide something, and cover what the policy at this place is about. Found once
    /// for all its sections: to compare two of a thousand routes is most of the work.
    fn covering(&self, late: usize) -> BTreeSet<usize> {
        let Some(late) = self.calls.get(late) else {
            return BTreeSet::new();
        };
        let limited = self.by.iter();
        let limited = limited
            .filter(|(section, _)| section.may_be_limited() && **section != Section::RateLimits);
        let deciding: BTreeSet<usize> = limited.flat_map(|(_, by)| by).copied().collect();
        let covers = |early: &usize| {
            let early = self.calls.get(*early);
            early.is_some_and(|early| late.is_within(early))
        };
        deciding.into_iter().filter(covers).collect()
    }
}
