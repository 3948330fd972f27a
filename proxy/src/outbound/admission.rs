//! Decides before the first attempt of a call whether it may be sent: not where the breaker of its
//! backend is open, or the backend sheds most of such calls.
//!
//! Evaluated once. The results of the attempts are then reported to both.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use policy::breaker::Stream;
use policy::breaker::own::{Admit, ShownState};
use policy::health::HealthSignal;
use policy::http_match::RequestFacts;
use policy::origin::Origin;
use policy::path::{PathForms, PathReadings};
use policy::reason::Reason;
use policy::traffic::endpoint::Breaker;
use policy::traffic::guard::Priority;

use crate::endpoints::circuit::{Circuits, DecidedBy};
use crate::endpoints::set::EndpointSet;
use crate::endpoints::throttle::Admitted;
use crate::failure::Failure;
use crate::http::deadline::now;
use crate::outbound::call_policy::{self, DecidesBreaker};
use crate::outbound::route::Route;
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;
use crate::telemetry::labels::ThrottledLabels;

/// What the breaker that let a call through gets of it.
#[derive(Debug)]
pub(super) struct CircuitRecorder {
    circuits: Arc<Circuits>,
    by: DecidedBy,
    /// `namespace/name` of the Service that serves.
    backend: Arc<str>,
    settings: Breaker,
    let_in: Instant,
    /// It shows whether the others may follow.
    probe: bool,
    /// The response whose trailers show how the call went, once its head is there; `None`: of a
    /// harmed attempt, which is reported to nothing but the own breaker.
    stream: OnceLock<Option<Stream>>,
}

/// Queries the breaker of what serves the call, where a policy has one, as of `started`: a
/// connection may have been opened before it was known what for. Returns what gets reports of
/// the call.
///
/// # Errors
/// When it is open, and the call is not sent.
pub(super) fn admit(
    proxy: &Proxy,
    route: &Route,
    started: Instant,
) -> Result<Option<Arc<CircuitRecorder>>, Failure> {
    let Some((set, by, decides)) = breaker(route) else {
        return Ok(None);
    };
    let (admit, state) = set.circuits.admit_started(&by, decides.settings, started);
    if let Some(state) = state {
        let metrics = &proxy.telemetry.metrics;
        metrics.circuit(&by.service, &route.backend, state);
    }
    if admit == Admit::Refuse {
        return Err(is_open(route, decides.origin));
    }
    Ok(Some(Arc::new(CircuitRecorder {
        circuits: Arc::clone(&set.circuits),
        by,
        backend: Arc::clone(&route.backend),
        settings: *decides.settings,
        let_in: started,
        probe: admit == Admit::Probe,
        stream: OnceLock::new(),
    })))
}

/// Looks whether the breaker would let the call through, which counts nothing and is no probe:
/// of what shows nothing of its endpoint.
///
/// # Errors
/// When it is open, and the call is not sent.
pub(super) fn look_at_breaker(route: &Route) -> Result<(), Failure> {
    match breaker(route) {
        Some((set, by, decides)) if set.circuits.would_refuse(&by, decides.settings) => {
            Err(is_open(route, decides.origin))
        }
        _ => Ok(()),
    }
}

fn is_open(route: &Route, origin: &Origin) -> Failure {
    let detail = format!(
        "the breaker of {origin} is open for calls to {}, and this one was not sent",
        route.backend
    );
    Failure::Refused {
        reason: Reason::CircuitOpen,
        by: Some(origin.clone()),
        detail: detail.into(),
    }
}

/// The breaker of what serves the call, and whose policy it is.
fn breaker(route: &Route) -> Option<(&Arc<EndpointSet>, DecidedBy, DecidesBreaker<'_>)> {
    let decides = call_policy::breaker(route.policy.as_deref())?;
    let set = route.choice.set()?;
    let (service, port) = if decides.called {
        (&route.service, route.port)
    } else {
        (&route.backend, route.backend_port)
    };
    let by = DecidedBy {
        service: Arc::clone(service),
        port,
    };
    Some((set, by, decides))
}

impl CircuitRecorder {
    /// Whether the call only finds out how the Service fares, which another attempt would
    /// load twice.
    pub(super) const fn is_probe(&self) -> bool {
        self.probe
    }

    /// An attempt, or the head of its answer, has shown this of its endpoint; `harmed`: a
    /// FaultExperiment had a part in it, which is no probe.
    pub(super) fn record(&self, signal: Option<HealthSignal>, harmed: bool, call: &Call) {
        let (circuits, by, settings) = (&self.circuits, &self.by, &self.settings);
        let state = match (signal, failed(signal)) {
            // Its trailers decide, or that it lasts without them.
            (Some(HealthSignal::Reached), _) => {
                self.stream
                    .get_or_init(|| (!harmed).then(|| circuits.begin_stream(by, self.probe)));
                None
            }
            (_, Some(failed)) if harmed => {
                circuits.record_injected(by, settings, self.let_in, failed)
            }
            (_, Some(failed)) if self.probe => circuits.record_probe(by, settings, failed),
            (_, Some(failed)) => circuits.record(by, settings, self.let_in, failed),
            (_, None) => None,
        };
        self.show(state, call);
    }

    /// The answer has ended whose head was recorded, and has shown this.
    pub(super) fn ended(&self, signal: Option<HealthSignal>, call: &Call) {
        let Some(stream) = self.stream.get() else {
            return;
        };
        let (circuits, by, settings) = (&self.circuits, &self.by, &self.settings);
        let state = match (*stream, failed(signal)) {
            (Some(stream), failed) => {
                circuits.end_stream(by, settings, self.let_in, (stream, failed))
            }
            (None, Some(failed)) => circuits.record_injected(by, settings, self.let_in, failed),
            (None, None) => None,
        };
        self.show(state, call);
    }

    fn show(&self, state: Option<ShownState>, call: &Call) {
        if let Some(state) = state {
            call.circuit(&self.by.service, &self.backend, state);
        }
    }
}

/// `None`: it shows nothing of the endpoint, or not yet.
const fn failed(signal: Option<HealthSignal>) -> Option<bool> {
    match signal {
        Some(HealthSignal::Good) => Some(false),
        Some(HealthSignal::Failed | HealthSignal::Unreachable) => Some(true),
        Some(HealthSignal::Reached) | None => None,
    }
}

/// Whether the throttle of the backend counts the call as accepted until it is refused.
///
/// # Errors
/// When the call is refused here.
pub(super) fn hold_back(
    proxy: &Proxy,
    route: &Route,
    outgoing: &Outgoing,
) -> Result<bool, Failure> {
    let set = route.choice.set().filter(|set| set.throttle.is_active());
    let Some(set) = set else {
        return Ok(false);
    };
    let class = class(route, outgoing);
    match set.throttle.admit(now(), class, rand::random()) {
        Admitted::Uncounted => Ok(false),
        Admitted::Counted => Ok(true),
        Admitted::Refused => {
            let labels = ThrottledLabels {
                backend: Arc::clone(&route.backend),
                priority: class.as_str(),
            };
            proxy.telemetry.metrics.throttled.at(&labels).inc();
            let detail = format!(
                "{} has no room for most calls of class {} now, and this one was not sent",
                route.backend,
                class.as_str()
            );
            Err(Failure::refused(Reason::Overload, detail))
        }
    }
}

/// An answer came. `counted`: the throttle counts its call already; `overloaded`: the
/// application had no room for the request.
pub(super) fn record_overload(route: &Route, outgoing: &Outgoing, counted: bool, overloaded: bool) {
    let Some(set) = route.choice.set() else {
        return;
    };
    if overloaded || set.throttle.is_active() {
        let class = class(route, outgoing);
        set.throttle.record(now(), class, counted, overloaded);
    }
}

/// What the called pod's proxy will take a call for, as far as it can be known here.
fn class(route: &Route, outgoing: &Outgoing) -> Priority {
    let parts = &outgoing.parts;
    let of = |path: &str| {
        let facts = RequestFacts {
            method: &parts.method,
            path,
            query: parts.uri.query(),
            headers: &parts.headers,
        };
        call_policy::priority(route.policy.as_deref(), &facts)
    };
    let sent = parts.uri.path();
    let path = PathForms::of(sent);
    let priority = match path.ways() {
        PathReadings::Several(paths) => Priority::lowest(paths.iter().map(|path| of(path))),
        PathReadings::One | PathReadings::Unknown => of(path.normal(sent).unwrap_or(sent)),
    };
    Priority::of_call(outgoing.priority, priority)
}

#[cfg(test)]
mod tests {
    use policy::access_log::AccessLog;

    use super::*;
    use crate::endpoints::registry::Registry;
    use crate::telemetry::Telemetry;
    use crate::telemetry::call::CallKind;
    use crate::telemetry::call_ends::CallEnds;
    use crate::telemetry::metrics::Metrics;

    /// What the fleet's breaker learns of a response whose trailers show that the call failed:
    /// calls, and those that failed.
    fn reported(harmed: bool) -> Option<(u32, u32)> {
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let telemetry = Arc::new(Telemetry::new(metrics, AccessLog::OFF));
        let call_ends = CallEnds::to_service("shop/api".into(), 80);
        let call = Call::begin(&telemetry, CallKind::Request, call_ends);
        let recorder = CircuitRecorder {
            circuits: Registry::default().circuits("endpoints/shop/api:80"),
            by: DecidedBy {
                service: "shop/api".into(),
                port: 80,
            },
            backend: "shop/api".into(),
            settings: Breaker::DEFAULT,
            let_in: now(),
            probe: false,
            stream: OnceLock::new(),
        };
        recorder.record(Some(HealthSignal::Reached), harmed, &call);
        recorder.ended(Some(HealthSignal::Failed), &call);
        let mut learned = None;
        recorder.circuits.report(|reading| {
            learned = reading.counts.map(|counts| (counts.sent, counts.failed));
        });
        learned
    }

    #[test]
    fn trailers_of_harmed_call_are_not_reported() {
        assert_eq!(reported(true), None);
        assert_eq!(reported(false), Some((1, 1)));
    }
}
