//! `EndingBody`: the body of a response that this proxy ends before its end: at the request's
//! deadline, after silence, or when the client has left. And the bytes before a break, until the
//! client has taken them ([`Undelivered`]).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use policy::reason::Reason;
use tokio::time::{Instant, Sleep, sleep};

use crate::body::BoxError;
use crate::deadline::{StopConditions, WaitEnd};
use crate::failure::Failure;
use crate::grpc::{self, ends_in_trailers};

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the time of this request is over")]
pub struct OutOfTime {
    over: WaitEnd,
    grpc: bool,
}

impl OutOfTime {
    /// What it has ended by.
    pub const fn over(self) -> WaitEnd {
        self.over
    }

    /// What the caller gets where its protocol has a place for it. Others see that the answer
    /// breaks off.
    pub fn trailers(self) -> Option<HeaderMap> {
        self.grpc.then(|| grpc::ending(Reason::Deadline, ""))
    }
}

/// Why this proxy itself ended a body with this error; `None` where its sender broke it off.
pub(crate) fn ended_for(error: &(dyn std::error::Error + 'static)) -> Option<Reason> {
    if error.is::<OutOfTime>() {
        return Some(Reason::Deadline);
    }
    error.downcast_ref::<Failure>().map(Failure::reason)
}

/// The body of an answer, which ends with its request's time. Its source is dropped then, so that
/// its server stops working for it.
#[derive(Debug)]
pub struct EndingBody<B> {
    inner: Option<B>,
    ends: Option<Box<StopConditions>>,
    /// The answer has a place for gRPC's status after its messages.
    grpc: bool,
}

impl<B> EndingBody<B> {
    /// `head`: of the answer.
    pub fn new(inner: B, ends: Option<Box<StopConditions>>, head: &HeaderMap) -> Self {
        Self {
            inner: Some(inner),
            grpc: ends.is_some() && ends_in_trailers(head),
            ends,
        }
    }
}

impl<B> HttpBody for EndingBody<B>
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
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(inner).poll_frame(cx);
        let Some(ends) = &mut this.ends else {
            return frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)));
        };
        let over = match &frame {
            Poll::Ready(Some(Err(_))) if ends.nearly() => Poll::Ready(WaitEnd::Time),
            Poll::Ready(None | Some(Err(_))) => Poll::Pending,
            Poll::Pending => ends.poll(cx),
            // What never stops coming ends nevertheless.
            Poll::Ready(Some(Ok(_))) => {
                ends.moved();
                ends.poll(cx)
            }
        };
        let Poll::Ready(over) = over else {
            return frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)));
        };
        this.inner = None;
        this.ends = None;
        let grpc = this.grpc;
        Poll::Ready(Some(Err(OutOfTime { over, grpc }.into())))
    }

    /// What broke off has not ended.
    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // The length of a body that broke off is unknown.
        let unknown = SizeHint::default;
        self.inner
            .as_ref()
            .map_or_else(unknown, HttpBody::size_hint)
    }
}

/// Behind a break something is taken within this time. Twice what an upload has behind its
/// answer: it is seen chunk by chunk, and one may have more than 100 KiB.
pub(crate) const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Whether what came before an answer broke off goes first. What this proxy ends itself, because
/// its time is over or it is not allowed any more, ends at once.
pub(crate) fn is_delivered(error: &(dyn std::error::Error + 'static)) -> bool {
    ended_for(error).is_none()
}

/// The received bytes of an answer that broke off, as long as its client has not taken them.
///
/// A client that is connected to the application itself reads what was sent, and then sees the
/// break. So these bytes go first, in order. But a client that takes none of them must not keep an
/// answer whose server is gone, with its memory and its permit, for as long as it likes.
///
/// Ready when what is left is abandoned.
#[derive(Debug, Default)]
pub struct Undelivered {
    progress: usize,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Undelivered {
    /// Polled while something is left: ready once `progress`, which is another one whenever some of
    /// it was taken, has been the same for too long.
    pub(crate) fn poll_abandoned(&mut self, progress: usize, cx: &mut Context<'_>) -> Poll<()> {
        let new = || Box::pin(sleep(TAKEN_WITHIN));
        let wait = self.wait.get_or_insert_with(new);
        if std::mem::replace(&mut self.progress, progress) != progress {
            wait.as_mut().reset(Instant::now() + TAKEN_WITHIN);
        }
        wait.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests;
