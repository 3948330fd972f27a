//! The order in which the matches of several routes are tried.
//!
//! The most specific match comes first, whichever route it stands in; then the oldest route, then
//! the first by name, then the place in the route.

use std::sync::Arc;

use crate::route::{Route, RouteMatch, Specificity};

/// What a match is sorted by: less comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    specificity: Specificity,
    /// Seconds since 1970.
    created: i64,
    /// `namespace/name` of the route.
    label: Arc<str>,
    rule: usize,
    place: usize,
}

impl Key {
    /// Of the match at `place` of the rule number `rule` of a route that was made at `created`, in
    /// seconds since 1970.
    #[must_use]
    pub fn new(route: &Route, created: i64, rule: usize, place: usize, one: &RouteMatch) -> Self {
        Self {
            specificity: one.specificity,
            created,
            label: format!("{}/{}", route.namespace, route.name).into(),
            rule,
            place,
        }
    }
}

/// Brings matches into the order in which they are tried.
pub fn sort<T>(matches: &mut [T], key: impl Fn(&T) -> &Key) {
    matches.sort_by(|one, other| key(one).cmp(key(other)));
}
