//! The two bodies of one HTTP/1.1 exchange: that of the request to the server, and that of its
//! response, which may arrive while the request is still sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use weft_proxy_net::abort::Abort;

use crate::body::{Body, BoxError};
use crate::client::http1::Http1;
use crate::client::upstream::UpstreamWatch;
use crate::replay::Replay;
use crate::stuck_upload::StuckUpload;

/// Why a body breaks off that its own sender did not break off.
const NO_MORE: &str = "the server gets no more of the body";

/// The body of a request on its way to a server.
///
/// It waits while the server takes nothing: hyper reads on until its buffer is full, and what it
/// has of a request that is stuck would be twice as much as the window of its stream. And where it
/// breaks off the connection is reset, since a server that reads nothing would not see a close.
/// Once that is so, nothing more of it is polled.
struct Gated {
    body: Body,
    /// The body, which knows whose time passes.
    replay: Replay,
    server: UpstreamWatch,
    abort: Abort,
    /// Its sender is silent.
    stuck: StuckUpload,
}

/// `body`, as the server gets it by this connection.
pub(super) fn gated(body: Body, connection: &Http1, replay: &Replay) -> Body {
    let (server, abort) = (connection.watch.clone(), connection.abort.clone());
    Gated {
        body,
        replay: replay.clone(),
        stuck: StuckUpload::new(server.answered()),
        server,
        abort,
    }
    .boxed_unsync()
}

impl HttpBody for Gated {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.abort.discards() {
            return Poll::Ready(Some(Err(NO_MORE.into())));
        }
        if this.server.poll_takes(cx).is_pending() {
            this.replay.waits_for_server();
            // The writer sees to that.
            this.stuck.moves();
            return Poll::Pending;
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let whole = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || this.body.is_end_stream(),
            Poll::Ready(Some(Err(_))) => {
                this.abort.discard();
                false
            }
            Poll::Pending => {
                ready!(this.stuck.poll_abandoned(cx));
                tracing::debug!("nothing more came of a body behind its answer");
                this.abort.discard();
                return Poll::Ready(Some(Err(NO_MORE.into())));
            }
        };
        this.stuck.moves();
        if whole {
            this.server.note_whole_body();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether the answer to a request with a body still has a receiver.
///
/// The receiver of an answer, or of the rest of it. Dropped before that has come complete, the
/// connection is reset and what waits to be sent is dropped: hyper would wait until the server took
/// it, which may be never, and a server that reads nothing would not see a close. Not so where all
/// of the body is on its way: the server gets it, and may act on it.
#[derive(Debug)]
pub(super) struct AnswerGuard {
    server: UpstreamWatch,
    abort: Abort,
    fulfilled: bool,
}

impl AnswerGuard {
    pub(super) fn new(connection: &Http1) -> Self {
        Self {
            server: connection.watch.clone(),
            abort: connection.abort.clone(),
            fulfilled: false,
        }
    }

    /// The receiver is gone. What is left of the body goes out by itself.
    pub(super) const fn fulfil(&mut self) {
        self.fulfilled = true;
    }

    /// The answer has come whole. What is left of the body goes out by itself, as far as the
    /// server takes it.
    fn answered(&mut self) {
        if !self.fulfilled {
            self.server.answered().note();
            self.fulfil();
        }
    }
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        if !self.fulfilled && !self.server.gets_whole_body() {
            self.abort.discard();
        }
    }
}

/// An answer that comes while the body of its request may be on its way still.
#[derive(Debug)]
pub(super) struct GuardedBody {
    body: Incoming,
    guard: AnswerGuard,
}

impl GuardedBody {
    pub(super) fn new(body: Incoming, mut guard: AnswerGuard) -> Self {
        if body.is_end_stream() {
            guard.answered();
        }
        Self { body, guard }
    }
}

impl HttpBody for GuardedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let over = match &polled {
            Poll::Ready(None) => true,
            // Nothing is polled behind trailers.
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || this.body.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if over {
            this.guard.answered();
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
