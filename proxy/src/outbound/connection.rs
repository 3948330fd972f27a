//! One connection of the application, and the address that it called.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{StatusCode, Version};

use crate::config::snapshot::Destination;
use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;
use crate::telemetry::labels::{ConnectionLabels, Direction, Security};

/// One connection of the application.
pub(crate) struct Connection {
    pub(super) proxy: Arc<Proxy>,
    /// The address that the application called.
    pub(super) addr: SocketAddr,
    pub(super) destination: Arc<Destination>,
}

impl Connection {
    pub(super) fn count(&self, http1: &'static str, http2: &'static str, version: Version) {
        let protocol = if version == Version::HTTP_2 {
            http2
        } else {
            http1
        };
        let labels = ConnectionLabels {
            direction: Direction::outbound,
            protocol,
            security: Security::plaintext,
        };
        self.proxy.telemetry.metrics.connections.at(&labels).inc();
    }

    pub(super) fn failed_tcp(&self, failure: &Failure) {
        tracing::debug!(addr = %self.addr, %failure, "could not serve a connection");
        let (service, port) = self.proxy.state.inspect(|now| self.called(now));
        Call::tcp(
            &self.proxy.telemetry,
            Direction::outbound,
            service,
            port,
            Arc::default(),
            Arc::default(),
            Security::plaintext,
        )
        .refused(failure);
    }

    /// Counts a request that was refused before it was read.
    pub(super) fn turned_away(&self, status: StatusCode) {
        let (service, port) = self.proxy.state.inspect(|now| self.called(now));
        Call::unread(&self.proxy.telemetry, Direction::outbound)
            .to(service, port, Arc::default())
            .turned_away(status);
    }
}

impl Connection {
    /// The Service port that was called, as far as it is known.
    pub(super) fn called(&self, snapshot: &Snapshot) -> (Arc<str>, u16) {
        if let Destination::Service(name) = &*self.destination
            && let Some(service) = snapshot.services.get(name)
        {
            return (Arc::clone(&service.label), service.port);
        }
        (Arc::default(), self.addr.port())
    }
}
