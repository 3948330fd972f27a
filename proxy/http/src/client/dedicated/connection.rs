//! One dedicated connection, which has no task of its own.
//!
//! The sender of a request polls it. There are two kinds of polls: those that register a waker, and
//! those with a no-op waker (`deaf`), which only check the state of the connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop::has_budget_remaining;
use tokio::time::timeout;

use crate::body::Body;
use crate::client::silence::Signs;
use crate::stuck_upload::{Answered, StuckUpload};

/// A peer has this long to take the end of a dedicated connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a dedicated connection is made of.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for T {}

pub(super) struct DedicatedConnection {
    pub(super) sender: http1::SendRequest<Body>,
    pub(super) connection: http1::Connection<TokioIo<Box<dyn Wire>>, Body>,
    pub(super) signs: Arc<Signs>,
    /// When it was used last.
    pub(super) since: Instant,
    /// Must not be polled again.
    pub(super) ended: bool,
}

impl DedicatedConnection {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        if !self.ended {
            self.ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        }
    }

    /// True when the next request may use it. No task is woken when that changes.
    pub(super) fn is_free(&mut self) -> bool {
        self.poll(&mut deaf());
        !self.ended && self.sender.is_ready() && !self.signs.is_broken()
    }

    /// No request can use it any more.
    pub(super) fn is_over(&self) -> bool {
        self.ended || self.signs.is_broken()
    }

    /// Sends what is left of a request whose answer has come complete, and closes where the peer
    /// announced that this was the last one. True when the next request may use the connection.
    /// Otherwise that has ended, or is to be broken off: the body broke off, the peer gave no sign
    /// of life, or nothing moved for too long.
    pub(super) async fn finish_upload(&mut self) -> bool {
        let answered = Answered::default();
        answered.note();
        let mut stuck = StuckUpload::new(answered);
        poll_fn(|cx| {
            self.poll(cx);
            if self.ended || self.signs.poll_broken(cx) {
                return Poll::Ready(false);
            }
            // An error means that the connection closes, which its end reports as well.
            if let Poll::Ready(Ok(())) = self.sender.poll_ready(cx) {
                return Poll::Ready(true);
            }
            if self.signs.take_sent() {
                stuck.moves();
            }
            stuck.poll_abandoned(cx).map(|()| {
                tracing::debug!("nothing moves of a body behind its answer");
                false
            })
        })
        .await
    }

    /// Shuts it down with `close_notify`, so that the peer need not take it for an accident.
    pub(super) fn close(self: Box<Self>) {
        #[expect(clippy::disallowed_methods, reason = "one connection")]
        tokio::spawn(async move {
            let Self {
                sender, connection, ..
            } = *self;
            drop(sender);
            let _ = timeout(CLOSE_TIMEOUT, connection).await;
        });
    }
}

/// For polls that only check: what they find is looked at at once.
pub(super) fn deaf() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A task that did much in one turn is made to wait, by a wake-up that a deaf poll does not
/// receive.
pub(super) fn wake_if_cut_short(cx: &Context<'_>) {
    if !has_budget_remaining() {
        cx.waker().wake_by_ref();
    }
}
