//! Decides when a server that shuts down takes no further request.
//!
//! It sends its client GOAWAY, checks by a PING whether that has arrived, and drops what begins
//! behind the answer. `h2` takes literally the one round trip that RFC 9113, 6.8 demands at least.
//! But clients answer a PING before all else that they have to send (`h2` does, nghttp2 does):
//! requests that they had started before GOAWAY arrived come behind the answer, and later where
//! their socket takes no more. A dropped request goes elsewhere if its body can be sent again; a
//! large one is lost. So this file delays the client's answer for a while.
//!
//! And `h2` waits for the answer without end, with the connection of a client that never gives it.
//! So `h2` gets one in the client's name, and then ends as it does with others: it reports which
//! requests it took, takes nothing more, and closes once all of them have been answered and the
//! responses have left.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

use super::frame_heads::HEAD;

/// Long against what a client has in hand when it reads GOAWAY, short against the stop of a
/// proxy.
pub(super) const IN_HAND: Duration = Duration::from_millis(250);

/// A client has so long to answer the PING behind GOAWAY.
pub(super) const HEARD_WITHIN: Duration = Duration::from_secs(10);

pub(super) const PING: u8 = 6;
pub(super) const ACK: u8 = 1;
/// Bytes of a PING behind its head.
pub(super) const CONTENT: usize = 8;
/// The PING that `h2` sends when it shuts down; other PINGs of it hold something else.
pub(super) const SHUTDOWN_PING: [u8; CONTENT] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];
/// What answers that.
pub(super) const SHUTDOWN_ANSWER: [u8; HEAD + CONTENT] = {
    let [a, b, c, d, e, f, g, h] = SHUTDOWN_PING;
    let length = CONTENT as u8;
    [0, 0, length, PING, ACK, 0, 0, 0, 0, a, b, c, d, e, f, g, h]
};

/// How far a server's shutdown of one connection has come. The server and the reader of the
/// connection share it, in one task.
#[derive(Clone, Debug, Default)]
pub(super) struct ShutdownState(Arc<AtomicU8>);

/// No shutdown.
const STAYS: u8 = 0;
/// The PING behind GOAWAY is sent.
const REQUESTED: u8 = 1;
/// It has not answered for so long that it is taken to have.
const UNHEARD: u8 = 2;
/// `h2` has got its answer.
const HEARD: u8 = 3;

impl ShutdownState {
    fn is(&self, state: u8) -> bool {
        self.0.load(Relaxed) == state
    }

    fn request_ack(&self) {
        self.0.store(REQUESTED, Relaxed);
    }

    /// `h2` is given an answer, which has no effect before its PING.
    fn answer(&self) {
        if !self.is(STAYS) {
            self.0.store(HEARD, Relaxed);
        }
    }

    /// The client's time has passed. Returns whether it had before and `h2` could not be answered.
    fn give_up(&self) -> bool {
        if self.is(REQUESTED) {
            self.0.store(UNHEARD, Relaxed);
            return false;
        }
        self.is(UNHEARD)
    }
}

/// A client's answer that it has heard, until its time has come.
#[derive(Debug)]
pub(super) struct LateAnswer {
    shutdown_state: ShutdownState,
    kept: Option<Pin<Box<Sleep>>>,
}

impl LateAnswer {
    pub(super) fn none() -> Self {
        Self {
            shutdown_state: ShutdownState::default(),
            kept: None,
        }
    }

    /// For the part that begins the shutdown.
    pub(super) fn shutdown_state(&self) -> ShutdownState {
        self.shutdown_state.clone()
    }

    /// Whether the answer to a PING with this content is kept for now, or for good where `h2` has
    /// been given one.
    pub(super) fn keeps(&mut self, content: &[u8]) -> bool {
        let keeps = *content == SHUTDOWN_PING;
        if keeps && !self.shutdown_state.is(HEARD) {
            self.kept.get_or_insert_with(|| Box::pin(sleep(IN_HAND)));
        }
        keeps
    }

    /// Ready once when what was kept is to be passed on, or what never came; wakes then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.shutdown_state.is(UNHEARD) {
            let Some(wait) = &mut self.kept else {
                return Poll::Pending;
            };
            ready!(wait.as_mut().poll(cx));
        }
        self.kept = None;
        self.shutdown_state.answer();
        Poll::Ready(())
    }
}

/// Since when a server shuts down, if it does.
#[derive(Debug)]
pub(super) struct ShuttingDown {
    shutdown_state: ShutdownState,
    since: Option<Instant>,
    /// Until `h2` knows that its client has heard.
    look: Option<Pin<Box<Sleep>>>,
}

impl ShuttingDown {
    /// `shutdown_state` is shared with the reader of the connection.
    pub(super) const fn new(shutdown_state: ShutdownState) -> Self {
        Self {
            shutdown_state,
            since: None,
            look: None,
        }
    }

    /// Begins the shutdown when `close` is ready. True, every [`HEARD_WITHIN`], where `h2` cannot
    /// be given the client's answer: the client has stopped within a frame, or takes nothing.
    pub(super) fn poll<I: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        close: Pin<&mut impl Future<Output = ()>>,
        connection: &mut Connection<I, Bytes>,
        cx: &mut Context<'_>,
    ) -> bool {
        if self.since.is_none() && close.poll(cx).is_ready() {
            self.since = Some(Instant::now());
            self.look = Some(Box::pin(sleep(HEARD_WITHIN)));
            self.shutdown_state.request_ack();
            connection.graceful_shutdown();
        }
        if self.shutdown_state.is(HEARD) {
            self.look = None;
        }
        let Some(look) = &mut self.look else {
            return false;
        };
        let mut is_stuck = false;
        while look.as_mut().poll(cx).is_ready() {
            is_stuck = self.shutdown_state.give_up();
            look.as_mut().reset(Instant::now() + HEARD_WITHIN);
        }
        is_stuck
    }

    /// Refuses a request of a client that has not acknowledged GOAWAY for long; no handler has seen
    /// it.
    pub(super) fn take(
        &self,
        (request, mut respond): (Request<RecvStream>, SendResponse<Bytes>),
    ) -> Option<(Request<RecvStream>, SendResponse<Bytes>)> {
        let over = |since: Instant| since.elapsed() >= HEARD_WITHIN;
        let unheard = self.since.is_some_and(over);
        if unheard {
            respond.send_reset(Reason::REFUSED_STREAM);
            return None;
        }
        Some((request, respond))
    }
}
