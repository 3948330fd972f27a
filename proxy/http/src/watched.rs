//! A body that reports its end exactly once: complete, failed, late or dropped.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use weft_proxy_net::relay::Flows;

use crate::body::BoxError;
use crate::deadline::WaitEnd;
use crate::ending_body::OutOfTime;
use crate::headers;

/// The body of an answer, with its first part if that was there already.
#[derive(Debug)]
pub struct PrefetchedBody<B> {
    first: Option<Result<Frame<Bytes>, BoxError>>,
    rest: B,
}

impl<B> PrefetchedBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
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
                Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
                Poll::Pending if yielded => Poll::Ready(None),
                Poll::Pending => {
                    yielded = true;
                    // Not the runtime's own yield, which would poll the kernel as well.
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await;
    }
}

impl<B> HttpBody for PrefetchedBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(first));
        }
        let frame = std::task::ready!(Pin::new(&mut this.rest).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            // Servers never poll a body for its error that they know to be empty, and go on with
            // the next answer behind a head that announced more.
            Some(Err(_)) => return SizeHint::default(),
            None => 0,
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
pub enum BodyEnd {
    Complete,
    /// The sender failed before the end.
    Failed,
    /// Its request was over, by this.
    OutOfTime(WaitEnd),
    /// The same before any of it was passed on, so that its head was not either.
    Late(WaitEnd),
    /// The receiver no longer wanted it.
    Dropped,
}

/// Counts bytes while they pass, and calls `finish` exactly once with how the body ended, the
/// bytes that passed and the trailers, if any.
pub struct Watched<B, F>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    F: FnOnce(BodyEnd, u64, Option<&http::HeaderMap>),
{
    inner: PrefetchedBody<B>,
    bytes: u64,
    flows: Arc<Flows>,
    /// An error that the next poll returns.
    late_error: Option<BoxError>,
    finish: Option<F>,
}

impl<B, F> std::fmt::Debug for Watched<B, F>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    F: FnOnce(BodyEnd, u64, Option<&http::HeaderMap>),
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<B, F> Watched<B, F>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    F: FnOnce(BodyEnd, u64, Option<&http::HeaderMap>),
{
    /// Watches `body`, whose bytes go to the caller by `flows`, and takes its first part if it is
    /// there already.
    pub async fn start(body: B, flows: Arc<Flows>, finish: F) -> Self {
        // Watched from now on: a caller that leaves during the wait is counted as well.
        let mut watched = Self {
            inner: PrefetchedBody::new(body),
            bytes: 0,
            flows,
            late_error: None,
            finish: Some(finish),
        };
        watched.inner.begin().await;
        watched
    }

    /// Whether the request was over before any of the body came, and nothing of the answer shows
    /// it. An answer that does can take its place; this one is counted then.
    pub fn is_late(&mut self) -> bool {
        let Some(Err(error)) = &self.inner.first else {
            return false;
        };
        let late = error.downcast_ref::<OutOfTime>().copied();
        let Some(late) = late.filter(|late| late.trailers().is_none()) else {
            return false;
        };
        self.end(BodyEnd::Late(late.over()), None);
        true
    }

    fn end(&mut self, end: BodyEnd, trailers: Option<&http::HeaderMap>) {
        if let Some(finish) = self.finish.take() {
            finish(end, self.bytes, trailers);
        }
    }
}

impl<B, F> HttpBody for Watched<B, F>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    F: FnOnce(BodyEnd, u64, Option<&http::HeaderMap>) + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(error) = this.late_error.take() {
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
                    let length = data.len() as u64;
                    this.bytes += length;
                    this.flows.received.fetch_add(length, Relaxed);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    this.end(BodyEnd::Complete, Some(trailers));
                } else if this.inner.is_end_stream() {
                    this.end(BodyEnd::Complete, None);
                }
            }
            Some(Err(error)) => match error.downcast_ref::<OutOfTime>().copied() {
                Some(over) => {
                    this.end(BodyEnd::OutOfTime(over.over()), None);
                    if let Some(trailers) = over.trailers() {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
                None => this.end(BodyEnd::Failed, None),
            },
            None => this.end(BodyEnd::Complete, None),
        }
        if let Some(Err(error)) = polled {
            // Servers drop what they have not flushed yet when a body fails. One
            // turn later the head is out, and the caller sees an answer that
            // broke off, not a silent close that invites it to send again.
            this.late_error = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.late_error.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B, F> Drop for Watched<B, F>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    F: FnOnce(BodyEnd, u64, Option<&http::HeaderMap>),
{
    fn drop(&mut self) {
        // A body known to be empty is often dropped without being polled.
        let end = if self.inner.is_end_stream() {
            BodyEnd::Complete
        } else {
            BodyEnd::Dropped
        };
        self.end(end, None);
    }
}

#[cfg(test)]
mod tests {
    use super::{BoxError, PrefetchedBody};
    use crate::body::Body;
    use http_body::Body as HttpBody;
    use http_body::Frame;
    use http_body_util::BodyExt;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio_stream::wrappers::UnboundedReceiverStream;

    /// A body whose parts are sent one by one.
    fn later() -> (UnboundedSender<Result<Frame<bytes::Bytes>, BoxError>>, Body) {
        let (sender, parts) = unbounded_channel();
        let body = http_body_util::StreamBody::new(UnboundedReceiverStream::new(parts));
        (sender, body.boxed_unsync())
    }

    #[tokio::test]
    async fn data_ready_within_one_turn_goes_with_head() {
        for others in 0..3 {
            let (sender, body) = later();
            let mut prefetched = PrefetchedBody::new(body);
            for _ in 0..others {
                tokio::spawn(std::future::ready(()));
            }
            tokio::spawn(async move {
                sender.send(Ok(Frame::data("hello".into()))).unwrap();
                std::future::pending::<()>().await;
            });
            prefetched.begin().await;
            assert!(prefetched.first.is_some(), "with {others} others before it");
            assert_eq!(prefetched.size_hint().lower(), 5);
            let frame = prefetched.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "hello");
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_holds_nothing_up() {
        let (_sender, body) = later();
        let mut prefetched = PrefetchedBody::new(body);
        prefetched.begin().await;
        assert!(prefetched.first.is_none());
    }
}
