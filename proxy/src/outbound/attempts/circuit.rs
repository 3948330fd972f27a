//! What this proxy does not send, because its breaker is open, and what attempts show it.

use std::sync::Arc;

use policy::breaker::own::Admit;
use policy::health::Seen;
use policy::reason::Reason;
use policy::traffic::endpoint::Breaker;

use super::Attempts;
use crate::endpoints::circuit::{Circuits, DecidedBy};
use crate::failure::Failure;
use crate::outbound::said;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;

/// A call that its breaker let through.
#[derive(Debug)]
pub(in crate::outbound) struct Passed {
    circuits: Arc<Circuits>,
    by: DecidedBy,
    /// `namespace/name` of the Service that serves.
    backend: Arc<str>,
    settings: Breaker,
    /// It shows whether the others may follow.
    probe: bool,
}

impl Passed {
    /// An attempt, or the end of its answer, has shown this of its endpoint.
    pub(in crate::outbound) fn record(&self, seen: Option<Seen>, call: &Call) {
        let failed = match seen {
            Some(Seen::Good) => false,
            Some(Seen::Failed | Seen::Unreachable) => true,
            // Its trailers tell; or it shows nothing.
            Some(Seen::Reached) | None => return,
        };
        let circuits = &self.circuits;
        let state = circuits.record(&self.by, &self.settings, failed, self.probe);
        if let Some(state) = state {
            call.circuit(&self.by.service, &self.backend, state);
        }
    }
}

impl Attempts<'_> {
    /// Asks the breaker of what serves the call, where a policy has one.
    ///
    /// # Errors
    /// When it is open, and the call is not sent.
    pub(in crate::outbound) fn admit(&mut self, proxy: &Proxy) -> Result<(), Failure> {
        let route = self.route;
        let Some(decides) = said::breaker(route.said.as_deref()) else {
            return Ok(());
        };
        let Some(set) = route.choice.set() else {
            return Ok(());
        };
        let service = if decides.called {
            &route.service
        } else {
            &route.backend
        };
        let by = DecidedBy {
            service: Arc::clone(service),
            port: route.port,
        };
        let (admit, state) = set.circuits.admit(&by, decides.settings);
        if let Some(state) = state {
            let metrics = &proxy.telemetry.metrics;
            metrics.circuit(&by.service, &route.backend, state);
        }
        if admit == Admit::Refuse {
            let detail = format!(
                "most calls to {} fail, and this one was not sent",
                route.backend
            );
            return Err(Failure::Refused {
                reason: Reason::CircuitOpen,
                by: Some(decides.origin.clone()),
                detail: detail.into(),
            });
        }
        self.passed = Some(Arc::new(Passed {
            circuits: Arc::clone(&set.circuits),
            by,
            backend: Arc::clone(&route.backend),
            settings: *decides.settings,
            probe: admit == Admit::Probe,
        }));
        Ok(())
    }

    /// Whether the call only finds out how the Service fares, which another attempt would
    /// load twice.
    pub(super) fn probes(&self) -> bool {
        self.passed.as_ref().is_some_and(|passed| passed.probe)
    }
}
