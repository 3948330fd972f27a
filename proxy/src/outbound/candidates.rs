//! The endpoints that a call may still be sent to, and the presence checks of those that may be
//! gone.
//!
//! No call waits for the check of an endpoint. An endpoint is checked beside the calls, which go to
//! others meanwhile, where something was due from its proxy and nothing arrived, and where it has
//! no connection and its ejection is over.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::endpoints::endpoint::{Endpoint, InFlight};
use crate::endpoints::learned::{Draw, Fallback};
use crate::mesh::peer::Peer;
use crate::outbound::attempt_outcome;
use crate::outbound::call_policy;
use crate::outbound::route::Route;
use crate::proxy::Proxy;
use crate::telemetry::labels::LocalityLabels;

/// So many that may be gone are passed over by one call.
const PASSED_OVER: usize = 8;

/// What becomes of an endpoint that may be gone, where no other works.
#[derive(Clone, Copy)]
pub(super) enum SuspectPeer {
    /// The call itself is the check.
    Called,
    /// It is checked beside the call, which may have its response yet elsewhere.
    PassedOver,
}

/// The endpoints of a route that have not failed the call.
pub(super) struct Candidates<'a> {
    route: &'a Route,
    /// Those that have.
    tried: Vec<SocketAddr>,
    /// The call may be sent again if the next one fails it.
    may_retry: bool,
}

impl<'a> Candidates<'a> {
    pub(super) const fn new(route: &'a Route, may_retry: bool) -> Self {
        Self {
            route,
            tried: Vec::new(),
            may_retry,
        }
    }

    /// This one has failed the call.
    pub(super) fn exclude(&mut self, addr: SocketAddr) {
        self.tried.push(addr);
    }

    /// Undoes the last exclusion.
    pub(super) fn readmit(&mut self) {
        self.tried.pop();
    }

    /// The endpoint to try: one that works, or one whose ejection is over and that is probed.
    pub(super) fn choose(
        &self,
        proxy: &Proxy,
        fallback: Fallback,
        doubted: SuspectPeer,
    ) -> Option<InFlight> {
        let chosen = self.pick(proxy, fallback, &self.tried)?;
        let Some(peer) = self.to_check(proxy, &chosen) else {
            return Some(chosen);
        };
        let (mut other, mut passed_over) = self.pass_over(proxy, chosen, peer);
        if other.is_none() && matches!(doubted, SuspectPeer::Called) {
            other = Some(passed_over.remove(0).0);
        }
        for (endpoint, peer) in passed_over {
            self.check_beside(proxy, &peer, endpoint);
        }
        other
    }

    /// One that may have failed the call before, where its route returns to such.
    pub(super) fn choose_again(&self, proxy: &Proxy) -> Option<InFlight> {
        let returns = call_policy::returns_to_endpoint(self.route.policy.as_deref());
        if !returns {
            return None;
        }
        self.pick(proxy, Fallback::Ejected, &[])
    }

    /// Whether an endpoint that was chosen a while ago still works, as what it was. It may have
    /// failed the call before.
    pub(super) fn still_works(&self, proxy: &Proxy, endpoint: &Arc<Endpoint>) -> bool {
        let draw = self.draw(Fallback::NoEndpoint, &[]);
        self.route.choice.still_works(proxy, endpoint, &draw)
    }

    /// Counts how near an endpoint is that gets an attempt, where calls go by that.
    pub(super) fn count_nearness(&self, proxy: &Proxy, to: &Endpoint) {
        let route = self.route;
        let balance = call_policy::balance(route.policy.as_deref());
        if let Some(nearness) = route.choice.nearness(to, balance) {
            let labels = LocalityLabels {
                service: Arc::clone(&route.service),
                locality: nearness.as_str(),
            };
            proxy.telemetry.metrics.locality.at(&labels).inc();
        }
    }

    /// One that is none of `besides`.
    fn pick(&self, proxy: &Proxy, fallback: Fallback, besides: &[SocketAddr]) -> Option<InFlight> {
        let draw = self.draw(fallback, besides);
        self.route.choice.pick(proxy, &draw)
    }

    /// What a choice goes by of one that is none of `besides`.
    fn draw<'b>(&'b self, fallback: Fallback, besides: &'b [SocketAddr]) -> Draw<'b> {
        let policy = self.route.policy.as_deref();
        Draw {
            tried: besides,
            first: self.tried.is_empty(),
            may_retry: self.may_retry,
            ejection: call_policy::ejection_if(policy, self.route.choice.ejects()),
            balance: call_policy::balance(policy),
            fallback,
        }
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

    /// Which peer to check before a call waits for it: where it is doubted, where its connections
    /// are known to be silent, and where a probe would have to open one. A call that keeps its
    /// endpoint goes there as long as there is a connection.
    fn to_check(&self, proxy: &Proxy, chosen: &InFlight) -> Option<Arc<Peer>> {
        let endpoint = chosen.endpoint();
        let doubted = endpoint.is_suspected();
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
        let (telemetry, call_ends) = (Arc::clone(&proxy.telemetry), route.call_ends());
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
                telemetry.metrics.ejected(&call_ends, cause);
            }
        });
    }
}
