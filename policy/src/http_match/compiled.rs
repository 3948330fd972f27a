//! A match of HTTP requests in its compiled form, which requests are compared with: expressions
//! compiled, names parsed.

use std::borrow::Cow;

use http::Method;
use http::header::{COOKIE, HeaderMap, HeaderName};

use super::description::{BadMatch, Description, PathMatch, RequestFacts, ValueMatch};
use super::pattern::{Anchor, Budget, Pattern};
use super::query;

#[derive(Debug)]
pub(super) struct Compiled {
    path: Option<Pattern>,
    /// Empty means any.
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Values, Pattern)>,
    query: Vec<(String, Pattern)>,
}

/// Which values of a header a pattern must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    /// Every single one.
    Each,
    /// All of them, as one text.
    Joined,
}

/// What of a match a request does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchPart<'a> {
    /// It cannot be compiled.
    Unusable,
    Path,
    Method,
    /// By name.
    Header(&'a str),
    /// A parameter of the query, by name.
    Query(&'a str),
}

impl Compiled {
    pub(super) fn new(written: &Description, budget: &mut Budget) -> Result<Self, BadMatch> {
        let path = match &written.path {
            Some(path) => Some(compile_path(path, budget)?),
            None => None,
        };
        Ok(Self {
            path,
            methods: compile_methods(&written.methods)?,
            headers: compile_headers(&written.headers, budget)?,
            query: compile_query(&written.query, budget)?,
        })
    }

    pub(super) fn matches(&self, request: &RequestFacts<'_>) -> bool {
        self.method_fits(request)
            && self.path_fits(request)
            && self.headers.iter().all(|one| header_fits(one, request))
            && self.query.iter().all(|one| parameter_fits(one, request))
    }

    /// The first part that the request does not fit.
    pub(super) fn fails(&self, request: &RequestFacts<'_>) -> Option<MatchPart<'_>> {
        if !self.path_fits(request) {
            return Some(MatchPart::Path);
        }
        if !self.method_fits(request) {
            return Some(MatchPart::Method);
        }
        let mut headers = self.headers.iter();
        if let Some((name, ..)) = headers.find(|one| !header_fits(one, request)) {
            return Some(MatchPart::Header(name.as_str()));
        }
        let mut parameters = self.query.iter();
        parameters
            .find(|one| !parameter_fits(one, request))
            .map(|(name, _)| MatchPart::Query(name))
    }

    fn path_fits(&self, request: &RequestFacts<'_>) -> bool {
        let path = self.path.as_ref();
        path.is_none_or(|pattern| pattern.matches(request.path))
    }

    fn method_fits(&self, request: &RequestFacts<'_>) -> bool {
        self.methods.is_empty() || self.methods.contains(request.method)
    }
}

fn compile_path(path: &PathMatch, budget: &mut Budget) -> Result<Pattern, BadMatch> {
    let (field, compiled) = match path {
        PathMatch::Open(regex) => ("pathRegex", Pattern::compile(regex, Anchor::Start, budget)),
        PathMatch::Exact(text) => ("path.value", Pattern::exact(text)),
        PathMatch::Prefix(text) => ("path.value", Pattern::segments(text)),
        PathMatch::Regex(regex) => ("path.value", Pattern::compile(regex, Anchor::Full, budget)),
    };
    compiled.map_err(|reason| BadMatch {
        field: field.to_owned(),
        reason,
    })
}

/// Empty means any.
fn compile_methods(written: &[String]) -> Result<Vec<Method>, BadMatch> {
    let mut methods = Vec::with_capacity(written.len());
    for (index, text) in written.iter().enumerate().filter(|(_, text)| *text != "*") {
        let method = Method::from_bytes(text.as_bytes()).map_err(|_| BadMatch {
            field: format!("methods[{index}]"),
            reason: "is no HTTP method".to_owned(),
        })?;
        methods.push(method);
    }
    if written.iter().any(|text| text == "*") {
        methods.clear();
    }
    Ok(methods)
}

fn compile_headers(
    written: &[(String, ValueMatch)],
    budget: &mut Budget,
) -> Result<Vec<(HeaderName, Values, Pattern)>, BadMatch> {
    let compiled = written.iter().map(|(name, value)| {
        let bad = |reason: String| bad_part("headers", name, reason);
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| bad("is no header name".to_owned()))?;
        let (values, pattern) = match value {
            ValueMatch::Each(regex) => {
                (Values::Each, Pattern::compile(regex, Anchor::Full, budget))
            }
            ValueMatch::Exact(text) => (Values::Joined, Pattern::exact(text)),
            ValueMatch::Regex(regex) => (
                Values::Joined,
                Pattern::compile(regex, Anchor::Full, budget),
            ),
        };
        Ok((parsed, values, pattern.map_err(bad)?))
    });
    compiled.collect()
}

fn compile_query(
    written: &[(String, ValueMatch)],
    budget: &mut Budget,
) -> Result<Vec<(String, Pattern)>, BadMatch> {
    let compiled = written.iter().map(|(name, value)| {
        let pattern = match value {
            ValueMatch::Exact(text) => Pattern::exact(text),
            ValueMatch::Each(regex) | ValueMatch::Regex(regex) => {
                Pattern::compile(regex, Anchor::FullOfAny, budget)
            }
        };
        let pattern = pattern.map_err(|reason| bad_part("queryParams", name, reason))?;
        Ok((name.clone(), pattern))
    });
    compiled.collect()
}

/// A wrong name may be long; what is shown of it may not.
fn bad_part(list: &str, name: &str, reason: String) -> BadMatch {
    let shown: String = name.chars().take(64).collect();
    BadMatch {
        field: format!("{list}.{shown}"),
        reason,
    }
}

fn header_fits(
    (name, values, pattern): &(HeaderName, Values, Pattern),
    request: &RequestFacts<'_>,
) -> bool {
    let whole = |text: Cow<'_, str>| pattern.matches(&text);
    if name == COOKIE {
        return joined(name, "; ", request.headers).is_some_and(whole);
    }
    match values {
        Values::Each => each_fits(name, pattern, request.headers),
        Values::Joined => joined(name, ",", request.headers).is_some_and(whole),
    }
}

/// Present, and every single value matches: neither a joined string nor the
/// last value alone, which a second header could hide behind.
fn each_fits(name: &HeaderName, pattern: &Pattern, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek().is_some()
        && values.all(|value| {
            std::str::from_utf8(value.as_bytes()).is_ok_and(|text| pattern.matches(text))
        })
}

/// All values of a header; `None` when there is none or one is no UTF-8.
fn joined<'a>(name: &HeaderName, between: &str, headers: &'a HeaderMap) -> Option<Cow<'a, str>> {
    let values = headers.get_all(name).iter();
    let mut values = values.map(|value| std::str::from_utf8(value.as_bytes()).ok());
    let mut whole = Cow::Borrowed(values.next()??);
    for value in values {
        let text = whole.to_mut();
        text.push_str(between);
        text.push_str(value?);
    }
    Some(whole)
}

fn parameter_fits((name, pattern): &(String, Pattern), request: &RequestFacts<'_>) -> bool {
    let value = request.query.and_then(|query| query::first(query, name));
    value.is_some_and(|value| pattern.matches(&value))
}
