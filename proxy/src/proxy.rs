//! What one workload has.
//!
//! Imports what it holds: `config`, `drain`, `http`, `mesh`, `net`, `settings` and
//! `telemetry`.

use std::sync::Arc;

use crate::config::store::Store;
use crate::drain::Drain;
use crate::http::client::Clients;
use crate::mesh::peers::Peers;
use crate::mesh::tls::MeshTls;
use crate::net::budget::Budget;
use crate::settings::Settings;
use crate::telemetry::Telemetry;
use crate::telemetry::labels::{ConnectionLabels, Direction, Security};

/// Everything that a connection needs.
#[derive(Debug)]
pub struct Proxy {
    pub settings: Arc<Settings>,
    pub config: Arc<Store>,
    pub telemetry: Arc<Telemetry>,
    pub peers: Peers,
    pub clients: Clients,
    /// Bytes that connections may hold.
    pub budget: Arc<Budget>,
    pub tls: MeshTls,
    pub drain: Drain,
}

impl Proxy {
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
