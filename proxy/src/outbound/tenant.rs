//! Finds the tenant that a call belongs to, by `sticky` of a TrafficPolicy, and writes the cookie
//! by which the tenant's next call is recognized.
//!
//! Claims: calls-57

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use policy::http_match::RequestFacts;
use policy::sticky::Key;
use policy::traffic::call::{Sticky, StickyKey, StickyScope};

use crate::config::snapshot::Snapshot;

/// Set by an application's own proxy or load balancer: how it was called.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The tenant of a call.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) key: Key,
    /// It keeps its endpoint, too.
    pub(super) endpoint: bool,
    /// The answer sets it.
    pub(super) cookie: Option<Box<HeaderValue>>,
}

/// The tenant of a call to the Service of this resource; `None` where policies distinguish none
/// or the call names none. `pod`: who calls.
pub(super) fn of(
    snapshot: &Snapshot,
    resource: &str,
    request: Option<&RequestFacts<'_>>,
    pod: &str,
) -> Option<Tenant> {
    if snapshot.policies.is_empty() {
        return None;
    }
    let configured = snapshot.policies.of(resource)?;
    let sticky = configured.sticky.decide(None).0.as_ref()?;
    let (key, cookie) = key(sticky, request, pod)?;
    Some(Tenant {
        key,
        endpoint: sticky.scope == StickyScope::Endpoint,
        cookie: cookie.map(Box::new),
    })
}

/// The key, and the cookie with it where the call had none.
fn key(
    sticky: &Sticky,
    request: Option<&RequestFacts<'_>>,
    pod: &str,
) -> Option<(Key, Option<HeaderValue>)> {
    match &sticky.key {
        StickyKey::Caller => Some((Key::of(pod.as_bytes()), None)),
        StickyKey::Header(name) => {
            let value = request?.headers.get(name)?.as_bytes();
            (!value.is_empty()).then(|| (Key::of(value), None))
        }
        StickyKey::Cookie(name) => {
            let headers = request?.headers;
            if let Some(value) = cookie(headers, name) {
                return Some((Key::of(value), None));
            }
            let value = format!("{:032x}", rand::random::<u128>());
            let secure = is_https(headers) || is_secure(name);
            let set = set_cookie(sticky, name, &value, secure);
            Some((Key::of(value.as_bytes()), Some(set?)))
        }
    }
}

/// The first value of a cookie that is not empty.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let all = headers.get_all(COOKIE).iter();
    let mut pairs = all.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
        (key == name.as_bytes() && !value.is_empty()).then_some(value)
    })
}

fn is_https(headers: &HeaderMap) -> bool {
    let value = headers.get(FORWARDED_PROTO);
    value.is_some_and(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"https"))
}

/// Browsers keep a cookie of such a name only where it has `Secure`.
fn is_secure(name: &str) -> bool {
    name.starts_with("__Secure-") || name.starts_with("__Host-")
}

fn set_cookie(sticky: &Sticky, name: &str, value: &str, secure: bool) -> Option<HeaderValue> {
    let mut cookie = format!("{name}={value}; HttpOnly; SameSite=Lax; Path=/");
    if secure {
        cookie.push_str("; Secure");
    }
    if let Some(ttl) = sticky.ttl {
        cookie.push_str(&format!("; Max-Age={}", ttl.as_secs().max(1)));
    }
    HeaderValue::from_str(&cookie).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;

    fn sticky(key: StickyKey) -> Sticky {
        Sticky {
            key,
            scope: StickyScope::Endpoint,
            ttl: None,
        }
    }

    fn tenant_of(
        sticky: &Sticky,
        pairs: &[(&'static str, &'static str)],
    ) -> Option<(Key, Option<String>)> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let request = RequestFacts {
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
        };
        let (key, cookie) = key(sticky, Some(&request), "web-1")?;
        Some((
            key,
            cookie.map(|cookie| cookie.to_str().unwrap().to_owned()),
        ))
    }

    #[test]
    fn tenant_comes_from_header_cookie_or_calling_pod() {
        let header = sticky(StickyKey::Header(HeaderName::from_static("x-tenant")));
        assert_eq!(
            tenant_of(&header, &[("x-tenant", "a")]),
            Some((Key::of(b"a"), None))
        );
        assert_eq!(
            tenant_of(&header, &[("x-other", "a"), ("x-tenant", "")]),
            None
        );
        assert!(
            key(&header, None, "web-1").is_none(),
            "bytes have no header"
        );
        let caller = sticky(StickyKey::Caller);
        assert_eq!(tenant_of(&caller, &[]), Some((Key::of(b"web-1"), None)));
        assert!(key(&caller, None, "web-1").is_some());
        let cookie = sticky(StickyKey::Cookie("t".into()));
        for value in ["t=a", "x=b; t=a; t=c", "x=t=b;t= a ", "t=; t=a"] {
            assert_eq!(
                tenant_of(&cookie, &[("cookie", value)]),
                Some((Key::of(b"a"), None)),
                "{value}"
            );
        }
        let crumbs = [("cookie", "x=1"), ("cookie", "t=a")];
        assert_eq!(tenant_of(&cookie, &crumbs), Some((Key::of(b"a"), None)));
    }

    #[test]
    fn missing_cookie_is_set_and_identifies_same_tenant() {
        let mut cookie = sticky(StickyKey::Cookie("t".into()));
        let (key, set) = tenant_of(&cookie, &[("cookie", "x=1; tt=2; t")]).unwrap();
        let set = set.unwrap();
        let (value, attributes) = set.strip_prefix("t=").unwrap().split_once("; ").unwrap();
        assert_eq!(value.len(), 32);
        assert_eq!(Key::of(value.as_bytes()), key);
        assert_eq!(attributes, "HttpOnly; SameSite=Lax; Path=/");
        let (other, _) = tenant_of(&cookie, &[]).unwrap();
        assert_ne!(key, other);
        cookie.ttl = Some(Duration::from_secs(3600));
        let (_, set) = tenant_of(&cookie, &[("x-forwarded-proto", "HTTPS")]).unwrap();
        assert!(set.unwrap().ends_with("; Path=/; Secure; Max-Age=3600"));
        let (_, set) = tenant_of(&cookie, &[("x-forwarded-proto", "http")]).unwrap();
        assert!(!set.unwrap().contains("Secure"));
        for name in ["__Host-t", "__Secure-t"] {
            let (_, set) = tenant_of(&sticky(StickyKey::Cookie(name.into())), &[]).unwrap();
            assert!(set.unwrap().ends_with("; Path=/; Secure"), "{name}");
        }
    }
}
