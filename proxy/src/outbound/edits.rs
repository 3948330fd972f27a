//! Carries out the actions of a route's rule on one call: edits its request and its response, and
//! makes the responses that need no backend.
//!
//! Rules decide about a request as it came. Its edits are made once, before the first attempt, so
//! that retries, fallbacks and copies send the same request, and access rules of the called pod see
//! what arrives there. Responses of a backend are edited when they are passed on. What this proxy
//! or a fallback answers gets no edits, only the headers by which a page of another origin may read
//! it.
//!
//! Invariant: no edit changes a header that frames the message, belongs to one connection or is the
//! mesh's own, whatever a controller sends.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HOST, LOCATION, VARY};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use policy::host::is_host;
use policy::http_match::RequestFacts;
use policy::origin::Origin;
use policy::reason::Reason;
use policy::route::cors::{CorsAnswer, apply as apply_cors};
use policy::route::edits::{Actions, HeaderEdits, Redirect, Scheme};

use crate::failure::Failure;
use crate::http::body::{self, Body};
use crate::http::headers::may_be_edited;
use crate::http::received::host_of;
use crate::outbound::route::Route;

/// Why a call goes to no endpoint: it failed, or a rule gives the response.
#[derive(Debug)]
pub(super) enum Unsent {
    Failed(Failure),
    /// A rule sends its caller elsewhere.
    Redirected {
        redirect: Arc<Redirect>,
        by: Option<Origin>,
    },
    /// A browser asks whether a page may send a request. The response has these headers.
    Preflight {
        headers: Box<HeaderMap>,
        by: Option<Origin>,
    },
}

impl From<Failure> for Unsent {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Of opaque bytes, which no rule can answer.
impl From<Unsent> for Failure {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Failed(failure) => failure,
            Unsent::Redirected { by, .. } | Unsent::Preflight { by, .. } => Self::Refused {
                reason: Reason::InvalidRoute,
                by,
                detail: "the rule that decides answers requests, and these bytes are none".into(),
            },
        }
    }
}

/// The headers by which a page of another origin may read the response; `None`: no page sends the
/// request.
///
/// # Errors
/// A preflight request, which goes to no backend.
pub(super) fn cross_origin(
    actions: &Actions,
    request: &RequestFacts<'_>,
    by: Option<&Origin>,
) -> Result<Option<Box<HeaderMap>>, Unsent> {
    let Some(cors) = &actions.cors else {
        return Ok(None);
    };
    match cors.decide(request.method, request.headers) {
        CorsAnswer::NotCors => Ok(None),
        CorsAnswer::Simple(headers) => Ok(Some(Box::new(headers))),
        CorsAnswer::Preflight(headers) => Err(Unsent::Preflight {
            headers: Box::new(headers),
            by: by.cloned(),
        }),
    }
}

/// Makes the edits of a rule in a request.
///
/// # Errors
/// When the rewritten host or path is none.
pub(super) fn edit_request(route: &Route, parts: &mut Parts) -> Result<(), Failure> {
    let Some(actions) = route.actions.as_deref() else {
        return Ok(());
    };
    let mut host: Option<&str> = None;
    for edits in &actions.edits {
        apply(&edits.request, &mut parts.headers);
        let mut set = edits.request.set.iter();
        let named = set.find(|(name, _)| *name == HOST);
        host = named.and_then(|(_, value)| value.to_str().ok()).or(host);
    }
    let host = actions.host().map(|host| &**host).or(host);
    let sent = parts.uri.path_and_query();
    let sent = sent.map_or("/", PathAndQuery::as_str);
    let path = match actions.path_and_query(sent) {
        Cow::Borrowed(_) => None,
        Cow::Owned(path) => Some(path),
    };
    if host.is_none() && path.is_none() {
        return Ok(());
    }
    rewrite(parts, host, path).ok_or_else(|| Failure::Refused {
        reason: Reason::InvalidRoute,
        by: route.rule.clone(),
        detail: "the rule rewrites the host or path of the request to what is none".into(),
    })
}

/// Names another host in a request. `None`: it is none.
pub(super) fn rename(parts: &mut Parts, host: &str) -> Option<()> {
    rewrite(parts, Some(host), None)
}

/// Beside a target in absolute form `Host` counts for nothing, but not every server knows that. So
/// what leaves the mesh names its host in one way: that by which it was let through.
pub(super) fn name_once(parts: &mut Parts) {
    let authority = parts.uri.authority();
    let written = authority.and_then(|named| HeaderValue::from_str(named.as_str()).ok());
    if let Some(written) = written
        && parts.headers.contains_key(HOST)
    {
        parts.headers.insert(HOST, written);
    }
}

/// `None`: one of the two is none.
fn rewrite(parts: &mut Parts, host: Option<&str>, path: Option<String>) -> Option<()> {
    let mut uri = parts.uri.clone().into_parts();
    if let Some(path) = path {
        uri.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    }
    if let Some(host) = host.filter(|host| is_host(host.as_bytes())) {
        let authority = Authority::try_from(host).ok()?;
        let written = HeaderValue::from_str(host).ok()?;
        parts.headers.insert(HOST, written);
        // In HTTP/1.1 the target names it only where its sender wrote a whole address.
        if uri.authority.is_some() {
            uri.authority = Some(authority);
        }
    } else if host.is_some() {
        return None;
    }
    parts.uri = Uri::from_parts(uri).ok()?;
    Some(())
}

/// Removals come first, then what is set, then what is added.
fn apply(edits: &HeaderEdits, map: &mut HeaderMap) {
    for name in edits.remove.iter().filter(|name| may_be_edited(name)) {
        map.remove(name);
    }
    for (name, value) in edits.set.iter().filter(|(name, _)| may_be_edited(name)) {
        map.insert(name.clone(), value.clone());
    }
    for (name, value) in edits.add.iter().filter(|(name, _)| may_be_edited(name)) {
        map.append(name.clone(), value.clone());
    }
}

/// What is done with the response of a call, made only where there is anything.
#[derive(Debug)]
pub(super) struct ResponseEdits {
    actions: Option<Arc<Actions>>,
    cors: Option<Box<HeaderMap>>,
}

impl ResponseEdits {
    /// Of the response of the backend.
    pub(super) fn of(route: &Route) -> Option<Self> {
        let actions = route.actions.as_ref()?;
        let edits = actions.edits.iter().any(|one| !one.response.is_empty());
        let actions = edits.then(|| Arc::clone(actions));
        let cors = route.cors.clone();
        (actions.is_some() || cors.is_some()).then_some(Self { actions, cors })
    }

    /// Of a response that another Service gives instead, which no rule edits.
    pub(super) fn of_fallback(route: &Route) -> Option<Self> {
        Some(Self {
            actions: None,
            cors: Some(route.cors.clone()?),
        })
    }

    /// The backend's edits, then the rule's.
    pub(super) fn write(&self, map: &mut HeaderMap) {
        let edits = self.actions.iter().flat_map(|actions| &actions.edits).rev();
        for edits in edits {
            apply(&edits.response, map);
        }
        if let Some(cors) = &self.cors {
            apply_cors(cors, map);
        }
    }
}

/// Lets a page of another origin read a response of this proxy.
pub(super) fn allow_reading(route: &Route, map: &mut HeaderMap) {
    if let Some(cors) = &route.cors {
        apply_cors(cors, map);
    }
}

/// Lets a page read the response that takes the place of one that it could have read.
pub(super) fn keep_readable(replaced: &HeaderMap, map: &mut HeaderMap) {
    if !replaced.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        return;
    }
    for (name, value) in replaced {
        if *name == VARY || name.as_str().starts_with("access-control-") {
            map.append(name.clone(), value.clone());
        }
    }
}

/// The response that sends the caller elsewhere, of a request to the address `called`, by URLs of
/// this scheme.
///
/// # Errors
/// When the place cannot be written.
pub(super) fn redirection(
    redirect: &Redirect,
    (scheme, called): (Scheme, SocketAddr),
    parts: &Parts,
) -> Result<Response<Body>, Failure> {
    let origin = match &redirect.cors {
        Some(cors) => cors.decide(&parts.method, &parts.headers),
        None => CorsAnswer::NotCors,
    };
    if let CorsAnswer::Preflight(headers) = origin {
        return Ok(preflight(headers));
    }
    let unnamed;
    let authority = if let Some(host) = host_of(parts) {
        host
    } else {
        unnamed = called.to_string();
        &*unnamed
    };
    let sent = parts.uri.path_and_query();
    let sent = sent.map_or("/", PathAndQuery::as_str);
    let location = redirect.location(scheme, authority, called.port(), sent);
    let location = HeaderValue::try_from(location).map_err(|_| {
        let detail = "the rule redirects the request to a place that no header can name";
        Failure::refused(Reason::InvalidRoute, detail)
    })?;
    let mut response = Response::new(body::empty());
    *response.status_mut() = redirect.status;
    let map = response.headers_mut();
    map.insert(LOCATION, location);
    apply(&redirect.response, map);
    if let CorsAnswer::Simple(headers) = origin {
        apply_cors(&headers, map);
    }
    Ok(response)
}

/// The response to a preflight request.
pub(super) fn preflight(headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use http::{Request, Version};

    use super::*;

    fn parts(version: Version, target: &str) -> Parts {
        let request = Request::builder().version(version).uri(target);
        let request = request.header("host", "web.shop").body(()).unwrap();
        request.into_parts().0
    }

    #[test]
    fn response_in_place_of_readable_one_is_readable() {
        let mut replaced = HeaderMap::new();
        replaced.insert("content-encoding", HeaderValue::from_static("gzip"));
        replaced.insert(VARY, HeaderValue::from_static("origin"));
        let mut map = HeaderMap::new();
        keep_readable(&replaced, &mut map);
        assert!(map.is_empty(), "no page could read it: {map:?}");
        let origin = HeaderValue::from_static("https://shop.example");
        replaced.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        keep_readable(&replaced, &mut map);
        assert_eq!(map[ACCESS_CONTROL_ALLOW_ORIGIN], origin);
        assert_eq!(map[VARY], "origin");
        assert_eq!(map.len(), 2, "{map:?}");
    }

    #[test]
    fn rewrite_replaces_host_and_authority_where_each_stands() {
        for (version, target, written) in [
            (Version::HTTP_11, "/a?b", "/c?b"),
            (
                Version::HTTP_11,
                "http://web.shop/a?b",
                "http://in.shop/c?b",
            ),
            (Version::HTTP_2, "http://web.shop/a?b", "http://in.shop/c?b"),
        ] {
            let mut parts = parts(version, target);
            let done = rewrite(&mut parts, Some("in.shop"), Some("/c?b".to_owned()));
            assert_eq!(done, Some(()));
            assert_eq!(parts.uri.to_string(), written);
            assert_eq!(parts.headers["host"], "in.shop");
        }
    }

    #[test]
    fn host_beside_absolute_form_is_that_of_target() {
        for (target, named) in [("http://in.shop/a", "in.shop"), ("/a", "web.shop")] {
            let mut parts = parts(Version::HTTP_11, target);
            name_once(&mut parts);
            assert_eq!(parts.headers[HOST], named);
            assert_eq!(parts.uri.to_string(), target);
        }
    }

    #[test]
    fn rewrite_to_no_host_or_path_fails() {
        for (host, path) in [
            (Some("a@b"), None),
            (Some("a b"), None),
            (None, Some("/a b".to_owned())),
        ] {
            let mut parts = parts(Version::HTTP_11, "/a");
            let case = format!("{host:?} {path:?}");
            assert_eq!(rewrite(&mut parts, host, path), None, "{case}");
        }
    }

    #[test]
    fn redirect_of_request_without_host_names_called_address() {
        let redirect = Redirect {
            scheme: None,
            host: None,
            port: None,
            path: None,
            status: StatusCode::FOUND,
            response: HeaderEdits::default(),
            cors: None,
        };
        let mut parts = parts(Version::HTTP_10, "/a");
        parts.headers.clear();
        let called = SocketAddr::from(([10, 0, 0, 1], 8080));
        for (scheme, location) in [
            (Scheme::Http, "http://10.0.0.1:8080/a"),
            (Scheme::Https, "https://10.0.0.1:8080/a"),
        ] {
            let response = redirection(&redirect, (scheme, called), &parts).unwrap();
            assert_eq!(response.headers()[LOCATION], location);
        }
    }
}
