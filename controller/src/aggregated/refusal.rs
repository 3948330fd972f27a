//! Error responses of the aggregated APIs, as the `Status` object that Kubernetes clients read.

use http::StatusCode;
use serde_json::{Map, Value, json};

/// Why a query has no result.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub code: StatusCode,
    /// Kubernetes' word for it.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Kind and name of the object, where there is one.
    pub about: Option<(&'static str, String)>,
    /// It passes when another client lets go of what it holds, at no known time.
    pub is_held: bool,
}

impl Refusal {
    /// A refusal without an object.
    pub(crate) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            about: None,
            is_held: false,
        }
    }

    /// The most that may run are running, each for as long as its client likes. Clients try again
    /// by themselves after the time that a refusal names, so this one names none.
    pub(crate) fn held(message: impl Into<String>) -> Self {
        Self {
            is_held: true,
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
        }
    }

    /// There is no such path.
    pub(crate) fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// A parameter or a field is wrong.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// Not known now, but soon.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let code = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(code, "ServiceUnavailable", message)
    }

    /// The path is there, and this cannot be done with it.
    pub(crate) fn not_allowed(message: impl Into<String>) -> Self {
        let code = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(code, "MethodNotAllowed", message)
    }

    /// Seconds after which it may be repeated, where it is not the query that is refused, and not
    /// for as long as others hold what it needs.
    pub(crate) fn again_in(&self) -> Option<u32> {
        match self.code {
            _ if self.is_held => None,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(1),
            _ => None,
        }
    }

    /// As a Kubernetes Status, of an object of this group.
    pub(crate) fn json(&self, group: &str) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        let mut details = Map::new();
        if let Some(seconds) = self.again_in() {
            details.insert("retryAfterSeconds".to_owned(), json!(seconds));
        }
        if let Some((kind, name)) = &self.about {
            details.insert("group".to_owned(), json!(group));
            details.insert("kind".to_owned(), json!(kind));
            if !name.is_empty() {
                details.insert("name".to_owned(), json!(name));
            }
        }
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}
