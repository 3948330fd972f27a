//! Handles HTTP/1 request heads that hyper would refuse: each is repaired, or refused with a
//! reason.
//!
//! hyper answers them with a bare status, which names neither its sender nor the reason. Clients
//! such as curl send some bytes in a target as they are that belong percent-encoded. Encoded they
//! mean the same to servers (RFC 3986, 2.1), and everything after this sees only the encoded form,
//! so that the target that is evaluated is the one that is sent on.

use http::{Method, StatusCode};
use policy::reason::Reason;
use weft_proxy_net::sniff::is_token;

use crate::deadline::TIME_IS_OVER;
use crate::headers;
use crate::refusal::NO_ROOM;

/// The answers of hyper in place of a handler's.
const BY_HYPER: [(StatusCode, &[u8]); 3] = [
    (
        StatusCode::BAD_REQUEST,
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        StatusCode::URI_TOO_LONG,
        b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    ),
];

/// The status, where `data` is an answer of hyper itself and nothing else.
pub(super) fn by_hyper(data: &[u8]) -> Option<StatusCode> {
    BY_HYPER
        .iter()
        .find_map(|(status, answer)| (data == *answer).then_some(*status))
}

/// The status of what hyper answers with this one. `taken`: hyper could take the head apart, so
/// that it was not too large. What is too large then is the length of the body.
pub(super) fn status(by_hyper: StatusCode, taken: bool) -> StatusCode {
    if taken && by_hyper == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE {
        return StatusCode::BAD_REQUEST;
    }
    by_hyper
}

/// The same head with what hyper refuses in the path and the query percent-encoded;
/// `None` where there is nothing to encode, and for a first line that is not whole.
pub(super) fn mend(head: &[u8]) -> Option<Vec<u8>> {
    let unusual = |byte: &u8| matches!(byte, b'<' | b'>' | b'"' | b'`' | 0x80..);
    let line = skip_blank_lines(head).iter();
    if !line.take_while(|byte| **byte != b'\n').any(unusual) {
        return None;
    }
    let (before, target, after) = request_line(head)?;
    let text = std::str::from_utf8(target).is_ok();
    let mut mended = before.to_vec();
    let mut query = false;
    for byte in target {
        query |= *byte == b'?';
        let encode = match byte {
            b'<' | b'>' => true,
            b'`' => !query,
            b'"' => query,
            0x80.. => !text,
            _ => false,
        };
        if encode {
            mended.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            mended.push(*byte);
        }
    }
    if mended.len() == before.len() + target.len() {
        return None;
    }
    mended.extend_from_slice(after);
    Some(mended)
}

/// The head up to a target that is a path, the target, and the rest.
fn request_line(head: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let begin = head.len() - skip_blank_lines(head).len();
    let end = begin + head[begin..].iter().position(|byte| *byte == b'\n')?;
    let line = &head[begin..end];
    let first = line.iter().position(|byte| *byte == b' ')?;
    let last = line.iter().rposition(|byte| *byte == b' ')?;
    let target = line.get(first + 1..last)?;
    let method = !line[..first].is_empty() && line[..first].iter().all(|byte| is_token(*byte));
    let version = matches!(line[last + 1..].trim_ascii_end(), b"HTTP/1.1" | b"HTTP/1.0");
    if !method || !version || target.first() != Some(&b'/') {
        return None;
    }
    let (before, rest) = head.split_at(begin + first + 1);
    let (target, after) = rest.split_at(target.len());
    Some((before, target, after))
}

pub(super) fn skip_blank_lines(mut head: &[u8]) -> &[u8] {
    while let [b'\r' | b'\n', rest @ ..] = head {
        head = rest;
    }
    head
}

/// The answer to a head that cannot be sent on; an empty one if the caller is gone. A `peer` gets a
/// mark where that proves that no application saw the request.
pub(super) fn answer(head: &[u8], status: StatusCode, peer: bool) -> Vec<u8> {
    let reasons = [Reason::Overload, Reason::Deadline];
    let reason = reasons.into_iter().find(|reason| reason.status() == status);
    let reason = reason.unwrap_or(Reason::BadRequest);
    let unsent = if reason == Reason::Overload && peer {
        format!("{}: 1\r\n", headers::UNSENT)
    } else {
        String::new()
    };
    let reason = reason.as_str();
    let body = format!("weft: {reason}: {}\n", complaint(head, status));
    let mut answer = format!(
        "HTTP/1.1 {} {}\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
         {}: {reason}\r\n{unsent}content-length: {}\r\n\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        headers::REASON,
        body.len(),
    );
    if !skip_blank_lines(head).starts_with(b"HEAD ") {
        answer.push_str(&body);
    }
    answer.into_bytes()
}

/// The method and the path, without query, of a head that was not read, as far as they are valid;
/// `None` and empty behind that.
pub(super) fn asked(head: &[u8]) -> (Option<Method>, &str) {
    let mut lines = skip_blank_lines(head).split(|byte| *byte == b'\n');
    let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return (None, "");
    };
    let Ok(method) = Method::from_bytes(method) else {
        return (None, "");
    };
    if target.first() != Some(&b'/') {
        return (Some(method), "");
    }
    let ends = |byte: &u8| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#');
    let end = target.iter().position(ends).unwrap_or(target.len());
    let path = std::str::from_utf8(&target[..end]).unwrap_or_default();
    (Some(method), path)
}

/// What is wrong with it, without any of its text.
fn complaint(head: &[u8], status: StatusCode) -> String {
    match status {
        StatusCode::URI_TOO_LONG => return "the request target is too long".to_owned(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            return "the head is too large or has too many fields".to_owned();
        }
        StatusCode::SERVICE_UNAVAILABLE => return NO_ROOM.to_owned(),
        StatusCode::GATEWAY_TIMEOUT => return TIME_IS_OVER.to_owned(),
        _ => {}
    }
    if head.is_empty() {
        // hyper has taken it apart.
        return "the request target, or the length of the body, cannot be sent on".to_owned();
    }
    let mut lines = skip_blank_lines(head)
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(b"HTTP/1.1" | b"HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return "the request line is not a method, a target and a version of HTTP/1, with one \
                blank between them"
            .to_owned();
    };
    if let Some(byte) = method.iter().find(|byte| !is_token(**byte)) {
        return format!("byte 0x{byte:02x} in the method");
    }
    if let Some(byte) = target.iter().find(|byte| !byte.is_ascii_graphic()) {
        return format!("byte 0x{byte:02x} in the request target");
    }
    for line in lines.take_while(|line| !line.is_empty()) {
        if matches!(line[0], b' ' | b'\t') {
            return "a header that is folded into several lines".to_owned();
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return "a header without a colon".to_owned();
        };
        let (name, value) = line.split_at(colon);
        if let Some(byte) = name.iter().find(|byte| !is_token(**byte)) {
            return format!("byte 0x{byte:02x} in the name of a header");
        }
        let control = |byte: &&u8| byte.is_ascii_control() && **byte != b'\t';
        if let Some(byte) = value.iter().find(control) {
            return format!("byte 0x{byte:02x} in the value of a header");
        }
    }
    "the head cannot be read as HTTP/1".to_owned()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::{BY_HYPER, answer, asked, by_hyper, mend, status};

    #[test]
    fn only_unencoded_target_characters_are_encoded() {
        for (head, mended) in [
            (
                &b"GET /ok?q=up{job=\"x\"} HTTP/1.1\r\nHost: <a>\r\n\r\n"[..],
                &b"GET /ok?q=up{job=%22x%22} HTTP/1.1\r\nHost: <a>\r\n\r\n"[..],
            ),
            (
                b"\r\nGET /a<b>`\"?`<> HTTP/1.0\n\n",
                b"\r\nGET /a%3Cb%3E%60\"?`%3C%3E HTTP/1.0\n\n",
            ),
            (
                b"GET /\xe4<\xff HTTP/1.1\r\n\r\n",
                b"GET /%E4%3C%FF HTTP/1.1\r\n\r\n",
            ),
            (
                "GET /ä< HTTP/1.1\r\n\r\n".as_bytes(),
                "GET /ä%3C HTTP/1.1\r\n\r\n".as_bytes(),
            ),
        ] {
            let got = mend(head).unwrap();
            assert_eq!(got, mended, "{:?}", String::from_utf8_lossy(&got));
            assert_eq!(mend(&got), None);
        }
        for head in [
            &b"GET /ok HTTP/1.1\r\nX: <\r\n\r\n"[..],
            b"GET /{\"a\"} HTTP/1.1\r\n\r\n",
            b"GET http://a<b/ HTTP/1.1\r\n\r\n",
            b"GET <a HTTP/1.1\r\n\r\n",
            b"GET /< RTSP/1.0\r\n\r\n",
            b"G<T / HTTP/1.1\r\n\r\n",
            b"GET /<",
            b"",
        ] {
            assert_eq!(mend(head), None, "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn refused_head_reports_what_cannot_be_forwarded() {
        for (head, expected) in [
            (&b"GET / HTTP/1.1\r\nX y\r\n\r\n"[..], "without a colon"),
            (b"GET / HTTP/1.1\r\nX y: 1\r\n\r\n", "byte 0x20 in the name"),
            (
                b"GET / HTTP/1.1\r\nX: \x01\r\n\r\n",
                "byte 0x01 in the value",
            ),
            (b"GET / HTTP/1.1\r\nX: 1\r\n y\r\n\r\n", "folded"),
            (
                b"GET /\x7f HTTP/1.1\r\n\r\n",
                "byte 0x7f in the request target",
            ),
            (b"G(T / HTTP/1.1\r\n\r\n", "byte 0x28 in the method"),
            (b"GET / RTSP/1.0\r\n\r\n", "the request line"),
            (b"GET /\r\n", "the request line"),
            (b"GET / HTTP/1.1\r\n\r\n", "cannot be read"),
            (b"", "length of the body"),
        ] {
            let answer = String::from_utf8(answer(head, StatusCode::BAD_REQUEST, true)).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
                "{answer}"
            );
            assert!(
                answer.contains("\r\nweft-reason: bad-request\r\n"),
                "{answer}"
            );
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(body.contains(expected), "{expected}: {body}");
            assert!(answer.contains(&format!("content-length: {}\r\n", body.len())));
        }
        let late = answer(
            b"GET / HTTP/1.1\r\n\r\n",
            StatusCode::SERVICE_UNAVAILABLE,
            false,
        );
        let late = String::from_utf8(late).unwrap();
        assert!(late.starts_with("HTTP/1.1 503 "), "{late}");
        assert!(late.contains("\r\nweft-reason: overload\r\n"), "{late}");
        let head = answer(
            b"HEAD /\x7f HTTP/1.1\r\n\r\n",
            StatusCode::BAD_REQUEST,
            false,
        );
        assert!(head.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn refused_head_reports_only_its_readable_part() {
        for (head, method, path) in [
            (
                &b"GET /a/b?token=s3cret HTTP/1.1\r\nX y\r\n\r\n"[..],
                "GET",
                "/a/b",
            ),
            (b"\r\nPOST /a\x1b[2J HTTP/1.1\r\n\r\n", "POST", "/a"),
            (b"GET /a#b HTTP/1.1\n\n", "GET", "/a"),
            (b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n", "GET", "/"),
            (b"GET http://web:s3cret@cart/ HTTP/1.1\r\n\r\n", "GET", ""),
            (b"AUTH s3cret\r\n", "AUTH", ""),
            (b"GET /half", "GET", "/half"),
            (b"G(T /a HTTP/1.1\r\n\r\n", "", ""),
            (b"s3cret\r\n\r\n", "", ""),
            (b" /a HTTP/1.1\r\n\r\n", "", ""),
            (b"", "", ""),
        ] {
            let (read, rest) = asked(head);
            let read = read.as_ref().map_or("", |method| method.as_str());
            let case = String::from_utf8_lossy(head);
            assert_eq!((read, rest), (method, path), "{case:?}");
        }
    }

    #[test]
    fn oversized_length_is_not_reported_as_oversized_head() {
        for (by_hyper, taken, expected) in [
            (431, true, 400),
            (431, false, 431),
            (414, true, 414),
            (400, true, 400),
        ] {
            let by_hyper = StatusCode::from_u16(by_hyper).unwrap();
            assert_eq!(status(by_hyper, taken), expected);
        }
    }

    #[test]
    fn only_complete_library_response_is_recognised() {
        for (status, text) in BY_HYPER {
            assert_eq!(by_hyper(text), Some(status));
            let more = [b"HTTP/1.1 200 OK\r\n\r\n", text].concat();
            assert_eq!(by_hyper(&more), None);
            assert_eq!(by_hyper(&text[1..]), None);
        }
    }
}
