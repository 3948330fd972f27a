//! The deadline headers of a head of HTTP/1 that waits and that hyper has not read.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::http::deadline::GRPC_TIMEOUT;
use crate::http::headers::{REST, TIMEOUT};
use crate::http::server::refused_head::skip_blank_lines;

/// The headers of `head` that [`crate::http::deadline::announced_end`] reads. An incomplete line
/// does not count, nor does one that hyper will refuse.
pub(super) fn times(head: &[u8]) -> HeaderMap {
    let wanted = [header::CONTENT_TYPE, GRPC_TIMEOUT, TIMEOUT, REST];
    let lines = skip_blank_lines(head).split_inclusive(|byte| *byte == b'\n');
    let mut map = HeaderMap::new();
    for line in lines.skip(1) {
        if !line.ends_with(b"\n") || line.trim_ascii().is_empty() {
            break;
        }
        if let Some((name, value)) = field(line)
            && wanted.contains(&name)
        {
            // Of several the first counts, as everywhere.
            map.entry(name).or_insert(value);
        }
    }
    map
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::times;

    #[test]
    fn timeouts_are_read_from_partially_received_head() {
        for (head, timeout) in [
            (
                &b"GET / HTTP/1.1\r\nWeft-Timeout: 5ms \r\n\r\n"[..],
                Some("5ms"),
            ),
            (
                b"\r\nGET / HTTP/1.1\nhost: a\nweft-timeout:7ms\n\n",
                Some("7ms"),
            ),
            (
                b"GET / HTTP/1.1\r\nweft-timeout: 1ms\r\nweft-timeout: 2ms\r\n\r\n",
                Some("1ms"),
            ),
            // Half a line, a body, and no field at all.
            (b"GET / HTTP/1.1\r\nweft-timeout: 5ms", None),
            (
                b"GET / HTTP/1.1\r\nhost: a\r\n\r\nweft-timeout: 5ms\r\n",
                None,
            ),
            (
                b"GET / HTTP/1.1\r\nweft-timeout\r\nweft-timeout : 5ms\r\n\r\n",
                None,
            ),
            (b"", None),
        ] {
            let map = times(head);
            let read = map.get("weft-timeout").map(|value| value.to_str().unwrap());
            assert_eq!(read, timeout, "{}", String::from_utf8_lossy(head));
            assert!(map.len() <= 1);
        }
    }
}
