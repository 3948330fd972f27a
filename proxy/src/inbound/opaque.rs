//! Opaque bytes from outside the pod, and the tunnels of peer proxies.

use std::sync::Arc;

use http::Response;
use hyper::body::Incoming;
use policy::protocol::Protocol;
use policy::reason::Reason;
use runtime::occupancy::Place;
use tokio::net::TcpStream;

use super::judge::guards;
use super::request::unsent;
use super::{Spoken, Visit, race};
use crate::body::Body;
use crate::detect::Prefixed;
use crate::failure::Failure;
use crate::finish::Call;
use crate::metrics::Direction;
use crate::pieces::Pieces;
use crate::stream::{self, Stream};
use crate::tcp::{self, CONNECT_TIMEOUT};
use crate::tunnel;

impl Visit {
    /// Serves opaque bytes, for as long as they are allowed.
    pub(super) async fn opaque<S>(
        &self,
        mut stream: Prefixed<S>,
        server: Option<Prefixed<TcpStream>>,
    ) where
        S: Pieces + Resettable,
    {
        let call = self.tcp_call();
        if let Err(failure) = self.admits_tcp() {
            stream.inner.reset();
            return call.refused(&failure);
        }
        let server = match server {
            Some(server) => Ok(server),
            None => tcp::connect(self.local, CONNECT_TIMEOUT)
                .await
                .map(Prefixed::new),
        };
        let mut server = match server {
            Ok(server) => server,
            Err(error) => {
                stream.inner.reset();
                return call.refused(&Failure::unsent(Reason::ConnectFailed, error.to_string()));
            }
        };
        self.proxy
            .count_connection(Direction::inbound, "opaque", self.security());
        tokio::select! {
            outcome = tcp::relay(&mut stream, &mut server) => call.relayed(outcome),
            failure = self.revoked() => {
                stream.inner.reset();
                call.refused(&failure);
            }
        }
    }

    /// Bytes that come as the body of a peer proxy's request: opaque, or so it says.
    pub(super) async fn tunnel(self: Arc<Self>, incoming: Incoming) -> Response<Body> {
        let snapshot = self.proxy.state.snapshot();
        let port = self.local.port();
        let declared = snapshot
            .workload
            .as_ref()
            .map_or(Protocol::Detect, |workload| workload.protocol(port));
        let guarded =
            guards(&snapshot, port) && declared != Protocol::Opaque && declared != Protocol::Tls;
        drop(snapshot);
        let (out, body) = stream::outgoing();
        let mut stream = Prefixed::new(Stream::new(out, incoming));
        if guarded {
            tokio::spawn(async move {
                let place = Place::unlisted();
                let spoken = self
                    .protocol(&mut stream, Protocol::Detect, true, &place)
                    .await;
                self.converse(stream, spoken, &place).await;
            });
            return Response::new(body);
        }
        if let Err(failure) = self.judge_tcp() {
            self.tcp_call().refused(&failure);
            return failure.response(false);
        }
        let server = match tcp::connect(self.local, CONNECT_TIMEOUT).await {
            Ok(server) => Prefixed::new(server),
            Err(error) => {
                let failure = Failure::unsent(Reason::ConnectFailed, error.to_string());
                return unsent(failure.response(false));
            }
        };
        // What the peer calls opaque is not taken at its word: unless the port
        // is declared so, HTTP in a tunnel is judged and cleaned as HTTP.
        let looked_at = !matches!(declared, Protocol::Opaque | Protocol::Tls);
        tokio::spawn(async move {
            let spoken = if looked_at {
                race(&mut stream, server).await
            } else {
                Ok(Spoken::Opaque(Some(server)))
            };
            self.converse(stream, spoken, &Place::unlisted()).await;
        });
        Response::new(body)
    }

    fn tcp_call(&self) -> Call {
        Call::tcp(
            &self.proxy,
            Direction::inbound,
            Arc::default(),
            self.local.port(),
            Arc::default(),
            Arc::clone(&self.label),
            self.security(),
        )
        .from_pod(self.pod.clone())
    }
}

/// Streams whose close can be made a reset.
pub(super) trait Resettable {
    fn reset(&self);
}

impl Resettable for TcpStream {
    fn reset(&self) {
        tunnel::reset(self);
    }
}

impl Resettable for Stream {
    /// Dropping a stream before its end resets it.
    fn reset(&self) {}
}
