//! Parses one rule of a route: which requests it is for, and what is done with them.

use std::ops::RangeInclusive;
use std::time::Duration;

use crds::weft::parse_duration;
use policy::{
    http_match::{Budget, PathMatch},
    route::edits::{MAX_ATTEMPTS, MAX_BACKOFF, RuleRetry, RuleTimeouts},
    traffic::{bounds::RETRY_CODES, call::Retry},
};

use super::{
    backend::BackendRef,
    filters::{self, Filter, Place, RuleFilters},
    matches::{self, RouteMatch},
};
use crate::reader::{Broken, Field, Object};

/// How often a request may be sent again.
const ATTEMPTS: RangeInclusive<u8> = 1..=MAX_ATTEMPTS;

/// One rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteRule {
    /// Its name, which need not be there.
    pub name: Option<String>,
    /// Which requests, one of these; a rule without matches has one that every request fits. A
    /// match that cannot be understood is left out, and makes the rule broken. Empty in a
    /// TCPRoute, whose rule is for every connection.
    pub matches: Vec<RouteMatch>,
    /// Whether a match, or all of the rule, cannot be read: nothing fits it, since what it meant is
    /// not known.
    pub lacks_match: bool,
    /// What is done to the requests and their answers.
    pub filters: RuleFilters,
    /// Where they go.
    pub backends: Vec<BackendRef>,
    /// How long they may take.
    pub timeouts: Option<RuleTimeouts>,
    /// How often failed ones are sent again.
    pub retry: Option<RuleRetry>,
    /// Why the rule cannot be served: what is wrong first. Requests that fit it are answered 500,
    /// and nothing else of it counts.
    pub broken: Option<Broken>,
}

impl RouteRule {
    /// A rule of an HTTPRoute.
    pub(super) fn read_http(field: &Field<'_>, namespace: &str, budget: &mut Budget) -> Self {
        Self::read(field, |rule, written| {
            let (read, every) = (matches::http, matches::every_request);
            let (matches, wrong) = matches::read(written, budget, read, every);
            (rule.matches, rule.lacks_match) = (matches, wrong.is_some());
            match wrong {
                Some(broken) => Err(broken),
                None => rule.fill_http(written, namespace),
            }
        })
    }

    /// A rule of a GRPCRoute.
    pub(super) fn read_grpc(field: &Field<'_>, namespace: &str, budget: &mut Budget) -> Self {
        Self::read(field, |rule, written| {
            let (read, every) = (matches::grpc, matches::every_grpc_call);
            let (matches, wrong) = matches::read(written, budget, read, every);
            (rule.matches, rule.lacks_match) = (matches, wrong.is_some());
            if let Some(broken) = wrong {
                return Err(broken);
            }
            written.only(&["name", "matches", "filters", "backendRefs"])?;
            let place = rule.place(namespace, &filters::OF_GRPC);
            let read = filters::read(&written.list("filters")?, &place)?;
            let backends = backends(written, namespace, Some(&place))?;
            (rule.filters, rule.backends) = (read, backends);
            Ok(())
        })
    }

    /// The rule of a TCPRoute.
    pub(super) fn read_tcp(field: &Field<'_>, namespace: &str) -> Self {
        Self::read(field, |rule, written| {
            written.only(&["name", "backendRefs"])?;
            rule.backends = backends(written, namespace, None)?;
            Ok(())
        })
    }

    /// A rule of an HTTPRoute that every request fits, and that cannot be served.
    pub(super) fn broken(broken: Broken) -> Self {
        Self {
            matches: vec![matches::every_request()],
            broken: Some(broken),
            ..Self::default()
        }
    }

    fn read(
        field: &Field<'_>,
        fill: impl FnOnce(&mut Self, &Object<'_>) -> Result<(), Broken>,
    ) -> Self {
        let mut rule = Self::default();
        let written = field.object();
        rule.lacks_match = written.is_err();
        let filled = written.and_then(|written| {
            // Without a name it is for its requests nevertheless.
            let name = written.filled("name");
            let named = name.map(|name| rule.name = name.map(str::to_owned));
            fill(&mut rule, &written)?;
            named
        });
        rule.broken = filled.err();
        rule
    }

    fn fill_http(&mut self, written: &Object<'_>, namespace: &str) -> Result<(), Broken> {
        written.only(&[
            "name",
            "matches",
            "filters",
            "backendRefs",
            "timeouts",
            "retry",
        ])?;
        let filters = {
            let place = self.place(namespace, &filters::OF_RULE);
            filters::read(&written.list("filters")?, &place)?
        };
        let backends = {
            let place = self.place(namespace, &filters::OF_BACKEND);
            backends(written, namespace, Some(&place))?
        };
        if filters.redirect.is_some() && !backends.is_empty() {
            let text = "cannot stand beside RequestRedirect; leave out one of them";
            return Err(written.need("backendRefs")?.broken(text));
        }
        self.timeouts = written.read("timeouts", |field| timeouts(&field.object()?))?;
        self.retry = written.read("retry", |field| retry(&field.object()?))?;
        (self.filters, self.backends) = (filters, backends);
        Ok(())
    }

    /// The place of filters that may be of these types.
    fn place<'a>(&'a self, namespace: &'a str, allowed: &'a [Filter]) -> Place<'a> {
        let prefix = match &*self.matches {
            [only] => match &only.http.description().path {
                Some(PathMatch::Prefix(prefix)) => Some(prefix.as_str()),
                _ => None,
            },
            _ => None,
        };
        Place {
            namespace,
            allowed,
            prefix,
        }
    }
}

fn backends(
    written: &Object<'_>,
    namespace: &str,
    place: Option<&Place<'_>>,
) -> Result<Vec<BackendRef>, Broken> {
    let list = written.list("backendRefs")?;
    let backends = list
        .iter()
        .map(|one| BackendRef::read(one, namespace, place));
    backends.collect()
}

fn timeouts(written: &Object<'_>) -> Result<RuleTimeouts, Broken> {
    written.only(&["request", "backendRequest"])?;
    let request = written.read("request", duration)?;
    let backend_request = written.read("backendRequest", duration)?;
    // 0s is no limit.
    let whole = request.filter(|request| !request.is_zero());
    if let (Some(whole), Some(attempt)) = (whole, backend_request)
        && attempt > whole
    {
        let text = "is longer than request, which bounds it; make it shorter";
        return Err(written.need("backendRequest")?.broken(text));
    }
    Ok(RuleTimeouts {
        request,
        backend_request,
    })
}

fn retry(written: &Object<'_>) -> Result<RuleRetry, Broken> {
    written.only(&["codes", "attempts", "backoff"])?;
    let mut codes = Vec::new();
    for field in written.list("codes")? {
        let code = field.number(&RETRY_CODES)?;
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    let attempts = written.read("attempts", |field| field.number(&ATTEMPTS))?;
    let backoff = written.read("backoff", |field| {
        let backoff = duration(field)?;
        let fits = backoff <= MAX_BACKOFF;
        let most = MAX_BACKOFF.as_secs();
        fits.then_some(backoff)
            .ok_or_else(|| field.broken(format!("must be at most {most}s")))
    })?;
    Ok(RuleRetry {
        attempts: attempts.unwrap_or(Retry::DEFAULT.attempts),
        codes,
        backoff,
    })
}

fn duration(field: &Field<'_>) -> Result<Duration, Broken> {
    parse_duration(field.text()?).map_err(|bad| field.broken(bad.to_string()))
}
