//! What this proxy does not send, because its breaker is open.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use policy::breaker::own::Admit;
use policy::origin::Origin;
use policy::reason::Reason;

use super::Attempts;
use crate::endpoints::circuit::DecidedBy;
use crate::endpoints::learned::now;
use crate::endpoints::set::EndpointSet;
use crate::failure::Failure;
use crate::outbound::call_policy::{self, DecidesBreaker};
use crate::outbound::circuit_recorder::CircuitRecorder;
use crate::proxy::Proxy;

impl<'a> Attempts<'a> {
    /// Queries the breaker of what serves the call, where a policy has one.
    ///
    /// # Errors
    /// When it is open, and the call is not sent.
    pub(in crate::outbound) fn admit(&mut self, proxy: &Proxy) -> Result<(), Failure> {
        self.admit_started(proxy, now())
    }

    /// The same of a connection that was opened then, before anybody knew what for.
    ///
    /// # Errors
    /// When it is open, and the connection is not used.
    pub(in crate::outbound) fn admit_started(
        &mut self,
        proxy: &Proxy,
        started: Instant,
    ) -> Result<(), Failure> {
        let route = self.route;
        let Some((set, by, decides)) = self.breaker() else {
            return Ok(());
        };
        let (admit, state) = set.circuits.admit_started(&by, decides.settings, started);
        if let Some(state) = state {
            let metrics = &proxy.telemetry.metrics;
            metrics.circuit(&by.service, &route.backend, state);
        }
        if admit == Admit::Refuse {
            return Err(self.is_open(decides.origin));
        }
        self.recorder = Some(Arc::new(CircuitRecorder {
            circuits: Arc::clone(&set.circuits),
            by,
            backend: Arc::clone(&route.backend),
            settings: *decides.settings,
            let_in: started,
            probe: admit == Admit::Probe,
            stream: OnceLock::new(),
        }));
        Ok(())
    }

    /// Looks whether it would let the call through, which counts nothing and is no probe: of
    /// what shows nothing of its endpoint.
    ///
    /// # Errors
    /// When it is open, and the call is not sent.
    pub(in crate::outbound) fn look_at_breaker(&self) -> Result<(), Failure> {
        match self.breaker() {
            Some((set, by, decides)) if set.circuits.would_refuse(&by, decides.settings) => {
                Err(self.is_open(decides.origin))
            }
            _ => Ok(()),
        }
    }

    fn is_open(&self, origin: &Origin) -> Failure {
        let detail = format!(
            "the breaker of {origin} is open for calls to {}, and this one was not sent",
            self.route.backend
        );
        Failure::Refused {
            reason: Reason::CircuitOpen,
            by: Some(origin.clone()),
            detail: detail.into(),
        }
    }

    /// The breaker of what serves the call, and whose policy it is.
    fn breaker(&self) -> Option<(&'a Arc<EndpointSet>, DecidedBy, DecidesBreaker<'a>)> {
        let route = self.route;
        let decides = call_policy::breaker(route.policy.as_deref())?;
        let set = route.choice.set()?;
        let service = if decides.called {
            &route.service
        } else {
            &route.backend
        };
        let by = DecidedBy {
            service: Arc::clone(service),
            port: route.port,
        };
        Some((set, by, decides))
    }

    /// Whether the call only finds out how the Service fares, which another attempt would
    /// load twice.
    pub(super) fn probes(&self) -> bool {
        self.recorder.as_ref().is_some_and(|one| one.probe)
    }
}
