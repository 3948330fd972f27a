//! The proxy of a control stream: which pod and account it belongs to, for reports, breakers and
//! what all replicas learn of it.

use std::sync::Arc;

use model::PodId;
use wire::v1;

use crate::fleet::Caller;
use crate::observe::acknowledged::pod_key;
use crate::observe::reports::Reporter;

/// Whose stream it is.
pub(super) struct StreamOwner {
    /// Of the stream.
    pub(super) number: u64,
    /// The identity for reports.
    pub(super) reporter: Reporter,
    /// The identity for breakers.
    pub(super) caller: Caller,
}

impl StreamOwner {
    pub(super) const fn pod(&self) -> &PodId {
        &self.reporter.pod
    }

    pub(super) const fn uid(&self) -> &Arc<str> {
        &self.reporter.uid
    }

    /// As far as it is reported to all replicas.
    pub(super) fn state(&self) -> v1::ProxyState {
        v1::ProxyState {
            namespace: self.pod().namespace.to_string(),
            pod: self.pod().name.to_string(),
            uid: self.uid().to_string(),
            service_account: self.reporter.account_name(),
            ..v1::ProxyState::default()
        }
    }

    /// What of its state other replicas find it by.
    pub(super) fn key(&self) -> String {
        pod_key(&self.state())
    }
}
