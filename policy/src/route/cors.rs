//! Cross-origin requests of browsers: which origins may read responses of a rule.
//!
//! A preflight request is answered without any backend. Of every other request with an origin that
//! is allowed the response gets the headers that let its page read it; a request of another
//! origin gets none, and its browser withholds the response.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Method;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, VARY,
};

/// `cors` of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cors {
    pub origins: Vec<AllowedOrigin>,
    pub credentials: bool,
    pub methods: Allowed<Method>,
    pub headers: Allowed<HeaderName>,
    /// Headers of responses that a page may read.
    pub expose: Allowed<HeaderName>,
    /// Seconds that a browser may keep the response to a preflight request.
    pub max_age: u32,
}

/// What of one kind is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Allowed<T> {
    /// `*`.
    Any,
    Only(Vec<T>),
}

/// `*`, or `scheme://host` with an optional port, where the host may be `*` or begin with `*.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AllowedOrigin {
    text: Box<str>,
    which: Which,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Which {
    Every,
    Of { https: bool, host: Host, port: u16 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    Every,
    /// In small letters.
    Exact(Box<str>),
    /// What stands behind the star, with its dot, in small letters.
    EndsWith(Box<str>),
}

/// Why a text is no [`AllowedOrigin`]; a clause that follows the name of its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is {0:?}, but must be \"*\" or scheme://host with an optional port, such as \
     \"https://*.example.com:8443\""
)]
pub struct NotAnOrigin(String);

/// What a request is to CORS, and the headers that its response gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsAnswer {
    /// No browser asks: the response stays as it is.
    NotCors,
    /// A preflight request: a response 204 with these headers, and no backend is called.
    Preflight(HeaderMap),
    /// The response of the backend gets these, by [`apply`].
    Simple(HeaderMap),
}

impl Cors {
    /// What a request with this method and these headers is, and gets.
    #[must_use]
    pub fn decide(&self, method: &Method, headers: &HeaderMap) -> CorsAnswer {
        let Some(origin) = headers.get(ORIGIN) else {
            return CorsAnswer::NotCors;
        };
        let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        let asked = asked.filter(|_| method == Method::OPTIONS);
        let mut answer = HeaderMap::new();
        if self.allows(origin) {
            self.answer_origin(origin, &mut answer);
            if let Some(asked) = asked {
                self.answer_preflight(asked, headers, &mut answer);
            }
        }
        if self.varies() {
            answer.insert(VARY, HeaderValue::from_static("origin"));
        }
        match asked {
            Some(_) => CorsAnswer::Preflight(answer),
            None => CorsAnswer::Simple(answer),
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let text = origin.to_str().unwrap_or_default();
        let called = Origin::parse(text);
        let mut allowed = self.origins.iter();
        allowed.any(|one| one.allows(called.as_ref()))
    }

    /// Whether a cache must not give the response to another origin.
    fn varies(&self) -> bool {
        self.credentials || !self.origins.iter().any(AllowedOrigin::is_every)
    }

    fn answer_origin(&self, origin: &HeaderValue, answer: &mut HeaderMap) {
        let named = if self.varies() {
            origin.clone()
        } else {
            HeaderValue::from_static("*")
        };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, named);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        // With credentials a star would be a header of that name.
        if let Some(exposed) = listed(&self.expose, !self.credentials, None) {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }

    fn answer_preflight(&self, method: &HeaderValue, headers: &HeaderMap, answer: &mut HeaderMap) {
        let may_be_star = !self.credentials;
        if let Some(methods) = listed(&self.methods, may_be_star, Some(method)) {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(names) = listed(&self.headers, may_be_star, asked) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age));
    }
}

/// The value of a header that lists what is allowed. `None`: it is left out.
fn listed<T: AsRef<str>>(
    allowed: &Allowed<T>,
    may_be_star: bool,
    asked: Option<&HeaderValue>,
) -> Option<HeaderValue> {
    match allowed {
        Allowed::Any if may_be_star => Some(HeaderValue::from_static("*")),
        Allowed::Any => asked.cloned(),
        Allowed::Only(list) if list.is_empty() => None,
        Allowed::Only(list) => {
            let names: Vec<&str> = list.iter().map(AsRef::as_ref).collect();
            HeaderValue::try_from(names.join(", ")).ok()
        }
    }
}

/// Puts the headers of an answer into the response of a backend, instead of all permissions that
/// the application wrote: what it permits beyond the route would hold otherwise, to another origin
/// or with credentials. `vary` is added to.
pub fn apply(answer: &HeaderMap, response: &mut HeaderMap) {
    for permission in [
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE,
    ] {
        response.remove(permission);
    }
    for (name, value) in answer {
        if name == VARY {
            response.append(name, value.clone());
        } else {
            response.insert(name, value.clone());
        }
    }
}

/// An origin, as a browser writes it.
struct Origin<'a> {
    https: bool,
    host: &'a str,
    port: u16,
}

impl<'a> Origin<'a> {
    /// `None` for `null` and whatever is no scheme, host and port.
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let https = match scheme {
            _ if scheme.eq_ignore_ascii_case("http") => false,
            _ if scheme.eq_ignore_ascii_case("https") => true,
            _ => return None,
        };
        let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if is_port(port) => (host, port.parse().ok().filter(|p| *p != 0)?),
            _ => (rest, if https { 443 } else { 80 }),
        };
        let name = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_host = match name {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains(['/', '?', '#', '@', ',', ' ', ':']),
        };
        is_host.then_some(Self { https, host, port })
    }
}

impl AllowedOrigin {
    fn is_every(&self) -> bool {
        self.which == Which::Every
    }

    fn allows(&self, called: Option<&Origin<'_>>) -> bool {
        match (&self.which, called) {
            (Which::Every, _) => true,
            (Which::Of { .. }, None) => false,
            (Which::Of { https, host, port }, Some(called)) => {
                called.https == *https && called.port == *port && host.fits(called.host)
            }
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Host {
    fn fits(&self, called: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Exact(host) => called.eq_ignore_ascii_case(host),
            Self::EndsWith(end) => {
                let start = called.len().checked_sub(end.len());
                let tail = start.and_then(|start| called.get(start..));
                // Before the dot stands a label at least.
                start != Some(0) && tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
            }
        }
    }
}

impl FromStr for AllowedOrigin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let bad = || NotAnOrigin(text.chars().take(80).collect());
        let which = if text == "*" {
            Which::Every
        } else {
            let origin = Origin::parse(text).ok_or_else(bad)?;
            let host = origin.host.to_ascii_lowercase();
            let host = match host.strip_prefix('*') {
                Some("") => Host::Every,
                Some(end) if end.starts_with('.') && !end.contains('*') => {
                    Host::EndsWith(end.into())
                }
                None if !host.contains('*') => Host::Exact(host.as_str().into()),
                Some(_) | None => return Err(bad()),
            };
            let Origin { https, port, .. } = origin;
            Which::Of { https, host, port }
        };
        Ok(Self {
            text: text.into(),
            which,
        })
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
