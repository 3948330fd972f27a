//! Copies that are only for pods which can change nothing go only to proxies that know them.
//!
//! Claims: calls-53

use super::*;

/// A copy to an application by this version of HTTP.
fn copy(version: Version) -> PeerRequest {
    let mut parts = parts(("GET", "/a?b", version), &[("x", "1"), ("host", "h:1")]);
    parts.headers.insert(SHADOW, Shadow::ReadOnly.to_peer());
    PeerRequest::ReadOnlyCopy {
        port: AppPort::new(8080).unwrap(),
        speak: AppHttp::of(version),
        parts,
    }
}

/// A proxy from before there were copies refuses every `weft-protocol` but `http1`, `http2`
/// and `tcp`.
#[test]
fn copy_is_unreadable_for_older_proxies_and_round_trips() {
    for (version, protocol) in [(ONE, "http1-copy"), (TWO, "http2-copy")] {
        let copy = copy(version);
        let sent = copy.encode(Transport::Http2).unwrap();
        let expected = format!(
            "GET http://h:1/a?b HTTP/2.0 | x: 1 | weft-shadow: read-only | weft-port: 8080 \
             | weft-protocol: {protocol}"
        );
        assert_eq!(wire(&sent), expected);
        let came = PeerRequest::decode(sent, Transport::Http2).unwrap();
        assert_eq!(meaning(&came), meaning(&copy));
        assert_eq!(copy.encode(Transport::Http1).unwrap_err(), COPY);
    }
}

#[test]
fn unmarked_or_misencoded_copy_is_malformed() {
    let get = ("GET", "http://h/", TWO);
    let whole = [
        ("weft-port", "80"),
        ("weft-protocol", "http1-copy"),
        ("weft-shadow", "read-only"),
    ];
    let decoded = |line, headers: &[_], transport| {
        PeerRequest::decode(parts(line, headers), transport).map(|request| request.kind())
    };
    let http2 = Transport::Http2;
    assert_eq!(decoded(get, &whole, http2), Ok(RequestKind::Http));
    assert_eq!(decoded(get, &whole, Transport::Http1), Err(COPY));
    assert_eq!(decoded(get, &whole[..2], http2), Err(COPY));
    for other in ["true", "600"] {
        let mut headers = whole;
        headers[2] = ("weft-shadow", other);
        assert_eq!(decoded(get, &headers, http2), Err(COPY), "{other}");
    }
    let upgrade = [("weft-upgrade", "foo"), ("weft-target", "/")];
    let upgrade = [&whole[..], &upgrade].concat();
    for line in [get, ("CONNECT", "h", TWO)] {
        assert!(decoded(line, &upgrade, http2).is_err(), "{line:?}");
    }
}
