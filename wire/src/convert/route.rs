//! Converts matches of HTTP requests, traffic splits, and the route names under which a pod's
//! requests are counted.
//!
//! Names decide nothing, and are bounded nevertheless: a proxy matches every request with them.

use std::sync::Arc;

use policy::http_match::{Budget, Description, HttpMatch, PathMatch, ValueMatch};
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::route::names::{MAX_NAMES, Names};
use policy::route::{Backend, Match, Rule};

use super::error::{BadResource, each};
use super::object::origin;
use crate::v1;

/// A split of the calls to `port`, which its backends have too.
///
/// # Errors
/// With the field that is wrong.
pub fn split(message: &v1::Split, port: u16) -> Result<Rule<Vec<Backend>>, BadResource> {
    let origin = origin(message.origin.as_ref())?;
    let when = when(message.matches.as_ref())?;
    let backends = message.backends.iter().map(|backend| {
        // Backends stand in the split's own namespace, so only their names are sent.
        let service = ServiceId::new(Arc::clone(origin.namespace()), backend.service.as_str());
        Backend::new(service, port, backend.weight, backend.endpoints.as_str())
    });
    Ok(Rule {
        then: backends.collect(),
        origin,
        when,
    })
}

impl From<&Rule<Vec<Backend>>> for v1::Split {
    fn from(split: &Rule<Vec<Backend>>) -> Self {
        Self {
            origin: Some((&split.origin).into()),
            matches: when_message(&split.when),
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

/// Absent: every request and connection.
pub(super) fn when(message: Option<&v1::HttpMatches>) -> Result<Match, BadResource> {
    Ok(match matches(message, "matches")? {
        Some(matches) => Match::AnyOf(matches),
        None => Match::Always,
    })
}

/// The inverse of [`when`].
pub(super) fn when_message(when: &Match) -> Option<v1::HttpMatches> {
    match when {
        Match::Always => None,
        Match::AnyOf(matches) => Some(v1::HttpMatches::from(&**matches)),
    }
}

fn matches(
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
    let description = Description {
        path: path(message)?,
        methods: message.methods.clone(),
        headers: values("headers", &message.headers)?,
        query: values("query", &message.query)?,
    };
    HttpMatch::described(budget, &message.name, description)
        .map_err(|bad| BadResource::new(bad.field, bad.reason))
}

fn path(message: &v1::HttpMatch) -> Result<Option<PathMatch>, BadResource> {
    use v1::http_match::PathKind;
    let kind = PathKind::try_from(message.path_kind);
    let make: fn(String) -> PathMatch = match kind.map_err(|_| BadResource::unknown("pathKind"))? {
        PathKind::Open => PathMatch::Open,
        PathKind::Exact => PathMatch::Exact,
        PathKind::Prefix => PathMatch::Prefix,
        PathKind::Full => PathMatch::Regex,
    };
    let path = message.path_regex.clone().map(make);
    if path.is_none() && kind != Ok(PathKind::Open) {
        // Without its text it would be every path.
        return Err(BadResource::new("pathRegex", "is missing"));
    }
    Ok(path)
}

fn values(
    field: &str,
    messages: &[v1::HeaderMatch],
) -> Result<Vec<(String, ValueMatch)>, BadResource> {
    use v1::header_match::Kind;
    let read = messages.iter().enumerate().map(|(i, message)| {
        let kind = Kind::try_from(message.kind);
        let unknown = |_| BadResource::unknown(format!("{field}[{i}].kind"));
        let make: fn(String) -> ValueMatch = match kind.map_err(unknown)? {
            Kind::Each => ValueMatch::Each,
            Kind::Exact => ValueMatch::Exact,
            Kind::Regex => ValueMatch::Regex,
        };
        Ok((message.name.clone(), make(message.regex.clone())))
    });
    read.collect()
}

impl From<&HttpMatch> for v1::HttpMatch {
    fn from(one: &HttpMatch) -> Self {
        use v1::http_match::PathKind;
        let Description {
            path,
            methods,
            headers,
            query,
        } = one.description();
        let kind = match path {
            None | Some(PathMatch::Open(_)) => PathKind::Open,
            Some(PathMatch::Exact(_)) => PathKind::Exact,
            Some(PathMatch::Prefix(_)) => PathKind::Prefix,
            Some(PathMatch::Regex(_)) => PathKind::Full,
        };
        Self {
            name: one.name().to_owned(),
            path_regex: path.as_ref().map(|path| path.text().to_owned()),
            methods: methods.clone(),
            headers: headers.iter().map(value_message).collect(),
            path_kind: kind.into(),
            query: query.iter().map(value_message).collect(),
        }
    }
}

fn value_message((name, value): &(String, ValueMatch)) -> v1::HeaderMatch {
    use v1::header_match::Kind;
    let kind = match value {
        ValueMatch::Each(_) => Kind::Each,
        ValueMatch::Exact(_) => Kind::Exact,
        ValueMatch::Regex(_) => Kind::Regex,
    };
    v1::HeaderMatch {
        name: name.clone(),
        regex: value.text().to_owned(),
        kind: kind.into(),
    }
}

impl From<&[HttpMatch]> for v1::HttpMatches {
    fn from(matches: &[HttpMatch]) -> Self {
        Self {
            matches: matches.iter().map(v1::HttpMatch::from).collect(),
        }
    }
}
