//! Decides whether a request is one of those that an HTTPRouteGroup describes.
//!
//! A match allows, so whatever is uncertain does not match: an absent header, one value among
//! several that does not fit, a value that is no UTF-8. Cookie crumbs of HTTP/2 are one header sent
//! in pieces and are joined first.
//!
//! A path is matched from its start with an open end, a header value in full.
//! The engine is linear in the input whatever the pattern. Characters in classes
//! are Unicode; `\p{...}` classes by script or category are not offered.

mod pattern;

pub use pattern::{Budget, MAX_REGEX_LEN, any_of, exactly, fits_no_path};

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use http::header::{COOKIE, HOST, HeaderMap, HeaderName};
use http::method::Method;

use pattern::{Anchor, Pattern};

/// Patterns that fit every path.
const EVERY_PATH: [&str; 6] = ["", ".*", "^.*", "/", "/.*", "^/.*"];

/// What a match looks at.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    pub method: &'a Method,
    /// Without query. Whether it is normalised is the caller's decision.
    pub path: &'a str,
    /// With the authority as `host`, which HTTP/2 carries elsewhere.
    pub headers: &'a HeaderMap,
}

/// One named match of an HTTPRouteGroup. Cheap to clone.
///
/// Kept as it was written, and compiled before it is first run: what is compiled is much
/// larger, and components that only hand a match on have no use for it.
#[derive(Clone, Debug)]
pub struct HttpMatch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    written: Written,
    /// Of what is written. Matches are looked up far more often than they are made, and each may
    /// be kilobytes long.
    hash: u64,
    /// `None` inside: cannot be compiled, and fits nothing.
    compiled: OnceLock<Option<Compiled>>,
}

/// In the words of the user, so that what is shown and sent on is the same.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Written {
    name: String,
    path_regex: Option<String>,
    methods: Vec<String>,
    headers: Vec<(String, String)>,
}

#[derive(Debug)]
struct Compiled {
    path: Option<Pattern>,
    /// Empty means any.
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Pattern)>,
}

/// Why a match cannot be used. `field` is relative to the match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadMatch {
    pub field: String,
    pub reason: String,
}

impl HttpMatch {
    /// Compiles a match. `None` as path and no or `*` among the methods mean any. A header
    /// that is listed twice must satisfy both patterns.
    pub fn new(
        name: &str,
        path_regex: Option<&str>,
        methods: &[impl AsRef<str>],
        headers: &[(impl AsRef<str>, impl AsRef<str>)],
    ) -> Result<Self, BadMatch> {
        Self::within(&mut Budget::single(), name, path_regex, methods, headers)
    }

    /// The same, as one of several matches that share a budget.
    pub fn within(
        budget: &mut Budget,
        name: &str,
        path_regex: Option<&str>,
        methods: &[impl AsRef<str>],
        headers: &[(impl AsRef<str>, impl AsRef<str>)],
    ) -> Result<Self, BadMatch> {
        let written = Written::new(name, path_regex, methods, headers);
        let compiled = Compiled::new(&written, budget)?;
        let inner = Inner::new(written, OnceLock::from(Some(compiled)));
        Ok(Self(Arc::new(inner)))
    }

    /// A match that is not compiled before it is run for the first time. One that cannot
    /// be compiled fits nothing.
    pub fn as_written(
        name: &str,
        path_regex: Option<&str>,
        methods: &[impl AsRef<str>],
        headers: &[(impl AsRef<str>, impl AsRef<str>)],
    ) -> Self {
        let written = Written::new(name, path_regex, methods, headers);
        Self(Arc::new(Inner::new(written, OnceLock::new())))
    }

    pub fn name(&self) -> &str {
        &self.0.written.name
    }

    pub fn path_regex(&self) -> Option<&str> {
        self.0.written.path_regex.as_deref()
    }

    pub fn methods(&self) -> &[String] {
        &self.0.written.methods
    }

    /// Name and pattern of each header.
    pub fn headers(&self) -> &[(String, String)] {
        &self.0.written.headers
    }

    /// Whether it is plain that this is every request that has a path. Other patterns may
    /// fit every path too; known are those that people write for that.
    #[must_use]
    pub(crate) fn is_every_request(&self) -> bool {
        let Written { methods, .. } = &self.0.written;
        self.is_every_path()
            && (methods.is_empty() || methods.iter().any(|method| method == "*"))
            && self.headers().is_empty()
    }

    /// Whether it is plain that this describes the request whatever its path is: known are the
    /// patterns that people write for every path.
    #[must_use]
    pub(crate) fn matches_whatever_path(&self, request: &RequestFacts<'_>) -> bool {
        self.is_every_path() && self.matches(request)
    }

    /// Whether it depends on the host that the request names.
    #[must_use]
    pub(crate) fn looks_at_host(&self) -> bool {
        let mut names = self.headers().iter().map(|(name, _)| name);
        names.any(|name| name.eq_ignore_ascii_case(HOST.as_str()))
    }

    fn is_every_path(&self) -> bool {
        let any_path = |path: &str| EVERY_PATH.contains(&path);
        self.path_regex().is_none_or(any_path)
    }

    /// Whether both describe the same requests in the same words, whatever they are named.
    #[must_use]
    pub(crate) fn describes_what(&self, other: &Self) -> bool {
        self.path_regex() == other.path_regex()
            && self.methods() == other.methods()
            && self.headers() == other.headers()
    }

    pub fn matches(&self, request: &RequestFacts<'_>) -> bool {
        self.compiled()
            .is_some_and(|compiled| compiled.matches(request))
    }

    /// The first part that a request does not fit; `None` if it fits all.
    pub(crate) fn fails(&self, request: &RequestFacts<'_>) -> Option<MatchPart<'_>> {
        match self.compiled() {
            Some(compiled) => compiled.fails(request),
            None => Some(MatchPart::Unusable),
        }
    }

    fn compiled(&self) -> Option<&Compiled> {
        let compile = || Compiled::new(&self.0.written, &mut Budget::single()).ok();
        self.0.compiled.get_or_init(compile).as_ref()
    }
}

/// What of a match a request does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MatchPart<'a> {
    /// It cannot be compiled.
    Unusable,
    Path,
    Method,
    /// By name.
    Header(&'a str),
}

/// Equal when written equally; what is compiled follows from that.
impl PartialEq for HttpMatch {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (&self.0, &other.0);
        Arc::ptr_eq(one, other) || (one.hash == other.hash && one.written == other.written)
    }
}

impl Eq for HttpMatch {}

impl Hash for HttpMatch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl Inner {
    fn new(written: Written, compiled: OnceLock<Option<Compiled>>) -> Self {
        // The same keys for all: equal values must hash alike, wherever they were made.
        let mut hasher = DefaultHasher::new();
        written.hash(&mut hasher);
        Self {
            written,
            hash: hasher.finish(),
            compiled,
        }
    }
}

impl Written {
    fn new(
        name: &str,
        path_regex: Option<&str>,
        methods: &[impl AsRef<str>],
        headers: &[(impl AsRef<str>, impl AsRef<str>)],
    ) -> Self {
        let methods = methods.iter().map(|method| method.as_ref().to_owned());
        let headers = headers.iter();
        let headers = headers.map(|(name, regex)| (name.as_ref().into(), regex.as_ref().into()));
        Self {
            name: name.to_owned(),
            path_regex: path_regex.map(str::to_owned),
            methods: methods.collect(),
            headers: headers.collect(),
        }
    }
}

impl Compiled {
    fn new(written: &Written, budget: &mut Budget) -> Result<Self, BadMatch> {
        let path = match &written.path_regex {
            Some(regex) => Some(Pattern::compile(regex, Anchor::Start, budget).map_err(
                |reason| BadMatch {
                    field: "pathRegex".to_owned(),
                    reason,
                },
            )?),
            None => None,
        };
        Ok(Self {
            path,
            methods: compile_methods(&written.methods)?,
            headers: compile_headers(&written.headers, budget)?,
        })
    }

    fn matches(&self, request: &RequestFacts<'_>) -> bool {
        let Self {
            path,
            methods,
            headers,
        } = self;
        (methods.is_empty() || methods.contains(request.method))
            && path
                .as_ref()
                .is_none_or(|pattern| pattern.matches(request.path))
            && headers
                .iter()
                .all(|(name, pattern)| header_matches(name, pattern, request.headers))
    }

    fn fails(&self, request: &RequestFacts<'_>) -> Option<MatchPart<'_>> {
        let path = self.path.as_ref();
        if path.is_some_and(|pattern| !pattern.matches(request.path)) {
            return Some(MatchPart::Path);
        }
        if !self.methods.is_empty() && !self.methods.contains(request.method) {
            return Some(MatchPart::Method);
        }
        let mut headers = self.headers.iter();
        headers
            .find(|(name, pattern)| !header_matches(name, pattern, request.headers))
            .map(|(name, _)| MatchPart::Header(name.as_str()))
    }
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
    written: &[(String, String)],
    budget: &mut Budget,
) -> Result<Vec<(HeaderName, Pattern)>, BadMatch> {
    written
        .iter()
        .map(|(name, regex)| {
            let bad = |reason: String| BadMatch {
                // A wrong name may be long; what is shown of it may not.
                field: format!("headers.{}", name.chars().take(64).collect::<String>()),
                reason,
            };
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| bad("is no header name".to_owned()))?;
            let pattern = Pattern::compile(regex, Anchor::Full, budget).map_err(bad)?;
            Ok((parsed, pattern))
        })
        .collect()
}

/// Present, and every single value matches: neither a joined string nor the
/// last value alone, which a second header could hide behind.
fn header_matches(name: &HeaderName, pattern: &Pattern, headers: &HeaderMap) -> bool {
    if name == COOKIE {
        return joined_cookie(headers).is_some_and(|cookie| pattern.matches(&cookie));
    }
    let mut values = headers.get_all(name).iter().peekable();
    values.peek().is_some()
        && values.all(|value| {
            std::str::from_utf8(value.as_bytes()).is_ok_and(|text| pattern.matches(text))
        })
}

/// `None` when there is no cookie or one is no UTF-8.
fn joined_cookie(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let mut crumbs = headers
        .get_all(COOKIE)
        .iter()
        .map(|crumb| std::str::from_utf8(crumb.as_bytes()).ok());
    let mut cookie = Cow::Borrowed(crumbs.next()??);
    for crumb in crumbs {
        let whole = cookie.to_mut();
        whole.push_str("; ");
        whole.push_str(crumb?);
    }
    Some(cookie)
}

#[cfg(test)]
mod tests;
