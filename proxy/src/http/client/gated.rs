//! The body of a request on its way to a server.
//!
//! It waits while the server takes nothing: hyper reads on until its buffer is full, and what it
//! has of a request that is stuck would be twice as much as the window of its stream. And where it
//! breaks off the connection is reset, since a server that reads nothing would not see a close.
//! Once that is so, nothing more of it is polled.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::http::body::{Body, BoxError};
use crate::http::client::http1::Http1;
use crate::http::client::upstream::UpstreamWatch;
use crate::http::replay::Replay;
use crate::http::stuck_upload::StuckUpload;
use crate::net::abort::Abort;

/// Why a body breaks off that its own sender did not break off.
const NO_MORE: &str = "the server gets no more of the body";

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
                ready!(this.stuck.poll_given_up(cx));
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
