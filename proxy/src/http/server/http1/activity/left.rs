//! Whether the sender of a request has left before its answer.
//!
//! hyper does not read while it waits for an answer, so this proxy has to look. A reset is seen at
//! once. A FIN shows only that the client sends no more: a client that has closed its socket and
//! one that still reads look alike until something is sent to them. How long such a client is
//! waited for stands in [`super::unanswered`].

use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;

use tokio::io::AsyncRead;

use super::{AHEAD, ConnectionUse};
use crate::http::deadline::PreviousHop;
use crate::net::prefixed::Prefixed;

impl ConnectionUse {
    /// Looks while a request waits whose head hyper has: nothing else reads the connection then, so
    /// nothing else would notice that the caller left.
    pub(in super::super) fn looks_whether_left<I: AsyncRead + Unpin>(
        &self,
        io: &mut Prefixed<I>,
        cx: &mut Context<'_>,
    ) {
        if !self.queued.load(Relaxed) || self.left.load(Relaxed) {
            return;
        }
        if io.poll_left(cx, AHEAD).is_ready() {
            self.left.store(true, Relaxed);
            cx.waker().wake_by_ref();
        }
        self.reserved_head.set(io.ahead());
    }

    /// Whether the sender of a request for another protocol has left before the answer. No such
    /// protocol works with a client that sends no more; the caller of another request may only have
    /// finished sending.
    pub(in super::super) fn has_left<I: AsyncRead + Unpin>(
        &self,
        io: &mut Prefixed<I>,
        cx: &mut Context<'_>,
    ) -> bool {
        self.switches.load(Relaxed) && io.poll_left(cx, AHEAD).is_ready()
    }

    /// Whether the caller of a request closed its direction so long ago that it is taken to have
    /// left. To be polled every now and then. Behind a body, or while memory is full, that is seen
    /// once all of what came before was read.
    pub(in super::super) fn has_given_up<I: AsyncRead + Unpin>(
        &self,
        io: &mut Prefixed<I>,
        cx: &mut Context<'_>,
    ) -> bool {
        // Of a peer proxy hyper itself sees it, and that is no half-close.
        if self.from == PreviousHop::Peer {
            return false;
        }
        self.unanswered.is_given_up(|| {
            if self.budget.is_full() {
                return false;
            }
            let before = io.ahead();
            let closes = io.poll_left(cx, AHEAD).is_ready();
            if io.ahead() > before {
                // hyper may wait for it, as the rest of a body.
                cx.waker().wake_by_ref();
            }
            closes && (io.ahead() == 0 || !self.body.load(Relaxed))
        })
    }
}
