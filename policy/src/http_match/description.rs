//! A match of HTTP requests as its author wrote it (path, methods, headers, query), and the facts
//! of a request that it is compared with.

use http::header::HeaderMap;
use http::method::Method;

/// What a match looks at.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    pub method: &'a Method,
    /// Without query. Whether it is normalised is the caller's decision.
    pub path: &'a str,
    /// What stands behind the question mark, as it was sent; `None` where there is none.
    pub query: Option<&'a str>,
    /// With the authority as `host`, which HTTP/2 carries elsewhere.
    pub headers: &'a HeaderMap,
}

/// Which requests a match describes: those that every part of it fits. The default describes
/// every request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Description {
    /// `None`: every path.
    pub path: Option<PathMatch>,
    /// Empty, or with `*` among them: every method.
    pub methods: Vec<String>,
    /// By name. One that is listed twice must fit both.
    pub headers: Vec<(String, ValueMatch)>,
    /// Parameters of the query, by name as it reads decoded.
    pub query: Vec<(String, ValueMatch)>,
}

/// Which paths a match describes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// `pathRegex` of an HTTPRouteGroup: an expression from the start of the path on, with an
    /// open end.
    Open(String),
    /// This path and no other.
    Exact(String),
    /// Paths that begin with these segments; a final slash of it means nothing. `/` is every path.
    Prefix(String),
    /// An expression that fits the path in full.
    Regex(String),
}

/// Which values of a header, or of a parameter of the query, a match describes.
///
/// A header that is absent fits nothing. Its values are joined by commas, and the crumbs of
/// a cookie by semicolons; of a parameter counts the first value, decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueMatch {
    /// Of an HTTPRouteGroup: an expression that fits every single value of a header in full. Of a
    /// parameter it is what `Regex` is.
    Each(String),
    /// This value and no other.
    Exact(String),
    /// An expression that fits the value in full.
    Regex(String),
}

impl PathMatch {
    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Open(text) | Self::Exact(text) | Self::Prefix(text) | Self::Regex(text) => text,
        }
    }
}

impl ValueMatch {
    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Each(text) | Self::Exact(text) | Self::Regex(text) => text,
        }
    }
}

/// Why a match cannot be used. `field` is relative to the match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadMatch {
    pub field: String,
    pub reason: String,
}
