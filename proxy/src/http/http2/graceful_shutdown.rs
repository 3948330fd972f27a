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

use tokio::time::{Sleep, sleep};

/// Long against what a client has in hand when it reads GOAWAY, short against the stop of a
/// proxy.
pub(super) const IN_HAND: Duration = Duration::from_millis(250);

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
