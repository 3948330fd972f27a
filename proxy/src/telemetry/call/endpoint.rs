//! What is counted of how a call's endpoints were chosen.

use std::sync::Arc;

use policy::breaker::own::ShownState;
use policy::health::EjectedFor;
use policy::retry::RetryOutcome;
use policy::traffic::call::Cause;

use super::{At, Call};
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{EjectionLabels, FallbackLabels, RetryLabels};
use crate::telemetry::parties::CallEnds;

/// Where a call was counted that something else is to answer.
#[derive(Debug)]
pub(crate) struct Before {
    at: At,
    port: u16,
}

/// An endpoint of calls between these is ejected from now on.
pub(crate) fn ejected(telemetry: &Telemetry, parties: &CallEnds, cause: EjectedFor) {
    let labels = EjectionLabels {
        service: parties.service(),
        backend: parties.backend(),
        cause: cause.as_str(),
    };
    telemetry.metrics.ejections.at(&labels).inc();
}

impl Call {
    /// It was tried again, or was not for this reason.
    pub(crate) fn retried(&self, outcome: RetryOutcome) {
        let parties = self.parties();
        let labels = RetryLabels {
            service: parties.service(),
            backend: parties.backend(),
            outcome: outcome.as_str(),
        };
        self.telemetry.metrics.retries.at(&labels).inc();
    }

    /// The endpoint that it was sent to is ejected from now on.
    pub(crate) fn ejected(&self, cause: EjectedFor) {
        ejected(&self.telemetry, self.parties(), cause);
    }

    /// The breaker of what serves is another now.
    pub(crate) fn circuit(&self, service: &Arc<str>, backend: &Arc<str>, state: ShownState) {
        self.telemetry.metrics.circuit(service, backend, state);
    }

    /// What was tried has failed, and from now on it goes between these.
    pub(crate) fn falls_back(&mut self, to: CallEnds) -> Before {
        self.gives_up();
        let port = std::mem::replace(&mut self.port, to.port());
        let at = std::mem::replace(&mut self.at, At::Nowhere(to));
        Before { at, port }
    }

    /// That has failed as well, and it ends as it did before.
    pub(crate) fn returns(&mut self, before: Before) {
        self.gives_up();
        self.at = before.at;
        self.port = before.port;
    }

    /// The last attempt, and the want of an endpoint, are counted where they were made.
    fn gives_up(&mut self) {
        if std::mem::take(&mut self.trying) {
            self.settle(false).attempted(false);
        }
        self.leave();
    }

    /// Something else was to answer it.
    pub(crate) fn fell_back(&self, to: &str, when: Cause, outcome: &'static str) {
        let labels = FallbackLabels {
            service: self.parties().service(),
            fallback: to.into(),
            when: when.as_str(),
            outcome,
        };
        self.telemetry.metrics.fallbacks.at(&labels).inc();
    }
}
