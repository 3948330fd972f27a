//! The matches of a rule, and how specific each of them is.

use policy::http_match::HttpMatch;

/// One set of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// Which requests.
    pub http: HttpMatch,
    /// What the match is sorted by.
    pub specificity: Specificity,
}

/// How specific a match is: less is more specific, and comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity;
