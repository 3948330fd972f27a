//! The headers of a response that this proxy writes into it: which Service serves the call, the
//! cookie of its tenant, and the edits of its route.

use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use crate::http::headers;
use crate::outbound::edits::ResponseEdits;

/// Headers of a response about the endpoint that serves the call, and what its route does with
/// the application's.
#[derive(Debug)]
pub(super) struct ServingHeaders {
    edits: Option<ResponseEdits>,
    /// The Service that does in place of the one that was called.
    degraded: Option<HeaderValue>,
    /// The Service that its request named.
    routed_to: Option<HeaderValue>,
    /// By which the next call of its tenant goes the same way.
    cookie: Option<HeaderValue>,
}

impl ServingHeaders {
    /// `name`: of the Service that serves.
    pub(super) fn degraded(name: &str, edits: Option<ResponseEdits>) -> Option<Box<Self>> {
        let degraded = HeaderValue::from_str(name).ok()?;
        Some(Box::new(Self {
            edits,
            degraded: Some(degraded),
            routed_to: None,
            cookie: None,
        }))
    }

    /// `name`: of the Service that serves, where the request named it.
    pub(super) fn of(
        cookie: Option<&HeaderValue>,
        name: Option<&str>,
        edits: Option<ResponseEdits>,
    ) -> Option<Box<Self>> {
        let routed_to = name.and_then(|name| HeaderValue::from_str(name).ok());
        if cookie.is_none() && routed_to.is_none() && edits.is_none() {
            return None;
        }
        Some(Box::new(Self {
            edits,
            degraded: None,
            routed_to,
            cookie: cookie.cloned(),
        }))
    }

    pub(super) fn write(self, map: &mut HeaderMap) {
        if let Some(edits) = &self.edits {
            edits.write(map);
        }
        if let Some(by) = self.degraded {
            map.insert(headers::DEGRADED, by);
        }
        if let Some(to) = self.routed_to {
            map.insert(headers::ROUTED_TO, to);
        }
        let Some(cookie) = self.cookie else { return };
        // A client keeps the last one of a name, and the application's own has more: the next
        // calls go by that.
        let mut own = map.get_all(SET_COOKIE).iter();
        if own.any(|one| name_of(one) == name_of(&cookie)) {
            return;
        }
        map.append(SET_COOKIE, cookie);
        // A cache that gave it to others would make them one tenant.
        let directives = map.get_all(CACHE_CONTROL).iter();
        let directives = directives.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let directives: Vec<&[u8]> = directives.map(<[u8]>::trim_ascii).collect();
        let has_directive =
            |name: &[u8]| directives.iter().any(|one| one.eq_ignore_ascii_case(name));
        if has_directive(b"private") || has_directive(b"no-store") {
            return;
        }
        if !has_directive(b"public") {
            map.append(CACHE_CONTROL, HeaderValue::from_static("private"));
            return;
        }
        // Beside it some caches would believe the first of the two.
        let other = |one: &&&[u8]| !one.eq_ignore_ascii_case(b"public");
        let left = directives.iter().filter(other).copied();
        let left: Vec<&[u8]> = [&b"private"[..]].into_iter().chain(left).collect();
        if let Ok(left) = HeaderValue::from_bytes(&left.join(&b", "[..])) {
            map.insert(CACHE_CONTROL, left);
        }
    }
}

/// Of the cookie that a `Set-Cookie` sets.
fn name_of(set_cookie: &HeaderValue) -> &[u8] {
    let mut parts = set_cookie.as_bytes().split(|byte| *byte == b'=');
    parts.next().unwrap_or_default().trim_ascii()
}
