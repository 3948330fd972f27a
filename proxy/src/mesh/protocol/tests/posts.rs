//! Upgrades by POST, whose body comes first on their stream, go only to proxies that know them.
//!
//! Claims: attack-102

use super::super::upgrade::{is_unknown, marked};
use super::*;
use crate::http::header_names::{BODY, REASON};

const HEAD: [(&str, &str); 5] = [
    ("weft-port", "80"),
    ("weft-protocol", "http1-post"),
    ("weft-upgrade", "foo"),
    ("weft-target", "/"),
    ("weft-body", "5"),
];

fn decoded(line: (&str, &str, Version), headers: &[(&'static str, &'static str)]) -> bool {
    PeerRequest::decode(parts(line, headers), Transport::Http2).is_ok()
}

/// A proxy from before refuses every `weft-protocol` but `http1` of an upgrade.
#[test]
fn post_is_written_for_no_earlier_proxy_and_comes_back() {
    let headers = [("x", "1"), ("host", "h:1"), ("content-length", "5")];
    let request = PeerRequest::Upgrade {
        port: AppPort::new(8080).unwrap(),
        to: HeaderValue::from_static("foo"),
        body: 5,
        parts: parts(("POST", "/a?b", ONE), &headers),
    };
    let sent = request.encode(Transport::Http2).unwrap();
    assert_eq!(
        (&sent.method, sent.uri.to_string()),
        (&Method::CONNECT, "h:1".to_owned())
    );
    assert_eq!(
        fields(&sent.headers, false),
        "weft-body: 5 | weft-port: 8080 | weft-protocol: http1-post | weft-target: /a?b \
         | weft-upgrade: foo | x: 1"
    );
    let came = PeerRequest::decode(sent, Transport::Http2).unwrap();
    assert_eq!(meaning(&came), meaning(&request));
    assert!(
        matches!(&came, PeerRequest::Upgrade { body: 5, parts, .. } if parts.method == Method::POST)
    );
    assert_eq!(request.encode(Transport::Http1).unwrap_err(), TUNNEL);
}

/// It would be that of its stream, on which more comes.
#[test]
fn upgrade_by_get_says_no_length_to_a_peer() {
    let headers = [("host", "h"), ("content-length", "0")];
    let sent = |method, body| {
        let request = PeerRequest::Upgrade {
            port: AppPort::new(8080).unwrap(),
            to: HeaderValue::from_static("foo"),
            body,
            parts: parts((method, "/", ONE), &headers),
        };
        request.encode(Transport::Http2)
    };
    let head = sent("GET", 0).unwrap();
    assert!(!head.headers.contains_key(header::CONTENT_LENGTH));
    assert!(!head.headers.contains_key(BODY));
    assert!(sent("GET", 5).is_err());
    assert!(sent("PUT", 0).is_err());
}

#[test]
fn post_without_one_length_of_its_body_is_malformed() {
    let connect = ("CONNECT", "h", TWO);
    assert!(decoded(connect, &HEAD));
    assert!(!decoded(connect, &HEAD[..4]));
    assert!(!decoded(connect, &[&HEAD[..], &HEAD[4..]].concat()));
    for (length, is_one) in [
        ("0", true),
        ("65536", true),
        ("65537", false),
        ("+5", false),
        ("5,5", false),
        ("", false),
    ] {
        let mut headers = HEAD;
        headers[4].1 = length;
        assert_eq!(decoded(connect, &headers), is_one, "{length}");
    }
    // Of an upgrade by GET it means nothing, nor is a POST one without CONNECT.
    let mut by_get = HEAD;
    by_get[1].1 = "http1";
    assert!(!decoded(connect, &by_get));
    for line in [("GET", "http://h/", TWO), ("POST", "http://h/", TWO)] {
        assert!(!decoded(line, &HEAD), "{line:?}");
        assert!(!decoded(line, &HEAD[..2]), "{line:?}");
    }
    for to in ["h2c", "HTTP/1.1", "TLS/1.3", "foo bar"] {
        let mut headers = HEAD;
        headers[2].1 = to;
        assert!(!decoded(connect, &headers), "{to}");
    }
}

#[test]
fn refusal_without_a_mark_is_of_an_earlier_proxy() {
    let refusal = |status: u16, reason| {
        let response = Response::builder().status(status).header(REASON, reason);
        response.body(()).unwrap()
    };
    assert!(is_unknown(&refusal(400, "bad-request")));
    for (status, reason) in [
        (400, "not-allowed"),
        (403, "not-allowed"),
        (503, "bad-request"),
    ] {
        assert!(!is_unknown(&refusal(status, reason)), "{status} {reason}");
    }
    let own = marked(refusal(400, "bad-request"));
    assert!(!is_unknown(&own));
    let got = PeerResponse::decode(own.into_parts().0, RequestKind::Upgrade).unwrap();
    assert!(matches!(got, PeerResponse::Answered(parts) if parts.status == 400));
    // What an application answered, and what was not sent, is marked as it is.
    let mut unsent = refusal(503, "connect-failed");
    unsent
        .headers_mut()
        .insert(UNSENT, HeaderValue::from_static("1"));
    assert_eq!(marked(unsent).status(), 503);
}
