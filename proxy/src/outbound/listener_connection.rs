//! `ListenerConnection`: the interface by which the crate `gateway` hands requests and bytes of
//! clients over to this proxy.

use std::sync::Arc;

use futures::FutureExt as _;
use http::{Request, Response, Version};
use policy::gateway::ListenerProtocol;
use policy::protocol::Protocol;
use tokio::net::TcpStream;

use crate::http::body::Body;
use crate::http::head::ReportedHead;
use crate::http::incoming::IncomingBody;
use crate::http::refusal::NotHandled;
use crate::net::prefixed::Prefixed;
use crate::outbound::connection::Connection;
use crate::outbound::edge::Edge;
use crate::outbound::opaque::relay;
use crate::outbound::request::handle_request;
use crate::outbound::reserved::without_detail;
use crate::proxy::Proxy;
use crate::telemetry::labels::Direction;

/// A connection of a client. Clones are of the same one.
#[derive(Clone)]
pub struct ListenerConnection(Arc<Connection>);

impl std::fmt::Debug for ListenerConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ListenerConnection")
            .field(&self.0.edge())
            .finish()
    }
}

impl ListenerConnection {
    #[must_use]
    pub fn new(proxy: Arc<Proxy>, edge: Edge) -> Self {
        // Its port is declared by the listener.
        let _ = proxy
            .telemetry
            .port_label(Direction::outbound, "", edge.addr.port(), true);
        Self(Arc::new(Connection::at_listener(proxy, edge)))
    }

    /// One request, from its head to the end of its response.
    pub fn handle(
        &self,
        request: Request<IncomingBody>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        handle_request(Arc::clone(&self.0), request).map(without_detail)
    }

    /// Relays its bytes to where the routes of its listener lead.
    pub async fn relay(&self, stream: Prefixed<TcpStream>) {
        let tls = self.0.edge().map(|edge| edge.protocol) == Some(ListenerProtocol::Tls);
        let protocol = if tls { Protocol::Tls } else { Protocol::Opaque };
        Box::pin(relay(&self.0, stream, None, protocol)).await;
    }

    /// Counts a request that was refused before it was read.
    pub fn turned_away(&self, how: NotHandled, head: ReportedHead<'_>) {
        self.0.turned_away(how, head);
    }

    /// Counts it as one of requests in this version of HTTP.
    pub fn carries(&self, version: Version) {
        self.0.count("http1", "http2", version);
    }

    /// Resets it where no request begins, to a port that carries requests.
    pub fn reset_no_request(&self, stream: &Prefixed<TcpStream>) {
        self.0.reset_no_request(stream);
    }
}
