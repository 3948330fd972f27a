//! What this proxy does not send, because its breaker is open.

use std::sync::{Arc, OnceLock};

use policy::breaker::own::Admit;
use policy::reason::Reason;

use super::Attempts;
use crate::endpoints::circuit::DecidedBy;
use crate::failure::Failure;
use crate::outbound::call_policy;
use crate::outbound::passed::Passed;
use crate::proxy::Proxy;

impl Attempts<'_> {
    /// Asks the breaker of what serves the call, where a policy has one.
    ///
    /// # Errors
    /// When it is open, and the call is not sent.
    pub(in crate::outbound) fn admit(&mut self, proxy: &Proxy) -> Result<(), Failure> {
        let route = self.route;
        let Some(decides) = call_policy::breaker(route.policy.as_deref()) else {
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
                "the breaker of {} is open for calls to {}, and this one was not sent",
                decides.origin, route.backend
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
            stream: OnceLock::new(),
        }));
        Ok(())
    }

    /// Whether the call only finds out how the Service fares, which another attempt would
    /// load twice.
    pub(super) fn probes(&self) -> bool {
        self.passed.as_ref().is_some_and(|passed| passed.probe)
    }
}
