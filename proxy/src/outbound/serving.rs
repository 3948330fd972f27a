//! `Serving`: what is held of a call from the head of its response to the end of its body, and what
//! that end reports of the endpoint.
//!
//! Claims: calls-2, calls-46

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use policy::deadline::{Deadline, DeadlineSource};
use policy::retry::RetryOutcome;
use policy::traffic::call::Retry;
use policy::traffic::set::GrpcCode;

use crate::endpoints::endpoint::{Endpoint, InFlight};
use crate::endpoints::learned::{Latency, now};
use crate::endpoints::set::EndpointSet;
use crate::http::context::{Contexts, RetryParent};
use crate::http::deadline::{self, StopConditions, WaitEnd};
use crate::http::grpc::{grpc_status, is_success};
use crate::http::upload::Upload;
use crate::http::watched::BodyEnd;
use crate::outbound::admission::CircuitRecorder;
use crate::outbound::attempt_outcome::{
    is_limited, latency_at_end, limited_for, signal_at_end, signal_of_body,
};
use crate::outbound::call_policy::{self, CallPolicy};
use crate::outbound::choice::RoutedEndpoints;
use crate::outbound::serving_headers::ServingHeaders;
use crate::telemetry::call::Call;

/// The endpoint that serves a call.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(super) in_flight: InFlight,
    /// What the end of its response reports.
    pub(super) open: Option<Open>,
    /// When its answer has to be over.
    pub(super) ends: Option<Box<StopConditions>>,
    /// Further headers of the response.
    pub(super) marks: Option<Box<ServingHeaders>>,
    /// The resource of its endpoint, where that is of a host outside the mesh.
    pub(super) standing: Option<Arc<str>>,
}

/// A response without its end, which shows how its endpoint does.
#[derive(Debug)]
pub(super) struct Open {
    /// The endpoint is one of these.
    pub(super) among: RoutedEndpoints,
    pub(super) policy: Option<Arc<CallPolicy>>,
    /// Endpoints that fail are ejected.
    pub(super) ejects: bool,
    /// Reports to the breaker that let the call through.
    pub(super) recorder: Option<Arc<CircuitRecorder>>,
    /// What it shows of its endpoint was reported before it began.
    pub(super) shown: bool,
    /// How the body of its request comes.
    pub(super) upload: Upload,
    pub(super) end_report: EndReport,
}

/// What the end of a response reports.
#[derive(Debug)]
pub(super) enum EndReport {
    /// How the call went: gRPC.
    Status {
        /// It is the answer to a retry.
        retried: bool,
        listener: Option<Box<TrailerListener>>,
    },
    /// Whether all of it came. Its head had the result of the call.
    Whole,
}

impl Open {
    /// Whether its endpoint is not to blame where it broke off: the request broke off before, or
    /// the pod has left the Service, as one that ends has.
    fn is_excused(&self, listed: impl FnOnce(&RoutedEndpoints) -> bool) -> bool {
        self.upload.broke() || !listed(&self.among)
    }
}

/// Records that a gRPC call failed behind the head of its response. It is not tried again, since
/// its headers have gone, but neither is the request that it was made for.
#[derive(Debug)]
pub(super) struct TrailerListener {
    pub(super) contexts: Arc<Contexts>,
    pub(super) retry_parent: RetryParent,
    /// Of any failure, not only of those that the policy lists.
    pub(super) any: bool,
    /// Of the call.
    pub(super) deadline: Deadline,
}

impl TrailerListener {
    fn of_end(&self, end: BodyEnd, status: Option<u16>, retry: &Retry) {
        // A response without a status has failed, as in headers.
        let final_status = status.unwrap_or(u16::from(GrpcCode::Unknown.number()));
        let code = match end {
            BodyEnd::Complete => Some(final_status),
            // What its caller gets instead of trailers.
            BodyEnd::Failed => Some(GrpcCode::Unavailable.number().into()),
            BodyEnd::OutOfTime(_) | BodyEnd::Late(_) | BodyEnd::Dropped => None,
        };
        let listed =
            |code: u16| u8::try_from(code).is_ok_and(|code| retry.grpc_codes.contains(code));
        let fails = |code: u16| code != 0 && (self.any || listed(code));
        if code.is_some_and(fails) || self.is_late(end, final_status) {
            self.contexts.mark_retries_exhausted(&self.retry_parent);
        }
    }

    /// Whether the call had no end in its own time, as one without a head of its response: its
    /// peer, which reports it, and its caller, which leaves, count the same time.
    fn is_late(&self, end: BodyEnd, final_status: u16) -> bool {
        let reached = deadline::reached(self.deadline);
        match end {
            // No caller waits any more.
            BodyEnd::OutOfTime(WaitEnd::Left) | BodyEnd::Late(WaitEnd::Left) => false,
            BodyEnd::OutOfTime(_) | BodyEnd::Late(_) => reached != Some(DeadlineSource::Context),
            BodyEnd::Complete if final_status != u16::from(GrpcCode::DeadlineExceeded.number()) => {
                false
            }
            BodyEnd::Complete | BodyEnd::Dropped => reached == Some(DeadlineSource::Own),
            BodyEnd::Failed => false,
        }
    }
}

impl Serving {
    /// The answer has ended. `listed`: whether its endpoint is still one of these.
    pub(super) fn ended(
        mut self,
        end: BodyEnd,
        trailers: Option<&HeaderMap>,
        call: &Call,
        listed: impl FnOnce(&RoutedEndpoints, &Arc<Endpoint>) -> bool,
    ) {
        let Some(open) = self.open.take() else { return };
        let endpoint = self.in_flight.endpoint();
        let is_excused = end == BodyEnd::Failed && open.is_excused(|among| listed(among, endpoint));
        let policy = open.policy.as_deref();
        let status = trailers.and_then(grpc_status);
        let signal = match open.end_report {
            EndReport::Status { .. } => signal_at_end(end, trailers),
            EndReport::Whole => Some(signal_of_body(end)),
        };
        let signal = signal.filter(|_| !open.shown && !is_excused);
        if let (EndReport::Status { .. }, Some(trailers)) = (&open.end_report, trailers)
            && is_limited(StatusCode::OK, status)
        {
            endpoint.limited(limited_for(trailers, true));
        }
        if let Some(recorder) = &open.recorder {
            recorder.ended(signal, call);
        }
        let latency = if is_excused {
            Latency::Recorded
        } else {
            latency_at_end(end, status)
        };
        let ejection = call_policy::ejection_if(policy, open.ejects);
        let set = open.among.set();
        if let Some(cause) = set.record(&mut self.in_flight, latency, signal, ejection) {
            call.ejected(cause);
        }
        let EndReport::Status { retried, listener } = open.end_report else {
            return;
        };
        if let Some(listener) = listener {
            listener.of_end(end, status, call_policy::retry(policy));
        }
        match end {
            BodyEnd::Complete if is_success(StatusCode::OK, status) => {
                succeeded(Some(set), policy, retried, call);
            }
            // How a call would have ended that its caller left is unknown.
            BodyEnd::Dropped => {}
            BodyEnd::Complete | BodyEnd::Failed | BodyEnd::OutOfTime(_) | BodyEnd::Late(_) => {
                if retried {
                    call.retried(RetryOutcome::Failure);
                }
            }
        }
    }
}

/// Counts it if it was a retry that succeeded; a first attempt saves a part of one.
pub(super) fn succeeded(
    set: Option<&Arc<EndpointSet>>,
    policy: Option<&CallPolicy>,
    retried: bool,
    call: &Call,
) {
    if retried {
        return call.retried(RetryOutcome::Success);
    }
    let retry = call_policy::retry(policy);
    if let Some(set) = set
        && retry.attempts > 0
    {
        set.budget.save(now(), &retry.budget);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderName, HeaderValue};
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use policy::access_log::AccessLog;
    use policy::deadline::RequestedTimeout;
    use prometheus_client::registry::Registry as Series;
    use tokio::time::advance;

    use super::*;
    use crate::endpoints::learned::Draw;
    use crate::endpoints::registry::{PodRef, Registry};
    use crate::http::body::BoxError;
    use crate::http::context::OpenRequest;
    use crate::telemetry::Telemetry;
    use crate::telemetry::call::CallKind;
    use crate::telemetry::call_ends::CallEnds;
    use crate::telemetry::metrics::Metrics;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// The timeout of a call that has so long.
    type Make = fn(Duration) -> RequestedTimeout;

    fn own(left: Duration) -> RequestedTimeout {
        RequestedTimeout {
            grpc: Some(left),
            ..RequestedTimeout::default()
        }
    }

    fn of_context(left: Duration) -> RequestedTimeout {
        RequestedTimeout {
            rest: Some(left),
            ..RequestedTimeout::default()
        }
    }

    /// Whether a call that has 300 ms and ends so marks what it was made for.
    async fn marks(requested: Make, after: u64, end: BodyEnd, status: Option<u16>) -> bool {
        let name = HeaderName::from_static("traceparent");
        let map = HeaderMap::from_iter([(name, HeaderValue::from_static(PARENT))]);
        let contexts = Arc::<Contexts>::default();
        let requested = requested(Duration::from_millis(300));
        let listener = TrailerListener {
            contexts: Arc::clone(&contexts),
            retry_parent: RetryParent::of(None, &map).unwrap(),
            any: false,
            deadline: Deadline::arrived(deadline::now(), requested, None),
        };
        advance(Duration::from_millis(after)).await;
        listener.of_end(end, status, &Retry::DEFAULT);
        contexts.retries_exhausted(&OpenRequest::default(), &map)
    }

    /// No status is listed.
    #[tokio::test(start_paused = true)]
    async fn grpc_call_unfinished_at_deadline_marks_parent_request() {
        let cases: [(Make, u64, BodyEnd, Option<u16>, bool); 14] = [
            (own, 300, BodyEnd::OutOfTime(WaitEnd::Time), None, true),
            (own, 300, BodyEnd::Late(WaitEnd::Time), None, true),
            (own, 100, BodyEnd::OutOfTime(WaitEnd::Still), None, true),
            (own, 299, BodyEnd::Complete, Some(4), true),
            (own, 299, BodyEnd::Dropped, None, true),
            // Of something else.
            (own, 100, BodyEnd::Complete, Some(4), false),
            (own, 100, BodyEnd::Dropped, None, false),
            (own, 299, BodyEnd::Complete, Some(0), false),
            (own, 299, BodyEnd::Complete, Some(14), false),
            (own, 299, BodyEnd::Failed, None, false),
            // No caller waits any more.
            (
                of_context,
                300,
                BodyEnd::OutOfTime(WaitEnd::Time),
                None,
                false,
            ),
            (own, 100, BodyEnd::OutOfTime(WaitEnd::Left), None, false),
            (own, 100, BodyEnd::Late(WaitEnd::Left), None, false),
            (of_context, 299, BodyEnd::Complete, Some(4), false),
        ];
        for (requested, after, end, status, marked) in cases {
            let marks = marks(requested, after, end, status).await;
            assert_eq!(marks, marked, "{end:?} {status:?} after {after} ms");
        }
    }

    /// What an endpoint shows whose answer ends so: answers and failures.
    fn shows(
        end_report: EndReport,
        shown: bool,
        (end, trailers): (BodyEnd, Option<&HeaderMap>),
        (upload, listed): (Upload, bool),
    ) -> (u32, u32) {
        let metrics = Metrics::register(&mut Series::default());
        let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
        let call_ends = CallEnds::to_service(Arc::default(), 80);
        let call = Call::begin(&telemetry, CallKind::Request, call_ends);
        let addr = ([10, 0, 0, 1], 80).into();
        let endpoint = Registry::default().at(addr, None, PodRef::default(), false);
        let set = EndpointSet::default().with(vec![Arc::clone(&endpoint)]);
        let among = RoutedEndpoints::of_set(set);
        let serving = Serving {
            in_flight: endpoint.begin(),
            open: Some(Open {
                among: among.clone(),
                policy: None,
                ejects: true,
                recorder: None,
                shown,
                upload,
                end_report,
            }),
            ends: None,
            marks: None,
            standing: None,
        };
        serving.ended(end, trailers, &call, |_, _| listed);
        let recent = among.set().view(&endpoint, &Draw::DEFAULT).recent;
        (recent.answers, recent.failures)
    }

    const STATUS: EndReport = EndReport::Status {
        retried: false,
        listener: None,
    };

    fn there() -> (Upload, bool) {
        (Upload::default(), true)
    }

    /// A good end would begin the row of an endpoint's failures anew, and a bad one count in it
    /// for a second time.
    #[test]
    fn late_grpc_response_trailers_give_no_health_signal() {
        for (shown, status, seen) in [
            (false, "0", (1, 0)),
            (false, "14", (1, 1)),
            (true, "0", (0, 0)),
            (true, "14", (0, 0)),
        ] {
            let name = HeaderName::from_static("grpc-status");
            let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static(status))]);
            let end = (BodyEnd::Complete, Some(&trailers));
            let shows = shows(STATUS, shown, end, there());
            assert_eq!(shows, seen, "{status}, late: {shown}");
        }
    }

    #[test]
    fn an_answer_that_breaks_off_counts_against_its_endpoint() {
        for (end, seen) in [
            (BodyEnd::Complete, (1, 0)),
            (BodyEnd::Failed, (1, 1)),
            // Its caller left, or its time was over.
            (BodyEnd::Dropped, (1, 0)),
            (BodyEnd::OutOfTime(WaitEnd::Time), (1, 0)),
            (BodyEnd::Late(WaitEnd::Left), (1, 0)),
        ] {
            let shows = shows(EndReport::Whole, false, (end, None), there());
            assert_eq!(shows, seen, "{end:?}");
        }
    }

    #[test]
    fn a_grpc_answer_without_trailers_counts_against_its_endpoint() {
        let whole = (BodyEnd::Complete, None);
        assert_eq!(shows(STATUS, false, whole, there()), (1, 1));
        assert_eq!(
            shows(STATUS, false, (BodyEnd::Dropped, None), there()),
            (0, 0)
        );
    }

    #[tokio::test]
    async fn an_answer_broken_off_by_others_excuses_its_endpoint() {
        let broken = (BodyEnd::Failed, None);
        let all: [fn() -> EndReport; 2] = [|| EndReport::Whole, || STATUS];
        for report in all {
            let left = (Upload::default(), false);
            assert_eq!(shows(report(), false, broken, left), (0, 0), "its pod ends");
            let parts: [Result<Frame<Bytes>, BoxError>; 1] = [Err("broken".into())];
            let body = StreamBody::new(tokio_stream::iter(parts)).boxed_unsync();
            let (mut body, upload) = Upload::watch(body);
            assert!(body.frame().await.unwrap().is_err());
            assert_eq!(
                shows(report(), false, broken, (upload, true)),
                (0, 0),
                "the request broke off"
            );
        }
    }
}
