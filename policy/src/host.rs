//! The valid values of a request's `Host`: one rule for proxies, which refuse others with 400, and
//! for code that predicts the result of a call.
//!
//! Claims: observe-60

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};

/// The `Host` that headers hold, if they hold one. It may be empty, as HTTP requires where there
/// is no host.
///
/// # Errors
/// Why it is none that every server reads alike.
pub fn named_once(headers: &HeaderMap) -> Result<Option<&HeaderValue>, &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(first) = hosts.next() else {
        return Ok(None);
    };
    if hosts.next().is_some() {
        return Err("more than one Host header");
    }
    if !is_host(first.as_bytes()) {
        return Err("Host is no host");
    }
    Ok(Some(first))
}

/// A host with or without a port, and no user name and password before it.
/// An empty one is what HTTP requires where there is no host.
#[must_use]
pub fn is_host(value: &[u8]) -> bool {
    value.is_empty() || (!value.contains(&b'@') && Authority::try_from(value).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hosts: &[&str]) -> HeaderMap {
        let values = hosts.iter().map(|host| {
            let value = HeaderValue::from_bytes(host.as_bytes()).unwrap();
            (HOST, value)
        });
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn a_host_is_named_once_and_is_nothing_else() {
        for host in ["cart", "cart.shop:8080", "[fd00::1]:80", "10.0.0.1", ""] {
            let headers = of(&[host]);
            let named = named_once(&headers).unwrap().unwrap();
            assert_eq!(named.as_bytes(), host.as_bytes(), "{host}");
        }
        assert_eq!(named_once(&HeaderMap::new()), Ok(None));
        for host in ["a@b", "u:p@s1", "a b", "a/b", "a?b", "exämple"] {
            assert_eq!(named_once(&of(&[host])), Err("Host is no host"), "{host}");
        }
        for hosts in [["a", "a"], ["a", "b"]] {
            assert_eq!(named_once(&of(&hosts)), Err("more than one Host header"));
        }
    }
}
