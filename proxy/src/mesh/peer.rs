//! One peer proxy: sends to it, by whichever of its connections fits, and says, when that
//! fails, whether an application can have seen the request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::Request;
use http::request::Parts;
use hyper::client::conn::http1;
use identity::tls::QUIET_ALPN;
use policy::name::SpiffeId;
use policy::reason::Reason;

use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::client::exchange::{self, UpstreamResponse};
use crate::http::client::multiplexed::{IDLE_MULTIPLEXED, Multiplexed, handshake};
use crate::http::client::taskless::{Acquire, Connecting, Dedicated};
use crate::http::http2::MESH;
use crate::http::http2::client::Sender;
use crate::http::limits::MESH_HEADER_COUNT;
use crate::http::refusal::reason_in;
use crate::mesh::protocol;
use crate::mesh::tls::{MeshTls, secure};
use crate::net::budget::Budget;
use crate::net::connect;

/// One peer, with the connections to it.
#[derive(Debug)]
pub struct Peer {
    ip: IpAddr,
    /// What its certificate must carry.
    identity: SpiffeId,
    tls: MeshTls,
    shared: Multiplexed,
    /// For requests while little else is said to this peer.
    pub lines: Arc<Dedicated>,
}

impl Peer {
    pub(super) fn new(ip: IpAddr, identity: SpiffeId, tls: MeshTls, budget: Arc<Budget>) -> Self {
        let (expected, by) = (identity.clone(), tls.clone());
        let shared = Multiplexed::new(move || {
            connect_mesh(ip, expected.clone(), by.clone(), Arc::clone(&budget))
        });
        Self {
            ip,
            identity,
            tls,
            shared,
            lines: Arc::default(),
        }
    }

    /// Opens a quiet line, beside whatever else goes on.
    pub fn open_line(&self, opening: Connecting) {
        let (ip, tls) = (self.ip, self.tls.clone());
        let config = tls.quiet_client(&self.identity);
        #[expect(clippy::disallowed_methods, reason = "one connection to a peer")]
        tokio::spawn(async move {
            match secure(ip, &tls, config, connect::tune_closely).await {
                Ok((secured, _)) if secured.get_ref().1.alpn_protocol() == Some(QUIET_ALPN) => {
                    let mut builder = http1::Builder::new();
                    builder.max_headers(MESH_HEADER_COUNT);
                    opening.opened(secured, builder).await;
                }
                Ok(_) => opening.unknown(),
                Err(error) => tracing::debug!(%error, "no quiet line to a peer"),
            }
        });
    }

    /// Closes connections that nobody used for a while; true when none is left.
    pub(super) fn sweep(&self) -> bool {
        let quiet = self.lines.sweep(IDLE_MULTIPLEXED);
        self.shared.sweep() && quiet
    }
}

/// HTTP/2 over mutual TLS.
async fn connect_mesh(
    ip: IpAddr,
    identity: SpiffeId,
    tls: MeshTls,
    budget: Arc<Budget>,
) -> Result<Sender, Failure> {
    let (secured, outlet) = secure(ip, &tls, tls.client(&identity), |_| {}).await?;
    handshake(secured, MESH, budget, Some(outlet)).await
}

/// Sends to a peer proxy by a quiet line, if it has a free one and nothing else
/// waits for it. `None`: HTTP/2 is the way. `make` gives the request, which
/// carries the mesh headers already.
///
/// # Errors
/// [`Failure::NotSent`] when the peer proves it.
pub(crate) async fn send_by_line(
    peer: &Peer,
    make: impl FnOnce() -> Result<Request<Body>, Failure>,
) -> Result<Option<UpstreamResponse>, Failure> {
    let line = match peer.lines.offer() {
        Acquire::Line(line) => line,
        Acquire::Open(opening) => {
            peer.open_line(opening);
            return Ok(None);
        }
        Acquire::No => return Ok(None),
    };
    let sent = Instant::now();
    match line.send(make()?).await {
        Ok(response) => told(UpstreamResponse {
            response,
            out: None,
            place: None,
            took: sent.elapsed(),
        })
        .map(Some),
        // The line was at its end, not the peer.
        Err(Failure::ConnectionClosed { .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Sends to a peer proxy. `parts` carries the mesh headers already.
///
/// # Errors
/// [`Failure::NotSent`] when the peer proves it or nothing was sent.
pub async fn send(peer: &Peer, parts: Parts, body: Body) -> Result<UpstreamResponse, Failure> {
    told(exchange::multiplexed(&peer.shared, Request::from_parts(parts, body)).await?)
}

/// Takes the verdict of a peer proxy that it did not reach the application.
fn told(answer: UpstreamResponse) -> Result<UpstreamResponse, Failure> {
    let map = answer.response.headers();
    if map.contains_key(protocol::UNSENT) {
        let reason = reason_in(map).unwrap_or(Reason::ConnectFailed);
        return Err(Failure::not_sent(
            reason,
            "the peer proxy could not reach the application",
        ));
    }
    Ok(answer)
}

/// Opens a stream for bytes both ways to a peer proxy.
///
/// # Errors
/// As [`send`].
pub(crate) async fn open(peer: &Peer, parts: Parts) -> Result<UpstreamResponse, Failure> {
    told(exchange::open(&peer.shared, parts).await?)
}
