//! When a server that shuts down takes no further request.
//!
//! It sends its client GOAWAY, asks by a PING whether that was heard, and drops what
//! begins behind the answer. `h2` takes the one round trip literally that RFC 9113, 6.8
//! asks for at least. But clients answer a PING before all else that they have to send
//! (`h2` does, nghttp2 does): what they had begun when they heard comes behind the answer,
//! and later where their socket takes no more. Dropped, it goes elsewhere if its body can
//! be sent again; a large one is lost. So the answer is passed on a while later.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

/// Long against what a client has in hand when it reads GOAWAY, short against the stop of a
/// proxy.
pub(super) const IN_HAND: Duration = Duration::from_millis(250);

/// A client has so long to say that it has heard, which `h2` waits for without end.
pub(super) const HEARD_WITHIN: Duration = Duration::from_secs(10);

pub(super) const PING: u8 = 6;
pub(super) const ACK: u8 = 1;
/// Bytes of a PING behind its head.
pub(super) const CONTENT: usize = 8;
/// What `h2` asks with when it shuts down; other PINGs of it hold something else.
pub(super) const SHUTDOWN_PING: [u8; CONTENT] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

/// A client's answer that it has heard, until its time has come.
#[derive(Debug)]
pub(super) struct LateAnswer(Option<Pin<Box<Sleep>>>);

impl LateAnswer {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Whether the answer to a PING with this content is kept for now.
    pub(super) fn keeps(&mut self, content: &[u8]) -> bool {
        let keeps = *content == SHUTDOWN_PING;
        if keeps {
            self.0.get_or_insert_with(|| Box::pin(sleep(IN_HAND)));
        }
        keeps
    }

    /// Ready once when what was kept is to be passed on; wakes then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(wait) = &mut self.0 else {
            return Poll::Pending;
        };
        ready!(wait.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(())
    }
}

/// Since when a server shuts down, if it does.
#[derive(Debug, Default)]
pub(super) struct ShuttingDown(Option<Instant>);

impl ShuttingDown {
    /// Begins it when `close` says so.
    pub(super) fn poll<I: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        close: Pin<&mut impl Future<Output = ()>>,
        connection: &mut Connection<I, Bytes>,
        cx: &mut Context<'_>,
    ) {
        if self.0.is_none() && close.poll(cx).is_ready() {
            self.0 = Some(Instant::now());
            connection.graceful_shutdown();
        }
    }

    /// What a client begins that has not said for long that it has heard is refused, and
    /// nobody has seen it.
    pub(super) fn take(
        &self,
        (request, mut respond): (Request<RecvStream>, SendResponse<Bytes>),
    ) -> Option<(Request<RecvStream>, SendResponse<Bytes>)> {
        let unheard = self.0.is_some_and(|since| since.elapsed() >= HEARD_WITHIN);
        if unheard {
            respond.send_reset(Reason::REFUSED_STREAM);
            return None;
        }
        Some((request, respond))
    }
}
