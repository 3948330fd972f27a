//! Whether a server that leaves a request's body on its connection could take it for the next
//! request (request smuggling).
//!
//! A server reads a body or closes the connection (RFC 9112, 9.3), and some do neither. What
//! one of them reads next was judged by no rule of this proxy, and names its caller as it
//! likes. A pooled connection therefore gets a body only where it was whole before its head
//! was sent, and holds nothing that any server reads as a request line: the name of the
//! protocol, or, as in HTTP/0.9, nothing but a target behind a blank. All others go with
//! `Connection: close`, behind which a server reads nothing.

use std::time::Duration;

use http::header;
use http::request::Parts;

use crate::http::replay::Replay;

/// Bytes of a body that is waited for and looked through.
const MOST: usize = 16 * 1024;
/// What a sender may take that writes head and body apart: a delayed acknowledgement of TCP
/// lies between. A server that reads the body loses nothing by that.
const PATIENCE: Duration = Duration::from_millis(50);

/// Whether the body may be sent where the connection serves other requests as well.
pub(crate) async fn is_harmless(parts: &Parts, replay: &Replay) -> bool {
    let small = replay.size().is_some_and(|size| size <= MOST as u64);
    // Reading would tell the sender to go on, which is for the server to say.
    let waits = parts.headers.contains_key(header::EXPECT);
    small && !waits && replay.gather(PATIENCE).await && !replay.holds(may_be_request)
}

/// Whether a part of these bytes may be read as a request line. That needs a slash: in the
/// name of the protocol, or at the beginning of the target, as a path or behind a scheme.
fn may_be_request(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'/', bytes).any(|at| begins(&bytes[..at]))
}

/// Whether a slash behind these bytes stands where it does in a request line.
fn begins(before: &[u8]) -> bool {
    let ends_with = |name: &[u8]| {
        let tail = before.len().checked_sub(name.len());
        let (rest, tail) = before.split_at_checked(tail?)?;
        tail.eq_ignore_ascii_case(name).then_some(rest)
    };
    let blank = |before: &[u8]| before.last().is_some_and(|last| !last.is_ascii_graphic());
    let target = [&b"http:"[..], b"https:"].into_iter().find_map(ends_with);
    ends_with(b"http").is_some() || blank(before) || target.is_some_and(blank)
}

#[cfg(test)]
mod tests {
    use super::may_be_request;

    #[test]
    fn what_some_server_reads_as_a_request_is_found_wherever_it_begins() {
        for body in [
            "GET /private HTTP/1.1\r\nhost: x\r\n\r\n",
            "{\"a\":1}\nPOST /x http/1.0\n\n",
            "OPTIONS * HTTP/1.1",
            "get private HTTP/1.1",
            "GET /private\r\n",
            "GET\t/private",
            "GET\u{a0}/private",
            "GET http://host/private",
            "x\r\nDELETE HTTPS://host/",
            "{\"note\": \"see /etc\"}",
        ] {
            assert!(may_be_request(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn what_programs_send_each_other_is_harmless() {
        for body in [
            "",
            "{\"id\": 7, \"path\": \"/private\", \"tags\": [\"a\", \"b\"]}",
            "{\"url\": \"https://host/a/b\", \"type\": \"text/html\"}",
            "name=A+B&back=%2Fprivate&url=http://host/",
            "<order xmlns=\"http://example.org/order\"><id>7</id></order>",
            "/",
            "//",
            "a/b c/d",
        ] {
            assert!(!may_be_request(body.as_bytes()), "{body}");
        }
    }
}
