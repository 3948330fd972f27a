//! What FaultExperiments do with attempts: holds them for a time, and puts a failure in the place
//! of an endpoint's response.
//!
//! An attempt is drawn once, after the breaker and the choice of its endpoint, so that everything
//! behind it acts as on a real failure: retries, ejection, deadlines, fallbacks. Copies, probes of
//! a breaker and calls by a pod's own address are spared. What is held goes on to its endpoint as
//! soon as the run is not granted any more, or the own namespace does not allow it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::{HeaderValue, Response, header};
use policy::fault::{Abort, Draw, Effect, Fault, InjectedFailure};
use policy::reason::Reason;
use policy::trace::context;
use tokio::time::sleep;

use crate::config::grants::{Grants, HeldCall};
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

/// The attempt behind what is done to it first.
pub(super) fn before<'s>(
    mut pending: Option<Pending<'s, Sent>>,
    mut sending: Pin<&'s mut impl Future<Output = Sent>>,
) -> impl Future<Output = Sent> {
    poll_fn(move |cx| {
        if let Some(held) = &mut pending {
            let instead = ready!(held.as_mut().poll(cx));
            pending = None;
            if let Some(instead) = instead {
                return Poll::Ready(instead);
            }
        }
        sending.as_mut().poll(cx)
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
