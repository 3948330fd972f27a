//! Decides whether and when a failed call is retried, and takes the token for it.
//!
//! Three things keep retries from becoming the outage. The *budget*: a first attempt that succeeds
//! saves a part of a retry, so a dead backend earns none and gets hardly more than its load. *One
//! layer*: when the last attempt of a call fails, its parent request is marked, and callers above
//! do not retry what was retried below ([`RetryExhaustedTraces`]). And *no application sees a call
//! twice*: an unsafe call is sent once, unless its author lists the method.
//!
//! In use: [`RetryBudget::save`] when a first attempt succeeded; [`may_retry`] when an attempt
//! ended, or has taken as long as one may, which ends it only where another one follows;
//! [`RetryOutcome`] is the metric's label. A call that never reached an application goes to another
//! endpoint without a token and without this file.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use crate::deadline::Deadline;
use crate::expiring_set::ExpiringSet;
use crate::reason::Reason;
use crate::traffic::call::Retry;
use crate::traffic::set::GrpcCode;

mod budget;

pub use budget::RetryBudget;

/// A loss later than this after sending may be the work itself that breaks the server.
pub(crate) const LOST_WITHIN: Duration = Duration::from_secs(1);

/// The longest wait that a server may ask for.
pub(crate) const LONGEST_REQUESTED_WAIT: Duration = Duration::from_secs(1);

/// The longest backoff, in units of the first.
const LONGEST_BACKOFF: u32 = 10;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The application answered, not over gRPC.
    Status(StatusCode),
    /// The same over gRPC. An answer that is no gRPC is what its status means there,
    /// without headers of its own.
    Grpc {
        code: u8,
        /// The status came before any headers, so nothing was passed on yet.
        trailers_only: bool,
    },
    /// The connection or stream ended before the head of an answer, so long after the
    /// request was sent.
    Lost { after: Duration },
    /// `backendRequest` passed.
    TimedOut,
    /// A proxy refused it. See [`Ended::refused`].
    Refused(Reason),
}

/// One call, as far as retries ask.
#[derive(Clone, Copy, Debug)]
pub struct Attempted<'a> {
    pub method: &'a Method,
    pub grpc: bool,
    pub ended: Ended,
    /// Retries made so far, the move of a refused one included.
    pub retries: u8,
    /// Whether a refusal `overload` was moved before.
    pub moved: bool,
    /// All of the body is at hand to be sent again.
    pub body_kept: bool,
    /// The response has `weft-spent`, or the request that this call is made for is a retry.
    pub retries_exhausted: bool,
    /// It was sent and ended by a deadline, while its caller still waits.
    pub late: bool,
    pub requested_wait: RequestedWait,
    pub deadline: Deadline,
}

/// When the response allows a retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestedWait {
    #[default]
    Nothing,
    After(Duration),
    /// Longer than [`LONGEST_REQUESTED_WAIT`], never, or a time that cannot be read: a retry at
    /// once would be what the server forbids.
    NotNow,
}

impl RequestedWait {
    /// `retry-after`. A date lies at a second's distance at best.
    #[must_use]
    pub fn of_http(retry_after: Option<&[u8]>) -> Self {
        Self::of(retry_after, Duration::from_secs)
    }

    /// `grpc-retry-pushback-ms`, which is negative to say never.
    #[must_use]
    pub fn of_grpc(pushback: Option<&[u8]>) -> Self {
        Self::of(pushback, Duration::from_millis)
    }

    fn of(value: Option<&[u8]>, unit: impl Fn(u64) -> Duration) -> Self {
        let Some(value) = value else {
            return Self::Nothing;
        };
        match number(value).map(unit) {
            Some(wait) if wait <= LONGEST_REQUESTED_WAIT => Self::After(wait),
            Some(_) | None => Self::NotNow,
        }
    }
}

/// The time of a `retry-after`, however long. Of a date there is none.
#[must_use]
pub fn retry_after(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_secs)
}

/// The same of a `grpc-retry-pushback-ms`.
#[must_use]
pub fn pushback(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_millis)
}

fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    // `parse` alone would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Label `outcome` of `weft_retries_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryOutcome {
    /// A retry was made, and the call is good.
    Success,
    /// A retry was made, and the call failed all the same.
    Failure,
    /// None was made: there were no tokens,
    Budget,
    /// or the body was longer than what is kept,
    Body,
    /// or there was no time for it,
    Deadline,
    /// or it was tried below, or is a retry's own call.
    Spent,
}

impl RetryOutcome {
    pub const ALL: [Self; 6] = [
        Self::Success,
        Self::Failure,
        Self::Budget,
        Self::Body,
        Self::Deadline,
        Self::Spent,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Budget => "budget",
            Self::Body => "body",
            Self::Deadline => "deadline",
            Self::Spent => "spent",
        }
    }
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It ended well, or no policy repeats such an end, or the allowed attempts are used up.
    Pass,
    /// It would be tried again but for this, which is counted.
    Denied(RetryOutcome),
    /// To another endpoint, not before `wait` has passed. It is paid for.
    Retry { wait: Duration },
}

impl Ended {
    /// Of an attempt that a proxy ended, so long after the request was sent. A connection
    /// that the called proxy lost to its application is lost, whichever proxy reports it.
    #[must_use]
    pub const fn refused(reason: Reason, after: Duration) -> Self {
        match reason {
            Reason::ConnectionLost => Self::Lost { after },
            reason => Self::Refused(reason),
        }
    }

    /// No endpoint answered: other endpoints were tried where that was allowed, or none
    /// because most calls fail, and a repetition would reach the same ones.
    const fn found_no_endpoint(self) -> bool {
        matches!(
            self,
            Self::Refused(
                Reason::ConnectFailed
                    | Reason::TlsFailed
                    | Reason::NoEndpoint
                    | Reason::ConnectionLost
                    | Reason::CircuitOpen
            )
        )
    }

    /// Whether `retry` lists what gRPC calls this end, which no response carries.
    fn is_listed_for_grpc(self, retry: &Retry) -> bool {
        let code = match self {
            Self::Lost { .. } => GrpcCode::Unavailable,
            Self::TimedOut => GrpcCode::DeadlineExceeded,
            Self::Status(_) | Self::Grpc { .. } | Self::Refused(_) => return false,
        };
        retry.grpc_codes.contains(code.number())
    }

    /// Whether it is a failure of which `retry` speaks, whatever the method.
    #[must_use]
    pub fn is_failure(self, retry: &Retry) -> bool {
        match self {
            Self::Status(status) => retry.codes.contains(status),
            Self::Grpc { code, .. } => retry.grpc_codes.contains(code),
            Self::Lost { .. } | Self::TimedOut => true,
            Self::Refused(reason) => reason == Reason::Overload,
        }
    }
}

impl Attempted<'_> {
    fn may_repeat(&self, retry: &Retry) -> bool {
        let listed = if self.grpc {
            self.ended.is_listed_for_grpc(retry)
        } else {
            retry.methods.contains(self.method)
        };
        match self.ended {
            Ended::Grpc { trailers_only, .. } => trailers_only,
            Ended::Status(_) | Ended::TimedOut => listed,
            Ended::Lost { after } => listed && after <= LOST_WITHIN,
            // Unsent: of any method, but once, lest it wander through a full fleet.
            Ended::Refused(_) => !self.moved,
        }
    }

    /// Whether it would be tried again, but for what is to be had for that.
    fn is_repeated(&self, retry: &Retry) -> bool {
        let more = self.retries < retry.attempts;
        more && self.ended.is_failure(retry) && self.may_repeat(retry)
    }

    /// Whether the parent request of this call is marked as not to be retried, now that this was
    /// the last attempt: a retry of the parent would repeat this call with it.
    #[must_use]
    pub fn exhausts_parent_retries(&self, retry: &Retry) -> bool {
        let late = self.late && self.ended == Ended::Refused(Reason::Deadline);
        self.retries_exhausted
            || late
            || self.ended.is_failure(retry)
            || self.ended.found_no_endpoint()
    }
}

/// What follows an attempt at `now`. Takes what a retry costs when it returns [`Next::Retry`].
/// `random` is uniform over all of `u64`; `peers` are the proxies of this workload.
#[must_use]
pub fn may_retry(
    retry: &Retry,
    attempted: &Attempted<'_>,
    budget: &RetryBudget,
    now: Instant,
    peers: u32,
    random: u64,
) -> Next {
    if !attempted.is_repeated(retry) {
        return Next::Pass;
    }
    if attempted.retries_exhausted {
        return Next::Denied(RetryOutcome::Spent);
    }
    if !attempted.body_kept {
        return Next::Denied(RetryOutcome::Body);
    }
    let wait = match attempted.requested_wait {
        RequestedWait::Nothing => backoff(retry.backoff, attempted.retries, random),
        RequestedWait::After(wait) => wait,
        RequestedWait::NotNow => return Next::Pass,
    };
    let end = attempted.deadline.end();
    if end.is_some_and(|(end, _)| now.checked_add(wait).is_none_or(|then| then >= end)) {
        return Next::Denied(RetryOutcome::Deadline);
    }
    if !budget.spend(now, &retry.budget, peers) {
        return Next::Denied(RetryOutcome::Budget);
    }
    Next::Retry { wait }
}

/// Between once and twice the base, doubled with each retry made before, at most ten times
/// the base. Spread, so that callers that failed together do not come back together.
#[must_use]
pub fn backoff(base: Duration, retries: u8, random: u64) -> Duration {
    let doubled = base.saturating_mul(1 << u32::from(retries.min(8)));
    let spread = doubled.mul_f64(1.0 + crate::balance::unit(random));
    spread.min(base.saturating_mul(LONGEST_BACKOFF))
}

/// Longer than an answer takes to its caller.
pub const TRACES_KEPT: Duration = Duration::from_secs(10);

/// Failures remembered; 32 bytes each, in two places. Beyond, the oldest make room.
pub const MAX_TRACES: usize = 10_000;

/// Requests below which a retry was made in vain, by trace id.
///
/// Where applications hand on no context, the trace id is what ties an outgoing call to
/// the request that it was made for. Only failures are kept, and for ten seconds: any client
/// may choose a trace id, and it must not keep others from retrying for longer than one bad
/// response takes to travel up.
#[derive(Debug)]
pub struct RetryExhaustedTraces(ExpiringSet<u128>);

impl Default for RetryExhaustedTraces {
    fn default() -> Self {
        Self(ExpiringSet::new(TRACES_KEPT, MAX_TRACES))
    }
}

impl RetryExhaustedTraces {
    pub fn mark(&mut self, trace: u128, now: Instant) {
        self.0.note(trace, now);
    }

    /// Whether a request of this trace was marked lately.
    #[must_use]
    pub fn is_marked(&self, trace: u128, now: Instant) -> bool {
        self.0.has(&trace, now)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
