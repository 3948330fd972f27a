//! One dedicated connection, which has no task of its own.
//!
//! Whoever sends on it polls it, so two kinds of polls are told apart: those that go on when
//! something comes, and deaf ones, which only ask how it stands now.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop::has_budget_remaining;
use tokio::time::timeout;

use crate::http::body::Body;
use crate::http::client::silence::Signs;

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

    /// True when the next request may use it. Nobody is woken when that changes.
    pub(super) fn is_free(&mut self) -> bool {
        self.poll(&mut deaf());
        !self.ended && self.sender.is_ready() && !self.signs.is_broken()
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

/// For polls that only ask: what they find is looked at at once.
pub(super) fn deaf() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// A task that did much in one turn is told to wait, by a wake-up that a deaf
/// poll does not hear.
pub(super) fn wake_if_cut_short(cx: &Context<'_>) {
    if !has_budget_remaining() {
        cx.waker().wake_by_ref();
    }
}
