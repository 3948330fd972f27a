//! Bytes that come as the body of a peer proxy's request.

use std::sync::Arc;

use http::{Method, Response};
use policy::reason::Reason;
use runtime::occupancy::Permit;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::snapshot::Snapshot;
use crate::failure::{Failure, Next};
use crate::http::body::{self, Body};
use crate::http::byte_stream::ByteStream;
use crate::http::http2::recv::RecvBody;
use crate::http::http2::server::Accept;
use crate::inbound::authorize::{Admitted, Expected};
use crate::inbound::connection::Connection;
use crate::mesh::protocol::{RequestKind, not_sent};
use crate::net::prefixed::Prefixed;

/// What a tunnel may carry, as it is decided before anything of it is read.
enum TunnelContent {
    /// Nothing but requests passes, each of them evaluated.
    Requests,
    /// It may carry either, and is evaluated when its protocol is known.
    Either,
    /// Bytes, and these may pass.
    Bytes(Admitted),
}

impl Connection {
    /// Bytes that come as the body of a peer proxy's request, declared as opaque. Where they are
    /// HTTP, its requests count for the peer as any others.
    pub(super) async fn tunnel(
        self: Arc<Self>,
        incoming: RecvBody,
        permit: Arc<Permit>,
    ) -> Response<Body> {
        let (accept, out) = Accept::new();
        let mut response = Response::new(body::empty());
        response.extensions_mut().insert(accept);
        let content = self.tunnel_content(&self.proxy.config.snapshot());
        let admitted = match content {
            Ok(TunnelContent::Requests) => {
                #[expect(clippy::disallowed_methods, reason = "one byte stream")]
                tokio::spawn(async move {
                    let Ok(out) = out.await else { return };
                    let mut stream = Prefixed::new(ByteStream::new(out, incoming));
                    // As from outside: a silent caller may lose its permit.
                    permit.silent();
                    let spoken = self.protocol(&mut stream, &permit).await;
                    self.serve(stream, spoken, &permit, None).await;
                });
                return response;
            }
            Ok(TunnelContent::Either) => None,
            Ok(TunnelContent::Bytes(admitted)) => Some(admitted),
            // A caller without any access gets that before it sends anything.
            Err(failure) => return self.unopened(&failure),
        };
        let (server, began) = match self.connect_in_turn().await {
            Ok((server, began)) => (Prefixed::new(server), began),
            Err(failure) => return self.unopened(&failure),
        };
        #[expect(clippy::disallowed_methods, reason = "one byte stream")]
        tokio::spawn(async move {
            // What the caller sends, or that it sends no more, makes nothing of the connection:
            // it may leave right behind that.
            let beginning = self.connect_guard(began);
            let Ok(out) = out.await else { return };
            let mut stream = Prefixed::new(ByteStream::new(out, incoming));
            if let Some(admitted) = admitted {
                permit.busy();
                let begins = Some(&beginning);
                self.opaque(stream, Some(server), Ok(admitted), begins)
                    .await;
            } else {
                // The peer's declaration as opaque does not count: unless the port is declared
                // so, HTTP in a tunnel is evaluated and cleaned as HTTP.
                let begins = Some(&beginning);
                let spoken = self.race(&mut stream, server, begins).await;
                Arc::clone(&self)
                    .serve(stream, spoken, &permit, begins)
                    .await;
            }
            // Requests go by connections of their own, whose answers make up for nothing here.
            if self.has_answered() {
                beginning.ended();
            }
        });
        response
    }

    /// Opens a connection to the application when the caller may, and returns when that began.
    async fn connect_in_turn(&self) -> Result<(TcpStream, Option<Instant>), Failure> {
        let beginning = self.beginning();
        let turn = beginning.begins_in_turn().await;
        turn.map_err(|full| Failure::not_sent(Reason::Overload, full.to_string()))?;
        let connected = self.connect().await;
        let began = beginning.handed_on();
        match connected {
            Ok(server) => Ok((server, began)),
            Err(error) => Err(Failure::not_sent(Reason::ConnectFailed, error.to_string())),
        }
    }

    /// What may be sent in a tunnel; and where that is known to be bytes, whether they may pass.
    /// By one snapshot, and those are not evaluated again.
    ///
    /// # Errors
    /// When nothing may pass.
    fn tunnel_content(&self, snapshot: &Snapshot) -> Result<TunnelContent, Failure> {
        match self.expected(snapshot) {
            Expected::Http { declared, .. } if declared || self.judges_requests(snapshot) => {
                Ok(TunnelContent::Requests)
            }
            Expected::Either => Ok(TunnelContent::Either),
            Expected::Bytes | Expected::Http { .. } => {
                // Nothing of them has come yet.
                let admitted = self.admit_bytes(snapshot, false);
                admitted.map(TunnelContent::Bytes)
            }
        }
    }

    /// The answer to a peer whose tunnel is not opened.
    fn unopened(&self, failure: &Failure) -> Response<Body> {
        let call = self.call_of_bytes();
        let response = call.refuse(failure, &Method::POST, false);
        match failure.next() {
            Next::Stop => response,
            Next::SameEndpoint | Next::OtherEndpoint => {
                not_sent(failure, response, RequestKind::Tcp)
            }
        }
    }
}
