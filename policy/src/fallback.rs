//! Decides whether a fallback replaces the response of a call whose last attempt has failed.
//!
//! A fallback runs once, after all retries and failovers, and its response is final. Where an
//! application may have seen the call, calling another one is a second call: only a method that may
//! be sent twice gets it, and gRPC never does, because its methods are all POST.

use http::{Method, StatusCode};

use crate::reason::Reason;
use crate::traffic::call::{Cause, Causes, Retry};

/// How the last attempt of a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// An application answered.
    Answered(StatusCode),
    /// A proxy of the mesh did, or no server answered.
    Failed(Reason),
}

/// One call, as far as fallbacks ask.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub method: &'a Method,
    /// It may not be made twice, whatever its method: gRPC, and requests to switch protocols.
    pub once: bool,
}

/// Why something else answers a call that ended so; `None` where its own end stands.
#[must_use]
pub fn due(on: Causes, retry: &Retry, call: Call<'_>, ended: Ended) -> Option<Cause> {
    let cause = cause(ended)?;
    let again = !call.once && retry.methods.contains(call.method);
    (on.contains(cause) && (again || !cause.may_have_been_seen())).then_some(cause)
}

/// Whether an answer of this status may have a body. HTTP/2 clients take one that has and
/// must not for a broken stream.
#[must_use]
pub fn may_have_body(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    )
}

fn cause(ended: Ended) -> Option<Cause> {
    match ended {
        Ended::Answered(status) => status.is_server_error().then_some(Cause::ServerError),
        Ended::Failed(reason) => match reason {
            Reason::NoEndpoint | Reason::NoBackend | Reason::ConnectFailed | Reason::TlsFailed => {
                Some(Cause::Unreachable)
            }
            Reason::CircuitOpen => Some(Cause::CircuitOpen),
            Reason::Overload => Some(Cause::Overload),
            Reason::Deadline => Some(Cause::Timeout),
            // Without a fallback its caller would be answered 502.
            Reason::ConnectionLost => Some(Cause::ServerError),
            // Another Service would say the same, or is none of the caller's business. A route that
            // is wrong is not hidden behind a fallback.
            Reason::NotAllowed
            | Reason::NoIdentity
            | Reason::UnknownDestination
            | Reason::NoConfiguration
            | Reason::BadRequest
            | Reason::Limit
            | Reason::ShadowWrite
            | Reason::NoRoute
            | Reason::InvalidBackend
            | Reason::InvalidRoute
            | Reason::EgressDenied
            | Reason::Revoked => None,
        },
    }
}

#[cfg(test)]
mod tests;
