//! How a call ended, and what the API server is told.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// How a call ended, in the words of the metrics.
pub(super) struct Outcome {
    pub(super) response: Response<Bytes>,
    pub(super) outcome: &'static str,
    pub(super) reason: &'static str,
}

pub(super) fn answered(review: &serde_json::Value) -> Response<Bytes> {
    json(review.to_string().into())
}

pub(super) fn json(body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// The same, for `?`.
pub(super) fn refused(status: StatusCode, reason: &'static str, message: &str) -> Box<Outcome> {
    Box::new(failure(status, reason, message))
}

/// A call without an answer: the webhook's failure policy decides.
pub(super) fn failure(status: StatusCode, reason: &'static str, message: &str) -> Outcome {
    let mut response = Response::new(Bytes::from(format!("{message}\n")));
    *response.status_mut() = status;
    Outcome {
        response,
        outcome: "failed",
        reason,
    }
}
