//! The outcome of a call for the metrics, and the response to the API server.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::review::AdmissionResponse;

/// How a call ended, in the words of the metrics.
pub(super) struct ReviewOutcome {
    pub(super) response: Response<Bytes>,
    pub(super) outcome: &'static str,
    pub(super) reason: &'static str,
}

pub(super) fn answered(
    answer: AdmissionResponse,
    uid: &str,
    outcome: &'static str,
    reason: &'static str,
) -> ReviewOutcome {
    ReviewOutcome {
        response: json(answer.into_review(uid).to_string().into()),
        outcome,
        reason,
    }
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
pub(super) fn refused(
    status: StatusCode,
    reason: &'static str,
    message: &str,
) -> Box<ReviewOutcome> {
    Box::new(failure(status, reason, message))
}

/// For a call that no client waits for any more.
pub(super) fn unanswered() -> Box<ReviewOutcome> {
    refused(
        StatusCode::SERVICE_UNAVAILABLE,
        "gone",
        "the connection is closed",
    )
}

/// A call without an answer: the webhook's failure policy decides.
pub(super) fn failure(status: StatusCode, reason: &'static str, message: &str) -> ReviewOutcome {
    let mut response = Response::new(Bytes::from(format!("{message}\n")));
    *response.status_mut() = status;
    ReviewOutcome {
        response,
        outcome: "failed",
        reason,
    }
}
