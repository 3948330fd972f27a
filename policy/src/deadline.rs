//! Deadlines: how much time a call has left, and what follows when it has passed.
//!
//! A call can have two ends. Its *own*: the least of `grpc-timeout`, `weft-timeout` and the
//! policy's `timeouts.request`; the caller that set it waits for an error then. And its
//! *context's*: a share of what its parent request has left; beyond that no caller waits for the
//! response. They are separate because an unsafe call that an application has seen is not ended
//! only because its caller left.
//!
//! Headers carry both as the time that is left and never as a time of day: clocks of two nodes
//! differ. Printing rounds down, so that no hop makes the time longer.
//!
//! In use: [`Deadline::arrived`] where a proxy takes a request in, [`Deadline::outgoing`]
//! for a call that an application makes, [`Deadline::attempt`] before each attempt,
//! [`Deadline::end`] for the timer, which is only made where it is `Some`.

use std::time::{Duration, Instant};

use http::Method;

use crate::traffic::call::Timeouts;
use crate::traffic::set::is_safe;

mod text;

pub use text::{
    Printed, Unreadable, parse_grpc_timeout, parse_millis, print_grpc_timeout, print_millis,
};

/// The ends of one call. Without any it is as large as two empty fields, and asking costs
/// a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadline {
    own: Option<Instant>,
    context: Option<Instant>,
}

/// Whose deadline a call has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadlineSource {
    /// 504 or gRPC 4, `weft-reason: deadline`.
    Own,
    /// No caller waits for the response.
    Context,
}

impl DeadlineSource {
    /// Whether a call of this method that is under way is broken off. An unsafe one that
    /// lost its caller is left to its own deadline: half of it may be done.
    #[must_use]
    pub fn breaks_off(self, method: &Method) -> bool {
        match self {
            Self::Own => true,
            Self::Context => is_safe(method),
        }
    }
}

/// What a request carries of its time, as far as it could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestedTimeout {
    /// `grpc-timeout`.
    pub grpc: Option<Duration>,
    /// `weft-timeout`, which only shortens.
    pub weft: Option<Duration>,
    /// `weft-rest`, from another proxy alone.
    pub rest: Option<Duration>,
}

impl Deadline {
    /// No end.
    pub const NONE: Self = Self {
        own: None,
        context: None,
    };

    /// Of a request that came in. `request` is the policy's value for callers outside the
    /// mesh, for which no proxy applied it before; see [`longest`].
    #[must_use]
    pub fn arrived(now: Instant, requested: RequestedTimeout, request: Option<Duration>) -> Self {
        Self {
            own: least([requested.grpc, requested.weft, request])
                .and_then(|left| now.checked_add(left)),
            context: requested.rest.and_then(|left| now.checked_add(left)),
        }
    }

    /// Of a call that an application makes for a request that is over at `until`; `None`
    /// where it is made for none, or that has no end. `rest` is not read from an
    /// application.
    #[must_use]
    pub fn outgoing(
        now: Instant,
        requested: RequestedTimeout,
        policy: &Timeouts,
        until: Option<Instant>,
    ) -> Self {
        let own = least([requested.grpc, requested.weft, policy.request]);
        let left = until.map(|until| until.saturating_duration_since(now));
        let context = left.map(|left| left.mul_f64(policy.share.share()));
        Self {
            own: own.and_then(|left| now.checked_add(left)),
            context: context.and_then(|left| now.checked_add(left)),
        }
    }

    /// When the first of both is reached, and which it is. Where both are reached at once,
    /// the own wins: its caller wants an error.
    #[must_use]
    pub fn end(self) -> Option<(Instant, DeadlineSource)> {
        match (self.own, self.context) {
            (None, None) => None,
            (Some(own), None) => Some((own, DeadlineSource::Own)),
            (None, Some(context)) => Some((context, DeadlineSource::Context)),
            (Some(own), Some(context)) if own <= context => Some((own, DeadlineSource::Own)),
            (Some(_), Some(context)) => Some((context, DeadlineSource::Context)),
        }
    }

    /// What is left until the first end; zero when it is over. `None`: no end.
    #[must_use]
    pub fn left(self, now: Instant) -> Option<Duration> {
        self.end()
            .map(|(end, _)| end.saturating_duration_since(now))
    }

    /// The end that was reached, the own before the context's: what arrives so is refused
    /// unseen, and no further attempt is made.
    #[must_use]
    pub fn over(self, now: Instant) -> Option<DeadlineSource> {
        let over = |end: Option<Instant>| end.is_some_and(|end| end <= now);
        match (over(self.own), over(self.context)) {
            (true, _) => Some(DeadlineSource::Own),
            (false, true) => Some(DeadlineSource::Context),
            (false, false) => None,
        }
    }

    /// When a call of this method that is under way is broken off, for the timer.
    #[must_use]
    pub fn breaks_off(self, method: &Method) -> Option<(Instant, DeadlineSource)> {
        match self.end() {
            Some((_, end)) if !end.breaks_off(method) => {
                self.own.map(|own| (own, DeadlineSource::Own))
            }
            found => found,
        }
    }

    /// What is left of the own end, as `grpc-timeout` of a gRPC call and `weft-timeout`
    /// say it to the next hop.
    #[must_use]
    pub fn own_left(self, now: Instant) -> Option<Duration> {
        self.own.map(|end| end.saturating_duration_since(now))
    }

    /// What is left of the context's end, as `weft-rest` carries it to the next proxy.
    #[must_use]
    pub fn context_left(self, now: Instant) -> Option<Duration> {
        self.context.map(|end| end.saturating_duration_since(now))
    }

    /// Until when one attempt may wait for the head of its answer. The last one has all
    /// the time of the call: what would another limit save it for? So has one that is ended by
    /// its limit only where another one follows. Where the call has no end, the last attempt
    /// keeps the limit, or a dead endpoint would hold it for ever. The context's end is none
    /// for an unsafe method: see [`DeadlineSource::breaks_off`].
    #[must_use]
    pub fn attempt(
        self,
        method: &Method,
        now: Instant,
        backend_request: Option<Duration>,
        last: bool,
    ) -> Option<Instant> {
        let whole = self.breaks_off(method).map(|(end, _)| end);
        let limit = backend_request.and_then(|limit| now.checked_add(limit));
        match (whole, limit) {
            (Some(whole), _) if last => Some(whole),
            (Some(whole), Some(limit)) => Some(whole.min(limit)),
            (whole, limit) => whole.or(limit),
        }
    }

    /// When an attempt has taken as long as one may, where it goes on after that unless another
    /// one follows: its endpoint has failed it, whatever it answers to a caller that still waits.
    /// `None`: it ends before.
    #[must_use]
    pub fn outlasts(
        self,
        method: &Method,
        now: Instant,
        backend_request: Option<Duration>,
    ) -> Option<Instant> {
        let limit = now.checked_add(backend_request?)?;
        let (whole, _) = self.breaks_off(method)?;
        (limit < whole).then_some(limit)
    }
}

/// `timeouts.request` for callers outside the mesh, of all Services that select the pod
/// on that port: which of them was called is unknown, so the longest holds, and one
/// without any holds as none.
#[must_use]
pub fn longest(requests: impl IntoIterator<Item = Option<Duration>>) -> Option<Duration> {
    let mut longest = None;
    for request in requests {
        longest = longest.max(Some(request?));
    }
    longest
}

fn least<const N: usize>(times: [Option<Duration>; N]) -> Option<Duration> {
    times.into_iter().flatten().min()
}

#[cfg(test)]
mod tests;
