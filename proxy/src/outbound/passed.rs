//! A call that its breaker let through, which is told how its attempts end.

use std::sync::Arc;

use policy::health::HealthSignal;
use policy::traffic::endpoint::Breaker;

use crate::endpoints::circuit::{Circuits, DecidedBy};
use crate::telemetry::call::Call;

/// A call that its breaker let through.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) circuits: Arc<Circuits>,
    pub(super) by: DecidedBy,
    /// `namespace/name` of the Service that serves.
    pub(super) backend: Arc<str>,
    pub(super) settings: Breaker,
    /// It shows whether the others may follow.
    pub(super) probe: bool,
}

impl Passed {
    /// An attempt, or the end of its answer, has shown this of its endpoint.
    pub(super) fn record(&self, signal: Option<HealthSignal>, call: &Call) {
        let failed = match signal {
            Some(HealthSignal::Good) => false,
            Some(HealthSignal::Failed | HealthSignal::Unreachable) => true,
            // Its trailers tell; or it shows nothing.
            Some(HealthSignal::Reached) | None => return,
        };
        let (circuits, by, settings) = (&self.circuits, &self.by, &self.settings);
        let state = if self.probe {
            circuits.record_probe(by, settings, failed)
        } else {
            circuits.record(by, settings, failed)
        };
        if let Some(state) = state {
            call.circuit(&self.by.service, &self.backend, state);
        }
    }
}
