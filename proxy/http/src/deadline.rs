//! The deadline of a request, as its headers carry it, and what ends when it has passed.
//!
//! Between proxies and applications, both ways, the same two headers are used: gRPC's own, and
//! `weft-timeout` for everything. Both hold the time that is left and never a time of day.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use policy::deadline::{
    Deadline, DeadlineSource, RequestedTimeout, parse_grpc_timeout, parse_millis,
};
use policy::deadline::{Printed, Unreadable, print_grpc_timeout, print_millis};
use policy::reason::Reason;
use policy::traffic::call::Timeouts;
use tokio::time::{Sleep, sleep_until};
use weft_proxy_net::idle::Idle;
use weft_proxy_net::ticket::Waited;

use crate::failure::Failure;
use crate::grpc::is_grpc;
use crate::headers::{REST, TIMEOUT};
use crate::upload::Upload;

pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A peer proxy gets whole milliseconds, so it stops at most this much before its caller. A call
/// that breaks off then ended by its deadline.
const ROUNDED: Duration = Duration::from_millis(2);

/// The clock of deadlines. Tests stop and move it.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The times in a request's headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timed {
    pub requested: RequestedTimeout,
    /// Something was there, and is no time.
    pub unreadable: bool,
}

impl Timed {
    /// `weft`: the value of our own header, of the pod's own application or of a peer proxy;
    /// `rest`: what a peer proxy reports of the parent request. No other sender is believed.
    /// `grpc-timeout` belongs to gRPC alone.
    pub fn read(
        map: &HeaderMap,
        grpc: bool,
        weft: Option<&HeaderValue>,
        rest: Option<&HeaderValue>,
    ) -> Self {
        let mut timed = Self::default();
        if grpc {
            timed.requested.grpc = timed.one(map.get(GRPC_TIMEOUT), parse_grpc_timeout);
        }
        timed.requested.weft = timed.one(weft, parse_millis);
        timed.requested.rest = timed.one(rest, parse_millis);
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

/// The sender of a request, as far as it decides which of its headers are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousHop {
    /// Any client, in bytes that no proxy has read.
    Outside,
    /// The local application, which sets how long a call may take.
    Application,
    /// A peer proxy, which also sets what is left of the parent request.
    Peer,
}

/// When a request is over that came just now and has no route yet: by its head, since the timeouts
/// of policies are only known where it goes.
pub(crate) fn announced_end(map: &HeaderMap, from: PreviousHop) -> Option<Instant> {
    let (weft, rest) = match from {
        PreviousHop::Outside => (None, None),
        PreviousHop::Application => (map.get(TIMEOUT), None),
        PreviousHop::Peer => (map.get(TIMEOUT), map.get(REST)),
    };
    let timed = Timed::read(map, is_grpc(map), weft, rest);
    let deadline = Deadline::arrived(now(), timed.requested, None);
    deadline.end().map(|(at, _)| at)
}

/// When a request came. What it waited for memory since then is part of its time.
fn came(parts: &Parts) -> Instant {
    let now = now();
    let waited = parts.extensions.get::<Waited>();
    let waited = waited.map_or(Duration::ZERO, |waited| waited.0);
    now.checked_sub(waited).unwrap_or(now)
}

/// Of a call that the own application makes, for a request that is over at `until`.
pub fn outgoing(
    parts: &Parts,
    timed: Timed,
    policy: &Timeouts,
    until: Option<Instant>,
) -> Deadline {
    if timed.requested == RequestedTimeout::default() && policy.request.is_none() && until.is_none()
    {
        return Deadline::NONE;
    }
    Deadline::outgoing(came(parts), timed.requested, policy, until)
}

/// Of a request that came. `request`: the timeout of a policy that no proxy applied before.
pub fn arrived(parts: &Parts, timed: Timed, request: Option<Duration>) -> Deadline {
    if timed.requested == RequestedTimeout::default() && request.is_none() {
        return Deadline::NONE;
    }
    Deadline::arrived(came(parts), timed.requested, request)
}

/// The receiver of what is left. Headers of ours never leave the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// A server without a proxy.
    Outside,
    /// The local application, which does not distinguish whose time is over first.
    Application,
    /// A peer proxy, which keeps the two apart.
    Peer,
}

/// The deadline headers of a request, for when it is sent: that may be a while after it was made
/// ready, since a connection may have to be opened first.
#[derive(Clone, Copy, Debug)]
struct Countdown {
    deadline: Deadline,
    grpc: bool,
    next_hop: NextHop,
}

/// Writes what is left by now, and lets the request's sender [`renew`] that.
pub fn write_headers(parts: &mut Parts, deadline: Deadline, grpc: bool, next_hop: NextHop) {
    if deadline == Deadline::NONE {
        return;
    }
    write(&mut parts.headers, deadline, grpc, next_hop);
    parts.extensions.insert(Countdown {
        deadline,
        grpc,
        next_hop,
    });
}

/// Writes again what is left by now, where the request has such headers.
pub fn renew<B>(request: &mut Request<B>) {
    let countdown = request.extensions().get::<Countdown>().copied();
    if let Some(Countdown {
        deadline,
        grpc,
        next_hop,
    }) = countdown
    {
        write(request.headers_mut(), deadline, grpc, next_hop);
    }
}

/// Writes what is left by now.
fn write(map: &mut HeaderMap, deadline: Deadline, grpc: bool, next_hop: NextHop) {
    if deadline == Deadline::NONE {
        return;
    }
    let now = now();
    let own = deadline.own_left(now);
    let (timeout, rest) = match next_hop {
        NextHop::Outside => (None, None),
        NextHop::Application => (deadline.left(now), None),
        NextHop::Peer => (own, deadline.context_left(now)),
    };
    let mut set = |name: HeaderName, value: Option<Printed>| {
        let value = value.map(|value| HeaderValue::from_bytes(value.as_bytes()));
        if let Some(Ok(value)) = value {
            map.insert(name, value);
        }
    };
    set(GRPC_TIMEOUT, own.filter(|_| grpc).map(print_grpc_timeout));
    set(TIMEOUT, timeout.map(print_millis));
    set(REST, rest.map(print_millis));
}

/// The message to the caller of [`passed`].
pub(crate) const TIME_IS_OVER: &str = "the time of this request is over";

/// A request whose time was over before an application saw it, or while it served it.
pub fn passed() -> Failure {
    Failure::refused(Reason::Deadline, TIME_IS_OVER)
}

/// A call whose answer has no receiver any more.
pub fn left() -> Failure {
    let detail = "the caller of the request that this call is made for has left";
    Failure::refused(Reason::Deadline, detail)
}

/// # Errors
/// When nothing is left.
pub fn check(deadline: Deadline) -> Result<(), Failure> {
    if deadline != Deadline::NONE && deadline.over(now()).is_some() {
        return Err(passed());
    }
    Ok(())
}

/// Which of its ends a call has reached, here or at a peer: its own leaves a caller that may retry;
/// beyond that of the parent request no client waits any more.
pub fn reached(deadline: Deadline) -> Option<DeadlineSource> {
    deadline.over(now() + ROUNDED)
}

/// What a wait has ended by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd {
    /// Its time.
    Time,
    /// Nothing of the request or its answer has moved.
    Still,
    /// The client of the parent request is gone.
    Left,
}

/// Ends when the client of the parent request is gone.
pub struct Left(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Left {
    pub fn new(left: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(left))
    }
}

impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Left")
    }
}

/// How far a wait came.
#[derive(Debug)]
pub enum Progress<T> {
    Ended(Result<T, WaitEnd>),
    /// It has taken as long as it should, and goes on: to be waited for again.
    Slow,
}

/// The ends of a wait. On the heap, and only where a request has one.
#[derive(Debug)]
pub struct StopConditions {
    at: Option<Pin<Box<Sleep>>>,
    /// From then on it is slow, until that is reported.
    slow: Option<Pin<Box<Sleep>>>,
    still: Option<(Idle, Upload)>,
    left: Option<Left>,
    /// Its caller expects failures in gRPC.
    grpc: bool,
}

impl StopConditions {
    /// At this time.
    pub fn at(at: Option<Instant>) -> Option<Box<Self>> {
        let at = Some(Box::pin(sleep_until(at?.into())));
        Some(Box::new(Self {
            at,
            slow: None,
            still: None,
            left: None,
            grpc: false,
        }))
    }

    /// At this time, when neither the answer nor this request's body moves for `idle`, and when the
    /// client of the parent request is gone.
    pub fn new(
        at: Option<Instant>,
        idle: Option<Duration>,
        upload: &Upload,
        left: Option<Left>,
    ) -> Option<Box<Self>> {
        if at.is_none() && idle.is_none() && left.is_none() {
            return None;
        }
        Some(Box::new(Self {
            at: at.map(|at| Box::pin(sleep_until(at.into()))),
            slow: None,
            still: idle.map(|idle| (Idle::new(idle), upload.clone())),
            left,
            grpc: false,
        }))
    }

    /// Of a call whose caller expects failures in gRPC.
    pub fn with_grpc(mut self: Box<Self>, grpc: bool) -> Box<Self> {
        self.grpc = grpc;
        self
    }

    /// Of a wait that is slow from then on.
    pub fn slow_at(mut self: Box<Self>, at: Option<Instant>) -> Box<Self> {
        self.slow = at.map(|at| Box::pin(sleep_until(at.into())));
        self
    }

    pub const fn is_reported_in_grpc(&self) -> bool {
        self.grpc
    }

    /// How long nothing may move.
    pub fn idle(&self) -> Option<Duration> {
        self.still.as_ref().map(|(idle, _)| idle.limit())
    }

    /// Whether it is time to report that it is slow, which is reported once.
    fn becomes_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let slow = self.slow.as_mut();
        let now = slow.is_some_and(|slow| slow.as_mut().poll(cx).is_ready());
        if now {
            self.slow = None;
        }
        now
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<WaitEnd> {
        if let Some(at) = &mut self.at
            && at.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(WaitEnd::Time);
        }
        if let Some(Left(left)) = &mut self.left
            && left.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(WaitEnd::Left);
        }
        if let Some((idle, upload)) = &mut self.still
            && idle.poll(cx, || upload.moved()).is_ready()
        {
            return Poll::Ready(WaitEnd::Still);
        }
        Poll::Pending
    }

    /// A peer proxy that counts the same time may be the first to end it.
    pub(super) fn nearly(&self) -> bool {
        let nearly = |at: &Pin<Box<Sleep>>| now() + ROUNDED >= at.deadline().into_std();
        self.at.as_ref().is_some_and(nearly)
    }

    pub(super) const fn moved(&mut self) {
        if let Some((idle, _)) = &mut self.still {
            idle.moved();
        }
    }
}

/// What `work` comes to.
///
/// # Errors
/// When it `ends` before.
pub async fn until<T>(
    mut ends: Option<Box<StopConditions>>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Result<T, WaitEnd> {
    loop {
        if let Progress::Ended(ended) = progress(&mut ends, work.as_mut()).await {
            return ended;
        }
    }
}

/// The same of a wait that may become slow before it ends.
pub fn progress<T>(
    ends: &mut Option<Box<StopConditions>>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> impl Future<Output = Progress<T>> {
    poll_fn(move |cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Progress::Ended(Ok(done)));
        }
        let Some(ends) = ends.as_mut() else {
            return Poll::Pending;
        };
        if ends.becomes_slow(cx) {
            return Poll::Ready(Progress::Slow);
        }
        ends.poll(cx).map(|over| Progress::Ended(Err(over)))
    })
}

/// When a request of this method is broken off, and its answer.
pub fn ends(deadline: Deadline, method: &Method) -> Option<Instant> {
    deadline.breaks_off(method).map(|(at, _)| at)
}

#[cfg(test)]
mod tests;
