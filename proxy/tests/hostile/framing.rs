//! HTTP/1.1 messages that two parsers frame differently.
//!
//! Claims: mesh-18

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::v1::Protocol;

use super::two_pods::{ENTRY_POINTS, SPEAKERS, TwoPods, answers, rest, status};

mod behind;

/// Sends `bytes` from every speaker; no receiver may read them as a request, and the caller gets a
/// refusal or a close.
async fn refused(pods: &TwoPods, case: &str, bytes: &[u8]) {
    for from in SPEAKERS {
        let answer = pods.send(from, bytes).await;
        let code = status(&answer);
        assert!(
            answer.is_empty() || (400..500).contains(&code),
            "{case}, {from:?}: {answer}"
        );
        assert!(answers(&answer) <= 1, "{case}, {from:?}: {answer}");
        let got = pods.recorded(case);
        assert!(got.is_empty(), "{case}, {from:?}: {got:?}");
    }
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /ok HTTP/1.1\r\nHost: s\r\n{headers}\r\n\r\n{body}").into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked", body)
}

#[tokio::test]
async fn lengths_that_are_no_number_are_refused() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for length in [
        "+5",
        "-1",
        "0x5",
        "5_0",
        "",
        " ",
        "5 5",
        "5,6",
        "5;",
        "5.0",
        "1e1",
        "٥",
        "18446744073709551617",
        "99999999999999999999999",
    ] {
        let case = format!("Content-Length: {length}");
        refused(&pods, &case, &post(&case, "hello")).await;
    }
    for (case, headers) in [
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6"),
        (
            "three lengths",
            "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 0",
        ),
        ("length with a blank before the colon", "Content-Length : 5"),
    ] {
        refused(&pods, case, &post(headers, "hello")).await;
    }
    pods.works("lengths").await;
}

/// The same length twice may be refused, or passed on once.
#[tokio::test]
async fn a_repeated_length_leaves_once_or_not_at_all() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for headers in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
    ] {
        for from in SPEAKERS {
            let answer = pods.send(from, post(headers, "hello")).await;
            let got = pods.recorded(headers);
            match status(&answer) {
                400 => assert!(got.is_empty(), "{got:?}"),
                200 => assert_eq!(got[0].body, b"hello"),
                _ => panic!("{headers}, {from:?}: {answer}"),
            }
        }
    }
    pods.works("repeated lengths").await;
}

#[tokio::test]
async fn an_encoding_other_than_chunked_alone_is_refused() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for encoding in [
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "\x0bchunked",
        "\x00chunked",
        "\"chunked\"",
        "chunked;q=1",
        "",
        "chunked\x00",
        "\u{a0}chunked",
    ] {
        let headers = format!("Transfer-Encoding: {encoding}");
        let case = format!("{headers:?}");
        refused(&pods, &case, &post(&headers, "5\r\nhello\r\n0\r\n\r\n")).await;
    }
    for (case, headers) in [
        (
            "chunked and identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        (
            "identity and chunked",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        ),
        (
            "chunked twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        (
            "named in Connection",
            "Connection: transfer-encoding\r\nTransfer-Encoding: gzip",
        ),
    ] {
        refused(&pods, case, &post(headers, "5\r\nhello\r\n0\r\n\r\n")).await;
    }
    let old = b"POST /ok HTTP/1.0\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refused(&pods, "HTTP/1.0", old).await;
    // Case of letters and surrounding blanks mean nothing.
    for encoding in ["Chunked", "  chunked\t"] {
        let headers = format!("Transfer-Encoding: {encoding}");
        for from in SPEAKERS {
            let answer = pods
                .send(from, post(&headers, "5\r\nhello\r\n0\r\n\r\n"))
                .await;
            assert_eq!(status(&answer), 200, "{encoding}, {from:?}: {answer}");
            assert_eq!(pods.recorded(encoding)[0].body, b"hello");
        }
    }
    pods.works("encodings").await;
}

/// Naming a framing header in Connection must not change how the body is read.
#[tokio::test]
async fn connection_cannot_take_the_framing_away() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for from in SPEAKERS {
        let length = post(
            "Connection: content-length, host\r\nContent-Length: 5",
            "hello",
        );
        assert_eq!(status(&pods.send(from, length).await), 200, "{from:?}");
        let chunks = post(
            "Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
            "5\r\nhello\r\n0\r\n\r\n",
        );
        assert_eq!(status(&pods.send(from, chunks).await), 200, "{from:?}");
        let got = pods.recorded("framing named in Connection");
        assert!(
            got.len() == 2 && got.iter().all(|one| one.body == b"hello"),
            "{got:?}"
        );
    }
}

/// A chunk hides a request: it stays the body, and no length goes with it.
#[tokio::test]
async fn a_request_inside_a_chunk_stays_a_body() {
    let pods = TwoPods::new(Protocol::Http1).await;
    let hidden = "GET /private HTTP/1.1\r\nHost: s\r\nX-Pad: 123456\r\n\r\n";
    for headers in [
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
    ] {
        let body = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
        for from in SPEAKERS {
            let answer = pods.send_and_stay(from, post(headers, &body)).await;
            assert_eq!(answers(&answer), 1, "{headers}, {from:?}: {answer}");
            let got = pods.recorded(headers);
            if status(&answer) == 400 {
                assert!(got.is_empty(), "{got:?}");
                continue;
            }
            assert_eq!(got.len(), 1, "{headers}, {from:?}: {got:?}");
            assert_eq!(got[0].body, hidden.as_bytes());
            assert!(got[0].values("content-length").is_empty(), "{got:?}");
        }
    }
    pods.works("hidden request").await;
}

#[tokio::test]
async fn ambiguous_chunks_never_form_complete_request() {
    let pods = TwoPods::new(Protocol::Http1).await;
    let flood = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20 * 1024));
    for (case, body) in [
        ("0x", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("underscore", "3_0\r\nabc\r\n0\r\n\r\n"),
        ("empty size", "\r\nabc\r\n0\r\n\r\n"),
        ("negative", "-1\r\nabc\r\n0\r\n\r\n"),
        ("overflow", "FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n"),
        ("bare LF after the size", "3\nabc\r\n0\r\n\r\n"),
        ("bare LF after the data", "3\r\nabc\n0\r\n\r\n"),
        ("LF in an extension", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("endless extension", flood.as_str()),
        ("data longer than its size", "3\r\nabcd\r\n0\r\n\r\n"),
        ("no last chunk", "3\r\nabc\r\n"),
        ("bare CR after the size", "3\rabc\r\n0\r\n\r\n"),
    ] {
        for from in SPEAKERS {
            let answer = pods.send(from, chunked(body)).await;
            assert_ne!(status(&answer), 200, "{case}, {from:?}: {answer}");
            assert!(answers(&answer) <= 1, "{case}, {from:?}: {answer}");
            let got = pods.recorded(case);
            assert!(got.is_empty(), "{case}, {from:?}: {got:?}");
        }
    }
    pods.works("chunks").await;
}

#[tokio::test]
async fn heads_with_ambiguous_syntax_are_refused() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for head in [
        "GET /ok HTTP/1.1\r\n Host: s\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: s\r\nnocolon\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: s\r\n: empty\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: s\r\nx: a\x00b\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: s\r\nx: a\rb: c\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: s\r\nx\u{a0}: a\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: s\r\nx\t: a\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: s\r\nx y: a\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: s\r\nx: a\r\n\tfolded\r\n\r\n",
        "GET  /ok  HTTP/1.1\r\nHost: s\r\n\r\n",
        "GET\t/ok\tHTTP/1.1\r\nHost: s\r\n\r\n",
        "GET /ok HTTP/1.9\r\nHost: s\r\n\r\n",
        "GET /ok HTTP/2.0\r\nHost: s\r\n\r\n",
        "GET /ok http/1.1\r\nHost: s\r\n\r\n",
        "GET /ok\r\nHost: s\r\n\r\n",
        "GET /o k HTTP/1.1\r\nHost: s\r\n\r\n",
        "GET /ok HTTP/1.1 x\r\nHost: s\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: s\r\nHost: t\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: s, t\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET /ok HTTP/1.1\r\nHost: u@s\r\n\r\n",
        "GET /ok HTTP/1.1\r\n\r\n",
    ] {
        refused(&pods, &format!("{head:?}"), head.as_bytes()).await;
    }
    pods.works("heads").await;
}

/// Bare line feeds may pass the parser, but never reach the application so:
/// the recorder calls them broken.
#[tokio::test]
async fn line_ends_leave_as_they_should() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for head in [
        "GET /ok HTTP/1.1\nHost: s\n\n",
        "GET /ok HTTP/1.1\r\nHost: s\nx: y\r\n\r\n",
        "\r\n\r\nGET /ok HTTP/1.1\r\nHost: s\r\n\r\n",
    ] {
        for from in SPEAKERS {
            let answer = pods.send(from, head).await;
            assert!(
                [200, 400].contains(&status(&answer)),
                "{head:?}, {from:?}: {answer}"
            );
            pods.recorded(head);
        }
    }
    pods.works("line ends").await;
}

/// Requests never last until the connection ends, so what follows one without
/// a length is another request or nothing.
#[tokio::test]
async fn an_old_request_without_a_length_has_no_body() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    for from in SPEAKERS {
        let answer = pods
            .send(
                from,
                "POST /ok HTTP/1.0\r\nHost: s\r\n\r\nGET /private HTTP/1.1\r\nHost: s\r\n\r\n",
            )
            .await;
        let got = pods.recorded("HTTP/1.0");
        assert_eq!(status(&answer), 200, "{from:?}: {answer}");
        assert!(
            got.len() == 1 && got[0].body.is_empty(),
            "{from:?}: {got:?}"
        );
    }
    pods.works("HTTP/1.0").await;
}

#[tokio::test]
async fn trailers_never_become_headers() {
    let pods = TwoPods::new(Protocol::Http1).await;
    let trailers = "Content-Length: 10\r\nTransfer-Encoding: gzip\r\nHost: evil\r\nAuthorization: x\r\nweft-client-id: spiffe://evil\r\nX-Sum: 1\r\nX-Sum: 2\r\n";
    let body = format!("3\r\nabc\r\n0\r\n{trailers}\r\n");
    for from in SPEAKERS {
        let headers = "Trailer: X-Sum\r\nTE: trailers\r\nTransfer-Encoding: chunked";
        let answer = pods.send(from, post(headers, &body)).await;
        assert_eq!(status(&answer), 200, "{from:?}: {answer}");
        let got = pods.recorded("trailers");
        assert!(got.len() == 1 && got[0].body == b"abc", "{from:?}: {got:?}");
        assert_eq!(got[0].values("host"), ["s"], "{from:?}: {got:?}");
        assert!(!got[0].head.contains("evil") && !got[0].head.contains("gzip"));
        let passed = got[0].trailers.to_lowercase();
        for never in [
            "content-length",
            "transfer-encoding",
            "host",
            "authorization",
            "weft-",
        ] {
            assert!(!passed.contains(never), "{from:?}: {passed}");
        }
        let sums = passed.matches("x-sum").count();
        assert!(sums == 0 || sums == 2, "{from:?}: {passed}");
    }
    pods.works("trailers").await;
}

#[tokio::test]
async fn any_methods_body_arrives_complete_or_is_refused() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for method in [
        "GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH", "LOCK",
    ] {
        for (framing, body) in [
            ("Content-Length: 5", "hello"),
            (
                "Transfer-Encoding: chunked",
                "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            ),
        ] {
            let case = format!("{method} with {framing}");
            for entry in ENTRY_POINTS {
                // A second request shows that nothing of the body is left over.
                let bytes = format!(
                    "{method} /ok HTTP/1.1\r\nHost: s\r\n{framing}\r\n\r\n{body}GET /next HTTP/1.1\r\nHost: s\r\n\r\n"
                );
                let answer = pods.send(entry, bytes).await;
                let got = pods.recorded(&case);
                if status(&answer) == 200 {
                    assert_eq!(got.len(), 2, "{case}, {entry:?}: {got:?}");
                    assert_eq!(got[0].body, b"hello", "{case}, {entry:?}");
                } else {
                    assert!(
                        (400..500).contains(&status(&answer)),
                        "{case}, {entry:?}: {answer}"
                    );
                }
            }
        }
    }
    pods.works("bodies").await;
}
