//! Which headers pass through, which end here, and which are ours.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Version};

/// Verified SPIFFE id of the caller, for the application.
pub const CLIENT_ID: HeaderName = HeaderName::from_static("weft-client-id");
/// Why the mesh answered instead of the application.
pub const REASON: HeaderName = HeaderName::from_static("weft-reason");

// Between two proxies only; none of these ever reaches an application.
/// Container port that a request is for.
pub const PORT: HeaderName = HeaderName::from_static("weft-port");
/// How the application is to be spoken to: `http1`, `http2`, or [`TCP`].
pub const PROTOCOL: HeaderName = HeaderName::from_static("weft-protocol");
/// The bodies of the exchange are the bytes of a connection.
pub const TCP: &str = "tcp";
/// On CONNECT streams: the protocol that the caller asked to upgrade to, and in
/// the answer the one that the application switched to.
pub const UPGRADE_TO: HeaderName = HeaderName::from_static("weft-upgrade");
/// On CONNECT streams of an upgrade: the request target.
pub const TARGET: HeaderName = HeaderName::from_static("weft-target");
/// On CONNECT streams of an upgrade: the status that the application answered.
pub const STATUS: HeaderName = HeaderName::from_static("weft-status");
/// Present when the peer proxy proves that no application saw the request.
pub const UNSENT: HeaderName = HeaderName::from_static("weft-unsent");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Many applications read `_` in a name as `-`, as CGI did.
fn is_ours(name: &HeaderName) -> bool {
    matches!(
        name.as_str().as_bytes(),
        [b'w', b'e', b'f', b't', b'-' | b'_', ..]
    )
}

/// Removes every header that starts with `weft-`: whoever sent it, it was not us.
pub fn strip_ours(map: &mut HeaderMap) {
    let ours: Vec<HeaderName> = map.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in ours {
        map.remove(name);
    }
}

/// Removes what belongs to one connection only, named ones included. Runs
/// before our own headers are added, so that nobody can name them away.
/// `TE: trailers` stays, gRPC needs it.
pub fn strip_hop_by_hop(map: &mut HeaderMap) {
    if map.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = map
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // A caller that names these would change the message's meaning.
            .filter(|name| name != HOST && name != CONTENT_LENGTH)
            .collect();
        for name in named {
            if name == TE {
                continue;
            }
            map.remove(name);
        }
        map.remove(CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
    ] {
        map.remove(name);
    }
    if let Some(te) = map.get(TE) {
        let trailers = te
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"));
        map.remove(TE);
        if trailers {
            map.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// HTTP/2 may cut a cookie into crumbs; rules and applications want it whole.
pub fn join_cookies(map: &mut HeaderMap) {
    if map.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = map
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        map.insert(COOKIE, whole);
    }
}

/// Removes from trailers what would mean something in a header: framing,
/// routing, and every header of ours.
pub fn clean_trailers(map: &mut HeaderMap) {
    strip_hop_by_hop(map);
    strip_ours(map);
    for name in [CONTENT_LENGTH, HOST, TE, TRAILER] {
        map.remove(name);
    }
}

/// The protocol that a request asks to upgrade to, if it does: HTTP/1.1, and
/// GET, the only method that protocols define it for. `h2c` does not count: the
/// proxy answers such requests over HTTP/1.1.
#[must_use]
pub fn upgrade_of(parts: &Parts) -> Option<HeaderValue> {
    if parts.version != Version::HTTP_11 || parts.method != Method::GET {
        return None;
    }
    let map = &parts.headers;
    let asks = map
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let upgrade = map.get(UPGRADE)?;
    (asks && !upgrade.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| upgrade.clone())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Version};

    use super::{clean_trailers, join_cookies, strip_hop_by_hop, strip_ours, upgrade_of};

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_header_named_in_connection_ends_here() {
        let mut headers = map(&[
            ("connection", "x-one, close"),
            ("x-one", "1"),
            ("x-two", "2"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("x-two", "2")]));
    }

    #[test]
    fn host_and_length_cannot_be_named_away() {
        let mut headers = map(&[
            ("connection", "host, content-length"),
            ("host", "a"),
            ("content-length", "5"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("host", "a"), ("content-length", "5")]));
    }

    #[test]
    fn only_trailers_of_te_passes() {
        let mut headers = map(&[("te", "gzip, trailers")]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers")]));
        let mut headers = map(&[("te", "gzip")]);
        strip_hop_by_hop(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn forged_mesh_headers_are_removed() {
        let mut headers = map(&[
            ("weft-client-id", "spiffe://x"),
            ("weft-new", "1"),
            ("x", "1"),
        ]);
        strip_ours(&mut headers);
        assert_eq!(headers, map(&[("x", "1")]));
    }

    #[test]
    fn a_mesh_header_with_underscores_is_a_forgery_too() {
        let mut headers = map(&[("weft_client_id", "spiffe://x"), ("weftage", "1")]);
        strip_ours(&mut headers);
        assert_eq!(headers, map(&[("weftage", "1")]));
    }

    #[test]
    fn crumbs_of_a_cookie_are_joined_in_order() {
        let mut headers = map(&[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("x", "1"), ("cookie", "a=1; b=2")]));
    }

    #[test]
    fn trailers_frame_and_route_nothing() {
        let mut headers = map(&[
            ("content-length", "1"),
            ("transfer-encoding", "chunked"),
            ("host", "x"),
            ("weft-client-id", "spiffe://x"),
            ("grpc-status", "0"),
        ]);
        clean_trailers(&mut headers);
        assert_eq!(headers, map(&[("grpc-status", "0")]));
    }

    #[test]
    fn only_a_get_over_http_1_1_asks_for_an_upgrade_and_h2c_is_none() {
        let asks = |method: &str, version, pairs: &[(&'static str, &'static str)]| {
            let request = http::Request::builder()
                .method(method)
                .version(version)
                .body(())
                .unwrap();
            let mut parts = request.into_parts().0;
            parts.headers = map(pairs);
            upgrade_of(&parts).is_some()
        };
        let websocket = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ];
        assert!(asks("GET", Version::HTTP_11, &websocket));
        assert!(!asks("POST", Version::HTTP_11, &websocket));
        assert!(!asks("GET", Version::HTTP_10, &websocket));
        assert!(!asks("GET", Version::HTTP_2, &websocket));
        assert!(!asks(
            "GET",
            Version::HTTP_11,
            &[("connection", "Upgrade"), ("upgrade", "h2c")]
        ));
        assert!(!asks("GET", Version::HTTP_11, &[("upgrade", "websocket")]));
    }
}
