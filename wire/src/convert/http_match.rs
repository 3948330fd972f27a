//! Matches of HTTP requests, of rules and of splits.

use policy::http_match::{Budget, HttpMatch};

use super::error::{BadResource, each};
use crate::v1;

pub(super) fn matches(
    message: Option<&v1::HttpMatches>,
    field: &str,
) -> Result<Option<Vec<HttpMatch>>, BadResource> {
    message
        .map(|list| each("matches", &list.matches).map_err(|bad| bad.within(field)))
        .transpose()
}

impl TryFrom<&v1::HttpMatch> for HttpMatch {
    type Error = BadResource;

    fn try_from(message: &v1::HttpMatch) -> Result<Self, BadResource> {
        within(&mut Budget::group(), message)
    }
}

/// One of several that share what their expressions may take.
pub(super) fn within(
    budget: &mut Budget,
    message: &v1::HttpMatch,
) -> Result<HttpMatch, BadResource> {
    let headers: Vec<(&str, &str)> = message
        .headers
        .iter()
        .map(|header| (header.name.as_str(), header.regex.as_str()))
        .collect();
    HttpMatch::within(
        budget,
        &message.name,
        message.path_regex.as_deref(),
        &message.methods,
        &headers,
    )
    .map_err(|bad| BadResource::new(bad.field, bad.reason))
}

impl From<&HttpMatch> for v1::HttpMatch {
    fn from(one: &HttpMatch) -> Self {
        Self {
            name: one.name().to_owned(),
            path_regex: one.path_regex().map(str::to_owned),
            methods: one.methods().to_vec(),
            headers: one
                .headers()
                .iter()
                .map(|(name, regex)| v1::HeaderMatch {
                    name: name.clone(),
                    regex: regex.clone(),
                })
                .collect(),
        }
    }
}

impl From<&[HttpMatch]> for v1::HttpMatches {
    fn from(matches: &[HttpMatch]) -> Self {
        Self {
            matches: matches.iter().map(v1::HttpMatch::from).collect(),
        }
    }
}
