//! Presence checks: no call waits to learn whether an endpoint is there. Where nothing arrived
//! from its proxy when something was due, and where there is no connection to the one of an
//! endpoint whose ejection is over, it is checked beside the calls, which go to others meanwhile.

use std::sync::Arc;

use super::Attempts;
use super::failed::Doubted;
use crate::endpoints::endpoint::InFlight;
use crate::endpoints::learned::Fallback;
use crate::mesh::peer::Peer;
use crate::outbound::attempt_outcome;
use crate::outbound::call_policy;
use crate::proxy::Proxy;
use crate::telemetry::call::endpoint::ejected;

/// So many that may be gone are passed over by one call.
const PASSED_OVER: usize = 8;

impl Attempts<'_> {
    /// The endpoint to try: one that works, or one whose ejection is over and that is probed.
    pub(super) fn choose(
        &self,
        proxy: &Proxy,
        fallback: Fallback,
        doubted: Doubted,
    ) -> Option<InFlight> {
        let chosen = self.pick(proxy, fallback, &self.tried)?;
        let Some(peer) = self.to_check(proxy, &chosen) else {
            return Some(chosen);
        };
        let (mut other, mut passed_over) = self.pass_over(proxy, chosen, peer);
        if other.is_none() && matches!(doubted, Doubted::Called) {
            other = Some(passed_over.remove(0).0);
        }
        self.check_all(proxy, passed_over);
        other
    }

    /// Another one than `first`, and those that are passed over for it, from the first on.
    fn pass_over(
        &self,
        proxy: &Proxy,
        first: InFlight,
        peer: Arc<Peer>,
    ) -> (Option<InFlight>, Vec<(InFlight, Arc<Peer>)>) {
        let mut passed_over = Vec::new();
        let mut besides = self.tried.clone();
        let mut last = (first, peer);
        let other = loop {
            besides.push(last.0.endpoint().addr);
            passed_over.push(last);
            let Some(next) = self.pick(proxy, Fallback::NoEndpoint, &besides) else {
                break None;
            };
            match self.to_check(proxy, &next) {
                Some(peer) if passed_over.len() < PASSED_OVER => last = (next, peer),
                _ => break Some(next),
            }
        };
        (other, passed_over)
    }

    fn check_all(&self, proxy: &Proxy, passed_over: Vec<(InFlight, Arc<Peer>)>) {
        for (endpoint, peer) in passed_over {
            self.check_beside(proxy, &peer, endpoint);
        }
    }

    /// Which peer to check before a call waits for it: where it is doubted, where its connections
    /// are known to be silent, and where a probe would have to open one. A call that keeps its
    /// endpoint goes there as long as there is a connection.
    fn to_check(&self, proxy: &Proxy, chosen: &InFlight) -> Option<Arc<Peer>> {
        let endpoint = chosen.endpoint();
        let doubted = endpoint.is_doubted();
        let asks = doubted || (chosen.probes() && !endpoint.is_vouched());
        if !asks && !proxy.peers.any_suspect() {
            return None;
        }
        let identity = endpoint.identity.as_ref()?;
        let peer = proxy
            .peers
            .mesh(endpoint.addr.ip(), identity, &endpoint.pod_uid);
        let moves = doubted && !self.route.choice.is_kept();
        let silent = asks && !peer.is_connected();
        (moves || silent || peer.is_suspect()).then_some(peer)
    }

    /// Checks beside the calls, unless a check runs. It costs the endpoint what a failed call
    /// would; where it is there the next call goes to it.
    fn check_beside(&self, proxy: &Proxy, peer: &Arc<Peer>, mut checked: InFlight) {
        let route = self.route;
        let Some(set) = route.choice.set().map(Arc::clone) else {
            return;
        };
        let Some(check) = checked.endpoint().begin_presence_check() else {
            return;
        };
        let policy = route.policy.as_deref();
        let ejection = *call_policy::ejection_if(policy, route.choice.ejects());
        let (telemetry, parties) = (Arc::clone(&proxy.telemetry), route.parties());
        let peer = Arc::clone(peer);
        #[expect(
            clippy::disallowed_methods,
            reason = "one for each endpoint, for seconds"
        )]
        tokio::spawn(async move {
            let Err(failure) = peer.is_there().await else {
                return check.gave_sign();
            };
            let (latency, signal) = attempt_outcome::signal_in_failure(&failure, false);
            if let Some(cause) = set.record(&mut checked, latency, signal, &ejection) {
                ejected(&telemetry, &parties, cause);
            }
        });
    }
}
