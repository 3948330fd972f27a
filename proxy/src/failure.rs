//! Why a request or connection could not be served, in one place: status,
//! header, metric label and the right to try elsewhere are all read from here.

use http::{HeaderValue, Method, Response, StatusCode, header};
use policy::reason::Reason;

use crate::http::body::{self, Body};
use crate::http::headers;

/// What went wrong, and whether the application can have seen the request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Failure {
    pub reason: Reason,
    /// For logs and for the caller; holds no header values.
    pub detail: String,
    /// True only when it is proven that no application saw any of it.
    pub never_reached: bool,
    /// True when a connection was at its end, not its endpoint: another
    /// connection to the same endpoint may do.
    pub stale: bool,
}

impl Failure {
    pub fn unsent(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            never_reached: true,
            stale: false,
        }
    }

    pub fn lost(detail: impl Into<String>) -> Self {
        Self {
            reason: Reason::ConnectionLost,
            detail: detail.into(),
            never_reached: false,
            stale: false,
        }
    }

    /// A verdict of whoever was asked: no other endpoint would differ.
    pub fn verdict(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            never_reached: false,
            stale: false,
        }
    }

    /// With what a refused caller needs to know: who it was taken for, and where to look.
    /// It says nothing but the caller's own name.
    #[must_use]
    pub fn told_to(mut self, caller: &str) -> Self {
        match self.reason {
            Reason::NotAllowed => {
                self.detail = format!(
                    "{}; the caller is {caller}; `kubectl get traffictarget -A` lists what is \
                     allowed, /config on the called pod's port 15190 what is in force there",
                    self.detail
                );
            }
            Reason::NoIdentity => {
                self.detail = format!(
                    "{}; the caller is outside the mesh: give its pod a proxy \
                     (weft.dev/inject=enabled), or allow group system:unauthenticated",
                    self.detail
                );
            }
            _ => {}
        }
        self
    }

    /// A connection that ended before it took the call.
    pub fn stale(detail: impl Into<String>) -> Self {
        Self {
            stale: true,
            ..Self::unsent(Reason::ConnectFailed, detail)
        }
    }

    /// The answer that a caller gets. `grpc` answers with a gRPC status in a
    /// response of headers only, as gRPC clients expect it.
    #[must_use]
    pub fn response(&self, grpc: bool) -> Response<Body> {
        refusal(self.reason, &self.detail, grpc)
    }

    /// The same to a request of this method.
    #[must_use]
    pub fn response_to(&self, method: &Method, grpc: bool) -> Response<Body> {
        answer_to(method, self.response(grpc))
    }
}

/// `response`, as an answer to this method may be: HEAD is answered without a body,
/// and in HTTP/2 a client takes one for a broken stream.
#[must_use]
pub fn answer_to(method: &Method, response: Response<Body>) -> Response<Body> {
    if *method == Method::HEAD {
        response.map(|_| body::empty())
    } else {
        response
    }
}

/// An answer made by the proxy itself, recognisable by `weft-reason`.
#[must_use]
pub fn refusal(reason: Reason, detail: &str, grpc: bool) -> Response<Body> {
    let mut response = if grpc {
        let mut response = Response::new(body::empty());
        let map = response.headers_mut();
        map.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        map.insert(
            "grpc-status",
            HeaderValue::from(u16::from(reason.grpc_status())),
        );
        if let Ok(message) = HeaderValue::from_str(&format!("weft: {}", reason.as_str())) {
            map.insert("grpc-message", message);
        }
        response
    } else {
        let mut response =
            Response::new(body::text(format!("weft: {}: {detail}\n", reason.as_str())));
        *response.status_mut() = reason.status();
        let map = response.headers_mut();
        map.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        response
    };
    response
        .headers_mut()
        .insert(headers::REASON, HeaderValue::from_static(reason.as_str()));
    response
}

/// The reason that a peer proxy gave for its own answer.
#[must_use]
pub fn reason_in(map: &http::HeaderMap) -> Option<Reason> {
    let given = map.get(headers::REASON)?;
    Reason::ALL
        .into_iter()
        .find(|reason| given == reason.as_str())
}

/// True for gRPC requests, whose failures travel in `grpc-status`.
#[must_use]
pub fn is_grpc(map: &http::HeaderMap) -> bool {
    map.get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Whether an answer counts as a success for metrics: no server error, and for
/// gRPC no status that blames the server.
#[must_use]
pub fn is_success(status: StatusCode, grpc_status: Option<u16>) -> bool {
    !status.is_server_error() && !matches!(grpc_status, Some(2 | 4 | 12..=15))
}

#[must_use]
pub fn grpc_status(map: &http::HeaderMap) -> Option<u16> {
    map.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_caller_is_told_who_it_was_taken_for_and_where_to_look() {
        let caller = "spiffe://cluster.local/ns/shop/sa/web";
        let refused = Failure::verdict(Reason::NotAllowed, "no TrafficTarget allows this call");
        let detail = refused.told_to(caller).detail;
        assert!(
            detail.starts_with("no TrafficTarget allows this call; the caller is spiffe://")
                && detail.contains(caller)
                && detail.contains("kubectl get traffictarget"),
            "{detail}"
        );
        let outside = Failure::verdict(Reason::NoIdentity, "plaintext").told_to("outside");
        assert!(
            outside.detail.contains("weft.dev/inject=enabled"),
            "{}",
            outside.detail
        );
        // Other failures say what they said.
        let other = Failure::verdict(Reason::BadRequest, "x").told_to(caller);
        assert_eq!(other.detail, "x");
    }
}
