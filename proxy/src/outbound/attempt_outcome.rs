//! `AttemptOutcome`: evaluates the result of an attempt, for the health of its endpoint and for a
//! retry of the call.
//!
//! Claims: calls-25

use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};
use policy::health::HealthSignal;
use policy::reason::Reason;
use policy::retry::{self, Ended, RequestedWait};
use policy::traffic::call::Retry;
use policy::traffic::endpoint::Ejection;
use policy::traffic::set::GrpcCode;

use crate::endpoints::endpoint::Endpoint;
use crate::endpoints::learned::Latency;
use crate::failure::Failure;
use crate::http::grpc::{ends_in_trailers, grpc_status, is_grpc, is_success, status_of_http};
use crate::http::headers::SPENT;
use crate::http::watched::BodyEnd;
use crate::mesh::load;
use crate::proxy::Proxy;

const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The head of an answer, or that none came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    /// Of the application, or of the connection to it.
    Ended(Ended),
    /// Of a proxy, which has no other endpoint to try.
    Mesh(Reason),
    /// A gRPC call goes on, and its trailers decide.
    Open,
}

/// What the end of a response reports, once its head is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// How the call went: gRPC.
    Status,
    /// Whether all of it came.
    Whole,
}

impl AtEnd {
    /// What it reports behind this head. A response that another may replace is judged by its
    /// head, since it may have no reader to its end.
    pub(super) fn of<B: http_body::Body>(
        outcome: AttemptOutcome,
        signal: Option<HealthSignal>,
        head: &Response<B>,
        retry: &Retry,
    ) -> Option<Self> {
        match outcome {
            AttemptOutcome::Open => Some(Self::Status),
            AttemptOutcome::Ended(ended @ Ended::Status(status)) => {
                let looks_good = signal == Some(HealthSignal::Good) && !status.is_server_error();
                let has_more =
                    status != StatusCode::SWITCHING_PROTOCOLS && !head.body().is_end_stream();
                (looks_good && has_more && !ended.is_failure(retry)).then_some(Self::Whole)
            }
            AttemptOutcome::Ended(_) | AttemptOutcome::Mesh(_) => None,
        }
    }
}

impl AttemptOutcome {
    /// `reason` is what the peer proxy gave, if it answered itself.
    pub(super) fn of_answer<B: http_body::Body>(
        response: &Response<B>,
        grpc: bool,
        reason: Option<Reason>,
        after: Duration,
    ) -> Self {
        let status = response.status();
        match reason {
            Some(reason) => match Ended::refused(reason, after) {
                Ended::Refused(reason) => Self::Mesh(reason),
                ended => Self::Ended(ended),
            },
            None if !grpc => Self::Ended(Ended::Status(status)),
            None => {
                let whole = response.body().is_end_stream();
                match grpc_status(response.headers()) {
                    Some(code) => Self::grpc(code, whole),
                    None if status == StatusCode::OK && ends_in_trailers(response.headers()) => {
                        Self::Open
                    }
                    // gRPC-Web has its status in the body: whether that comes whole is seen.
                    None if status == StatusCode::OK && is_grpc(response.headers()) => {
                        Self::Ended(Ended::Status(status))
                    }
                    None => Self::grpc(status_of_http(status), true),
                }
            }
        }
    }

    fn grpc(code: u16, trailers_only: bool) -> Self {
        // What is no code at all is UNKNOWN.
        let code = u8::try_from(code).unwrap_or(2);
        Self::Ended(Ended::Grpc {
            code,
            trailers_only,
        })
    }

    /// Of an attempt without an answer: `None` where nothing of it reached an application.
    pub(super) fn of_failure(failure: &Failure, sent: Instant, now: Instant) -> Option<Self> {
        match failure {
            Failure::Lost { .. } => Some(Self::Ended(Ended::Lost {
                after: now.saturating_duration_since(sent),
            })),
            Failure::TimedOut { .. } => Some(Self::Ended(Ended::TimedOut)),
            Failure::Refused { reason, .. } => Some(Self::Mesh(*reason)),
            Failure::NotSent { .. }
            | Failure::ConnectionClosed { .. }
            | Failure::TargetGone { .. } => None,
        }
    }

    /// What it shows of the endpoint; `None` for nothing.
    pub(super) fn health_signal(self, ejection: &Ejection) -> Option<HealthSignal> {
        match self {
            Self::Ended(Ended::Status(status)) => Some(HealthSignal::of_status(status, ejection)),
            Self::Ended(Ended::Grpc { code, .. }) => Some(HealthSignal::of_grpc(code)),
            Self::Ended(Ended::Lost { .. } | Ended::TimedOut) => Some(HealthSignal::Failed),
            Self::Ended(Ended::Refused(reason)) | Self::Mesh(reason) => {
                HealthSignal::of_refusal(reason)
            }
            Self::Open => Some(HealthSignal::Reached),
        }
    }
}

/// What the end of a gRPC answer shows that was open; `None` when its caller left.
pub(super) fn signal_at_end(end: BodyEnd, trailers: Option<&HeaderMap>) -> Option<HealthSignal> {
    match end {
        // The mesh itself has ended it.
        BodyEnd::Dropped | BodyEnd::OutOfTime(_) | BodyEnd::Late(_) => None,
        BodyEnd::Failed => Some(HealthSignal::Failed),
        BodyEnd::Complete => Some(match trailers.and_then(grpc_status) {
            Some(code) => HealthSignal::of_grpc(u8::try_from(code).unwrap_or(2)),
            // Every answer of gRPC ends with its status: this one was cut short.
            None => HealthSignal::Failed,
        }),
    }
}

/// What the end of any other answer shows whose head looked good. That stands wherever nothing
/// but its sender broke it off.
pub(super) const fn signal_of_body(end: BodyEnd) -> HealthSignal {
    match end {
        BodyEnd::Failed => HealthSignal::Failed,
        BodyEnd::Complete | BodyEnd::Dropped | BodyEnd::OutOfTime(_) | BodyEnd::Late(_) => {
            HealthSignal::Good
        }
    }
}

/// What the end of a gRPC response shows of how fast its endpoint is. Its head came before, and
/// looked good.
pub(super) fn latency_at_end(end: BodyEnd, status: Option<u16>) -> Latency {
    let good = match end {
        BodyEnd::Complete => {
            is_success(StatusCode::OK, status) && !is_limited(StatusCode::OK, status)
        }
        end => end != BodyEnd::Failed,
    };
    if good {
        Latency::Recorded
    } else {
        Latency::of_head(Duration::ZERO, false)
    }
}

/// Whether an attempt ended because the time that its caller gave it was over.
pub(super) fn is_callers_time<T>(ended: &Result<T, Failure>) -> bool {
    matches!(
        ended,
        Err(Failure::Refused {
            reason: Reason::Deadline,
            ..
        })
    )
}

/// What an attempt without a response shows of its endpoint. `slow_upload`: the endpoint had to
/// wait for the remaining request itself.
pub(super) fn signal_in_failure(
    failure: &Failure,
    slow_upload: bool,
) -> (Latency, Option<HealthSignal>) {
    match failure {
        Failure::TimedOut { .. } => signal_when_late(slow_upload),
        // How long it took at least was reported, and how it would have ended is unknown. A limit
        // of its pod shows nothing of how fast it is.
        Failure::Refused {
            reason: Reason::Deadline | Reason::Limit,
            ..
        } => (Latency::Recorded, None),
        // One failure shows what it shows once.
        Failure::NotSent { shared: true, .. } => (Latency::Failed, None),
        failure => (Latency::Failed, HealthSignal::of_refusal(failure.reason())),
    }
}

/// The same of one that has taken longer than an attempt may.
pub(super) const fn signal_when_late(slow_upload: bool) -> (Latency, Option<HealthSignal>) {
    if slow_upload {
        (Latency::AtLeast(Duration::ZERO), None)
    } else {
        (Latency::Failed, Some(HealthSignal::Failed))
    }
}

/// When the server wants the next attempt.
pub(super) fn requested_wait(headers: &HeaderMap, grpc: bool) -> RequestedWait {
    let bytes = |name: &str| headers.get(name).map(http::HeaderValue::as_bytes);
    if grpc {
        RequestedWait::of_grpc(bytes(PUSHBACK))
    } else {
        RequestedWait::of_http(bytes(RETRY_AFTER.as_str()))
    }
}

/// Whether an application answers that a limit of its own is reached.
pub(super) fn is_limited(status: StatusCode, grpc_status: Option<u16>) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || grpc_status == Some(GrpcCode::ResourceExhausted.number().into())
}

/// For how long that is, where it sends that.
pub(super) fn limited_for(headers: &HeaderMap, grpc: bool) -> Option<Duration> {
    let pushback = headers.get(PUSHBACK).filter(|_| grpc);
    let pushback = pushback.and_then(|value| retry::pushback(value.as_bytes()));
    pushback.or_else(|| retry::retry_after(headers.get(RETRY_AFTER)?.as_bytes()))
}

/// Whether an application refuses a call by a limit of its own, which makes it busy.
pub(super) fn record_limit<B>(from: &Endpoint, head: &Response<B>, grpc: bool) -> bool {
    let map = head.headers();
    let limited = is_limited(head.status(), grpc_status(map));
    if limited {
        from.limited(limited_for(map, grpc));
    }
    limited
}

/// Of a proxy of the mesh it is believed how busy its application is.
pub(super) fn record_load(proxy: &Proxy, from: &Endpoint, map: &HeaderMap) {
    if !from.meshed() {
        return;
    }
    match load::read(map) {
        None => {}
        Some(Ok(percent)) => from.record_load(percent),
        Some(Err(load::Unreadable)) => proxy.telemetry.metrics.unreadable_load(),
    }
}

/// Whether a peer proxy reports that retries below it are exhausted.
pub(super) fn reports_retries_exhausted(headers: &HeaderMap) -> bool {
    headers.contains_key(SPENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::{empty, text};
    use policy::traffic::without_object::EJECTION;

    const AFTER: Duration = Duration::from_millis(7);

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: bool) -> AttemptOutcome {
        let mut response = Response::new(if body { text("x") } else { empty() });
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            let value = http::HeaderValue::from_static(value);
            response.headers_mut().insert(*name, value);
        }
        AttemptOutcome::of_answer(&response, true, None, AFTER)
    }

    #[test]
    fn grpc_status_sets_outcome_and_http_table_sets_others() {
        let grpc = ("content-type", "application/grpc");
        let ended = |code, trailers_only| {
            AttemptOutcome::Ended(Ended::Grpc {
                code,
                trailers_only,
            })
        };
        assert_eq!(
            answer(200, &[grpc, ("grpc-status", "14")], false),
            ended(14, true)
        );
        let started = answer(200, &[grpc, ("grpc-status", "14")], true);
        assert_eq!(started, ended(14, false), "something was passed on");
        assert_eq!(answer(200, &[grpc], true), AttemptOutcome::Open);
        let none = answer(200, &[grpc, ("grpc-status", "+14")], false);
        assert_eq!(none, AttemptOutcome::Open, "a status has no sign");
        assert_eq!(answer(503, &[], true), ended(14, true));
        assert_eq!(answer(404, &[], true), ended(12, true));
        assert_eq!(answer(200, &[], true), ended(2, true));
    }

    #[test]
    fn proxy_response_is_neither_retried_nor_endpoint_failure() {
        let response = Response::new(empty());
        for reason in Reason::ALL {
            let outcome = AttemptOutcome::of_answer(&response, false, Some(reason), AFTER);
            let (again, signal) = match reason {
                Reason::ConnectionLost => (true, Some(HealthSignal::Failed)),
                Reason::ConnectFailed | Reason::TlsFailed => {
                    (false, Some(HealthSignal::Unreachable))
                }
                _ => (false, None),
            };
            assert_eq!(
                matches!(outcome, AttemptOutcome::Ended(_)),
                again,
                "{reason}"
            );
            assert_eq!(outcome.health_signal(&EJECTION), signal, "{reason}");
        }
    }

    #[test]
    fn grpc_trailers_set_health_signal_at_response_end() {
        let trailers = |code: &'static str| {
            let value = http::HeaderValue::from_static(code);
            HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), value)])
        };
        let end = |code| signal_at_end(BodyEnd::Complete, Some(&trailers(code)));
        assert_eq!(end("0"), Some(HealthSignal::Good));
        assert_eq!(
            end("5"),
            Some(HealthSignal::Good),
            "the application's own answer"
        );
        assert_eq!(end("14"), Some(HealthSignal::Failed));
        assert_eq!(
            signal_at_end(BodyEnd::Failed, None),
            Some(HealthSignal::Failed)
        );
        assert_eq!(signal_at_end(BodyEnd::Dropped, None), None);
        assert_eq!(
            signal_at_end(BodyEnd::Complete, None),
            Some(HealthSignal::Failed),
            "without its status"
        );
    }

    #[test]
    fn a_grpc_answer_that_ends_badly_was_not_fast() {
        let bad = Latency::of_head(Duration::ZERO, false);
        for (end, status, latency) in [
            (BodyEnd::Complete, Some(0), Latency::Recorded),
            (BodyEnd::Complete, Some(5), Latency::Recorded),
            (BodyEnd::Complete, Some(8), bad),
            (BodyEnd::Complete, Some(13), bad),
            (BodyEnd::Complete, Some(14), bad),
            (BodyEnd::Failed, None, bad),
            (BodyEnd::Dropped, None, Latency::Recorded),
        ] {
            assert_eq!(latency_at_end(end, status), latency, "{end:?} {status:?}");
        }
    }

    #[test]
    fn rate_limited_server_response_yields_its_retry_delay() {
        for (status, grpc_status, limited) in [
            (429, None, true),
            (200, Some(8), true),
            (200, Some(0), false),
            (503, None, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_limited(status, grpc_status), limited, "{status}");
        }
        let said = |name: &'static str, value: &'static str, grpc| {
            let value = http::HeaderValue::from_static(value);
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static(name), value)]);
            limited_for(&headers, grpc)
        };
        let seconds = |count| Some(Duration::from_secs(count));
        assert_eq!(said("retry-after", "30", false), seconds(30));
        assert_eq!(said("retry-after", "30", true), seconds(30));
        assert_eq!(said(PUSHBACK, "3000", true), seconds(3));
        assert_eq!(said(PUSHBACK, "3000", false), None);
        assert_eq!(said(PUSHBACK, "-1", true), None);
        assert_eq!(
            said("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT", false),
            None
        );
    }

    /// Callers with short deadlines would make every endpoint look slow.
    #[test]
    fn deadline_set_by_caller_is_not_endpoint_failure() {
        let ended = |failure| Err::<(), _>(failure);
        let passed = crate::http::deadline::passed();
        assert_eq!(signal_in_failure(&passed, false), (Latency::Recorded, None));
        assert!(is_callers_time(&ended(passed)));
        let late = Failure::TimedOut { detail: "".into() };
        let refused = Failure::refused(Reason::NotAllowed, "x");
        assert_eq!(signal_in_failure(&refused, false), (Latency::Failed, None));
        assert!(!is_callers_time(&ended(late)) && !is_callers_time(&ended(refused)));
    }

    #[test]
    fn pod_limit_does_not_make_endpoint_slow() {
        let refused = Failure::refused(Reason::Limit, "x");
        assert_eq!(
            signal_in_failure(&refused, false),
            (Latency::Recorded, None)
        );
    }

    #[test]
    fn slow_upload_timeout_is_not_endpoint_failure() {
        let late = Failure::TimedOut { detail: "".into() };
        let shown = |slow_upload| signal_in_failure(&late, slow_upload);
        assert_eq!(shown(false), (Latency::Failed, Some(HealthSignal::Failed)));
        assert_eq!(shown(true), (Latency::AtLeast(Duration::ZERO), None));
        // A connection that ends is lost, whatever was sent by it.
        for slow_upload in [false, true] {
            let lost = signal_in_failure(&Failure::lost("x"), slow_upload);
            assert_eq!(lost, (Latency::Failed, Some(HealthSignal::Failed)));
        }
    }
}
