//! Validates an HTTPRouteGroup, and parses its matches.

use std::{collections::BTreeSet, sync::Arc};

use policy::http_match::{Budget, HttpMatch, fits_no_path};
use serde_json::Value;

use super::{Code, Mistake, Mistakes, Validate, ValidationContext};
use crate::{
    near::near,
    smi::{HttpRouteGroupSpec, RouteMatch, parse_headers},
};

/// Methods that are registered for HTTP and its extensions and that people meet.
const METHODS: [&str; 19] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "CONNECT",
    "TRACE",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
];

/// Most unusual methods that are named of one object.
const MOST_UNUSUAL: usize = 5;

/// The matches of an HTTPRouteGroup, each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteGroup {
    /// In the order in which they were written.
    pub matches: Vec<RouteGroupMatch>,
}

/// One set of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteGroupMatch {
    /// The key within its group.
    pub name: Arc<str>,
    /// What a request has to fit; `None` for a match that cannot be used and never
    /// fits.
    pub criteria: Option<Criteria>,
}

/// What a request has to fit. Known to compile, and kept as text: what is compiled is
/// larger, and only proxies run it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Criteria {
    /// Path expression; any path without one.
    pub path_regex: Option<Arc<str>>,
    /// Methods; without any, every one.
    pub methods: Vec<Arc<str>>,
    /// Names of headers, each with the expression for its values.
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// Most bytes that its expressions take when they are compiled.
    pub compiled: usize,
}

impl Validate for HttpRouteGroupSpec {
    type Validated = RouteGroup;

    const UNREADABLE: &'static str = "none of its matches fits a request";

    fn validate(&self, _: &ValidationContext<'_>) -> (RouteGroup, Vec<Mistake>) {
        let mut mistakes = Mistakes::default();
        let mut unusual = 0;
        let mut seen = BTreeSet::new();
        let mut group = RouteGroup::default();
        let mut budget = Budget::group();
        for (i, written) in self.matches.iter().enumerate() {
            let field = format!("spec.matches[{i}]");
            let first = seen.insert(&written.name);
            if written.name.is_empty() {
                let text = "must not be empty; this match never fits";
                mistakes.invalid(format!("{field}.name"), text);
            } else if !first {
                let text = format!(
                    "{:?} is the name of two matches; this one is ignored, give it another",
                    written.name
                );
                mistakes.invalid(format!("{field}.name"), text);
            }
            let criteria = criteria(&field, written, &mut budget, &mut mistakes);
            if first {
                group.matches.push(RouteGroupMatch {
                    name: written.name.as_str().into(),
                    criteria: criteria.filter(|_| !written.name.is_empty()),
                });
            }
            warn_of_unusual(&field, written, &mut unusual, &mut mistakes);
        }
        (group, mistakes.0)
    }

    fn unreadable(_: &Value, _: &ValidationContext<'_>) -> RouteGroup {
        RouteGroup::default()
    }
}

/// The very code that will match requests decides whether the match can be used. What it
/// refuses before it compiles takes nothing from the matches after it.
fn criteria(
    field: &str,
    written: &RouteMatch,
    budget: &mut Budget,
    mistakes: &mut Mistakes,
) -> Option<Criteria> {
    let mut never = |part: &str, why: &str| {
        mistakes.invalid(
            format!("{field}.{part}"),
            format!("{why}; this match never fits"),
        );
    };
    let headers = match parse_headers(written.headers.as_ref()) {
        Ok(headers) => headers,
        Err(error) => {
            never("headers", &error.to_string());
            return None;
        }
    };
    let methods = written.methods.as_deref().unwrap_or_default();
    let path = written.path_regex.as_deref();
    let compiled = match HttpMatch::within(budget, &written.name, path, methods, &headers) {
        Ok(one) => one.compiled_size(),
        Err(bad) => {
            never(&bad.field, &bad.reason);
            return None;
        }
    };
    if path.is_some_and(fits_no_path) {
        let text = "fits no path, since every path begins with a slash: begin it with one; this \
                    match never fits";
        mistakes.warn(Code::UnusualPath, format!("{field}.pathRegex"), text);
    }
    Some(Criteria {
        path_regex: path.map(Arc::from),
        methods: methods
            .iter()
            .map(|method| method.as_str().into())
            .collect(),
        headers: headers
            .into_iter()
            .map(|(name, regex)| (name.into(), regex.into()))
            .collect(),
        compiled,
    })
}

/// Warns of methods that no client is likely to send. They are taken: an application with
/// methods of its own may match them.
fn warn_of_unusual(field: &str, written: &RouteMatch, warned: &mut usize, mistakes: &mut Mistakes) {
    for (i, method) in written.methods.iter().flatten().enumerate() {
        let method = method.as_str();
        if method == "*" || *warned >= MOST_UNUSUAL {
            continue;
        }
        let Some(text) = unusual_method(method) else {
            continue;
        };
        mistakes.warn(Code::UnusualMethod, format!("{field}.methods[{i}]"), text);
        *warned += 1;
    }
}

/// What is to be said of a method that no client is likely to send, with the one that may be
/// meant.
#[must_use]
pub fn unusual_method(method: &str) -> Option<String> {
    if METHODS.contains(&method) {
        return None;
    }
    let meant = near(method, METHODS);
    let meant = meant.map_or(String::new(), |known| format!("; {known} is one"));
    let shown: String = method.chars().take(40).collect();
    Some(format!(
        "{shown:?} is no usual method of HTTP, and methods are compared exactly{meant}"
    ))
}
