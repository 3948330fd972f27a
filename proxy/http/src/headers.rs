//! Decides which headers the proxy passes on and which it removes: hop-by-hop headers, and the
//! mesh's own.
//!
//! Claims: attack-16, attack-5, attack-82

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, GetAll, HOST, HeaderMap, HeaderName, HeaderValue,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, Scheme, Uri};
use http::{Method, Version};
use weft_proxy_net::sniff::is_token;

use crate::head::{UPGRADE_BODY, number};

mod ours;

pub use crate::header_names::{
    ATTEMPT, CLIENT_ADDRESS, CLIENT_ID, CONTEXT, DEGRADED, DESTINATION, DESTINATION_POD, FAULT,
    FIXED_RESPONSE, PRIORITY, REASON, REST, ROUTED_TO, SPENT, TIMEOUT, UNSENT,
};
use ours::is_ours;
pub use ours::{Ours, Times, strip_ours};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes what belongs to one connection only, named ones included. Runs before our own headers
/// are added, so that no sender can remove those by naming them. `TE: trailers` stays, gRPC needs
/// it.
pub fn strip_hop_by_hop(map: &mut HeaderMap) {
    if map.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = map
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // A caller that names these would change the message's meaning.
            .filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name))
            .collect();
        for name in named {
            if name == TE {
                continue;
            }
            map.remove(name);
        }
        map.remove(CONNECTION);
    }
    // A transfer coding marks where the message ends, and then a length beside it has no meaning:
    // passed on without the coding, it would.
    if map.remove(TRANSFER_ENCODING).is_some() {
        map.remove(CONTENT_LENGTH);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, UPGRADE, HTTP2_SETTINGS] {
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

/// Whether the rule of a route may edit this header: none that frames a message, names its host,
/// belongs to one connection or is the mesh's own.
#[must_use]
pub fn may_be_edited(name: &HeaderName) -> bool {
    let fixed = [
        HOST,
        CONNECTION,
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
        TE,
        TRAILER,
        UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        HTTP2_SETTINGS,
    ];
    !fixed.contains(name) && !is_ours(name)
}

/// HTTP/2 may cut a cookie into crumbs; rules and applications want it whole. An empty crumb
/// adds nothing: behind the others it would leave a blank at the end.
pub(crate) fn join_cookies(map: &mut HeaderMap) {
    if map.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = map
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .filter(|crumb| !crumb.is_empty())
        .collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        map.insert(COOKIE, whole);
    }
}

/// Removes from trailers what would mean something in a header: framing,
/// routing, and every header of ours.
pub(crate) fn clean_trailers(map: &mut HeaderMap) {
    strip_hop_by_hop(map);
    strip_ours(map);
    for name in [CONTENT_LENGTH, HOST, TE, TRAILER] {
        map.remove(name);
    }
}

/// The protocols that a request asks to upgrade to, if it does and may. HTTP itself does not
/// count, by whatever name: the proxy answers such requests over HTTP/1.1.
#[must_use]
pub(crate) fn upgrade_of(parts: &Parts) -> Option<HeaderValue> {
    if parts.version != Version::HTTP_11 || !may_upgrade(parts) {
        return None;
    }
    let map = &parts.headers;
    let upgrades = map
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    upgrades.then(|| without_http(map.get_all(UPGRADE)))?
}

/// GET may without a body, which is all that most protocols define it for; POST also with one of a
/// known length that is small enough to be kept. A body that its sender holds back until 100
/// (Continue) does not count.
fn may_upgrade(parts: &Parts) -> bool {
    let map = &parts.headers;
    match parts.method {
        Method::GET => !has_body(parts),
        Method::POST => {
            let length = map.get(CONTENT_LENGTH).map_or(Some(0), number::<usize>);
            length.is_some_and(|length| length <= UPGRADE_BODY)
                && !map.contains_key(TRANSFER_ENCODING)
                && !map.contains_key(EXPECT)
        }
        _ => false,
    }
}

fn has_body(parts: &Parts) -> bool {
    let map = &parts.headers;
    map.contains_key(TRANSFER_ENCODING)
        || map
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes() != b"0")
}

/// What may be requested of a list of protocols: all but HTTP, which would carry requests past all
/// rules. `None` when nothing is left, or when a part of the list is no protocol and so may be read
/// as anything.
#[must_use]
pub fn without_http(values: GetAll<'_, HeaderValue>) -> Option<HeaderValue> {
    let mut listed = protocols(values)?;
    listed.retain(|protocol| !is_http(protocol));
    if listed.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&listed.join(&b", "[..])).ok()
}

/// Whether an answer that switches protocols may be followed.
#[must_use]
pub fn may_switch(values: GetAll<'_, HeaderValue>) -> bool {
    protocols(values).is_some_and(|chosen| !chosen.iter().any(|protocol| is_http(protocol)))
}

/// The parts of an `Upgrade` header, `None` unless each is a token, or two with a
/// slash between them.
fn protocols(values: GetAll<'_, HeaderValue>) -> Option<Vec<&[u8]>> {
    let mut listed = Vec::new();
    let parts = values
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    for part in parts {
        let protocol = part.trim_ascii();
        if protocol.is_empty() {
            continue;
        }
        let mut names = protocol.splitn(2, |byte| *byte == b'/');
        if !names.all(|name| !name.is_empty() && name.iter().all(|byte| is_token(*byte))) {
            return None;
        }
        listed.push(protocol);
    }
    Some(listed)
}

/// HTTP over the same connection: HTTP/2 by its name, by those of its drafts and by its version,
/// and TLS, which hides its content.
fn is_http(protocol: &[u8]) -> bool {
    let name = protocol
        .split(|byte| *byte == b'/')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let forbidden: [&[u8]; 3] = [b"h2", b"http", b"tls"];
    forbidden.iter().any(|prefix| name.starts_with(prefix))
}

/// HTTP/2 may name the host in a header alone. From here on it stands where rules, splits and the
/// sender of the request look for it.
pub fn name_authority(parts: &mut Parts) {
    if parts.version != Version::HTTP_2 || parts.uri.authority().is_some() {
        return;
    }
    let Some(Ok(host)) = parts
        .headers
        .get(HOST)
        .map(|host| Authority::try_from(host.as_bytes()))
    else {
        return;
    };
    let mut uri = parts.uri.clone().into_parts();
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.authority = Some(host);
    if let Ok(uri) = Uri::from_parts(uri) {
        parts.uri = uri;
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, Version};

    use super::{
        clean_trailers, join_cookies, may_be_edited, may_switch, name_authority, strip_hop_by_hop,
        upgrade_of, without_http,
    };

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
        // Nor the coding beside which a length has no meaning.
        let mut headers = map(&[
            ("connection", "transfer-encoding"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn framing_and_mesh_headers_may_not_be_edited() {
        for name in [
            "host",
            "connection",
            "content-length",
            "transfer-encoding",
            "te",
            "upgrade",
            "http2-settings",
            "weft-client-id",
            "weft.client.id",
        ] {
            let name = HeaderName::from_static(name);
            assert!(!may_be_edited(&name), "{name}");
        }
        for name in ["x-one", "cookie", "wefts", "content-type"] {
            let name = HeaderName::from_static(name);
            assert!(may_be_edited(&name), "{name}");
        }
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
    fn crumbs_of_a_cookie_are_joined_in_order() {
        let mut headers = map(&[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("x", "1"), ("cookie", "a=1; b=2")]));
    }

    #[test]
    fn empty_cookie_crumb_leaves_no_surrounding_blank() {
        for (crumbs, whole) in [
            (["a=1", "b=2", ""], "a=1; b=2"),
            (["", "a=1", "b=2"], "a=1; b=2"),
            (["", "a=1", ""], "a=1"),
            (["", "", ""], ""),
        ] {
            let mut headers = map(&crumbs.map(|crumb| ("cookie", crumb)));
            join_cookies(&mut headers);
            assert_eq!(headers, map(&[("cookie", whole)]), "{crumbs:?}");
        }
    }

    #[test]
    fn trailers_frame_and_route_nothing() {
        let mut headers = map(&[
            ("content-length", "1"),
            ("transfer-encoding", "chunked"),
            ("host", "x"),
            ("weft-client-id", "spiffe://x"),
            ("weft.client.id", "spiffe://x"),
            ("weft~client-id", "spiffe://x"),
            ("grpc-status", "0"),
        ]);
        clean_trailers(&mut headers);
        assert_eq!(headers, map(&[("grpc-status", "0")]));
    }

    #[test]
    fn only_http1_get_and_post_may_upgrade() {
        let upgrades = |method: &str, version, pairs: &[(&'static str, &'static str)]| {
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
        assert!(upgrades("GET", Version::HTTP_11, &websocket));
        let h2c = [("connection", "Upgrade"), ("upgrade", "h2c")];
        for method in ["GET", "POST"] {
            assert!(upgrades(method, Version::HTTP_11, &websocket));
            assert!(!upgrades(method, Version::HTTP_10, &websocket));
            assert!(!upgrades(method, Version::HTTP_2, &websocket));
            assert!(!upgrades(method, Version::HTTP_11, &h2c));
            let unnamed = [("upgrade", "websocket")];
            assert!(!upgrades(method, Version::HTTP_11, &unnamed));
        }
        for method in ["PUT", "HEAD", "OPTIONS", "post"] {
            assert!(!upgrades(method, Version::HTTP_11, &websocket), "{method}");
        }
        let with = |header| [websocket[0], websocket[1], header];
        let lengths = [("content-length", "5"), ("transfer-encoding", "chunked")];
        for length in lengths {
            assert!(
                !upgrades("GET", Version::HTTP_11, &with(length)),
                "{length:?}"
            );
        }
        let length = |length| with(("content-length", length));
        assert!(upgrades("GET", Version::HTTP_11, &length("0")));
        for (framing, passes) in [
            (length("0"), true),
            (length("5"), true),
            (length("65536"), true),
            (length("65537"), false),
            (length("+5"), false),
            (length("x"), false),
            (with(("transfer-encoding", "chunked")), false),
            (with(("expect", "100-continue")), false),
        ] {
            let found = upgrades("POST", Version::HTTP_11, &framing);
            assert_eq!(found, passes, "{framing:?}");
        }
    }

    #[test]
    fn upgrade_list_drops_http_entries_and_rejects_invalid_ones() {
        for (listed, left) in [
            (&["websocket"][..], Some("websocket")),
            (&["foo/1.0 ,bar"], Some("foo/1.0, bar")),
            (&["foo", "bar"], Some("foo, bar")),
            (&["h2c, foo"], Some("foo")),
            (&["foo", "H2C"], Some("foo")),
            (&["HTTP/2.0, SPDY/3.1"], Some("SPDY/3.1")),
            (&["h2c"], None),
            (&["h2c-14, h2, TLS/1.2, HTTP/1.1"], None),
            (&["tls-over, TLSv1, foo"], Some("foo")),
            (&["foo, h2c\u{a0}"], None),
            (&["foo bar"], None),
            (&["foo;h2c"], None),
            (&["\"foo\""], None),
            (&["/1"], None),
            (&["foo/"], None),
            (&[""], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in listed {
                let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
                headers.append("upgrade", value);
            }
            let got = without_http(headers.get_all("upgrade"));
            let got = got.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(got, left, "{listed:?}");
        }
    }

    #[test]
    fn only_switch_to_non_http_protocol_is_followed() {
        for (chosen, followed) in [
            ("websocket", true),
            ("SPDY/3.1", true),
            ("", true),
            ("h2c", false),
            ("H2c/1", false),
            ("foo, h2c", false),
            ("h2c\u{a0}", false),
        ] {
            let mut headers = HeaderMap::new();
            let value = http::HeaderValue::from_bytes(chosen.as_bytes()).unwrap();
            headers.append("upgrade", value);
            assert_eq!(
                may_switch(headers.get_all("upgrade")),
                followed,
                "{chosen:?}"
            );
        }
    }

    #[test]
    fn http2_host_header_becomes_missing_authority() {
        let named = |version, uri: &str, host: &'static str| {
            let request = http::Request::builder()
                .version(version)
                .uri(uri)
                .header("host", host);
            let mut parts = request.body(()).unwrap().into_parts().0;
            name_authority(&mut parts);
            parts.uri.to_string()
        };
        assert_eq!(named(Version::HTTP_2, "/a?b", "h:1"), "http://h:1/a?b");
        assert_eq!(named(Version::HTTP_2, "http://x/a", "h"), "http://x/a");
        assert_eq!(named(Version::HTTP_2, "/a", ""), "/a");
        assert_eq!(named(Version::HTTP_11, "/a", "h"), "/a");
    }
}
