//! Responses of the dashboard's server: the page's files, JSON and streamed lines, with the
//! headers that keep a browser from interpreting one as another.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::Body;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::request::File;

/// Made from `dashboard/src` by `make dashboard`, and committed, so that this needs no
/// other compiler.
const PAGE: &[u8] = include_bytes!("../../../../dashboard/dist/index.html");
const SCRIPT: &[u8] = include_bytes!("../../../../dashboard/dist/dashboard.js");
const STYLE: &[u8] = include_bytes!("../../../../dashboard/dist/dashboard.css");

/// Nothing from anywhere else, no script or style in the page itself, in no frame; and no
/// text becomes markup, whatever the script does, since the browser refuses to parse any.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// Headers of every response.
const ALWAYS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Why a response broke off.
type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The rest of a response, still to be written.
type Rest = UnsyncBoxBody<Bytes, BoxError>;
/// A response, complete or streamed.
pub(super) type PageResponse = Response<Rest>;

/// A file of the page.
pub(super) fn file(file: File) -> PageResponse {
    let (bytes, kind) = match file {
        File::Page => (PAGE, "text/html; charset=utf-8"),
        File::Script => (SCRIPT, "text/javascript; charset=utf-8"),
        File::Style => (STYLE, "text/css; charset=utf-8"),
    };
    with(StatusCode::OK, kind, whole(Bytes::from_static(bytes)))
}

/// JSON, whatever it holds.
pub(super) fn json(bytes: Bytes) -> PageResponse {
    with(StatusCode::OK, "application/json", whole(bytes))
}

/// What the API server streams, as it comes. The place is held until it ends or its reader
/// leaves, and with that the stream ends too.
pub(super) fn lines(body: Body, permit: OwnedSemaphorePermit) -> PageResponse {
    let frames = stream::unfold((body, permit), |(mut body, permit)| async move {
        let frame = body.frame().await?;
        Some((frame.map_err(BoxError::from), (body, permit)))
    });
    let frames = StreamBody::new(frames).boxed_unsync();
    with(StatusCode::OK, "application/json", frames)
}

/// The reason of a failure, in a message for a person.
pub(super) fn failure(status: StatusCode, message: &str) -> PageResponse {
    refusal(status, message, None, None)
}

/// The same with the seconds after which to retry, and the name of the missing object, if they are
/// known.
pub(super) fn refusal(
    status: StatusCode,
    message: &str,
    again_in: Option<u32>,
    missing: Option<&str>,
) -> PageResponse {
    let mut body = json!({"code": status.as_u16(), "message": message});
    if let Some(seconds) = again_in {
        body["details"]["retryAfterSeconds"] = json!(seconds);
    }
    if let Some(name) = missing {
        body["details"]["name"] = json!(name);
    }
    let mut answer = with(status, "application/json", whole(body.to_string().into()));
    if let Some(seconds) = again_in {
        let headers = answer.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let headers = answer.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
    }
    answer
}

/// The connection is closed after it, so that an unauthenticated client takes no authenticated
/// client's connection.
pub(super) fn last(mut answer: PageResponse) -> PageResponse {
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn whole(bytes: Bytes) -> Rest {
    Full::new(bytes)
        .map_err(|never: Infallible| -> BoxError { match never {} })
        .boxed_unsync()
}

fn with(status: StatusCode, kind: &'static str, rest: Rest) -> PageResponse {
    let mut answer = Response::new(rest);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
