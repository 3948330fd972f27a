//! Opens a byte stream to an endpoint: a tunnel through its proxy, or a plain connection where the
//! endpoint is not meshed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::uri::Authority;
use policy::name::SpiffeId;
use policy::reason::Reason;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::endpoints::endpoint::{Endpoint, InFlight};
use crate::failure::Failure;
use crate::http::byte_stream::ByteStream;
use crate::http::client::multiplexed::StreamPermit;
use crate::http::refusal::reason_in;
use crate::mesh::protocol::PeerRequest;
use crate::net::abandon_limiter::SOON;
use crate::net::budget::Budget;
use crate::net::chunk::{ChunkIo, ReadSize};
use crate::net::connect::reset;
use crate::net::idle::relay_moving;
use crate::net::prefixed::Prefixed;
use crate::net::relay;
use crate::outbound::route::Handing;
use crate::outbound::send::app_port;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;

/// Either kind of stream.
#[derive(Debug)]
pub(super) enum Io {
    Plain(TcpStream),
    Mesh(ByteStream),
}

/// What leads to an endpoint.
#[derive(Debug)]
pub(super) struct TunnelPath {
    io: Io,
    permit: Option<Box<StreamPermit>>,
}

/// An open way to an endpoint.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) io: Prefixed<Io>,
    _permit: Option<Box<StreamPermit>>,
    /// How long nothing may move.
    idle: Option<Duration>,
    /// Service and port that serve it in place of those that were called.
    pub(super) led_to: Option<(Arc<str>, u16)>,
    /// The resource of its endpoint, where that is of a host outside the mesh.
    pub(super) standing: Option<Arc<str>>,
    /// And that host is called by way of a Gateway.
    pub(super) handed: bool,
    /// What it counts as at its endpoint, while it is open.
    pub(super) in_flight: InFlight,
}

impl TunnelPath {
    /// As one of the connections to the endpoint.
    pub(super) fn counted(self, in_flight: InFlight, idle: Option<Duration>) -> Tunnel {
        Tunnel {
            io: Prefixed::new(self.io),
            _permit: self.permit,
            idle,
            led_to: None,
            standing: None,
            handed: false,
            in_flight,
        }
    }
}

/// Opens a connection to the application of an endpoint without a proxy.
///
/// # Errors
/// When it cannot be reached or refuses.
pub(super) async fn open_plain(
    addr: SocketAddr,
    connecting: impl Future<Output = io::Result<TcpStream>>,
) -> Result<TunnelPath, Failure> {
    let stream = connecting
        .await
        .map_err(|error| Failure::not_sent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    Ok(TunnelPath {
        io: Io::Plain(stream),
        permit: None,
    })
}

/// Opens a tunnel by the proxy of `endpoint`, which has this identity; `handing`: out of the mesh, by
/// a Gateway's.
///
/// # Errors
/// When the endpoint cannot be reached or refuses.
pub(super) async fn open(
    proxy: &Proxy,
    endpoint: &Endpoint,
    identity: &SpiffeId,
    handing: Option<Handing>,
) -> Result<TunnelPath, Failure> {
    let authority = Authority::try_from(endpoint.addr.to_string())
        .map_err(|error| Failure::not_sent(Reason::BadRequest, error.to_string()))?;
    let own_port = endpoint.addr.port();
    let port = app_port(handing.as_ref().map_or(own_port, |handing| handing.port))?;
    let external = handing.map(|handing| handing.over);
    let peer = proxy
        .peers
        .mesh(endpoint.addr.ip(), identity, &endpoint.pod_uid);
    let request = PeerRequest::Tcp {
        port,
        authority,
        external,
    };
    let answer = peer.open(&request).await?;
    let (head, coming) = answer.response.into_parts();
    if head.status != StatusCode::OK {
        let reason = reason_in(&head.headers).unwrap_or(Reason::ConnectFailed);
        return Err(Failure::refused(
            reason,
            format!("{} refused the connection", endpoint.addr),
        ));
    }
    let (Some(out), Some(incoming)) = (answer.out, coming.into_http2()) else {
        return Err(Failure::lost("a tunnel needs a stream of HTTP/2"));
    };
    Ok(TunnelPath {
        io: Io::Mesh(ByteStream::new(out, incoming)),
        permit: answer.permit.map(Box::new),
    })
}

impl Tunnel {
    /// Leaves an unused one, as it turned out that requests are what comes. To the proxy at its
    /// end a caller that does so at once abandons its connection, and is held to that.
    pub(super) fn leave(self) {
        let Self {
            io,
            _permit: permit,
            ..
        } = self;
        if matches!(io.inner, Io::Plain(_)) {
            return;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "one for each connection that was silent, for a moment"
        )]
        tokio::spawn(async move {
            sleep(SOON).await;
            drop((io, permit));
        });
    }

    /// Copies until both directions have ended, or that is `forbidden`, and counts it.
    pub(super) async fn relay<S: ChunkIo>(
        mut self,
        client: &mut S,
        budget: &Arc<Budget>,
        mut call: Call,
        forbidden: impl Future<Output = Failure>,
    ) {
        let cell = call.open();
        let relayed = async {
            let (io, flows) = (&mut self.io, cell.flows());
            match self.idle {
                None => relay::relay(client, io, budget, flows).await,
                Some(limit) => Box::pin(relay_moving(client, io, budget, flows, limit)).await,
            }
        };
        tokio::select! {
            biased;
            outcome = relayed => call.relayed(outcome),
            // The relay was aborted by then, and with it each side that had not received its end.
            failure = forbidden => call.reset(&failure, || {}),
        }
    }
}

impl ChunkIo for Io {
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut ReadSize,
    ) -> Poll<std::io::Result<Bytes>> {
        match self {
            Self::Plain(stream) => stream.poll_chunk(cx, room),
            Self::Mesh(stream) => stream.poll_chunk(cx),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<std::io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_send(cx, chunk),
            Self::Mesh(stream) => stream.poll_send(cx, chunk),
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_end(cx),
            Self::Mesh(stream) => stream.poll_end(cx),
        }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.poll_broken(cx),
            Self::Mesh(stream) => stream.poll_broken(cx),
        }
    }

    fn abort(&mut self) {
        match self {
            Self::Plain(stream) => reset(stream),
            Self::Mesh(stream) => stream.reset(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, out),
            Self::Mesh(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}
