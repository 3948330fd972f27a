//! Fallbacks: the Service or fixed response that replaces a call whose attempts all failed.
//!
//! A fallback runs once, with the time that the call has left, and its response is final. Where it
//! fails too, the call ends as it would have without.

use std::sync::Arc;

use http::{HeaderValue, Method, Response};
use policy::fallback::{Call as FallbackCall, Ended, may_have_body};
use policy::http_match::RequestFacts;
use policy::name::ServiceId;
use policy::reason::Reason;
use policy::traffic::call::{Cause, Fallback, FallbackResponse, FallbackTo};

use crate::failure::Failure;
use crate::http::body::{self, Body};
use crate::http::deadline;
use crate::http::headers::{DEGRADED, FIXED_RESPONSE};
use crate::http::refusal::answer_to;
use crate::http::upload::Upload;
use crate::outbound::call_policy;
use crate::outbound::connection::Connection;
use crate::outbound::context::CancelGuard;
use crate::outbound::edits::{ResponseEdits, allow_reading};
use crate::outbound::exchange::{Exchange, ExchangeResult};
use crate::outbound::respond::{UpgradingCaller, conclude_failure, respond};
use crate::outbound::route::Route;
use crate::outbound::send::Outgoing;
use crate::outbound::serving_headers::ServingHeaders;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;

/// A call that was attempted.
#[derive(Clone, Copy)]
pub(super) struct AttemptedCall<'a> {
    pub(super) proxy: &'a Arc<Proxy>,
    pub(super) route: &'a Route,
    pub(super) outgoing: &'a Outgoing,
    pub(super) upload: &'a Upload,
}

/// A fallback that takes the place of a call's response.
#[derive(Clone, Copy)]
pub(super) struct DueFallback<'a> {
    attempted: AttemptedCall<'a>,
    fallback: &'a Fallback,
    when: Cause,
    /// Of the Service that was called.
    port: u16,
}

/// How asking another Service went, for the metric.
#[derive(Clone, Copy)]
enum FallbackOutcome {
    Success,
    Failure,
    /// What was sent of the request is not at hand any more.
    Body,
    /// No time is left.
    Deadline,
}

impl FallbackOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Body => "body",
            Self::Deadline => "deadline",
        }
    }
}

/// The fallback of a call with this result, where one is due.
pub(super) fn due<'a>(
    attempted: AttemptedCall<'a>,
    sent: &ExchangeResult,
    call: &Call,
) -> Option<DueFallback<'a>> {
    let AttemptedCall {
        route, outgoing, ..
    } = attempted;
    // A call that requests another Service gets that one or none.
    if route.overridden {
        return None;
    }
    let policy = route.policy.as_deref();
    let (fallback, port) = call_policy::fallback(policy)?;
    let ended = match sent {
        Ok((answer, _)) => {
            let head = &answer.response;
            let reason = call.reason_of(head.headers());
            reason.map_or(Ended::Answered(head.status()), Ended::Failed)
        }
        Err(failure) => Ended::Failed(failure.reason()),
    };
    let when = policy::fallback::due(
        fallback.on,
        call_policy::retry(policy),
        outgoing.fallback_call(),
        ended,
    )?;
    Some(DueFallback {
        attempted,
        fallback,
        when,
        port,
    })
}

/// Runs the fallback and responds with its result.
pub(super) async fn run(
    due: DueFallback<'_>,
    mut sent: ExchangeResult,
    mut call: Call,
    on_upgrade: Option<UpgradingCaller>,
    connection: &Arc<Connection>,
) -> Response<Body> {
    let AttemptedCall {
        proxy,
        route,
        outgoing,
        ..
    } = due.attempted;
    if let Some(fixed) = due.run(&mut sent, &mut call).await {
        return fixed_response(fixed, call, (route, &outgoing.parts.method));
    }
    outgoing.report_exhausted_retries(proxy);
    match sent {
        Ok((answer, served)) => {
            outgoing.replay.forget();
            respond(answer, call, served, on_upgrade, connection).await
        }
        Err(failure) => {
            let failure = conclude_failure(connection, route, failure);
            let mut answer = call.refuse(&failure, &outgoing.parts.method, outgoing.grpc);
            allow_reading(route, answer.headers_mut());
            answer
        }
    }
}

impl<'a> DueFallback<'a> {
    /// The Service that is to answer.
    pub(super) fn service(self) -> Option<&'a ServiceId> {
        match &self.fallback.to {
            FallbackTo::Service(service) => Some(service),
            FallbackTo::Response(_) => None,
        }
    }

    /// Puts the response of another Service in place of what was sent; or returns what to answer.
    async fn run(
        &self,
        sent: &mut ExchangeResult,
        call: &mut Call,
    ) -> Option<&'a FallbackResponse> {
        match &self.fallback.to {
            FallbackTo::Response(fixed) => {
                call.fell_back(FIXED_RESPONSE, self.when, FallbackOutcome::Success.as_str());
                call.falls_back(self.attempted.route.call_ends());
                Some(fixed)
            }
            FallbackTo::Service(service) => {
                let outcome = self.call_service(service, sent, call).await;
                call.fell_back(&service.to_string(), self.when, outcome.as_str());
                None
            }
        }
    }

    async fn call_service(
        &self,
        service: &ServiceId,
        sent: &mut ExchangeResult,
        call: &mut Call,
    ) -> FallbackOutcome {
        let AttemptedCall {
            proxy,
            route,
            outgoing,
            upload,
        } = self.attempted;
        // A peer counts the same time, and may be the first to report that it is over.
        let decided = matches!(sent, Ok((answer, _))
            if call.reason_of(answer.response.headers()) == Some(Reason::Deadline));
        if decided || outgoing.check().is_err() {
            *sent = Err(deadline::passed());
            return FallbackOutcome::Deadline;
        }
        let kept = outgoing.replay.is_kept();
        // What was not sent completely may still be read where it has no reader any more.
        if !kept && (self.when.may_have_been_seen() || !outgoing.replay.may_be_sent()) {
            return FallbackOutcome::Body;
        }
        let facts = RequestFacts {
            method: &outgoing.parts.method,
            path: outgoing.parts.uri.path(),
            query: outgoing.parts.uri.query(),
            headers: &outgoing.parts.headers,
        };
        let to = (service, self.port);
        let instead = route.elsewhere(proxy, to, Some(&facts));
        let before = call.falls_back(instead.call_ends());
        let exhausted = outgoing.retries_exhausted();
        let cancel_guard = CancelGuard::new(&proxy.contexts, outgoing);
        let mut exchange = Exchange::at_other_endpoints(proxy, &instead, outgoing, upload);
        let answered = cancel_guard.completed(exchange.send(call).await);
        match answered {
            Ok((answer, mut serving)) if call.reason_of(answer.response.headers()).is_none() => {
                let edits = ResponseEdits::of_fallback(route);
                serving.marks = ServingHeaders::degraded(&instead.backend, edits);
                *sent = Ok((answer, serving));
                FallbackOutcome::Success
            }
            Ok(_) | Err(_) => {
                call.returns(before);
                outgoing.note_retries_exhausted(exhausted);
                // An answer would be broken off by now.
                if let Err(passed) = outgoing.check() {
                    *sent = Err(passed);
                }
                FallbackOutcome::Failure
            }
        }
    }
}

/// The Service and port that may take connections of opaque bytes, if the policy names any.
pub(super) fn service_of_bytes(route: &Route) -> Option<(&ServiceId, u16)> {
    let (fallback, port) = call_policy::fallback(route.policy.as_deref())?;
    match &fallback.to {
        FallbackTo::Service(service) => Some((service, port)),
        FallbackTo::Response(_) => None,
    }
}

/// The Service that may take a connection of opaque bytes which `failure` has ended, at this
/// port.
pub(super) fn of_bytes<'a>(route: &'a Route, failure: &Failure) -> Option<(&'a ServiceId, u16)> {
    let policy = route.policy.as_deref();
    let (fallback, _) = call_policy::fallback(policy)?;
    let failed_call = FallbackCall {
        method: &Method::GET,
        once: true,
    };
    let ended = Ended::Failed(failure.reason());
    let when = policy::fallback::due(fallback.on, call_policy::retry(policy), failed_call, ended)?;
    service_of_bytes(route).filter(|_| when == Cause::Unreachable)
}

/// Counts how a connection of opaque bytes fared at the Service that took it instead.
pub(super) fn count_bytes(call: &Call, service: &ServiceId, reached: bool) {
    let outcome = if reached {
        FallbackOutcome::Success
    } else {
        FallbackOutcome::Failure
    };
    call.fell_back(&service.to_string(), Cause::Unreachable, outcome.as_str());
}

/// The answer that the policy holds, which counts as given.
fn fixed_response(
    fixed: &FallbackResponse,
    call: Call,
    (route, method): (&Route, &Method),
) -> Response<Body> {
    let body = if may_have_body(fixed.status) {
        fixed.body.to_vec()
    } else {
        Vec::new()
    };
    let length = body.len() as u64;
    let content = if body.is_empty() {
        body::empty()
    } else {
        body::text(body)
    };
    let mut response = Response::new(content);
    *response.status_mut() = fixed.status;
    let map = response.headers_mut();
    for (name, value) in &fixed.headers {
        map.append(name, value.clone());
    }
    allow_reading(route, map);
    map.insert(DEGRADED, HeaderValue::from_static(FIXED_RESPONSE));
    let (parts, body) = response.into_parts();
    call.answered(&parts, None).whole(length);
    answer_to(method, Response::from_parts(parts, body))
}
