//! Bodies as the proxy passes them on: frames of bytes, one box per message.
//!
//! Two wrappers matter. `Replay` remembers what a request sent so far, so that
//! a request which provably never reached an application can be sent to
//! another endpoint. `Watched` runs a callback when a body ends, however it ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use parking_lot::Mutex;

use crate::headers;
use crate::http2::recv::RecvBody;
use crate::quiet::Coming;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Bytes of a request body kept for sending it again. Larger bodies are sent
/// once; 64 KiB holds nearly every API call and bounds memory per request.
pub const REPLAY_LIMIT: usize = 64 * 1024;

#[must_use]
pub fn empty() -> Body {
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}

#[must_use]
pub fn text(content: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

#[must_use]
pub fn incoming(body: Received) -> Body {
    body.boxed_unsync()
}

/// The body of a message that came, by either version of HTTP.
#[derive(Debug)]
pub enum Received {
    Http1(Incoming),
    Http2(RecvBody),
}

impl From<Incoming> for Received {
    fn from(body: Incoming) -> Self {
        Self::Http1(body)
    }
}

impl From<RecvBody> for Received {
    fn from(body: RecvBody) -> Self {
        Self::Http2(body)
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

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
        };
        Self {
            tape: Arc::new(Mutex::new(tape)),
            hint,
            empty,
        }
    }

    /// Bytes of the whole body, where that is known before.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.hint.exact()
    }

    /// Whether all of it was handed out by now.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        let tape = self.tape.lock();
        tape.ended || tape.source.is_end_stream() || self.size() == Some(tape.came)
    }

    /// In how many pieces it came until now.
    #[must_use]
    pub fn pieces(&self) -> u64 {
        self.tape.lock().pieces
    }

    /// A body that starts at the beginning, or `None` when too much was sent
    /// already. An earlier copy must no longer be read.
    #[must_use]
    pub fn take(&self) -> Option<Body> {
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
        let frame = match Pin::new(&mut tape.source).poll_frame(cx) {
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

/// The body of an answer, with its first part if that was there already.
struct Begun<B: HttpBody> {
    first: Option<Result<Frame<Bytes>, B::Error>>,
    rest: B,
}

impl<B: HttpBody<Data = Bytes> + Unpin> Begun<B> {
    const fn new(rest: B) -> Self {
        Self { first: None, rest }
    }

    /// Takes the first part if it comes before everything else that is ready now
    /// has had its turn. Head and body of most answers arrive together; passed on
    /// apart they would cost twice the writes.
    async fn begin(&mut self) {
        let mut yielded = false;
        self.first = poll_fn(|cx| {
            if self.rest.is_end_stream() {
                return Poll::Ready(None);
            }
            match Pin::new(&mut self.rest).poll_frame(cx) {
                Poll::Ready(frame) => Poll::Ready(frame),
                Poll::Pending if yielded => Poll::Ready(None),
                Poll::Pending => {
                    yielded = true;
                    // Not the runtime's own yield, which would ask the kernel as well.
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

impl<B> HttpBody for Begun<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = match this.first.take() {
            Some(first) => Some(first),
            None => std::task::ready!(Pin::new(&mut this.rest).poll_frame(cx)),
        };
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            _ => 0,
        };
        let rest = self.rest.size_hint();
        let mut whole = SizeHint::new();
        whole.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            whole.set_upper(upper + first);
        }
        whole
    }
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Complete,
    /// The sender failed before the end.
    Failed,
    /// The receiver no longer wanted it.
    Dropped,
}

/// Calls `finish` exactly once with how the body ended, the bytes that passed
/// and the trailers, if any.
pub struct Watched<F: FnOnce(End, u64, Option<&http::HeaderMap>)> {
    inner: Begun<Coming>,
    bytes: u64,
    /// An error that the next poll returns.
    held: Option<BoxError>,
    finish: Option<F>,
}

impl<F: FnOnce(End, u64, Option<&http::HeaderMap>) + Unpin> std::fmt::Debug for Watched<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<F: FnOnce(End, u64, Option<&http::HeaderMap>)> Watched<F> {
    /// Watches `body`, and takes its first part if it is there already.
    pub async fn begun(body: Coming, finish: F) -> Self {
        // Watched from now on: whoever stops waiting here is counted as well.
        let mut watched = Self {
            inner: Begun::new(body),
            bytes: 0,
            held: None,
            finish: Some(finish),
        };
        watched.inner.begin().await;
        watched
    }

    fn end(&mut self, end: End, trailers: Option<&http::HeaderMap>) {
        if let Some(finish) = self.finish.take() {
            finish(end, self.bytes, trailers);
        }
    }
}

impl<F: FnOnce(End, u64, Option<&http::HeaderMap>) + Unpin> HttpBody for Watched<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(error) = this.held.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut polled = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            headers::clean_trailers(trailers);
        }
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.bytes += data.len() as u64;
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.end(End::Complete, Some(trailers));
                } else if this.inner.is_end_stream() {
                    this.end(End::Complete, None);
                }
            }
            Some(Err(_)) => this.end(End::Failed, None),
            None => this.end(End::Complete, None),
        }
        if let Some(Err(error)) = polled {
            // Servers drop what they have not flushed yet when a body fails. One
            // turn later the head is out, and the caller sees an answer that
            // broke off, not a silent close that invites it to send again.
            this.held = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<F: FnOnce(End, u64, Option<&http::HeaderMap>)> Drop for Watched<F> {
    fn drop(&mut self) {
        // A body known to be empty is often dropped without being polled.
        let end = if self.inner.is_end_stream() {
            End::Complete
        } else {
            End::Dropped
        };
        self.end(end, None);
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as HttpBody;
    use http_body_util::BodyExt;

    use http_body::Frame;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::{Begun, Body, BoxError, REPLAY_LIMIT, Replay, text};

    /// A body that somebody else says, part by part.
    fn later() -> (UnboundedSender<Result<Frame<bytes::Bytes>, BoxError>>, Body) {
        let (sender, parts) = unbounded_channel();
        let body = http_body_util::StreamBody::new(UnboundedReceiverStream::new(parts));
        (sender, body.boxed_unsync())
    }

    async fn read(body: Body) -> Vec<u8> {
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn what_comes_within_a_turn_of_everything_that_is_ready_goes_with_the_head() {
        for others in 0..3 {
            let (sender, body) = later();
            let mut begun = Begun::new(body);
            for _ in 0..others {
                tokio::spawn(std::future::ready(()));
            }
            tokio::spawn(async move {
                sender.send(Ok(Frame::data("hello".into()))).unwrap();
                std::future::pending::<()>().await;
            });
            begun.begin().await;
            assert!(begun.first.is_some(), "with {others} others before it");
            assert_eq!(begun.size_hint().lower(), 5);
            let frame = begun.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "hello");
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_holds_nothing_up() {
        let (_sender, body) = later();
        let mut begun = Begun::new(body);
        begun.begin().await;
        assert!(begun.first.is_none());
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
    }
}
