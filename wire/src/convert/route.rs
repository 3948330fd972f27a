//! Converts matches of HTTP requests, traffic splits, and the route names under which a pod's
//! requests are counted.
//!
//! Names decide nothing, and are bounded nevertheless: a proxy matches every request with them.

use std::sync::Arc;

use policy::http_match::{Budget, HttpMatch};
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::route::names::{MAX_NAMES, Names};
use policy::route::{Backend, Match, Rule};

use super::error::{BadResource, each};
use super::object::origin;
use crate::v1;

impl TryFrom<&v1::Split> for Rule<Vec<Backend>> {
    type Error = BadResource;

    fn try_from(message: &v1::Split) -> Result<Self, BadResource> {
        let origin = origin(message.origin.as_ref())?;
        let when = match matches(message.matches.as_ref(), "matches")? {
            Some(matches) => Match::AnyOf(matches),
            None => Match::Always,
        };
        let backends = message.backends.iter().map(|backend| {
            // Backends stand in the split's own namespace, so only their names are sent.
            let service = ServiceId::new(Arc::clone(origin.namespace()), backend.service.as_str());
            Backend::new(service, backend.weight, backend.endpoints.as_str())
        });
        Ok(Self {
            then: backends.collect(),
            origin,
            when,
        })
    }
}

impl From<&Rule<Vec<Backend>>> for v1::Split {
    fn from(split: &Rule<Vec<Backend>>) -> Self {
        Self {
            origin: Some((&split.origin).into()),
            matches: match &split.when {
                Match::Always => None,
                Match::AnyOf(matches) => Some(v1::HttpMatches::from(&**matches)),
            },
            backends: split
                .then
                .iter()
                .map(|backend| v1::Backend {
                    service: backend.service.name.to_string(),
                    weight: backend.weight,
                    endpoints: backend.endpoints.to_string(),
                })
                .collect(),
        }
    }
}

impl TryFrom<&v1::Routes> for Names {
    type Error = BadResource;

    /// The expressions of all together may take what those of one group may: a proxy holds
    /// them beside those of its rules.
    fn try_from(message: &v1::Routes) -> Result<Self, BadResource> {
        let mut budget = Budget::group();
        let counted = message.routes.iter().take(MAX_NAMES).enumerate();
        let read = counted.map(|(i, route)| {
            route_of(&mut budget, route).map_err(|bad| bad.within(format_args!("routes[{i}]")))
        });
        let matches: Vec<(Origin, HttpMatch)> = read.collect::<Result<_, _>>()?;
        Ok(Self::of(matches))
    }
}

fn route_of(budget: &mut Budget, route: &v1::Route) -> Result<(Origin, HttpMatch), BadResource> {
    let http = route.http.as_ref();
    let http = http.ok_or_else(|| BadResource::new("http", "is missing"))?;
    let fits = within(budget, http).map_err(|bad| bad.within("http"))?;
    Ok((origin(route.origin.as_ref())?, fits))
}

impl From<&Names> for v1::Routes {
    fn from(names: &Names) -> Self {
        let routes = names.matches().map(|(origin, one)| v1::Route {
            origin: Some(origin.into()),
            http: Some(one.into()),
        });
        Self {
            routes: routes.collect(),
        }
    }
}

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
