//! A request's body that can be sent again.
//!
//! It remembers what was sent so far, so that a request which provably never reached an
//! application can be sent to another endpoint.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::failure::Failure;
use crate::http::body::{Body, BoxError, empty};
use crate::http::headers;

/// Bytes of a request body kept for sending it again. Larger bodies are sent
/// once; 64 KiB holds nearly every API call and bounds memory per request.
pub(crate) const REPLAY_LIMIT: usize = 64 * 1024;

struct Tape {
    source: Body,
    played: Vec<Bytes>,
    trailers: Option<http::HeaderMap>,
    /// `None` once the body outgrew the limit.
    size: Option<usize>,
    /// Bytes that came, and in how many pieces.
    came: u64,
    pieces: u64,
    ended: bool,
    /// Whoever reads it was told to wait for its sender.
    waits: bool,
}

/// Hands out copies of one request body.
#[derive(Clone)]
pub struct Replay {
    tape: Arc<Mutex<Tape>>,
    hint: SizeHint,
    empty: bool,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("empty", &self.empty)
            .finish_non_exhaustive()
    }
}

impl Replay {
    #[must_use]
    pub fn new(source: Body) -> Self {
        let hint = source.size_hint();
        let empty = source.is_end_stream();
        let tape = Tape {
            source,
            played: Vec::new(),
            trailers: None,
            size: Some(0),
            came: 0,
            pieces: 0,
            ended: empty,
            waits: false,
        };
        Self {
            tape: Arc::new(Mutex::new(tape)),
            hint,
            empty,
        }
    }

    /// Bytes of the whole body, where that is known before. Over HTTP/2 a request without
    /// a body announces no length: its head is the end of the stream.
    #[must_use]
    pub(crate) fn size(&self) -> Option<u64> {
        if self.empty {
            return Some(0);
        }
        self.hint.exact()
    }

    /// Whether all of it was handed out by now.
    #[must_use]
    pub(crate) fn is_sent(&self) -> bool {
        let tape = self.tape.lock();
        tape.ended || tape.source.is_end_stream() || self.size() == Some(tape.came)
    }

    /// Whether all of it is here to be handed out again.
    #[must_use]
    pub(crate) fn is_kept(&self) -> bool {
        self.empty || (self.is_sent() && self.tape.lock().size.is_some())
    }

    /// Whether somebody would read on and has to wait for its sender: what that takes is the
    /// sender's own time.
    #[must_use]
    pub(crate) fn waits_for_sender(&self) -> bool {
        !self.is_sent() && self.tape.lock().waits
    }

    /// In how many pieces it came until now.
    #[must_use]
    pub(crate) fn pieces(&self) -> u64 {
        self.tape.lock().pieces
    }

    /// The same as [`Self::take`], for an attempt that fails without a body.
    ///
    /// # Errors
    /// When too much was sent already.
    pub(crate) fn again(&self) -> Result<Body, Failure> {
        self.take()
            .ok_or_else(|| Failure::lost("the request's body is too large to be sent again"))
    }

    /// A body that starts at the beginning, or `None` when too much was sent
    /// already. An earlier copy must no longer be read.
    #[must_use]
    pub(crate) fn take(&self) -> Option<Body> {
        if self.empty {
            return Some(empty());
        }
        self.tape.lock().size?;
        Some(
            Copy {
                replay: self.clone(),
                next: 0,
                trailers_sent: false,
            }
            .boxed_unsync(),
        )
    }
}

/// One reading of the body.
struct Copy {
    replay: Replay,
    next: usize,
    trailers_sent: bool,
}

impl HttpBody for Copy {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let tape = Arc::clone(&self.replay.tape);
        let mut tape = tape.lock();
        if let Some(data) = tape.played.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if tape.ended {
            if let (false, Some(trailers)) = (self.trailers_sent, tape.trailers.clone()) {
                self.trailers_sent = true;
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut tape.source).poll_frame(cx);
        tape.waits = polled.is_pending();
        let frame = match polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => {
                tape.ended = true;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                tape.came += data.len() as u64;
                tape.pieces += 1;
                let size = tape.size.map(|size| size + data.len());
                tape.size = size.filter(|size| *size <= REPLAY_LIMIT);
                if tape.size.is_some() {
                    tape.played.push(data.clone());
                    self.next += 1;
                } else {
                    // What was played is of no use any more.
                    tape.played = Vec::new();
                    self.next = 0;
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                if let Ok(mut trailers) = frame.into_trailers() {
                    headers::clean_trailers(&mut trailers);
                    tape.ended = true;
                    tape.trailers = Some(trailers.clone());
                    self.trailers_sent = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.replay.empty {
            return true;
        }
        let tape = self.replay.tape.lock();
        let whole = tape.ended || tape.source.is_end_stream();
        let trailers = tape.trailers.is_some() && !self.trailers_sent;
        whole && !trailers && self.next >= tape.played.len()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint()
    }
}

impl Copy {
    fn hint(&self) -> SizeHint {
        if self.next == 0 {
            self.replay.hint
        } else {
            SizeHint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::BodyExt;

    use super::{Body, REPLAY_LIMIT, Replay};
    use crate::http::body::text;

    /// As a request of HTTP/2 without a body: its head ends the stream and announces no
    /// length.
    struct Ended(bool);

    impl http_body::Body for Ended {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(None)
        }

        fn is_end_stream(&self) -> bool {
            self.0
        }
    }

    async fn read(body: Body) -> Vec<u8> {
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn a_small_body_can_be_read_twice() {
        let replay = Replay::new(text("hello"));
        assert_eq!(read(replay.take().unwrap()).await, b"hello");
        assert_eq!(read(replay.take().unwrap()).await, b"hello");
    }

    #[tokio::test]
    async fn a_body_that_was_partly_read_starts_again_at_its_beginning() {
        let replay = Replay::new(text("hello"));
        let mut first = replay.take().unwrap();
        first.frame().await.unwrap().unwrap();
        drop(first);
        assert_eq!(read(replay.take().unwrap()).await, b"hello");
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_sent_once() {
        let replay = Replay::new(text(vec![0_u8; REPLAY_LIMIT + 1]));
        assert_eq!(read(replay.take().unwrap()).await.len(), REPLAY_LIMIT + 1);
        assert!(replay.take().is_none());
        assert!(!replay.is_kept());
    }

    #[test]
    fn the_size_of_a_body_that_ended_before_it_began_is_known() {
        let body = |ended| Ended(ended).map_err(|never| match never {}).boxed_unsync();
        assert_eq!(Replay::new(body(false)).size(), None);
        assert_eq!(Replay::new(body(true)).size(), Some(0));
    }

    #[tokio::test]
    async fn a_sender_is_waited_for_while_somebody_would_read_on() {
        let (sender, source) = tokio::sync::mpsc::unbounded_channel();
        let parts = tokio_stream::wrappers::UnboundedReceiverStream::new(source);
        let source = http_body_util::StreamBody::new(parts).boxed_unsync();
        let say = |text: &'static str| {
            let frame = Frame::data(Bytes::from_static(text.as_bytes()));
            sender
                .send(Ok::<_, crate::http::body::BoxError>(frame))
                .unwrap();
        };
        let replay = Replay::new(source);
        let mut body = replay.take().unwrap();
        let waits = || replay.waits_for_sender();
        assert!(!waits(), "nobody reads it");
        let mut read = || futures::FutureExt::now_or_never(body.frame());
        assert!(read().is_none());
        assert!(waits());
        say("hel");
        assert!(read().is_some());
        assert!(!waits(), "nobody would read on");
        assert!(read().is_none());
        assert!(waits());
        say("lo");
        drop(sender);
        assert!(read().is_some() && read().unwrap().is_none());
        assert!(!waits(), "all of it came");
        assert!(!Replay::new(crate::http::body::empty()).waits_for_sender());
    }

    #[tokio::test]
    async fn a_body_is_kept_once_all_of_it_was_read() {
        let replay = Replay::new(text("hello"));
        assert!(!replay.is_kept());
        read(replay.take().unwrap()).await;
        assert!(replay.is_kept());
        assert!(Replay::new(crate::http::body::empty()).is_kept());
    }
}
