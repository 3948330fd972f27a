//! Opaque bytes to an endpoint.

use std::sync::Arc;

use http::Version;
use tokio::net::TcpStream;

use crate::failure::Failure;
use crate::net::connect;
use crate::net::prefixed::Prefixed;
use crate::outbound::attempts::Attempts;
use crate::outbound::connection::Connection;
use crate::outbound::tunnel::{self, Tunnel};
use crate::telemetry::call::{Call, Kind};
use crate::telemetry::labels::Security;

impl Connection {
    /// Opens a byte stream to an endpoint, trying others while none was reached.
    pub(super) async fn open(&self) -> Result<Tunnel, Failure> {
        let route = self.route(&self.proxy.config.snapshot(), None)?;
        let mut attempts = Attempts::new(&route);
        while let Some(endpoint) = attempts.next(&self.proxy.own.name) {
            let mut call = Call::begin(&self.proxy.telemetry, Kind::Bytes, route.parties());
            call.attempt(Arc::clone(&endpoint.pod), Security::of(endpoint.meshed()));
            match tunnel::open(&self.proxy, &endpoint, call).await {
                Ok(tunnel) => return Ok(tunnel),
                Err(failure) => attempts.failed(endpoint, failure),
            }
        }
        Err(attempts.into_failure())
    }

    pub(super) async fn relay(&self, mut stream: Prefixed<TcpStream>, tunnel: Option<Tunnel>) {
        let tunnel = match tunnel {
            Some(tunnel) => tunnel,
            None => match self.open().await {
                Ok(tunnel) => tunnel,
                Err(failure) => {
                    return self.failed_tcp(&failure, || connect::reset(&stream.inner));
                }
            },
        };
        self.count("opaque", "opaque", Version::HTTP_11);
        tunnel.relay(&mut stream, self.proxy.budget()).await;
    }
}
