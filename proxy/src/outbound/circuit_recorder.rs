//! Reports the ends of a call's attempts to the breaker that let the call through.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use policy::breaker::Stream;
use policy::breaker::own::ShownState;
use policy::health::HealthSignal;
use policy::traffic::endpoint::Breaker;

use crate::endpoints::circuit::{Circuits, DecidedBy};
use crate::telemetry::call::Call;

/// What the breaker that let a call through gets of it.
#[derive(Debug)]
pub(super) struct CircuitRecorder {
    pub(super) circuits: Arc<Circuits>,
    pub(super) by: DecidedBy,
    /// `namespace/name` of the Service that serves.
    pub(super) backend: Arc<str>,
    pub(super) settings: Breaker,
    pub(super) let_in: Instant,
    /// It shows whether the others may follow.
    pub(super) probe: bool,
    /// The response whose trailers show how the call went, once its head is there.
    pub(super) stream: OnceLock<Stream>,
}

impl CircuitRecorder {
    /// An attempt, or the head of its answer, has shown this of its endpoint.
    pub(super) fn record(&self, signal: Option<HealthSignal>, call: &Call) {
        let (circuits, by, settings) = (&self.circuits, &self.by, &self.settings);
        let state = match (signal, failed(signal)) {
            // Its trailers decide, or that it lasts without them.
            (Some(HealthSignal::Reached), _) => {
                self.stream
                    .get_or_init(|| circuits.begin_stream(by, self.probe));
                None
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
        let (by, settings) = (&self.by, &self.settings);
        let ended = (*stream, failed(signal));
        let state = self.circuits.end_stream(by, settings, self.let_in, ended);
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
