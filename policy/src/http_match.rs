//! Decides whether a request is one of those that a route describes.
//!
//! Matches of an HTTPRouteGroup allow, so whatever is uncertain does not match: an absent header,
//! one value among several that does not fit, a value that is no UTF-8. Cookie crumbs of HTTP/2 are
//! one header sent in pieces and are joined first. Their paths are matched from the start with an
//! open end, and header values in full.
//!
//! Matches of Gateway API routes choose where a request goes. They know plain paths, prefixes by
//! segments and parameters of the query; expressions fit in full, and the values of a header are
//! one text. What cannot be read does not match there either.
//!
//! The engine is linear in the input whatever the pattern. Characters in classes
//! are Unicode; `\p{...}` classes by script or category are not offered.

mod compiled;
mod description;
mod pattern;
mod query;
mod stem;

pub use compiled::MatchPart;
pub use description::{BadMatch, Description, PathMatch, RequestFacts, ValueMatch};
pub use pattern::{Budget, MAX_EXACT_LEN, MAX_REGEX_LEN, any_of, exactly, fits_no_path};

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use http::header::HOST;

use compiled::Compiled;
use stem::Stem;

/// Patterns of HTTPRouteGroups that fit every path.
const EVERY_PATH: [&str; 6] = ["", ".*", "^.*", "/", "/.*", "^/.*"];

/// One match of a route, with a name where it has one. Cheap to clone.
///
/// Kept as it was written, and compiled before it is first run: what is compiled is much
/// larger, and components that only hand a match on have no use for it.
#[derive(Clone, Debug)]
pub struct HttpMatch {
    inner: Arc<Inner>,
    /// Beside the pointer, so that most requests that a match does not fit follow no pointer.
    stem: Stem,
}

#[derive(Debug)]
struct Inner {
    written: Written,
    /// Of what is written. Matches are looked up far more often than they are made, and each may
    /// be kilobytes long.
    hash: u64,
    /// What compiling it was charged; 0 where nothing was.
    charged: usize,
    /// `None` inside: cannot be compiled, and fits nothing.
    compiled: OnceLock<Option<Compiled>>,
}

/// In the words of the user, so that what is shown and sent on is the same.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Written {
    name: String,
    description: Description,
}

impl HttpMatch {
    /// Compiles a match of an HTTPRouteGroup. `None` as path and no or `*` among the methods mean
    /// any. A header that is listed twice must satisfy both patterns.
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
        Self::described(budget, name, group(path_regex, methods, headers))
    }

    /// A match of an HTTPRouteGroup that is not compiled before it is run for the first time. One
    /// that cannot be compiled fits nothing.
    pub fn as_written(
        name: &str,
        path_regex: Option<&str>,
        methods: &[impl AsRef<str>],
        headers: &[(impl AsRef<str>, impl AsRef<str>)],
    ) -> Self {
        Self::as_described(name, group(path_regex, methods, headers))
    }

    /// The same of one that was compiled elsewhere, where its budget was charged so much.
    pub fn as_charged(
        charged: usize,
        name: &str,
        path_regex: Option<&str>,
        methods: &[impl AsRef<str>],
        headers: &[(impl AsRef<str>, impl AsRef<str>)],
    ) -> Self {
        let written = Written::new(name, group(path_regex, methods, headers));
        Self::with(Inner::new(written, charged, OnceLock::new()))
    }

    /// Compiles a match, as one of several that share a budget.
    ///
    /// # Errors
    /// With the part that cannot be compiled.
    pub fn described(
        budget: &mut Budget,
        name: &str,
        description: Description,
    ) -> Result<Self, BadMatch> {
        let before = budget.left;
        let compiled = Compiled::new(&description, budget)?;
        let charged = before.saturating_sub(budget.left);
        let written = Written::new(name, description);
        let compiled = OnceLock::from(Some(compiled));
        Ok(Self::with(Inner::new(written, charged, compiled)))
    }

    /// A match that is not compiled before it is run for the first time. One that cannot
    /// be compiled fits nothing.
    #[must_use]
    pub fn as_described(name: &str, description: Description) -> Self {
        let written = Written::new(name, description);
        Self::with(Inner::new(written, 0, OnceLock::new()))
    }

    fn with(inner: Inner) -> Self {
        let stem = Stem::of(inner.written.description.path.as_ref());
        let inner = Arc::new(inner);
        Self { inner, stem }
    }

    pub fn name(&self) -> &str {
        &self.inner.written.name
    }

    /// What it describes, as it was written.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.inner.written.description
    }

    /// Most bytes that its expressions take where it is compiled, as its budget was charged; 0 of
    /// one for which no budget was.
    #[must_use]
    pub fn compiled_size(&self) -> usize {
        self.inner.charged
    }

    pub fn methods(&self) -> &[String] {
        &self.description().methods
    }

    /// Names of the headers that it looks at, as they were written.
    pub fn header_names(&self) -> impl Iterator<Item = &str> {
        let headers = self.description().headers.iter();
        headers.map(|(name, _)| name.as_str())
    }

    /// Whether it is plain that this is every request that has a path. Other patterns may
    /// fit every path too; known are those that people write for that.
    #[must_use]
    pub(crate) fn is_every_request(&self) -> bool {
        let Description {
            methods,
            headers,
            query,
            ..
        } = self.description();
        self.is_every_path()
            && (methods.is_empty() || methods.iter().any(|method| method == "*"))
            && headers.is_empty()
            && query.is_empty()
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
        let mut names = self.header_names();
        names.any(|name| name.eq_ignore_ascii_case(HOST.as_str()))
    }

    fn is_every_path(&self) -> bool {
        match &self.description().path {
            None => true,
            Some(PathMatch::Open(regex)) => EVERY_PATH.contains(&regex.as_str()),
            Some(PathMatch::Prefix(prefix)) => ["", "/"].contains(&prefix.as_str()),
            Some(PathMatch::Exact(_) | PathMatch::Regex(_)) => false,
        }
    }

    /// Whether both describe the same requests in the same words, whatever they are named.
    #[must_use]
    pub(crate) fn describes_what(&self, other: &Self) -> bool {
        self.description() == other.description()
    }

    pub fn matches(&self, request: &RequestFacts<'_>) -> bool {
        self.stem.may_fit(request.path)
            && self
                .compiled()
                .is_some_and(|compiled| compiled.matches(request))
    }

    /// The first part that a request does not fit; `None` if it fits all.
    #[must_use]
    pub fn fails(&self, request: &RequestFacts<'_>) -> Option<MatchPart<'_>> {
        match self.compiled() {
            Some(compiled) => compiled.fails(request),
            None => Some(MatchPart::Unusable),
        }
    }

    fn compiled(&self) -> Option<&Compiled> {
        let compile = || Compiled::new(self.description(), &mut Budget::single()).ok();
        self.inner.compiled.get_or_init(compile).as_ref()
    }
}

/// What a match of an HTTPRouteGroup describes.
fn group(
    path_regex: Option<&str>,
    methods: &[impl AsRef<str>],
    headers: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Description {
    let methods = methods.iter().map(|method| method.as_ref().to_owned());
    let headers = headers.iter().map(|(name, regex)| {
        let regex = regex.as_ref().to_owned();
        (name.as_ref().to_owned(), ValueMatch::Each(regex))
    });
    Description {
        path: path_regex.map(|regex| PathMatch::Open(regex.to_owned())),
        methods: methods.collect(),
        headers: headers.collect(),
        query: Vec::new(),
    }
}

/// Equal when written equally; what is compiled follows from that.
impl PartialEq for HttpMatch {
    fn eq(&self, other: &Self) -> bool {
        let (one, other) = (&self.inner, &other.inner);
        Arc::ptr_eq(one, other) || (one.hash == other.hash && one.written == other.written)
    }
}

impl Eq for HttpMatch {}

impl Hash for HttpMatch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.inner.hash);
    }
}

impl Inner {
    fn new(written: Written, charged: usize, compiled: OnceLock<Option<Compiled>>) -> Self {
        // The same keys for all: equal values must hash alike, wherever they were made.
        let mut hasher = DefaultHasher::new();
        written.hash(&mut hasher);
        Self {
            written,
            hash: hasher.finish(),
            charged,
            compiled,
        }
    }
}

impl Written {
    fn new(name: &str, description: Description) -> Self {
        Self {
            name: name.to_owned(),
            description,
        }
    }
}

#[cfg(test)]
mod tests;
