//! Which requests are refused whoever sends them: those that can be read in two ways.

use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use policy::reason::Reason;

use crate::http::body::Body;
use crate::http::incoming::IncomingBody;
use crate::http::refusal::{answer_to, refusal};

/// Request target, in bytes; longer ones get 414.
const TARGET_LIMIT: usize = 8 * 1024;

/// Requests that are refused whoever sends them.
pub(crate) fn unacceptable(request: &Request<IncomingBody>) -> Option<Response<Body>> {
    let bad = |detail: &str| {
        let refused = refusal(Reason::BadRequest, detail, false);
        Some(answer_to(request.method(), refused))
    };
    let headers = request.headers();
    let uri = request.uri();
    if uri.scheme().is_none() && uri.authority().is_some() && request.method() != Method::CONNECT {
        // Servers disagree on what it is; sent on it would be another one.
        return bad("the request target does not begin with a slash");
    }
    if request
        .uri()
        .path_and_query()
        .is_some_and(|target| target.as_str().len() > TARGET_LIMIT)
    {
        let mut response = bad("the request target is too long");
        if let Some(response) = &mut response {
            *response.status_mut() = StatusCode::URI_TOO_LONG;
        }
        return response;
    }
    let chunked = headers.contains_key(http::header::TRANSFER_ENCODING);
    if chunked && headers.contains_key(http::header::CONTENT_LENGTH) {
        return bad("Content-Length beside Transfer-Encoding");
    }
    if chunked && request.version() == Version::HTTP_10 {
        return bad("Transfer-Encoding in HTTP/1.0");
    }
    let mut encodings = headers.get_all(http::header::TRANSFER_ENCODING).iter();
    if let Some(first) = encodings.next()
        && (encodings.next().is_some()
            || !first
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"chunked"))
    {
        // What else the body is wrapped in would be lost on the way.
        return bad("Transfer-Encoding other than chunked");
    }
    let mut hosts = headers.get_all(http::header::HOST).iter();
    if let Some(first) = hosts.next() {
        if hosts.next().is_some() {
            return bad("more than one Host header");
        }
        if !is_host(first.as_bytes()) {
            return bad("Host is no host");
        }
        if request.version() == Version::HTTP_2
            && request
                .uri()
                .authority()
                .is_some_and(|authority| authority.as_str().as_bytes() != first.as_bytes())
        {
            return bad("Host differs from :authority");
        }
    } else if request.version() != Version::HTTP_10 && request.uri().authority().is_none() {
        return bad("no Host header");
    }
    if let Some(authority) = request.uri().authority()
        && !is_host(authority.as_str().as_bytes())
    {
        return bad("the authority is no host");
    }
    None
}

/// Refuses a head of more than `most` fields. HTTP/1.1 bounds them as it reads; `h2`
/// bounds bytes only, and a field may be one byte on the wire.
pub(crate) fn too_many_fields(
    request: &Request<IncomingBody>,
    most: usize,
) -> Option<Response<Body>> {
    if request.headers().len() <= most {
        return None;
    }
    let refused = refusal(Reason::BadRequest, "more than 100 header fields", false);
    let mut refused = answer_to(request.method(), refused);
    *refused.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    Some(refused)
}

/// A host with or without a port, and nobody's name and password before it.
/// An empty one is what HTTP asks for where there is no host.
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || (!value.contains(&b'@') && Authority::try_from(value).is_ok())
}
