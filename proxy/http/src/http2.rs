//! HTTP/2 as a client and as a server, directly over the `h2` crate.
//!
//! hyper's own layer between a body and its stream does not suit a proxy: it passes empty DATA
//! frames on, takes a reset with CANCEL for a good end, does not look at a body while it waits for
//! credit, and has one window size for every stream for ever. Here
//!
//! - END_STREAM goes with the last DATA frame wherever the end is known by then, and no empty DATA
//!   frame is passed on ([`pipe`], [`frame_filter`]);
//! - whatever breaks off on one side breaks off on the other: a request at once, and an answer
//!   behind what came of it ([`recv`], [`pipe`]);
//! - no stream holds another one up, and fast streams get larger windows ([`flow`]); where a server
//!   takes no more on a connection because of some streams, later bodies go by another one
//!   ([`send_window`]);
//! - a proxy that owes something and is silent is abandoned within ten seconds ([`keepalive`]); an
//!   application is left its time, and later requests go by another connection ([`silence`]);
//! - no value begins or ends with a blank, which strict peers end a connection for
//!   ([`trim_values`]);
//! - a server that shuts down takes requests that were started before GOAWAY arrived
//!   ([`graceful_shutdown`]).

pub mod client;
pub mod cost;
mod field_count;
mod flood;
pub mod flow;
mod frame_filter;
mod frame_heads;
mod graceful_shutdown;
mod inbox;
pub mod keepalive;
mod pipe;
mod queued;
pub mod recv;
pub mod send_window;
pub mod server;
pub(crate) mod silence;
mod until_end;
mod used_streams;

#[cfg(test)]
mod tests;

use std::time::Duration;

use http::header::{CONNECTION, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue};
use weft_proxy_net::budget::Budget;
use weft_proxy_net::chunk::LARGEST_CHUNK;

use crate::http2::flow::WindowChanges;

/// Largest frame that may be received from applications: what all of them send.
pub(crate) const PLAIN_FRAME: u32 = 16 * 1024;

/// The settings of a connection that differ by its other end.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Largest frame that may be received.
    pub frame: u32,
    /// Bytes of one stream that may wait to be sent.
    pub unsent: usize,
    /// Wait for the limits of the server before the first request: peers of ours allow as many
    /// streams as they are sent.
    pub learn_limit: bool,
    /// How windows change after the start.
    pub windows: WindowChanges,
    /// A silent peer is pinged, and abandoned without an answer. Every proxy answers; an
    /// application that computes, or reads only when it wants something, does not, and TCP alone
    /// shows which of them are dead.
    pub pings: bool,
    /// Large answers come by connections of their own, as far as there may be so many: a server
    /// may bound by connection what it holds of them, and proxies do not.
    pub spreads: bool,
    /// Streams that a server has reset and still knows, so that what its client sent
    /// before it heard of that is no error; and streams that a client may reset before
    /// they were looked at. `h2` ends the connection beyond either.
    pub resets: usize,
}

/// The same of a client. Callers that leave thousands of calls a second must not end the
/// connection for the others.
const RESETS: usize = 16 * 1024;
/// What was sent before a reset was heard of has come by then.
const RESET_FOR: Duration = Duration::from_secs(2);
/// Frames that came for a stream after that, over the whole life of a connection, until `h2` ends
/// it, for each stream that was reset and is still known, whichever end this is: each costs some
/// hundred bytes while the answer is not read.
const fn reset_errors(resets: usize) -> usize {
    4 * if resets > LEAST_RESETS {
        resets
    } else {
        LEAST_RESETS
    }
}
/// Where fewer streams than this are known, so many count.
const LEAST_RESETS: usize = 1024;
/// What small frames may cost by the count of `h2`, which takes those of streams that were
/// left for frames that wait, over the whole life of a connection. What waits is bounded
/// by [`inbox`].
const SMALL_FRAMES: usize = usize::MAX;

/// The same on a connection that begins when memory is tight.
const LEAST_UNSENT: usize = 32 * 1024;

impl Tuning {
    /// Whether heads and resets are read a few at a time: `h2` ends no connection for some
    /// hundreds of them.
    const fn paces(&self) -> bool {
        self.resets > LEAST_RESETS
    }

    /// Bytes of one stream that may wait to be sent.
    fn unsent(&self, budget: &Budget) -> usize {
        if budget.is_tight() {
            LEAST_UNSENT
        } else {
            self.unsent
        }
    }
}

/// Between two proxies.
pub const MESH: Tuning = Tuning {
    frame: LARGEST_CHUNK as u32,
    unsent: 4 * LARGEST_CHUNK,
    learn_limit: false,
    windows: WindowChanges::Both,
    pings: true,
    spreads: false,
    resets: RESETS,
};

/// With applications.
pub const PLAIN: Tuning = Tuning {
    frame: PLAIN_FRAME,
    unsent: 256 * 1024,
    learn_limit: true,
    windows: WindowChanges::BackToFull,
    pings: false,
    spreads: true,
    resets: 512,
};

/// Removes what has no place in HTTP/2, so that `h2` does not refuse the message.
fn strip_connection_headers(map: &mut HeaderMap) {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        map.remove(name);
    }
    if map.get(TE).is_some_and(|te| te != "trailers") {
        map.remove(TE);
    }
}

/// Takes the blanks off the ends of field values.
///
/// HTTP/2 forbids a value that begins or ends with a blank or a tab (RFC 9113, 8.2.1), and `h2`
/// hands it over as it came. Passed on it would cost others their calls: some servers and clients,
/// those built on Python's h2 among them, end the whole connection for one, and a connection is
/// shared. Trimmed and not refused, because the blanks mean nothing: they are no part of a value
/// (RFC 9110, 5.5), HTTP/1.1 reads it without them, and gRPC allows to strip them. So rules see the
/// same value by either version as well.
///
/// Whatever comes by HTTP/2 passes here before it is read, heads and trailers, of requests and
/// answers. What comes by HTTP/1.1 is trimmed by the parser of hyper.
///
/// Looks at the first and the last byte of each value, and copies those that change.
fn trim_values(map: &mut HeaderMap) {
    for value in map.values_mut() {
        if !matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t']) {
            continue;
        }
        // A part of a value is one.
        if let Ok(mut trimmed) = HeaderValue::from_bytes(value.as_bytes().trim_ascii()) {
            trimmed.set_sensitive(value.is_sensitive());
            *value = trimmed;
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("HTTP/2: {0}")]
    Broken(#[from] h2::Error),
    /// The server answered in text.
    #[error(
        "the application does not speak HTTP/2, as its answer to the preface shows: send HTTP/1.1 \
         to it, or let it serve HTTP/2 without TLS on this port"
    )]
    OtherProtocol,
}

/// Why a request has no answer, and whether its server can have seen it.
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
    fn of(error: h2::Error, has_started: bool) -> Self {
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
