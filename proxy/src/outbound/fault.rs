//! Carries out FaultExperiments on attempts: delays them, or replaces the endpoint's response by a
//! failure.
//!
//! An attempt is drawn once, after the breaker and the choice of its endpoint, so that everything
//! behind it acts as on a real failure: retries, ejection, deadlines, fallbacks. Copies, probes of
//! a breaker and calls by a pod's own address are spared. What is held goes on to its endpoint as
//! soon as the run is not granted any more, or the own namespace does not allow it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderValue, Response, header};
use policy::fault::{Abort, Draw, Effect, Fault, InjectedFailure};
use policy::reason::Reason;
use policy::trace::context;
use tokio::time::sleep;

use crate::config::grants::{Grants, HeldCall};
use crate::endpoints::learned::now;
use crate::failure::Failure;
use crate::http::body;
use crate::http::client::dedicated::ResponseBody;
use crate::http::client::exchange::UpstreamResponse;
use crate::http::grpc::status_of_http;
use crate::http::incoming::IncomingBody;
use crate::http::refusal::answer_to;
use crate::http::shadow::Shadow;
use crate::outbound::attempts::{Attempt, AttemptFault, Attempts};
use crate::outbound::call_policy::{self, FittingFault};
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;
use crate::telemetry::fault_sums::{AttemptDraw, RunKey};
use crate::telemetry::metrics::Metrics;

/// How an attempt at an endpoint ends.
type Sent = Result<UpstreamResponse, Failure>;

/// Holds an attempt, and returns what takes the place of its own end; `None`: it goes on to its
/// endpoint. On the heap: hardly any attempt is harmed.
pub(super) type Pending<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + Send + 'a>>;

/// An attempt that a run harms.
struct HarmedAttempt<'a> {
    grants: &'a Grants,
    metrics: &'a Metrics,
    fault: &'a Fault,
    /// The experiment, as `namespace/name`.
    experiment: &'a Arc<str>,
    /// While it is delayed.
    _held: Option<HeldCall<'a>>,
}

/// What is done to this attempt of a request, if anything.
pub(super) fn of_request<'a>(
    proxy: &'a Proxy,
    outgoing: &'a Outgoing,
    attempts: &Attempts<'a>,
    attempt: &mut Attempt,
    call: &mut Call,
) -> Option<Pending<'a, Sent>> {
    let fitting = call_policy::fault(attempts.route.policy.as_deref())?;
    if outgoing.shadow.is_some_and(Shadow::is_copy) {
        return None;
    }
    let trace = || context::read(&outgoing.parts.headers).and_then(|came| came.ids);
    let draw = || {
        trace().map_or_else(
            || Draw::Random(rand::random()),
            |ids| Draw::Trace(ids.trace),
        )
    };
    let harmed = fitting.harms(proxy, attempts, attempt, draw, call)?;
    let addr = attempt.endpoint().addr;
    Some(Box::pin(async move {
        let failure = harmed.hold().await?;
        let experiment = harmed.experiment;
        Some(match failure {
            InjectedFailure::Abort(abort) => Ok(abort_response(abort, experiment, outgoing)),
            InjectedFailure::Refuse => Err(refused(experiment, addr)),
            InjectedFailure::Reset => Err(reset(experiment)),
        })
    }))
}

/// What is done to this attempt to open a connection of opaque bytes, if anything. It has no
/// response, so an abort leaves it alone.
pub(super) fn of_bytes<'a>(
    proxy: &'a Proxy,
    attempts: &Attempts<'a>,
    attempt: &mut Attempt,
    call: &mut Call,
) -> Option<Pending<'a, Failure>> {
    let fitting = call_policy::fault(attempts.route.policy.as_deref())?;
    let is_aborted = matches!(fitting.fault.failure, Some(InjectedFailure::Abort(_)));
    if is_aborted && fitting.fault.delay.is_none() {
        return None;
    }
    let draw = || Draw::Random(rand::random());
    let harmed = fitting.harms(proxy, attempts, attempt, draw, call)?;
    let addr = attempt.endpoint().addr;
    Some(Box::pin(async move {
        match harmed.hold().await? {
            InjectedFailure::Abort(_) => None,
            InjectedFailure::Refuse => Some(refused(harmed.experiment, addr)),
            InjectedFailure::Reset => Some(reset(harmed.experiment)),
        }
    }))
}

/// Whether an attempt is held.
enum Hold<'a> {
    Since(Instant, Pending<'a, Sent>),
    /// For so long, until it went on.
    Over(Duration),
}

/// The attempt behind what is done to it first. Balancing sees the delay as time that the endpoint
/// took, as it would see a slow one.
pub(super) fn before<'s>(
    pending: Option<Pending<'s, Sent>>,
    mut sending: Pin<&'s mut impl Future<Output = Sent>>,
) -> impl Future<Output = Sent> {
    let mut hold = pending.map_or(Hold::Over(Duration::ZERO), |pending| {
        Hold::Since(now(), pending)
    });
    poll_fn(move |cx| {
        let held = match &mut hold {
            Hold::Over(held) => *held,
            Hold::Since(since, pending) => {
                let instead = ready!(pending.as_mut().poll(cx));
                let held = now().saturating_duration_since(*since);
                hold = Hold::Over(held);
                if let Some(instead) = instead {
                    let instead = instead.map(|answer| UpstreamResponse {
                        took: held,
                        ..answer
                    });
                    return Poll::Ready(instead);
                }
                held
            }
        };
        let mut ended = sending.as_mut().poll(cx);
        if let Poll::Ready(Ok(answer)) = &mut ended {
            answer.took += held;
        }
        ended
    })
}

impl<'a> FittingFault<'a> {
    /// Draws an attempt, and counts how. `None`: it is not harmed.
    fn harms(
        self,
        proxy: &'a Proxy,
        attempts: &Attempts<'_>,
        attempt: &mut Attempt,
        draw: impl FnOnce() -> Draw,
        call: &mut Call,
    ) -> Option<HarmedAttempt<'a>> {
        if attempt.fault != AttemptFault::Undrawn || attempts.probes() {
            return None;
        }
        attempt.fault = AttemptFault::Spared;
        let (fault, experiment) = (&**self.fault, self.origin.label());
        let (grants, metrics) = (&proxy.config.grants, &proxy.telemetry.metrics);
        let selection = fault.selection;
        grants.until(experiment, selection.seed)?;
        if !fault.reaches(&attempt.endpoint().pod_uid) {
            return None;
        }
        let draw = draw();
        let is_drawn = selection.harms(draw, attempts.number());
        let is_allowed = grants.allow(fault);
        let held = (is_drawn && is_allowed && fault.delay.is_some()).then(|| grants.hold());
        let drawn = match held {
            _ if !is_drawn => AttemptDraw::Spared,
            _ if !is_allowed => AttemptDraw::Excluded,
            Some(None) => AttemptDraw::BeyondLimit,
            Some(Some(_)) | None => AttemptDraw::Harmed,
        };
        let run = RunKey {
            experiment: Arc::clone(experiment),
            seed: selection.seed,
        };
        let is_untraced = matches!(draw, Draw::Random(_));
        metrics.fault_sums.count(run, drawn, is_untraced);
        match drawn {
            AttemptDraw::Spared | AttemptDraw::Excluded => return None,
            AttemptDraw::BeyondLimit => {
                metrics.limit("delayed-calls");
                return None;
            }
            AttemptDraw::Harmed => {}
        }
        attempt.fault = AttemptFault::Harmed;
        call.harmed(experiment);
        Some(HarmedAttempt {
            grants,
            metrics,
            fault,
            experiment,
            _held: held.flatten(),
        })
    }
}

impl HarmedAttempt<'_> {
    /// Waits for the delay. Then how the attempt fails; `None`: it goes on to its endpoint.
    async fn hold(&self) -> Option<InjectedFailure> {
        let (grants, fault) = (self.grants, self.fault);
        if let Some(delay) = fault.delay {
            self.count(Effect::Delay);
            tokio::select! {
                () = sleep(delay) => {}
                () = grants.over(self.experiment, fault) => return None,
            }
        }
        grants.may_harm(self.experiment, fault)?;
        let failure = fault.failure?;
        self.count(failure.effect());
        Some(failure)
    }

    fn count(&self, effect: Effect) {
        self.metrics.harmed(self.experiment, effect);
    }
}

fn refused(experiment: &str, addr: std::net::SocketAddr) -> Failure {
    let detail = format!("{addr}: FaultExperiment {experiment} refuses the connection");
    Failure::not_sent(Reason::ConnectFailed, detail)
}

fn reset(experiment: &str) -> Failure {
    Failure::lost(format!(
        "FaultExperiment {experiment} ends the connection before the response"
    ))
}

/// As an application sends it, without a reason of the mesh.
fn abort_response(abort: Abort, experiment: &str, outgoing: &Outgoing) -> UpstreamResponse {
    let text = format!("FaultExperiment {experiment}");
    let (mut response, kind) = if outgoing.grpc {
        let mut response = Response::new(body::empty());
        let default = status_of_http(abort.http_status);
        let code = HeaderValue::from(abort.grpc_status.map_or(default, u16::from));
        response.headers_mut().insert("grpc-status", code);
        if let Ok(message) = HeaderValue::from_str(&text) {
            response.headers_mut().insert("grpc-message", message);
        }
        (response, "application/grpc")
    } else {
        let mut response = Response::new(body::text(text + "\n"));
        *response.status_mut() = abort.http_status;
        (response, "text/plain; charset=utf-8")
    };
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    let response = answer_to(&outgoing.parts.method, response);
    UpstreamResponse {
        response: response.map(|body| ResponseBody::from(IncomingBody::Watched(body))),
        out: None,
        permit: None,
        took: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::pin::pin;

    use http::{Request, StatusCode};

    use super::*;
    use crate::http::replay::Replay;

    const DELAY: Duration = Duration::from_millis(300);
    const OWN: Duration = Duration::from_millis(5);

    fn response(took: Duration) -> UpstreamResponse {
        let (parts, ()) = Request::new(()).into_parts();
        let called = SocketAddr::from(([10, 0, 0, 1], 80));
        let outgoing = Outgoing::by_itself(parts, Replay::new(body::empty()), called);
        let abort = Abort {
            http_status: StatusCode::SERVICE_UNAVAILABLE,
            grpc_status: None,
        };
        let response = abort_response(abort, "shop/slow", &outgoing);
        UpstreamResponse { took, ..response }
    }

    /// What balancing learns of an endpoint that answers after [`OWN`].
    async fn took(pending: Option<Pending<'_, Sent>>) -> Duration {
        let sending = pin!(async { Sent::Ok(response(OWN)) });
        before(pending, sending).await.unwrap().took
    }

    #[tokio::test(start_paused = true)]
    async fn delay_counts_as_time_of_endpoint() {
        assert_eq!(took(None).await, OWN);
        let goes_on: Pending<'_, Sent> = Box::pin(async {
            sleep(DELAY).await;
            None
        });
        assert_eq!(took(Some(goes_on)).await, DELAY + OWN);
        let fails: Pending<'_, Sent> = Box::pin(async {
            sleep(DELAY).await;
            Some(Ok(response(Duration::ZERO)))
        });
        assert_eq!(took(Some(fails)).await, DELAY);
    }
}
