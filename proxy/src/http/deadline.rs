//! How long a request may take, as it stands in its headers, and what ends when that is over.
//!
//! Between proxies, to applications and from them the same two headers are used: gRPC's own,
//! and `weft-timeout` for everything. Both say what is left and never a time of day.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::{Body as HttpBody, Frame, SizeHint};
use policy::deadline::{Asked, Deadline, parse_grpc_timeout, parse_millis};
use policy::deadline::{Printed, Unreadable, print_grpc_timeout, print_millis};
use policy::reason::Reason;
use policy::traffic::call::Timeouts;
use tokio::time::{Sleep, sleep_until};

use crate::failure::Failure;
use crate::http::body::BoxError;
use crate::http::grpc::ends_in_trailers;
use crate::http::headers::TIMEOUT;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A peer proxy is told of whole milliseconds, so it gives up this much before its caller's
/// at most. What breaks off then was broken off for its time.
const ROUNDED: Duration = Duration::from_millis(2);

/// The clock of deadlines. Tests stop and move it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What a request says of its time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timed {
    pub(crate) asked: Asked,
    /// Something was there, and is no time.
    pub(crate) unreadable: bool,
}

impl Timed {
    /// `weft`: what it says in our own header, of an application of the own pod or of a peer
    /// proxy. Nobody else is believed. `grpc-timeout` belongs to gRPC alone.
    pub(crate) fn read(map: &HeaderMap, grpc: bool, weft: Option<&HeaderValue>) -> Self {
        let mut timed = Self::default();
        if grpc {
            timed.asked.grpc = timed.one(map.get(GRPC_TIMEOUT), parse_grpc_timeout);
        }
        timed.asked.weft = timed.one(weft, parse_millis);
        timed
    }

    fn one(
        &mut self,
        value: Option<&HeaderValue>,
        parse: fn(&[u8]) -> Result<Duration, Unreadable>,
    ) -> Option<Duration> {
        let read = parse(value?.as_bytes());
        self.unreadable |= read.is_err();
        read.ok()
    }
}

/// Of a call that the own application makes.
pub(crate) fn outgoing(timed: Timed, policy: &Timeouts) -> Deadline {
    if timed.asked == Asked::default() && policy.request.is_none() {
        return Deadline::NONE;
    }
    Deadline::outgoing(now(), timed.asked, policy, Deadline::NONE)
}

/// Of a request that came. `request`: what a policy says that nobody applied before.
pub(crate) fn arrived(timed: Timed, request: Option<Duration>) -> Deadline {
    if timed.asked == Asked::default() && request.is_none() {
        return Deadline::NONE;
    }
    Deadline::arrived(now(), timed.asked, request)
}

/// Writes what is left by now. `ours`: `weft-timeout` as well, which never leaves the mesh.
pub(crate) fn write(map: &mut HeaderMap, deadline: Deadline, grpc: bool, ours: bool) {
    let Some(left) = deadline.own_left(now()) else {
        return;
    };
    let mut set = |name: HeaderName, value: Printed| {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            map.insert(name, value);
        }
    };
    if grpc {
        set(GRPC_TIMEOUT, print_grpc_timeout(left));
    }
    if ours {
        set(TIMEOUT, print_millis(left));
    }
}

/// A request whose time was over before an application saw it, or while it served it.
pub(crate) fn passed() -> Failure {
    Failure::refused(Reason::Deadline, "the time of this request is over")
}

/// # Errors
/// When nothing is left.
pub(crate) fn check(deadline: Deadline) -> Result<(), Failure> {
    if deadline != Deadline::NONE && deadline.over(now()).is_some() {
        return Err(passed());
    }
    Ok(())
}

/// What `work` comes to, if that is before `end`.
pub(crate) async fn until<T>(
    end: Option<Instant>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    // On the heap, and only where somebody asks for it.
    let mut over = end.map(|end| Box::pin(sleep_until(end.into())));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        let late = |over: &mut Pin<Box<Sleep>>| over.as_mut().poll(cx).is_ready();
        if over.as_mut().is_some_and(late) {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the time of this request is over")]
pub(crate) struct OutOfTime {
    grpc: bool,
}

impl OutOfTime {
    /// What the caller is told where its protocol has a place for it. Others see that the
    /// answer breaks off.
    pub(crate) fn trailers(self) -> Option<HeaderMap> {
        self.grpc.then(|| {
            let mut map = HeaderMap::new();
            let code = u16::from(Reason::Deadline.grpc_status());
            map.insert("grpc-status", HeaderValue::from(code));
            map.insert("grpc-message", HeaderValue::from_static("weft: deadline"));
            map
        })
    }
}

/// When a request of this method is broken off, and its answer.
pub(crate) fn ends(deadline: Deadline, method: &Method) -> Option<Instant> {
    deadline.breaks_off(method).map(|(at, _)| at)
}

/// The body of an answer, which ends with its request's time. What it came from is dropped
/// then, so that nobody goes on working for it.
pub(crate) struct Ending<B> {
    inner: Option<B>,
    end: Option<Box<End>>,
}

struct End {
    over: Pin<Box<Sleep>>,
    /// The answer has a place for gRPC's status after its messages.
    grpc: bool,
}

impl End {
    fn passed(&mut self, cx: &mut Context<'_>) -> bool {
        self.over.as_mut().poll(cx).is_ready()
    }

    /// A peer proxy that counts the same time may be the first to end it.
    fn nearly(&self) -> bool {
        now() + ROUNDED >= self.over.deadline().into_std()
    }
}

impl<B> Ending<B> {
    /// `head`: of the answer.
    pub(crate) fn new(inner: B, ends: Option<Instant>, head: &HeaderMap) -> Self {
        let end = ends.map(|at| {
            let over = Box::pin(sleep_until(at.into()));
            let grpc = ends_in_trailers(head);
            Box::new(End { over, grpc })
        });
        Self {
            inner: Some(inner),
            end,
        }
    }
}

impl<B> HttpBody for Ending<B>
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
        let Some(end) = &mut this.end else {
            return frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)));
        };
        let over = match &frame {
            Poll::Ready(Some(Err(_))) => end.nearly(),
            // What is there is passed on, and what never stops coming ends nevertheless.
            Poll::Pending | Poll::Ready(Some(Ok(_))) => end.passed(cx),
            Poll::Ready(None) => false,
        };
        if !over {
            return frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)));
        }
        let grpc = end.grpc;
        this.inner = None;
        this.end = None;
        Poll::Ready(Some(Err(OutOfTime { grpc }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.inner.as_ref().map_or_else(none, HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests;
