//! `Proxy`: the state of one workload's proxy. What workloads of a process share is in `process`;
//! of that a proxy knows only the memory budget, in which its connections count.
//!
//! Imports what it holds: `config`, `drain`, `http`, `mesh`, `net`, `originate`, `settings` and
//! `telemetry`.

use std::sync::Arc;

use identity::Roots;
use identity::tls::CertHandle;

use crate::config::store::Store;
use crate::drain::Drain;
use crate::http::client::{Clients, Servers};
use crate::http::context::Contexts;
use crate::http::shadow::{Copies, ShadowTracker};
use crate::mesh::load::Loads;
use crate::mesh::peer::Peers;
use crate::mesh::tls::MeshTls;
use crate::net::abandon_limiter::AbandonLimiter;
use crate::net::budget::Budget;
use crate::net::connect::Connector;
use crate::originate::Originators;
use crate::settings::Own;
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{ConnectionLabels, Direction, Security};

/// Everything that a connection of one workload needs.
#[derive(Debug)]
pub struct Proxy {
    pub own: Own,
    pub config: Arc<Store>,
    pub peers: Peers,
    pub(crate) connector: Arc<Connector>,
    pub(crate) abandon_limiter: AbandonLimiter,
    /// To the application beside it.
    pub clients: Clients,
    /// To servers without a proxy.
    pub unmeshed: Clients,
    /// To servers outside the mesh, in TLS of this proxy.
    pub(crate) originators: Originators,
    pub(crate) copies: Copies,
    pub(crate) shadow_tracker: ShadowTracker,
    pub(crate) loads: Loads,
    pub(crate) contexts: Arc<Contexts>,
    pub telemetry: Arc<Telemetry>,
    pub drain: Drain,
}

impl Proxy {
    /// A workload with the identity of `certs` that trusts `roots`, both of which may be replaced
    /// at any time. What its connections hold counts in `budget`.
    #[must_use]
    pub fn new(
        own: Own,
        telemetry: Telemetry,
        certs: CertHandle,
        roots: Roots,
        budget: &Arc<Budget>,
    ) -> Self {
        let tls = MeshTls::new(certs.clone(), roots.clone()).counted({
            let metrics = telemetry.metrics.clone();
            move |reason| metrics.tls_failed(Direction::outbound, reason)
        });
        let full = {
            let metrics = telemetry.metrics.clone();
            move || metrics.limit("pooled-addresses")
        };
        let abandon_limiter = AbandonLimiter::new({
            let metrics = telemetry.metrics.clone();
            move || metrics.limit("given-up-connections")
        });
        let telemetry = Arc::new(if own.is_gateway() {
            telemetry.of_gateway()
        } else {
            telemetry
        });
        let connector = Arc::<Connector>::default();
        let clients = |servers| {
            let clients = Clients::new(servers, Arc::clone(budget), Arc::clone(&connector));
            clients.counted(full.clone())
        };
        let store = Store::new(Arc::clone(&telemetry)).of_pod(certs, roots);
        let originators = Originators::new(Arc::clone(budget), Arc::clone(&connector));
        let (store, originators) = if own.is_gateway() {
            (store.of_gateway(), originators.of_gateway())
        } else {
            (store, originators)
        };
        Self {
            own,
            config: Arc::new(store),
            peers: Peers::new(tls, Arc::clone(budget)),
            clients: clients(Servers::OwnPod),
            unmeshed: clients(Servers::Elsewhere),
            originators,
            copies: Copies::default(),
            shadow_tracker: ShadowTracker::default(),
            loads: Loads::default(),
            contexts: Arc::default(),
            connector,
            abandon_limiter,
            telemetry,
            drain: Drain::default(),
        }
    }

    /// The bytes that all connections of the process may hold.
    #[must_use]
    pub const fn budget(&self) -> &Arc<Budget> {
        self.clients.budget()
    }

    /// The workload goes: its callers' connections are closed gracefully, and the controller gets
    /// at once what is counted from now on.
    pub fn leave(&self) {
        self.drain.begin();
        self.telemetry.reports.leave();
    }

    /// Ends at once what is open with peers whose certificate is revoked for good; everything, where
    /// the own one is. Requests begin on no connection of the others whose certificate is revoked.
    pub fn end_revoked(&self) {
        let config = &self.config;
        if config.own_ends() {
            self.peers.break_off(|_| true);
        } else {
            self.peers.break_off(|peer| config.ends(peer));
            self.peers.retire_unless(|peer| !config.refuses(peer));
        }
    }

    /// Ends what peers still have open whose certificate is only older than it may be.
    pub(crate) fn end_outdated(&self) {
        self.peers.break_off(|peer| self.config.refuses(peer));
    }

    pub(crate) fn count_connection(
        &self,
        direction: Direction,
        protocol: &'static str,
        security: Security,
    ) {
        self.telemetry
            .metrics
            .connections
            .at(&ConnectionLabels {
                direction,
                protocol,
                security,
            })
            .inc();
    }
}
