//! The actions of a route's rule on its calls: edits of headers, host and path, redirects, mirrors,
//! time limits and retries.
//!
//! A rule's edits come first, then those of the backend that was chosen; of responses the other
//! way round. Nothing here looks at a match: rules decide about a request as it came.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::cors::Cors;
use crate::name::ServiceId;
use crate::share::Share;

/// What is done with a call that a backend takes. One value is shared by all rules and calls that
/// have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actions {
    /// The rule's, then the backend's.
    pub edits: Vec<Edits>,
    pub cors: Option<Cors>,
    pub mirrors: Vec<RuleMirror>,
    pub timeouts: Option<RuleTimeouts>,
    pub retry: Option<RuleRetry>,
}

/// Edits of one rule, or of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Edits {
    pub request: HeaderEdits,
    pub response: HeaderEdits,
    pub rewrite: Option<Rewrite>,
}

/// Changes to the headers of one message. Removals come first, then `set`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderEdits {
    /// Instead of the values that the header has.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Beside the values that the header has.
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// Another host or path for a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rewrite {
    /// The authority that the application sees.
    pub host: Option<Arc<str>>,
    pub path: Option<PathRewrite>,
}

/// Another path. The query stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathRewrite {
    /// The whole path.
    Full(String),
    /// The segments that the match names. An empty `with` takes them away.
    Prefix { matched: String, with: String },
}

/// A response that sends the caller elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// `None`: that of the request.
    pub scheme: Option<Scheme>,
    /// `None`: that of the request.
    pub host: Option<Arc<str>>,
    /// `None`: that of `scheme`; without a scheme the port that was called.
    pub port: Option<u16>,
    pub path: Option<PathRewrite>,
    pub status: StatusCode,
    /// Edits of the response itself.
    pub response: HeaderEdits,
    pub cors: Option<Cors>,
}

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    Http,
    Https,
}

/// A Service that receives copies of a rule's requests, whatever their method is. The pods that
/// receive them may make any call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleMirror {
    pub service: ServiceId,
    /// Of that Service.
    pub port: u16,
    /// Name of the endpoints resource.
    pub endpoints: Arc<str>,
    pub share: Share,
}

/// Time limits of a rule. `None`: those of the TrafficPolicy stay; zero: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleTimeouts {
    /// The whole call with all its attempts.
    pub request: Option<Duration>,
    /// One attempt, to the head of its response.
    pub backend_request: Option<Duration>,
}

/// Retries of a rule: `retry` of a TrafficPolicy with other defaults. The same endpoint may be
/// asked again where there is no other. See [`crate::traffic::call::Retry::of_rule`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleRetry {
    /// After the first, at most [`MAX_ATTEMPTS`].
    pub attempts: u8,
    /// Error statuses that are tried again, from 400 to 599.
    pub codes: Vec<u16>,
    /// The shortest wait before the first retry, at most [`MAX_BACKOFF`]; `None`: the default.
    pub backoff: Option<Duration>,
}

/// Of [`RuleRetry::attempts`]: twice what a TrafficPolicy may have.
pub const MAX_ATTEMPTS: u8 = 10;
/// Of [`RuleRetry::backoff`], as of a TrafficPolicy's.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);

impl Actions {
    /// Edits the headers of a request.
    pub fn edit_request(&self, headers: &mut HeaderMap) {
        for edits in &self.edits {
            edits.request.apply(headers);
        }
    }

    /// The authority of the request that is sent; `None`: as it came.
    #[must_use]
    pub fn host(&self) -> Option<&Arc<str>> {
        let mut hosts = self.rewrites().filter_map(|rewrite| rewrite.host.as_ref());
        hosts.next_back()
    }

    /// Path and query of the request that is sent.
    #[must_use]
    pub fn path_and_query<'a>(&self, sent: &'a str) -> Cow<'a, str> {
        let mut now = Cow::Borrowed(sent);
        for rewrite in self.rewrites() {
            let next = match rewrite.path_and_query(&now) {
                Cow::Owned(next) => Some(next),
                Cow::Borrowed(_) => None,
            };
            if let Some(next) = next {
                now = Cow::Owned(next);
            }
        }
        now
    }

    fn rewrites(&self) -> impl DoubleEndedIterator<Item = &Rewrite> {
        self.edits.iter().filter_map(|edits| edits.rewrite.as_ref())
    }
}

impl HeaderEdits {
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

impl Rewrite {
    /// The path with its query, rewritten; what is `sent` where nothing changes.
    #[must_use]
    pub fn path_and_query<'a>(&self, sent: &'a str) -> Cow<'a, str> {
        match &self.path {
            Some(rewrite) => rewrite.path_and_query(sent),
            None => Cow::Borrowed(sent),
        }
    }
}

impl PathRewrite {
    fn path_and_query<'a>(&self, sent: &'a str) -> Cow<'a, str> {
        let (path, query) = match sent.find('?') {
            Some(at) => sent.split_at(at),
            None => (sent, ""),
        };
        match self {
            Self::Full(with) => Cow::Owned(format!("{}{query}", with_slash(with))),
            Self::Prefix { matched, with } => match behind(path, matched) {
                Some(rest) => {
                    let start = with.strip_suffix('/').unwrap_or(with);
                    let path = format!("{start}{rest}");
                    Cow::Owned(format!("{}{query}", with_slash(&path)))
                }
                None => Cow::Borrowed(sent),
            },
        }
    }
}

/// What follows the segments of `prefix` in a path; `None` where it does not begin with them.
fn behind<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// A path begins with a slash.
fn with_slash(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(format!("/{path}"))
    }
}

impl Redirect {
    /// The value of `location`, from what was called: its scheme, the authority that the request
    /// names, the port, and path and query.
    #[must_use]
    pub fn location(
        &self,
        scheme: Scheme,
        authority: &str,
        port: u16,
        path_and_query: &str,
    ) -> String {
        let host = self.host.as_deref().unwrap_or_else(|| host_of(authority));
        let port = self.port.unwrap_or_else(|| match self.scheme {
            Some(scheme) => scheme.port(),
            None => port,
        });
        let scheme = self.scheme.unwrap_or(scheme);
        let path = match &self.path {
            Some(rewrite) => rewrite.path_and_query(path_and_query),
            None => with_slash(path_and_query),
        };
        if port == scheme.port() {
            format!("{}://{host}{path}", scheme.as_str())
        } else {
            format!("{}://{host}:{port}{path}", scheme.as_str())
        }
    }
}

/// An authority without its port; an IPv6 address keeps its brackets.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

impl Scheme {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that no URL of the scheme has to name.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[cfg(test)]
mod tests;
