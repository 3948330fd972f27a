//! The notes of one call for the access log, a trace and taps, beyond what is counted.
//!
//! Each note is on the heap and only made where something reads it, because most calls have none.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, request};
use policy::access_log::AccessLog;
use policy::origin::Origin;
use policy::protocol::Protocol;

use crate::http::head::ReportedHead;
use crate::telemetry::Telemetry;
use crate::telemetry::access_log::{self, cut};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::histogram::Exemplar;
use crate::telemetry::labels::Direction;
use crate::telemetry::tap::record::{TapEnding, Tapped};
use crate::telemetry::trace::signal::log_record;
use crate::telemetry::trace::span::{self, Span};
use crate::telemetry::trace::{self, CameFrom, SpanStart, Trace};

/// See the module header.
#[derive(Debug, Default)]
pub(super) struct Notes {
    logged: Option<Box<Logged>>,
    /// Where it changes headers, or is recorded.
    trace: Option<Box<Trace>>,
    /// What taps see of it; only made where one may want it.
    tapped: Option<Box<Tapped>>,
    /// That a FaultExperiment harmed it.
    pub(super) harmed: Option<Box<Harmed>>,
}

/// What is kept of a FaultExperiment that harmed a call.
#[derive(Debug)]
pub(super) struct Harmed {
    /// As `namespace/name`.
    pub(super) experiment: Arc<str>,
    /// The last attempt was harmed, and not only an earlier one.
    pub(super) last: bool,
}

/// What the access log shows beyond the metrics. Only made when it is on.
#[derive(Debug)]
struct Logged {
    /// Whether it is written down, once it has ended, and where.
    log: AccessLog,
    /// Whether it failed or was refused, once it has ended.
    failed: bool,
    /// `None`: it could not be read.
    method: Option<Method>,
    host: String,
    path: String,
    trace: Option<String>,
    /// The proxy's own, where it is recorded.
    span: Option<String>,
    /// What allowed or refused the call.
    rule: Option<Origin>,
    /// The route that describes it; empty where none does.
    route: Option<Arc<str>>,
}

impl Logged {
    /// Of a request that belongs to a trace which changes its headers, or to none such.
    fn of(asked: ReportedHead<'_>, trace: Option<&Trace>, log: AccessLog) -> Self {
        // Else each message to the collector would be a line of the next one.
        let own = log.is_otlp() && asked.headers.is_some_and(trace::is_own);
        let log = if own { log.without_otlp() } else { log };
        Self {
            log,
            failed: false,
            method: asked.method.cloned(),
            host: cut(asked.host).to_owned(),
            path: cut(asked.path).to_owned(),
            trace: match trace {
                Some(trace) => Some(trace.id()),
                None => asked.headers.and_then(trace::id),
            },
            span: trace.and_then(Trace::span_id),
            rule: None,
            route: None,
        }
    }
}

impl Notes {
    /// Notes a request that came at `started`, and which trace it belongs to.
    pub(super) fn request(
        &mut self,
        telemetry: &Telemetry,
        call_ends: &CallEnds,
        parts: &request::Parts,
        (from, started): (CameFrom, Instant),
    ) {
        let trace = begin_trace(telemetry, parts, from, started);
        self.head(
            telemetry,
            call_ends,
            || ReportedHead::of(parts),
            trace.as_deref(),
        );
        self.trace = trace;
    }

    /// Notes a head for the access log and taps. `asked` is only made for a receiver of it.
    pub(super) fn head<'a>(
        &mut self,
        telemetry: &Telemetry,
        call_ends: &CallEnds,
        asked: impl Fn() -> ReportedHead<'a>,
        trace: Option<&Trace>,
    ) {
        let log = telemetry.access_log();
        let logged = || Box::new(Logged::of(asked(), trace, log));
        self.logged = log.is_on().then(logged);
        if telemetry.taps.any() {
            self.tapped = Tapped::note(&telemetry.taps, call_ends, asked(), trace);
        }
    }

    /// Writes into the headers of a request that is sent on what its trace is from here on.
    /// The caller has evaluated the headers: what decides is what they had on arrival.
    pub(super) fn pass_on_trace(&self, map: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.pass_on(map);
        }
    }

    /// The same of a request that goes to another proxy, where its endpoint has one. Returns what
    /// only the others get: of an unrecorded trace, which this proxy does not write either, a
    /// peer learns by silence.
    pub(super) fn pass_on_trace_to_peers(&mut self, map: &mut HeaderMap) -> Option<Box<Trace>> {
        let written = self.logged.is_some() || self.tapped.is_some();
        if let Some(trace) = self
            .trace
            .take_if(|one| one.begins_unrecorded() && !written)
        {
            return Some(trace);
        }
        self.pass_on_trace(map);
        None
    }

    /// It is sent to an endpoint.
    pub(super) fn attempt(&mut self) {
        self.leaves_fault();
        if let Some(span) = self.span() {
            span.attempt();
        }
    }

    /// A route of this name describes it, or, where the name is empty, none does.
    pub(super) fn takes_route(&mut self, route: &Arc<str>) {
        if let Some(span) = self.span() {
            span.takes_route(route);
        }
        if let Some(logged) = &mut self.logged {
            logged.route = Some(Arc::clone(route));
        }
    }

    /// What allowed or refused it.
    pub(super) fn decided_by(&mut self, rule: Option<&Origin>) {
        if let Some(span) = self.span() {
            span.decided_by(rule);
        }
        if let Some(logged) = &mut self.logged {
            logged.rule = rule.cloned();
        }
    }

    /// The span, where it is recorded.
    pub(super) fn span(&mut self) -> Option<&mut Span> {
        self.trace.as_mut()?.span_mut()
    }

    /// What it is in the histogram of times, where it is recorded and took so long.
    pub(super) fn exemplar(&self, took: Duration) -> Option<Exemplar> {
        let trace = self.trace.as_ref().and_then(|trace| trace.recorded())?;
        let at = SystemTime::now();
        Some(Exemplar { trace, took, at })
    }

    /// It has ended. `ended` is only made for a trace.
    pub(super) fn end_trace<'a>(
        &mut self,
        telemetry: &Telemetry,
        ended: impl FnOnce() -> span::Ended<'a>,
    ) {
        let Some(trace) = self.trace.take() else {
            return;
        };
        let Some(span) = trace.encode(&ended()) else {
            return;
        };
        if !telemetry.tracer.end(span) {
            telemetry.metrics.telemetry_dropped("queue", "spans", 1);
        }
    }

    /// Where only those that failed are written down, others have no line.
    pub(super) fn keep_line_of(&mut self, failed: bool) {
        let logged = self.logged.take();
        self.logged = logged.filter(|logged| logged.log.takes(failed));
        if let Some(logged) = &mut self.logged {
            logged.failed = failed;
        }
    }

    /// Writes its line, and shows how it ended to those taps that noted its head.
    pub(super) fn report(
        &mut self,
        telemetry: &Telemetry,
        (call_ends, protocol): (&CallEnds, Protocol),
        ending: &TapEnding<'_>,
    ) {
        if let (Some(logged), Some(line)) = (&self.logged, self.line(call_ends, ending)) {
            if logged.log.is_json() {
                access_log::write(&line);
            }
            if logged.log.is_otlp() {
                let record = log_record(&line, logged.failed, SystemTime::now());
                if let Err(why) = telemetry.tracer.record(record) {
                    telemetry.metrics.telemetry_dropped(why, "logs", 1);
                }
            }
        }
        if let Some(tapped) = self.tapped.take() {
            tapped.ended(call_ends, protocol, ending);
        }
    }

    /// Its line in the access log, where there is one.
    pub(super) fn line<'a>(
        &'a self,
        call_ends: &'a CallEnds,
        ending: &TapEnding<'_>,
    ) -> Option<access_log::Line<'a>> {
        let logged = self.logged.as_ref()?;
        Some(access_log::Line {
            direction: match call_ends.direction() {
                Direction::inbound => "inbound",
                Direction::outbound => "outbound",
            },
            method: cut(logged.method.as_ref().map_or("", Method::as_str)),
            host: &logged.host,
            path: &logged.path,
            status: ending.status,
            reason: ending.reason,
            service: call_ends.service_name(),
            backend: call_ends.backend_name(),
            peer: call_ends.peer_name(),
            rule: logged.rule.as_ref().or(call_ends.rule()),
            route: logged.route.as_deref().unwrap_or_default(),
            trace: logged.trace.as_deref(),
            span: logged.span.as_deref(),
            fault: self.fault(),
            latency: ending.latency,
            bytes: ending.bytes,
        })
    }
}

/// Which trace a request belongs to, and whether it is recorded.
fn begin_trace(
    telemetry: &Telemetry,
    parts: &request::Parts,
    from: CameFrom,
    started: Instant,
) -> Option<Box<Trace>> {
    let span_start = telemetry.tracer.begin(&parts.headers, from, |config| {
        Span::of(parts, started.elapsed(), config.tracing.paths)
    });
    match span_start {
        SpanStart::Untouched => None,
        SpanStart::Traced(trace) => Some(trace),
        SpanStart::Limited(trace) => {
            telemetry.metrics.telemetry_dropped("rate", "spans", 1);
            trace
        }
        SpanStart::QueueFull(trace) => {
            telemetry.metrics.telemetry_dropped("queue", "spans", 1);
            trace
        }
    }
}
