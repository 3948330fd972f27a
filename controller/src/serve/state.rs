//! What a stream reports of its proxy to all replicas.

use wire::v1;

use super::stream::ProxyStream;
use crate::observe::acknowledged::pod_key;

impl ProxyStream<'_> {
    /// Reports what this proxy has.
    pub(super) fn note(&self) {
        self.shared.observed.note(self.number, self.state());
    }

    fn state(&self) -> v1::ProxyState {
        let mut state = v1::ProxyState {
            namespace: self.pod.namespace.to_string(),
            pod: self.pod.name.to_string(),
            objects: self.session.objects(&self.target),
            destinations: self.asks.iter().cloned().collect(),
            service_account: self.account.clone(),
            given: self
                .session
                .destinations()
                .difference(&self.asks)
                .cloned()
                .collect(),
            uid: self.reporter.uid.to_string(),
            ..v1::ProxyState::default()
        };
        self.proxy_info.add_to(&mut state);
        state
    }

    pub(super) fn key(&self) -> String {
        pod_key(&v1::ProxyState {
            namespace: self.pod.namespace.to_string(),
            pod: self.pod.name.to_string(),
            ..v1::ProxyState::default()
        })
    }
}
