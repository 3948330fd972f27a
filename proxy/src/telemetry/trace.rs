//! Decides which requests are recorded as spans of a trace, and writes the trace headers that are
//! passed on.
//!
//! The application or peer that began a trace has decided whether it is recorded, and that holds;
//! of a trace that begins here this proxy decides it, once. Headers change only where there is
//! something new: a span of the proxy's own, which a collector will have, or the sampling
//! decision of a trace that begins here. All others pass byte for byte: a parent that no
//! collector ever receives would cut the application's trace in two.
//!
//! A proxy that begins a trace and does not record it sends its peer no trace headers, which means
//! that it has decided so. The peer draws the ids that its application gets, so that 55 digits need
//! not be encoded and decoded again on the way.
//!
//! Without a collector a request costs one branch.

pub(crate) mod export;
mod otlp;
mod queue;
mod send;
pub(crate) mod signal;
pub(crate) mod span;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use parking_lot::Mutex;
use policy::trace::Tracing;
use policy::trace::context::{self, Ids, Onward, SamplingDecision};
use runtime::rate::{Allowance, Rate};
use tokio::time::Instant;

use crate::telemetry::trace::queue::Queue;
use crate::telemetry::trace::signal::Signal;
use crate::telemetry::trace::span::Span;

/// The unrecorded trace of what the proxy sends by itself.
static OWN: LazyLock<u128> = LazyLock::new(new_trace);

/// What the controller configures of traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TracingConfig {
    pub tracing: Tracing,
    /// The workload's attributes in spans, by name.
    pub resource: Vec<(String, String)>,
}

/// See the module header.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    on: AtomicBool,
    config: ArcSwapOption<TracingConfig>,
    /// Of spans that may begin.
    rate: Mutex<Option<Rate>>,
    spans: Queue,
    /// Lines of the access log.
    records: Queue,
}

/// The sender of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CameFrom {
    /// A proxy that decided which traces begin.
    Peer,
    /// An application, of whatever owner.
    Application,
}

/// A request whose headers change, because it is recorded or a trace begins with it.
#[derive(Debug)]
pub(crate) struct Trace {
    config: Arc<TracingConfig>,
    onward: Onward,
    /// The headers have something of the trace already.
    came: bool,
    /// `None`: the trace is not recorded. On the heap, because most are not.
    span: Option<Box<Span>>,
}

/// What became of a span that was to begin.
#[derive(Debug)]
pub(crate) enum SpanStart {
    /// Nothing is recorded, and headers pass as they are.
    Untouched,
    Traced(Box<Trace>),
    /// Too many began in this second.
    Limited(Option<Box<Trace>>),
    /// The queue is full, so it would find no room when it ends.
    QueueFull(Option<Box<Trace>>),
}

impl Tracer {
    /// What holds from now on; `None`: nothing is recorded.
    pub(crate) fn configure(&self, config: Option<Arc<TracingConfig>>) {
        let rate = config.as_ref().map(|config| {
            let burst = config.tracing.most_per_second.max(1);
            let every = Duration::from_secs(1) / burst;
            Rate::new(Allowance { burst, every })
        });
        *self.rate.lock() = rate;
        let on = config.is_some();
        self.config.store(config);
        self.on.store(on, Relaxed);
    }

    /// A request with these headers begins. `span` makes its span, where it gets one.
    pub(crate) fn begin(
        &self,
        map: &HeaderMap,
        from: CameFrom,
        span: impl FnOnce(&TracingConfig) -> Span,
    ) -> SpanStart {
        if !self.on.load(Relaxed) {
            return SpanStart::Untouched;
        }
        let Some(config) = self.config.load_full() else {
            return SpanStart::Untouched;
        };
        let came = context::read(map);
        let sampling = came.map_or(SamplingDecision::Open, |came| came.sampling);
        let ids = came.and_then(|came| came.ids);
        let sampled = match sampling {
            SamplingDecision::Unsampled => return SpanStart::Untouched,
            SamplingDecision::Sampled => true,
            SamplingDecision::Open if came.is_none() && from == CameFrom::Peer => false,
            SamplingDecision::Open => config.tracing.share.takes(rand::random()),
        };
        // The parent of whatever follows would be one that no collector gets.
        let queue_full = sampled && self.spans.is_full();
        if sampled && !queue_full && self.may_begin() {
            let span = span(&config).child_of(ids.map(|ids| ids.parent));
            let onward = Onward {
                trace: ids.map_or_else(new_trace, |ids| ids.trace),
                span: rand::random::<u64>().max(1),
                sampled: true,
            };
            return SpanStart::Traced(Box::new(Trace {
                config,
                onward,
                came: came.is_some(),
                span: Some(Box::new(span)),
            }));
        }
        // A decision that came is never taken back.
        let unrecorded = (sampling == SamplingDecision::Open).then(|| {
            let onward = unsampled(ids);
            Box::new(Trace {
                config,
                onward,
                came: came.is_some(),
                span: None,
            })
        });
        match (sampled, queue_full) {
            (true, true) => SpanStart::QueueFull(unrecorded),
            (true, false) => SpanStart::Limited(unrecorded),
            (false, _) => unrecorded.map_or(SpanStart::Untouched, SpanStart::Traced),
        }
    }

    /// A request comes from where nothing is believed: where traces are recorded, none goes on with
    /// it, and whether one begins is decided here.
    pub(crate) fn leave(&self, map: &mut HeaderMap) {
        if self.on.load(Relaxed) {
            context::remove(map);
        }
    }

    fn may_begin(&self) -> bool {
        let mut rate = self.rate.lock();
        let rate = rate.as_mut();
        rate.is_some_and(|rate| rate.take(Instant::now()).is_ok())
    }

    /// Queues a span that has ended; false where there is no room for it.
    pub(crate) fn end(&self, span: Vec<u8>) -> bool {
        self.spans.push(span)
    }

    /// Queues a line of the access log; else why it does not.
    pub(crate) fn record(&self, record: Vec<u8>) -> Result<(), &'static str> {
        if !self.on.load(Relaxed) {
            return Err("off");
        }
        if self.records.push(record) {
            Ok(())
        } else {
            Err("queue")
        }
    }

    fn queue(&self, signal: Signal) -> &Queue {
        match signal {
            Signal::Spans => &self.spans,
            Signal::Logs => &self.records,
        }
    }
}

/// An unrecorded trace: one that begins, or one whose sampling was left to this proxy, which
/// sends it on for the span that it came from.
pub(crate) fn unsampled(ids: Option<Ids>) -> Onward {
    Onward {
        trace: ids.map_or_else(new_trace, |ids| ids.trace),
        span: ids.map_or_else(|| rand::random::<u64>().max(1), |ids| ids.parent),
        sampled: false,
    }
}

fn new_trace() -> u128 {
    rand::random::<u128>().max(1)
}

impl Trace {
    /// Writes it into the headers.
    pub(crate) fn pass_on(&self, map: &mut HeaderMap) {
        let inject = &self.config.tracing.inject;
        if self.came {
            context::pass_on(map, self.onward, inject);
        } else {
            context::begin(map, self.onward, inject);
        }
    }

    /// Whether it begins with this request and is not recorded.
    pub(crate) const fn begins_unrecorded(&self) -> bool {
        !self.came && self.span.is_none()
    }

    /// In hexadecimal.
    pub(crate) fn id(&self) -> String {
        format!("{:032x}", self.onward.trace)
    }

    /// The trace, where a span of this proxy is recorded in it.
    pub(crate) fn recorded(&self) -> Option<u128> {
        self.span.as_ref().map(|_| self.onward.trace)
    }

    /// The span, where there is one, in hexadecimal.
    pub(crate) fn span_id(&self) -> Option<String> {
        self.span
            .is_some()
            .then(|| format!("{:016x}", self.onward.span))
    }

    pub(crate) fn span_mut(&mut self) -> Option<&mut Span> {
        self.span.as_deref_mut()
    }

    /// The span as it goes to the collector; `None` where nothing is recorded.
    pub(crate) fn encode(self, ended: &span::Ended<'_>) -> Option<Vec<u8>> {
        let Self { onward, span, .. } = self;
        span.map(|span| span.encode(onward, ended))
    }
}

/// The trace that a message belongs to, if its headers have it, in hexadecimal.
pub(crate) fn id(map: &HeaderMap) -> Option<String> {
    let ids = context::read(map)?.ids?;
    Some(format!("{:032x}", ids.trace))
}

/// Whether the proxy itself sent a message with these headers.
pub(crate) fn is_own(map: &HeaderMap) -> bool {
    let ids = context::read(map).and_then(|came| came.ids);
    ids.is_some_and(|ids| ids.trace == *OWN)
}

#[cfg(test)]
mod tests;
