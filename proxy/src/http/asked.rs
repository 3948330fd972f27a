//! The method, host, path and headers of a request's head, for taps and logs. Also of a refused
//! request, as far as it could be read.
//!
//! Claims: observe-98

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, header};

/// See the module header. What is not known is empty, which is also what [`Self::default`] is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    pub(crate) method: Option<&'a Method>,
    /// Without what would be a name and a password before it. Of several the first; empty
    /// also where it would be a path or a query as well.
    pub(crate) host: &'a str,
    /// Without query.
    pub(crate) path: &'a str,
    /// `None`: they were not read.
    pub(crate) headers: Option<&'a HeaderMap>,
}

impl<'a> Asked<'a> {
    /// Of a head that was read, whether or not it may be sent on.
    #[must_use]
    pub(crate) fn of(parts: &'a Parts) -> Self {
        let named = || parts.headers.get(header::HOST)?.to_str().ok();
        let host = parts.uri.authority().map(Authority::as_str);
        let host = host.or_else(named).unwrap_or_default();
        // With one of these it is no host, and what stands behind may be a query.
        let host = if host.contains(['/', '?', '#']) {
            ""
        } else {
            host.rsplit_once('@').map_or(host, |(_, host)| host)
        };
        Self {
            method: Some(&parts.method),
            host,
            path: parts.uri.path(),
            headers: Some(&parts.headers),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::Asked;

    #[test]
    fn reported_head_omits_query_and_possible_password() {
        for (uri, hosts, host, path) in [
            ("/items?token=s3cret", &["cart"][..], "cart", "/items"),
            ("/", &["web:s3cret@cart:80"], "cart:80", "/"),
            ("http://web:s3cret@cart/items", &["other"], "cart", "/items"),
            ("/", &["one", "other"], "one", "/"),
            ("/", &["cart/items?token=s3cret"], "", "/"),
            ("/", &["web:s3/cret@cart"], "", "/"),
            ("/", &[], "", "/"),
            ("cart:80", &[], "cart:80", ""),
        ] {
            let mut request = Request::builder().uri(uri);
            for host in hosts {
                request = request.header("host", *host);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let asked = Asked::of(&parts);
            assert_eq!((asked.host, asked.path), (host, path), "{uri} {hosts:?}");
        }
    }
}
