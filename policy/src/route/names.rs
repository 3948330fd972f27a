//! The route names of a workload's requests in metrics and reports.
//!
//! A name is only shown and decides nothing. It is that of the first match that describes the
//! request, so that every request has one name and the numbers of all names add up.

use std::sync::Arc;

use super::{Match, Rule, Table};
use crate::http_match::{HttpMatch, RequestFacts};
use crate::origin::Origin;

/// Names that separate the requests to one workload. Series and rows of reports are made for
/// each.
pub const MAX_NAMES: usize = 64;
/// Bytes of one name: two names of Kubernetes with a slash between them. What is longer is
/// cut.
pub const MAX_NAME_BYTES: usize = 253 + 1 + 63;

/// Names of requests: `group/match`, and none for what no match describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Table<Arc<str>>);

impl Names {
    /// Named by these matches, each with the HTTPRouteGroup that it stands in. The first
    /// [`MAX_NAMES`] count.
    pub fn of(matches: impl IntoIterator<Item = (Origin, HttpMatch)>) -> Self {
        let rules = matches.into_iter().take(MAX_NAMES).map(|(group, one)| {
            let name = written(group.name(), one.name());
            Rule {
                origin: group,
                when: Match::AnyOf(vec![one]),
                then: name,
            }
        });
        Self(Table {
            rules: rules.collect(),
            otherwise: Arc::default(),
        })
    }

    /// Whether no request has a name.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.rules.is_empty()
    }

    /// The name of a request; empty where no match describes it.
    #[must_use]
    pub fn name(&self, request: &RequestFacts<'_>) -> &Arc<str> {
        self.0.decide(Some(request)).0
    }

    /// All names that requests can have.
    pub fn all(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.rules.iter().map(|rule| &rule.then)
    }

    /// What it was made of.
    pub fn matches(&self) -> impl Iterator<Item = (&Origin, &HttpMatch)> {
        self.0.rules.iter().flat_map(|rule| {
            let matches: &[HttpMatch] = match &rule.when {
                Match::AnyOf(matches) => matches,
                Match::Always => &[],
            };
            matches.iter().map(move |one| (&rule.origin, one))
        })
    }
}

/// A name that can stand in a label and on a terminal: names of matches may hold anything.
fn written(group: &str, one: &str) -> Arc<str> {
    let name = format!("{group}/{one}");
    let mut clean: String = name
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let end = clean.floor_char_boundary(MAX_NAME_BYTES);
    clean.truncate(end);
    clean.into()
}

#[cfg(test)]
mod tests;
