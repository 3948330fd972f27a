//! Why a request has no answer, and whether its server can have seen it; and why a connection does
//! not stand, so that it has seen none.

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("HTTP/2: {0}")]
    Broken(#[from] h2::Error),
    /// The server answered in text.
    #[error(
        "the application does not speak HTTP/2, as its answer to the preface shows: send HTTP/1.1 \
         to it, or let it serve HTTP/2 without TLS on this port"
    )]
    OtherProtocol,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing of the request was taken, or has gone out.
    #[error("the connection took no request: {0}")]
    Unsent(h2::Error),
    /// The server refused this stream and none of the connection: nothing of the request
    /// was processed (RFC 9113, 8.7).
    #[error("the server refused the stream: {0}")]
    Refused(h2::Error),
    /// The request has no form in HTTP/2.
    #[error("the request has no form in HTTP/2: {0}")]
    Malformed(h2::Error),
    #[error("HTTP/2: {0}")]
    Lost(h2::Error),
}

impl SendError {
    /// Of a request that was given to `h2`. `has_started`: something of it went out.
    pub(super) fn of(error: h2::Error, has_started: bool) -> Self {
        let reason = error.reason();
        match reason {
            Some(h2::Reason::REFUSED_STREAM) if error.is_reset() && error.is_remote() => {
                Self::Refused(error)
            }
            Some(h2::Reason::REFUSED_STREAM) => Self::Unsent(error),
            // Whatever the server goes for: only streams behind the last that it has looked at end
            // with this.
            _ if error.is_go_away() && error.is_remote() => Self::Unsent(error),
            // Nothing goes out any more by a connection that has ended.
            _ if error.is_io() && !has_started => Self::Unsent(error),
            _ => Self::Lost(error),
        }
    }
}
