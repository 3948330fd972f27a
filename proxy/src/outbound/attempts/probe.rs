//! A probe waits for no connection: to an endpoint that has rested and to whose proxy there
//! is none, one is opened beside the calls, which go to others meanwhile.

use std::sync::Arc;

use super::Attempts;
use crate::endpoints::endpoint::InFlight;
use crate::endpoints::learned::Fallback;
use crate::mesh::peer::Peer;
use crate::outbound::call_policy;
use crate::outbound::verdict;
use crate::proxy::Proxy;
use crate::telemetry::call::ejected;

impl Attempts<'_> {
    /// The endpoint to try: one that works, or one whose rest is over and that is probed.
    pub(super) fn choose(&mut self, proxy: &Proxy) -> Option<InFlight> {
        let chosen = self.pick(proxy, Fallback::Resting)?;
        let Some(peer) = unconnected(proxy, &chosen) else {
            return Some(chosen);
        };
        self.tried.push(chosen.endpoint().addr);
        let other = self.pick(proxy, Fallback::Nobody);
        self.tried.pop();
        let Some(other) = other else {
            return Some(chosen);
        };
        self.connect_beside(proxy, peer, chosen);
        Some(other)
    }

    /// Where there is a connection then, the next call is the probe.
    fn connect_beside(&self, proxy: &Proxy, peer: Arc<Peer>, mut probe: InFlight) {
        let route = self.route;
        let Some(set) = route.choice.set().map(Arc::clone) else {
            return;
        };
        let policy = route.policy.as_deref();
        let ejection = *call_policy::resting(policy, route.choice.rests());
        let (telemetry, parties) = (Arc::clone(&proxy.telemetry), route.parties());
        #[expect(
            clippy::disallowed_methods,
            reason = "one for each endpoint, for a second"
        )]
        tokio::spawn(async move {
            let Err(failure) = peer.connect().await else {
                return;
            };
            let (latency, seen) = verdict::seen_in_failure(&failure, false);
            if let Some(cause) = set.record(&mut probe, latency, seen, &ejection) {
                ejected(&telemetry, &parties, cause);
            }
        });
    }
}

/// The peer of a probe's endpoint, where nobody is connected to it.
fn unconnected(proxy: &Proxy, chosen: &InFlight) -> Option<Arc<Peer>> {
    let endpoint = chosen.endpoint();
    let identity = endpoint.identity.as_ref().filter(|_| chosen.probes())?;
    let peer = proxy.peers.mesh(endpoint.addr.ip(), identity);
    (!peer.is_connected()).then_some(peer)
}
