//! Mutual TLS between two proxies: the port, the protocol name, and the
//! configurations that both sides use.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use identity::Roots;
use identity::tls::{self, CertHandle, ClientAuth, MESH_ALPN, QUIET_ALPN};
use identity::verify::IdentityError;
use parking_lot::Mutex;
use policy::name::SpiffeId;

use crate::telemetry::labels::Direction;
use crate::telemetry::metrics::Metrics;

/// Client configurations kept, one per identity called.
const CONFIGS_KEPT: usize = 1024;

/// TLS for the mesh port, both directions, from one certificate and one list
/// of roots that may be replaced at any time.
#[derive(Clone, Debug)]
pub struct MeshTls {
    certs: CertHandle,
    roots: Roots,
    server: Arc<rustls::ServerConfig>,
    clients: Arc<Mutex<HashMap<SpiffeId, Arc<rustls::ClientConfig>>>>,
    metrics: Option<Arc<Metrics>>,
}

/// Why a handshake failed, for metrics.
#[must_use]
pub fn tls_failure(error: &io::Error) -> &'static str {
    IdentityError::from_io(error).map_or("handshake", |error| error.label())
}

impl MeshTls {
    #[must_use]
    pub fn new(certs: CertHandle, roots: Roots) -> Self {
        let server = tls::mesh_server_config(
            &roots,
            &certs,
            &[QUIET_ALPN, MESH_ALPN],
            ClientAuth::Required,
        );
        Self {
            certs,
            roots,
            server,
            clients: Arc::default(),
            metrics: None,
        }
    }

    /// Counts handshakes with peers that fail.
    #[must_use]
    pub fn counted(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(Arc::new(metrics));
        self
    }

    /// A handshake that this proxy began has failed.
    pub fn failed(&self, reason: &'static str) {
        if let Some(metrics) = &self.metrics {
            metrics.tls_failed(Direction::outbound, reason);
        }
    }

    #[must_use]
    pub fn server(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The same as [`Self::client`], and asks for the quiet transport. A peer that
    /// does not know it takes the other one.
    #[must_use]
    pub fn quiet_client(&self, expected: &SpiffeId) -> Arc<rustls::ClientConfig> {
        let alpn = [QUIET_ALPN, MESH_ALPN];
        tls::mesh_client_config(&self.roots, &self.certs, expected.clone(), &alpn)
    }

    /// The configuration that accepts nobody but `expected`.
    #[must_use]
    pub fn client(&self, expected: &SpiffeId) -> Arc<rustls::ClientConfig> {
        let mut clients = self.clients.lock();
        if let Some(config) = clients.get(expected) {
            return Arc::clone(config);
        }
        if clients.len() >= CONFIGS_KEPT {
            clients.clear();
        }
        let config =
            tls::mesh_client_config(&self.roots, &self.certs, expected.clone(), &[MESH_ALPN]);
        clients.insert(expected.clone(), Arc::clone(&config));
        config
    }
}
