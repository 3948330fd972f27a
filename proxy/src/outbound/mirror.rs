//! Mirrors requests: sends copies of them to the Services that `mirror` of a TrafficPolicy names,
//! and to those that the rule of a route does.
//!
//! A copy is made when the response to the request begins, or when the request was lost after it
//! was sent: by then an application has it, and nothing had to be kept for the copy. No caller
//! waits for it: it runs in a task of its own, is sent once, and its response is read and dropped.
//! Its result is counted in one metric and changes nothing that is measured of endpoints. No copy
//! is made where there is no room for it, where memory is short, or where the request may itself be
//! made for a copy.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use policy::mirror::{due, due_by_rule};
use policy::name::ServiceId;
use policy::reason::Reason;
use policy::route::Backend;
use policy::traffic::call::Downstream;
use policy::traffic::guard::Priority;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::http::body;
use crate::http::client::exchange::UpstreamResponse;
use crate::http::refusal::reason_in;
use crate::http::replay::Replay;
use crate::http::shadow::{CopyPermit, Shadow};
use crate::net::connect::ConnectTimeout;
use crate::outbound::admission::look_at_breaker;
use crate::outbound::call_policy;
use crate::outbound::exchange::ExchangeResult;
use crate::outbound::fallback::AttemptedCall;
use crate::outbound::route::Route;
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::Telemetry;
use crate::telemetry::call::Call;
use crate::telemetry::labels::MirrorLabels;

/// From the moment that a copy is sent to the end of its answer.
const WITHIN: Duration = Duration::from_secs(30);

/// Bytes that are read of a response. Receivers that send more are broken off.
const ANSWER: usize = 1024 * 1024;

/// What a header takes beside its name and value.
const HEADER: usize = 32;

const TRACE: HeaderName = HeaderName::from_static("traceparent");
/// Of a trace's flags. Others may stand beside it.
const SAMPLED: u8 = 1;
/// Other headers with the trace that a request belongs to.
const TRACES: [&str; 18] = [
    "tracestate",
    "grpc-trace-bin",
    "x-cloud-trace-context",
    "x-amzn-trace-id",
    "uber-trace-id",
    "sw8",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-origin",
    "x-datadog-tags",
    "x-ot-span-context",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
];

/// What became of a copy, for the metric.
#[derive(Clone, Copy)]
enum MirrorOutcome {
    /// Whatever the application answered.
    Success,
    Failure,
    /// The request's own body never came whole, or is too large.
    Body,
    /// There was no room for it.
    Full,
    /// The request is made for a copy, or may be.
    Shadow,
    /// The breaker of the Service that was to get it is open.
    CircuitOpen,
    /// Its receiver's proxy does not know what a copy is.
    TooOld,
}

impl MirrorOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Body => "body",
            Self::Full => "full",
            Self::Shadow => "shadow",
            Self::CircuitOpen => "circuit-open",
            Self::TooOld => "proxy-too-old",
        }
    }

    /// Of a copy that a peer proxy refused. That it is a request this proxy has seen, so a peer
    /// that cannot read it does not know the form that copies have.
    const fn of_refusal(reason: Reason) -> Self {
        match reason {
            Reason::BadRequest => Self::TooOld,
            _ => Self::Failure,
        }
    }
}

/// Counts a copy once, whatever becomes of it.
struct CountedCopy {
    telemetry: Arc<Telemetry>,
    labels: MirrorLabels,
}

impl CountedCopy {
    fn new(telemetry: &Arc<Telemetry>, service: &Arc<str>, receiver: &ServiceId) -> Self {
        Self {
            telemetry: Arc::clone(telemetry),
            labels: MirrorLabels {
                service: Arc::clone(service),
                mirror: receiver.to_string().into(),
                outcome: MirrorOutcome::Body.as_str(),
            },
        }
    }

    const fn came_to(&mut self, outcome: MirrorOutcome) {
        self.labels.outcome = outcome.as_str();
    }
}

impl Drop for CountedCopy {
    fn drop(&mut self) {
        self.telemetry.metrics.mirrored.at(&self.labels).inc();
    }
}

/// Where one copy goes.
struct Receiver<'a> {
    service: &'a ServiceId,
    port: u16,
    downstream: Downstream,
}

/// The receivers that are due: of the policy, then of the route's rule.
fn receivers<'a>(route: &'a Route, method: &'a Method) -> Vec<Receiver<'a>> {
    let (mirrors, port) = call_policy::mirrors(route.policy.as_deref()).unwrap_or_default();
    let by_policy = due(mirrors, method, &route.backend, rand::random);
    let by_policy = by_policy.map(|mirror| Receiver {
        service: &mirror.service,
        port,
        downstream: mirror.downstream,
    });
    let mut receivers: Vec<Receiver<'a>> = by_policy.collect();
    let Some(actions) = &route.actions else {
        return receivers;
    };
    if let Some((namespace, name)) = route.backend.split_once('/') {
        let serving = ServiceId::new(namespace, name);
        let serving = Backend::new(serving, route.backend_port, 0, "");
        for mirror in due_by_rule(&actions.mirrors, &serving, rand::random) {
            let (service, port) = (&mirror.service, mirror.port);
            // One that the policy names too gets one copy, as the policy says.
            let mut known = receivers.iter();
            if known.any(|one| (one.service, one.port) == (service, port)) {
                continue;
            }
            receivers.push(Receiver {
                service,
                port,
                downstream: Downstream::Any,
            });
        }
    }
    receivers
}

/// Copies a request that was sent, where a policy or its route mirrors it. `instead`: the Service
/// that is to answer it in place of the one that was called.
pub(super) fn copy(
    attempted: AttemptedCall<'_>,
    sent: &ExchangeResult,
    call: &Call,
    instead: Option<&ServiceId>,
) {
    let by_policy = call_policy::mirrors(attempted.route.policy.as_deref()).is_some();
    let actions = attempted.route.actions.as_ref();
    if !by_policy && actions.is_none_or(|actions| actions.mirrors.is_empty()) {
        return;
    }
    let AttemptedCall {
        proxy,
        route,
        outgoing,
        upload,
    } = attempted;
    if route.overridden
        || outgoing.upgrade.is_some()
        || upload.broke()
        || !was_seen(sent, call, outgoing)
    {
        return;
    }
    let receivers = receivers(route, &outgoing.parts.method);
    for receiver in receivers.iter().filter(|one| Some(one.service) != instead) {
        let mut counted = CountedCopy::new(&proxy.telemetry, &route.service, receiver.service);
        if outgoing.shadow.is_some() {
            counted.came_to(MirrorOutcome::Shadow);
            continue;
        }
        let to = route.elsewhere(proxy, (receiver.service, receiver.port), None);
        // Looked at only: the results of copies are not reported to its breaker.
        if look_at_breaker(&to).is_err() {
            counted.came_to(MirrorOutcome::CircuitOpen);
            continue;
        }
        let Some(body) = outgoing.replay.whole() else {
            continue;
        };
        let bytes = 2 * body.len() + head_size(&outgoing.parts);
        let permit = match proxy.copies.admit(bytes) {
            Some(permit) if !proxy.budget().is_tight() => permit,
            _ => {
                counted.came_to(MirrorOutcome::Full);
                continue;
            }
        };
        let copy = MirrorCopy {
            outgoing: of(outgoing, body, receiver.downstream),
            to,
            permit,
        };
        copy.send(Arc::clone(proxy), counted);
    }
}

/// Whether an application may have seen it: what was never sent, or refused, is not copied to
/// another one.
fn was_seen(sent: &ExchangeResult, call: &Call, outgoing: &Outgoing) -> bool {
    match sent {
        // A peer counts the same time, and may be the first to report that it is over.
        Ok((answer, _)) => matches!(
            call.reason_of(answer.response.headers()),
            None | Some(Reason::Deadline)
        ),
        Err(Failure::Lost { .. } | Failure::TimedOut { .. }) => true,
        Err(_) => outgoing.late.load(Relaxed),
    }
}

/// The copy of a request with this body.
fn of(request: &Outgoing, body: Bytes, downstream: Downstream) -> Outgoing {
    let content = if body.is_empty() {
        body::empty()
    } else {
        body::text(body)
    };
    Outgoing {
        grpc: request.grpc,
        shadow: Some(match downstream {
            Downstream::ReadOnly => Shadow::ReadOnly,
            Downstream::Any => Shadow::Any,
        }),
        names_client: request.names_client,
        no_caller_waits: true,
        // A peer that is short of room sheds copies before anything else.
        priority: Some(Priority::Sheddable),
        ..Outgoing::by_itself(parts(request), Replay::new(content), request.called)
    }
}

/// About what a head takes.
fn head_size(parts: &Parts) -> usize {
    let headers = parts.headers.iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER);
    let target = parts.uri.path_and_query();
    headers.sum::<usize>() + target.map_or(0, |target| target.as_str().len())
}

/// The head of a copy, which is part of no trace but its own.
fn parts(of: &Outgoing) -> Parts {
    let mut parts = of.parts.clone();
    parts.extensions.clear();
    if let Some(trace) = &of.trace {
        trace.pass_on(&mut parts.headers);
    }
    own_trace(&mut parts.headers);
    parts
}

fn own_trace(map: &mut HeaderMap) {
    for name in TRACES {
        map.remove(name);
    }
    let Some(before) = map.remove(TRACE) else {
        return;
    };
    // The sampling decision of its request holds for it as well.
    let flags = before.to_str().ok().and_then(|before| before.get(53..55));
    let digits = |flags: &&str| flags.bytes().all(|byte| byte.is_ascii_hexdigit());
    let flags = flags.filter(digits);
    let flags = flags.and_then(|flags| u8::from_str_radix(flags, 16).ok());
    let sampled = flags.is_some_and(|flags| flags & SAMPLED != 0);
    let (trace, span): (u128, u64) = (rand::random(), rand::random());
    let own = format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(sampled));
    if let Ok(own) = HeaderValue::from_str(&own) {
        map.insert(TRACE, own);
    }
}

/// A copy on its way.
struct MirrorCopy {
    outgoing: Outgoing,
    to: Route,
    permit: CopyPermit,
}

impl MirrorCopy {
    fn send(self, proxy: Arc<Proxy>, mut counted: CountedCopy) {
        // Until it is known: its task may never run.
        counted.came_to(MirrorOutcome::Failure);
        #[expect(
            clippy::disallowed_methods,
            reason = "there is room for a few at a time"
        )]
        tokio::spawn(async move {
            match timeout(WITHIN, self.deliver(&proxy, &mut counted)).await {
                Ok(Ok(())) => counted.came_to(MirrorOutcome::Success),
                Ok(Err(failure)) => tracing::debug!(%failure, "a copy was not taken"),
                Err(_) => tracing::debug!("a copy was not answered in time"),
            }
        });
    }

    async fn deliver(self, proxy: &Proxy, counted: &mut CountedCopy) -> Result<(), Failure> {
        let Some(endpoint) = self.to.choice.aside() else {
            let none = format!("no endpoint of {}", self.to.backend);
            return Err(Failure::not_sent(Reason::NoEndpoint, none));
        };
        if !endpoint.meshed() && self.outgoing.shadow == Some(Shadow::ReadOnly) {
            let unheld = "a pod without a proxy is not held to read only";
            return Err(Failure::not_sent(Reason::ShadowWrite, unheld));
        }
        let sent = self.outgoing.send(
            proxy,
            (&self.to, &*endpoint),
            0,
            ConnectTimeout::Replaceable,
        );
        let answer = sent.await?;
        if endpoint.meshed()
            && let Some(reason) = reason_in(answer.response.headers())
        {
            counted.came_to(MirrorOutcome::of_refusal(reason));
            return Err(Failure::refused(reason, "the other proxy refused a copy"));
        }
        let read = read(answer).await;
        drop(self.permit);
        read
    }
}

/// Reads a response that is not wanted.
async fn read(answer: UpstreamResponse) -> Result<(), Failure> {
    let read = discard(answer.response.into_body()).await;
    drop(answer.permit);
    read
}

/// Reads a body to its end, or little more than [`ANSWER`] of it.
async fn discard<B>(mut body: B) -> Result<(), Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::lost("the answer to a copy broke off"))?;
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > ANSWER {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test]
    async fn mirror_response_read_stops_after_mebibyte_and_frame() {
        const FRAME: usize = 64 * 1024;
        let mut read = 0;
        let frames = (0..1000).map(|_| {
            read += FRAME;
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; FRAME])))
        });
        discard(StreamBody::new(stream::iter(frames)))
            .await
            .unwrap();
        assert_eq!(read, ANSWER + FRAME);
    }

    fn traced(value: &'static str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(TRACE, HeaderValue::from_static(value));
        map.insert("tracestate", HeaderValue::from_static("a=b"));
        map.insert("x-b3-traceid", HeaderValue::from_static("1"));
        map.insert("grpc-trace-bin", HeaderValue::from_static("1"));
        map.insert("x-request-id", HeaderValue::from_static("1"));
        map
    }

    #[test]
    fn mirrored_request_belongs_only_to_its_own_trace() {
        for (flags, written) in [
            (
                "01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            (
                "00",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            ),
            (
                "01",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
            ),
            (
                "00",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
            ),
            ("00", "no trace"),
        ] {
            let mut map = traced(written);
            own_trace(&mut map);
            let own = map[TRACE].to_str().unwrap();
            assert!(crate::telemetry::trace::id(&map).is_some(), "{own}");
            assert!(!own.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{own}");
            assert!(own.ends_with(flags), "{own}");
            assert_eq!(map.len(), 2, "{map:?}");
        }
        let mut none = HeaderMap::new();
        own_trace(&mut none);
        assert!(none.is_empty(), "a request without a trace is not traced");
    }
}
