//! Which first bytes are taken for what.
//!
//! Claims: attack-4

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::{
    BLANK_LIMIT, DETECT_WITHIN, FirstLine, LINE_LIMIT, Line, Sniffed, begins_request, sniff,
    sniff_declared, sniff_greeting, sniff_leniently,
};
use crate::prefixed::Prefixed;

#[test]
fn slow_start_is_request_only_with_recognizable_method() {
    for bytes in [&b"GE"[..], b"GET", b"GET ", b"OPTION", b"M-X ", b"PRI * "] {
        let case = String::from_utf8_lossy(bytes);
        assert_eq!(
            begins_request(bytes),
            sniff(bytes) == Sniffed::Unsure,
            "{case}"
        );
    }
    assert!(begins_request(b"GE") && begins_request(b"GET "));
    for bytes in [
        &b"C"[..],
        b"G",
        b"PING",
        b"HELO",
        b"STATUS",
        b"GETS",
        b"PRI",
        b"",
        b"q",
    ] {
        assert!(!begins_request(bytes), "{}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn first_bytes_identify_the_protocol() {
    for (bytes, seen) in [
        (&b"GET / HTTP/1.1\r\n"[..], Sniffed::Http1),
        (b"OPTIONS * HTTP/1.1\r\n", Sniffed::Http1),
        (b"GET http://a/ HTTP/1.1\r\n", Sniffed::Http1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniffed::Http2),
        (b"PRI * HT", Sniffed::Unsure),
        (b"P", Sniffed::Unsure),
        (b"GET ", Sniffed::Unsure),
        (b"CONNECT a:1 HTTP/1.1\r\n", Sniffed::Opaque),
        (b"\x16\x03\x01", Sniffed::Opaque),
        (b"EHLO mail", Sniffed::Opaque),
        (b"hello /x", Sniffed::Opaque),
        (b"\0", Sniffed::Opaque),
        (b"", Sniffed::Unsure),
    ] {
        assert_eq!(sniff(bytes), seen, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn first_impossible_byte_ends_what_is_declared_http() {
    // Each with the number of bytes that may still begin a request.
    for (bytes, possible) in [
        (&b"\x16\x03\x01\x02\x00\x01"[..], 0),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", 0),
        (b"*1\r\n$4\r\nPING\r\n", 2),
        (b"PING\r\n", 4),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 19),
        (b"\r\n\r\n\0\r\nQUIT\n", 4),
        (b"AMQP\0\0\x09\x01", 4),
        (b"{\"id\":1}\n", 0),
        (b"G(T / HTTP/1.1\r\n", 1),
        (b"GET\r\n", 3),
        (b"PRI\r\n", 3),
    ] {
        let case = String::from_utf8_lossy(bytes);
        for end in 0..=bytes.len() {
            let expected = if end <= possible {
                Sniffed::Unsure
            } else {
                Sniffed::Opaque
            };
            assert_eq!(sniff_declared(&bytes[..end]), expected, "{case} {end}");
        }
    }
}

#[test]
fn declared_http_port_leaves_first_bytes_to_parser() {
    for (bytes, seen) in [
        (&b"GET / HTTP/1.1\r\n"[..], Sniffed::Http1),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", Sniffed::Http1),
        (b" GET / HTTP/1.1\r\n", Sniffed::Http1),
        (b"get / HTTP/1.1\r\n", Sniffed::Http1),
        (b"M-SEARCH * HTTP/1.1\r\n", Sniffed::Http1),
        (b"GET\t/\tHTTP/1.1\r\n", Sniffed::Http1),
        (b"CONNECT a:1 HTTP/1.1\r\n", Sniffed::Http1),
        (b"SET key value\r\n", Sniffed::Http1),
        (b"PROXY TCP4 1.2.3.4 ", Sniffed::Http1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniffed::Http2),
        (b"GET ", Sniffed::Unsure),
        (b"PRI * HT", Sniffed::Unsure),
        (b"", Sniffed::Unsure),
    ] {
        let case = String::from_utf8_lossy(bytes);
        assert_eq!(sniff_declared(bytes), seen, "{case}");
    }
    assert_eq!(sniff_declared(&[b'A'; BLANK_LIMIT]), Sniffed::Http1);
    assert_eq!(sniff_declared(&[b'\n'; BLANK_LIMIT]), Sniffed::Http1);
}

#[test]
fn only_settings_frame_header_is_server_http2_greeting() {
    for (bytes, seen) in [
        (&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], Sniffed::Http2),
        (&[0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3], Sniffed::Http2),
        (&[0, 0, 18, 4, 0, 0, 0, 0], Sniffed::Unsure),
        (&[0, 0, 18], Sniffed::Unsure),
        (&[0], Sniffed::Unsure),
        (&[0, 0, 18, 4, 0, 0, 0, 1], Sniffed::Opaque),
        (&[0, 0, 18, 5], Sniffed::Opaque),
        // No number of settings has this size, and no peer has so many.
        (&[0, 0, 17, 4, 0, 0, 0, 0, 0], Sniffed::Opaque),
        (&[6, 0, 0, 4, 0, 0, 0, 0, 0], Sniffed::Opaque),
        // The acknowledgement is no beginning.
        (&[0, 0, 0, 4, 1, 0, 0, 0, 0], Sniffed::Opaque),
        (b"220 mail ready\r\n", Sniffed::Opaque),
        (b"HTTP/1.1 400 Bad Request\r\n", Sniffed::Opaque),
    ] {
        assert_eq!(sniff_greeting(bytes), seen, "{bytes:?}");
    }
}

#[test]
fn first_line_ending_in_http_version_is_http() {
    for (bytes, seen) in [
        (&b"\r\nGET / HTTP/1.1\r\n"[..], Sniffed::Http1),
        (b"\nGET / HTTP/1.1\n", Sniffed::Http1),
        (b" \t\r\n\r\nget / http/1.0\r\n", Sniffed::Http1),
        (b"M1 / HTTP/1.1\r\n", Sniffed::Http1),
        (b"GET\t/\tHTTP/1.1\r\n", Sniffed::Http1),
        (b"x\xa0y\xa0HTTP/1.1\x0b\r\n", Sniffed::Http1),
        (b"get foo HTTP / 1.1 \r\n", Sniffed::Http1),
        (b"CONNECT a:1 HTTP/1.1\r\n", Sniffed::Http1),
        (b"\0GET / HTTP/1.1\r\n", Sniffed::Http1),
        (b"HTTP/1.1\r\n", Sniffed::Http1),
        (b"@ /x HTTP/+1.1\r\n", Sniffed::Http1),
        (b"GET: /x HTTP/-0.9\r\n", Sniffed::Http1),
        (b"G\x01T /x HTTP/ +01.+1\r\n", Sniffed::Http1),
        (b"\"GET\" /x HTTP/_1.1\r\n", Sniffed::Http1),
        (
            b"<GET> /x HTTP/000000000000000000000000000001.1\r\n",
            Sniffed::Http1,
        ),
        (b"GET\t/\r\nx: y", Sniffed::Http1),
        (b"GET\tkey\r\n", Sniffed::Opaque),
        (b"\r\n", Sniffed::Unsure),
        (b" ", Sniffed::Unsure),
        (b"GE", Sniffed::Unsure),
        (b"get / HTTP/1.1", Sniffed::Opaque),
        (b"get k\r\n", Sniffed::Opaque),
        (b"get http/k\r\n", Sniffed::Opaque),
        (b"@ http/ x\r\n", Sniffed::Opaque),
        (b"get /HTTP/1.1\r\n", Sniffed::Opaque),
        (b"get / HTTP/1.1 x\r\n", Sniffed::Opaque),
        (b"CONNECT\naccept-version:1.2\n\n\0", Sniffed::Opaque),
        (b"OPTIONS rtsp://h/ RTSP/1.0\r\n", Sniffed::Opaque),
        (b"first\nget / HTTP/1.1\r\n", Sniffed::Opaque),
    ] {
        let got = sniff_leniently(bytes);
        assert_eq!(got, seen, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn first_line_parses_equally_at_once_or_bytewise() {
    for (bytes, expected) in [
        (&b"\r\n get  /x HTTP/1.1\r\nmore"[..], Line::Http),
        (b"get k\r\nx / HTTP/1.1\r\n", Line::Other),
        (b"get / HTTP/1.1\r", Line::Incomplete),
        (b"\r\n \r\n", Line::Blank),
    ] {
        assert_eq!(FirstLine::default().note(bytes), expected);
        let mut line = FirstLine::default();
        let mut last = Line::Blank;
        for byte in bytes {
            last = line.note(&[*byte]);
        }
        assert_eq!(last, expected, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn method_with_argument_or_versioned_line_may_be_request() {
    for (bytes, request) in [
        (&b"GET /x RTSP/1.0\r\n"[..], true),
        (b"\r\n\nGET /x\r\n", true),
        (b"SOURCE x ICE/1.0\r\n", true),
        (b"M1\tx", true),
        (b"get k\r\n", true),
        (b"\xffx y rtsp / 1.0 \r\n", true),
        (b"\xffx y word/9\r\n", true),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", true),
        (b"", false),
        (b"GET", false),
        (b"GET ", false),
        (b"PING\r\nGET /x\r\n", false),
        (b"*2\r\n$3\r\nGET\r\n", false),
        (b"<34>1 2026-01-01 x\r\n", false),
        (b"{\"a\": 1}\r\n", false),
        (b"\0\0 x\r\n", false),
        (b"\xffx /1.0\r\n", false),
        (b"\xffx y x1/1.0\r\n", false),
        (b"CONNECT\naccept-version:1.2\n\n\0", false),
    ] {
        let mut line = FirstLine::default();
        for byte in bytes {
            line.note(&[*byte]);
        }
        let case = String::from_utf8_lossy(bytes);
        assert_eq!(line.may_be_request(), request, "{case:?}");
    }
}

#[test]
fn first_line_scan_is_bounded_and_buffers_little() {
    let mut line = FirstLine::default();
    let chunk = [b'a'; 4096];
    for _ in 0..LINE_LIMIT / chunk.len() {
        assert_eq!(line.note(&chunk), Line::Incomplete);
    }
    assert!(line.end.capacity() < 64);
    assert_eq!(line.note(b"a"), Line::Other);
    assert_eq!(line.note(b" HTTP/1.1\r\n"), Line::Other);
}

#[tokio::test(start_paused = true)]
async fn silent_client_is_unsure_after_limit_without_loss() {
    let (mut client, server) = tokio::io::duplex(64);
    let mut stream = Prefixed::new(server);
    client.write_all(b"G").await.unwrap();
    let seen = stream
        .look(Instant::now() + DETECT_WITHIN, sniff)
        .await
        .unwrap();
    assert_eq!(seen, Sniffed::Unsure);
    client.write_all(b"ET / HTTP/1.1").await.unwrap();
    drop(client);
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "GET / HTTP/1.1");
}
