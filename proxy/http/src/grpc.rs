//! gRPC in headers and trailers: whether a call is one, its status, and whether that blames the
//! server.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use policy::reason::Reason;

use crate::head::number;

/// True for gRPC requests, whose failures travel in `grpc-status`.
#[must_use]
pub fn is_grpc(map: &http::HeaderMap) -> bool {
    map.get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// True for answers whose status follows their messages. gRPC-Web has it among them, where a proxy
/// cannot add one.
#[must_use]
pub fn ends_in_trailers(map: &http::HeaderMap) -> bool {
    map.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web")
    })
}

/// Whether an answer counts as a success for metrics: no server error, and for
/// gRPC no status that blames the server.
#[must_use]
pub fn is_success(status: StatusCode, grpc_status: Option<u16>) -> bool {
    !status.is_server_error() && !matches!(grpc_status, Some(2 | 4 | 12..=15))
}

#[must_use]
pub fn grpc_status(map: &http::HeaderMap) -> Option<u16> {
    number(map.get("grpc-status")?)
}

/// What a response that is no gRPC is in gRPC, by gRPC's own table.
#[must_use]
pub const fn status_of_http(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// The end of a call whose answer has started: the status that the same reason has in an answer of
/// its own. `detail` is printable ASCII without a percent sign, and may be empty.
#[must_use]
pub fn ending(reason: Reason, detail: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    let code = u16::from(reason.grpc_status());
    map.insert("grpc-status", HeaderValue::from(code));
    let colon = if detail.is_empty() { "" } else { ": " };
    if let Ok(message) = HeaderValue::from_str(&format!("weft: {reason}{colon}{detail}")) {
        map.insert("grpc-message", message);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_status_has_the_grpc_status_of_its_table() {
        for (http, grpc) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (500, 2),
            (502, 14),
            (503, 14),
            (504, 14),
            (599, 2),
        ] {
            let status = StatusCode::from_u16(http).unwrap();
            assert_eq!(status_of_http(status), grpc, "{http}");
        }
    }
}
