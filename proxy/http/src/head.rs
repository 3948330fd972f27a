//! The head of a message (start line and headers): its maximum size, the parsing of numeric
//! headers, and what taps and logs report of it.
//!
//! Claims: observe-98

use std::str::FromStr;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, header};

/// Sum of header names and values, both protocols.
pub(crate) const HEADER_BYTES: u32 = 64 * 1024;

/// What hyper may hold of one direction of HTTP/1.1: a largest head, and no more of a
/// body, where hyper alone would keep 400 KiB.
pub const BUFFER: usize = MESH_HEADER_BYTES + 16 * 1024;
/// Headers of one message.
pub(crate) const HEADER_COUNT: usize = 100;
/// The same between two proxies, which add some of their own.
pub const MESH_HEADER_COUNT: usize = HEADER_COUNT + 16;
/// Sum of header names and values between two proxies in HTTP/1.1.
pub(crate) const MESH_HEADER_BYTES: usize = HEADER_BYTES as usize + 16 * 1024;

/// Bytes of the body of a request that asks for an upgrade: all of it is kept while the application
/// may still refuse, and replays keep as much.
pub const UPGRADE_BODY: usize = 64 * 1024;

/// What a map holds for each field beside its name and value, in bytes: measured with
/// 1 500 fields.
const FIELD: usize = 160;

/// About what a head holds, in bytes.
#[must_use]
pub fn size(head: &HeaderMap) -> usize {
    head.iter()
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD)
        .sum()
}

/// Numbers in headers are digits and nothing else. Rust itself reads a plus sign before them as
/// well, which no standard allows there and no proxy writes: what others refuse, or take for
/// something else, must not be a number here.
///
/// `None`: no whole number without a sign, or one that is too large.
pub fn number<N: FromStr>(value: &HeaderValue) -> Option<N> {
    let text = value.to_str().ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The method, host, path and headers of a request's head, for taps and logs. Also of a refused
/// request, as far as it could be read. What is not known is empty, which is also what
/// [`Self::default`] is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReportedHead<'a> {
    pub method: Option<&'a Method>,
    /// Without what would be a name and a password before it. Of several the first; empty
    /// also where it would be a path or a query as well.
    pub host: &'a str,
    /// Without query.
    pub path: &'a str,
    /// `None`: they were not read.
    pub headers: Option<&'a HeaderMap>,
}

impl<'a> ReportedHead<'a> {
    /// Of a head that was read, whether or not it may be sent on.
    #[must_use]
    pub fn of(parts: &'a Parts) -> Self {
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
    use http::{HeaderValue, Request};

    use super::{ReportedHead, number};

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        let read = |text| number::<u8>(&HeaderValue::from_static(text));
        for (text, value) in [("0", 0), ("7", 7), ("007", 7), ("255", 255)] {
            assert_eq!(read(text), Some(value), "{text}");
        }
        for text in ["", "+7", "-0", "-7", " 7", "7 ", "7,7", "0x7", "7.0", "256"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

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
            let asked = ReportedHead::of(&parts);
            assert_eq!((asked.host, asked.path), (host, path), "{uri} {hosts:?}");
        }
    }
}
