//! Decides whether one TrafficPolicy covers another: every call of the one is plainly a call of the
//! other, which then never decides.
//!
//! Coverage is computed once for all sections of a port. Matches and callers get numbers first, so
//! that each is read once, however many policies it is compared in: authors may write dozens of
//! policies with a thousand matches each.

use std::collections::HashMap;
use std::hash::Hash;

use crate::route::Match;
use crate::traffic::{Policy, Sources};

/// Of policies in order of precedence, which one covers which.
pub(super) struct Covered {
    /// `[late][early]`
    by: Vec<Vec<bool>>,
}

impl Covered {
    pub(super) fn new(ranked: &[&Policy]) -> Self {
        let calls = Calls::of_each(ranked.iter().copied());
        let by = calls.iter().enumerate().map(|(index, late)| {
            let earlier = calls[..index].iter();
            earlier.map(|early| late.is_within(early)).collect()
        });
        Self { by: by.collect() }
    }

    /// Whether every call of the policy at place `late` is plainly one of the policy at
    /// place `early`, which comes before it.
    pub(super) fn by(&self, late: usize, early: usize) -> bool {
        let early = self.by.get(late).and_then(|row| row.get(early));
        early.is_some_and(|covered| *covered)
    }
}

/// The calls that a policy is about, to be compared with those of others that were numbered
/// together.
#[derive(Debug)]
pub struct Calls {
    routes: Few,
    sources: Few,
}

impl Calls {
    /// Those of each policy.
    #[must_use]
    pub fn of_each<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Vec<Self> {
        let mut matches = Numbers::default();
        let mut callers = Numbers::default();
        let calls = policies.into_iter().map(|policy| Self {
            routes: match &policy.routes {
                Match::Always => Few::All,
                Match::AnyOf(some) => matches.few(some),
            },
            sources: match &policy.sources {
                Sources::Everyone => Few::All,
                Sources::Only(some) => callers.few(some),
            },
        });
        calls.collect()
    }

    /// Whether each of them is plainly one of `wide`.
    pub(super) fn is_within(&self, wide: &Self) -> bool {
        self.sources.is_within(&wide.sources) && self.routes.is_within(&wide.routes)
    }
}

/// All there are, or some by number.
#[derive(Debug)]
enum Few {
    All,
    /// Ascending, each once.
    Some(Vec<usize>),
}

impl Few {
    fn is_within(&self, wide: &Self) -> bool {
        match (self, wide) {
            (_, Self::All) => true,
            (Self::All, Self::Some(_)) => false,
            (Self::Some(narrow), Self::Some(wide)) => {
                let mut wide = wide.iter();
                // Both ascend, so each is walked through once.
                narrow.len() <= wide.len()
                    && narrow
                        .iter()
                        .all(|one| wide.find(|at| *at >= one) == Some(one))
            }
        }
    }
}

/// A number for each that differs.
struct Numbers<'a, T>(HashMap<&'a T, usize>);

impl<T> Default for Numbers<'_, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<'a, T: Hash + Eq> Numbers<'a, T> {
    fn few(&mut self, some: &'a [T]) -> Few {
        let mut numbers: Vec<usize> = some
            .iter()
            .map(|one| {
                let next = self.0.len();
                *self.0.entry(one).or_insert(next)
            })
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        Few::Some(numbers)
    }
}
