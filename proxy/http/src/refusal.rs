//! The responses that the proxy makes itself, instead of an application.

use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as HttpBody;
use policy::reason::Reason;
use weft_proxy_net::ticket::{NotAdmitted, WAIT};

use crate::body::{self, Body};
use crate::deadline;
use crate::failure::Failure;
use crate::headers;

/// The message for a request that could not begin within [`WAIT`].
pub(crate) const NO_ROOM: &str = "no memory for another request of this caller within 30 s; \
                       give the proxy a larger limit, or send fewer at once";
const _: () = assert!(WAIT.as_secs() == 30, "is said above");

/// Why a connection is reset that does not carry what its port is declared to.
pub const NO_REQUEST: &str = "the port is declared to carry HTTP, and what came begins no \
                                     request; declare what it carries by appProtocol or the \
                                     port's name";

/// In the extensions of an answer of this proxy: over HTTP/1.1 the connection is reset in
/// place of it.
#[derive(Clone, Copy, Debug)]
pub struct NoAnswer;

/// How a request ended that no handler got to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHandled {
    /// It was answered with this status.
    Answered(Reason, StatusCode),
    /// Its sender took it back before it was admitted.
    Left,
}

impl NotHandled {
    /// It was not admitted, whatever status its caller gets.
    pub const LATE: Self = Self::Answered(Reason::Overload, StatusCode::SERVICE_UNAVAILABLE);
    /// Its own time was over before it was admitted, of which the same holds.
    pub(crate) const DEADLINE: Self = Self::Answered(Reason::Deadline, StatusCode::GATEWAY_TIMEOUT);

    /// It was not admitted, and was answered: also where its sender may have left, or may only have
    /// finished sending.
    pub const fn answered(why: NotAdmitted) -> Self {
        match why {
            NotAdmitted::Late | NotAdmitted::Left => Self::LATE,
            NotAdmitted::Deadline => Self::DEADLINE,
        }
    }
}

/// `response`, as an answer to this method may be: HEAD is answered without a body, and in HTTP/2 a
/// client takes one for a broken stream. Its length is announced: without that some clients, Node's
/// among them, do not use their connection again.
#[must_use]
pub fn answer_to(method: &Method, mut response: Response<Body>) -> Response<Body> {
    if *method != Method::HEAD {
        return response;
    }
    if let Some(length) = HttpBody::size_hint(response.body()).exact() {
        let length = HeaderValue::from(length);
        response
            .headers_mut()
            .entry(header::CONTENT_LENGTH)
            .or_insert(length);
    }
    response.map(|_| body::empty())
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

/// The answer to a request of this method that waited for memory in vain. For a `peer` it is marked
/// as unseen by any application, and the peer may try elsewhere while there is time.
#[must_use]
pub(crate) fn not_admitted(
    why: NotAdmitted,
    method: &Method,
    grpc: bool,
    peer: bool,
) -> Response<Body> {
    if why == NotAdmitted::Deadline {
        return deadline::passed().response_to(method, grpc);
    }
    let failure = Failure::not_sent(Reason::Overload, NO_ROOM);
    let mut answer = failure.response_to(method, grpc);
    if peer {
        let map = answer.headers_mut();
        map.insert(headers::UNSENT, HeaderValue::from_static("1"));
    }
    answer
}

/// The reason that a peer proxy gave for its own answer.
#[must_use]
pub fn reason_in(map: &http::HeaderMap) -> Option<Reason> {
    let given = map.get(headers::REASON)?;
    Reason::ALL
        .into_iter()
        .find(|reason| given == reason.as_str())
}

impl Failure {
    /// The answer that a caller gets. `grpc` answers with a gRPC status in a
    /// response of headers only, as gRPC clients expect it.
    #[must_use]
    pub fn response(&self, grpc: bool) -> Response<Body> {
        let mut response = refusal(self.reason(), self.detail(), grpc);
        if let Some(reset) = self.reset() {
            response.extensions_mut().insert(reset);
        }
        if matches!(self, Self::TargetGone { .. }) {
            response.extensions_mut().insert(NoAnswer);
        }
        response
    }

    /// The same to a request of this method.
    #[must_use]
    pub fn response_to(&self, method: &Method, grpc: bool) -> Response<Body> {
        answer_to(method, self.response(grpc))
    }
}
