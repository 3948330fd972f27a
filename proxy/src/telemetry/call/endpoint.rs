//! What is counted of how a call's endpoints were chosen.

use policy::health::EjectedFor;
use policy::retry;

use super::Call;
use crate::telemetry::labels::{EjectionLabels, RetryLabels};

impl Call {
    /// It was tried again, or was not for this reason.
    pub(crate) fn retried(&self, outcome: retry::Outcome) {
        let parties = self.parties();
        let labels = RetryLabels {
            service: parties.service(),
            backend: parties.backend(),
            outcome: outcome.as_str(),
        };
        self.telemetry.metrics.retries.at(&labels).inc();
    }

    /// The endpoint that it was sent to rests from now on.
    pub(crate) fn ejected(&self, cause: EjectedFor) {
        let parties = self.parties();
        let labels = EjectionLabels {
            service: parties.service(),
            backend: parties.backend(),
            cause: cause.as_str(),
        };
        self.telemetry.metrics.ejections.at(&labels).inc();
    }
}
