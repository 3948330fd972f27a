//! A call as a span of a trace, and the trace headers that go on.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, request};

use super::{Call, Why};
use crate::telemetry::cell::CallCounters;
use crate::telemetry::histogram::Exemplar;
use crate::telemetry::trace::span::{Ended, Span};
use crate::telemetry::trace::{CameFrom, SpanStart, Trace};

impl Call {
    /// Notes which trace it belongs to, and whether it is recorded.
    pub(super) fn begin_trace(&self, parts: &request::Parts, from: CameFrom) -> Option<Box<Trace>> {
        let span_start = self.telemetry.tracer.begin(&parts.headers, from, |config| {
            Span::of(parts, self.started.elapsed(), config.tracing.paths)
        });
        match span_start {
            SpanStart::Untouched => None,
            SpanStart::Traced(trace) => Some(trace),
            SpanStart::Limited(trace) => {
                self.telemetry.metrics.telemetry_dropped("rate", "spans", 1);
                trace
            }
            SpanStart::QueueFull(trace) => {
                self.telemetry
                    .metrics
                    .telemetry_dropped("queue", "spans", 1);
                trace
            }
        }
    }

    /// Writes into the headers of a request that is sent on what its trace is from here on.
    /// The caller has evaluated the headers: what decides is what they had on arrival.
    pub(crate) fn pass_on_trace(&self, map: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.pass_on(map);
        }
    }

    /// The same of a request that goes to another proxy, where its endpoint has one. Returns what
    /// only the others get: of an unrecorded trace, which this proxy does not write either, a
    /// peer learns by silence.
    pub(crate) fn pass_on_trace_to_peers(&mut self, map: &mut HeaderMap) -> Option<Box<Trace>> {
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

    /// The span, where it is recorded.
    pub(super) fn span(&mut self) -> Option<&mut Span> {
        self.trace.as_mut()?.span_mut()
    }

    /// It was answered after this time, and is the last of its bucket that is recorded.
    pub(super) fn exemplify(&self, cell: &CallCounters, took: Duration) {
        let recorded = self.trace.as_ref().and_then(|trace| trace.recorded());
        if let Some(trace) = recorded {
            let at = SystemTime::now();
            cell.recorded(Exemplar { trace, took, at });
        }
    }

    /// It has ended.
    pub(super) fn end_trace(&mut self, status: u16, grpc: Option<u16>, why: Why) {
        let Some(trace) = self.trace.take() else {
            return;
        };
        let (reason, cancelled) = match why {
            Why::Answered(reason) => (reason, false),
            Why::Cancelled => (None, true),
        };
        let ended = Ended {
            parties: self.parties(),
            status,
            grpc,
            reason,
            cancelled,
            after: self.started.elapsed(),
        };
        let Some(span) = trace.encode(&ended) else {
            return;
        };
        if !self.telemetry.tracer.end(span) {
            self.telemetry
                .metrics
                .telemetry_dropped("queue", "spans", 1);
        }
    }
}
