//! Whether the answer to a request with a body still has a receiver.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use crate::http::body::BoxError;
use crate::http::client::http1::Http1;
use crate::http::client::upstream::UpstreamWatch;
use crate::net::abort::Abort;

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
