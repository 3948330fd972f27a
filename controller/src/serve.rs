//! The gRPC port: certificates for new proxies, streams for certified ones.
//!
//! Connections are accepted here and not by tonic, so that their number, the
//! time of a handshake and what a certificate proves are ours to decide. A
//! client certificate is optional at TLS level, because a new proxy has none;
//! each call says what it needs.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use identity::tls::{ClientAuth, H2_ALPN, mesh_server_config};
use identity::verify::peer_identity;
use identity::{CertHandle, PeerIdentity, Roots};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming, async_trait};
use tracing::{debug, info};
use wire::v1;
use wire::v1::control_server::{Control, ControlServer};
use wire::v1::replica_server::{Replica, ReplicaServer};

use crate::certify::Certifier;
use crate::metrics::ConnectionMetrics;
use crate::replica;
use crate::stream::{Streams, ToProxies};

/// From accepting to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a peer is asked whether it lives, and how long it may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
/// Calls at one time on a connection; a proxy makes one or two.
const MAX_CALLS: u32 = 16;
/// A Hello with its full share of destinations and resources has about 1 MB.
const MAX_RECEIVED: usize = 4 * 1024 * 1024;
/// Handshaken connections that wait to be served.
const ACCEPT_QUEUE: usize = 64;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, which proves nothing.
    pub addr: SocketAddr,
    /// What its certificate proves, if it showed one.
    pub identity: Option<PeerIdentity>,
}

/// What the port offers.
#[derive(Clone, Debug)]
pub struct Services {
    /// Certify.
    pub certifier: Certifier,
    /// Stream.
    pub streams: Streams,
    /// Observe.
    pub replica: replica::Answerer,
    /// Connections at one time, one per proxy; see [`crate::caps`].
    pub connections: usize,
}

/// Serves `listener` until `stop` says true; then no connection is accepted any
/// more, streams end in order, and this returns.
///
/// # Errors
/// When tonic gives up.
pub async fn serve(
    listener: TcpListener,
    roots: &Roots,
    certificate: &CertHandle,
    services: Services,
    metrics: ConnectionMetrics,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let tls = mesh_server_config(roots, certificate, &[H2_ALPN], ClientAuth::Optional);
    let (ready, accepted) = mpsc::channel(ACCEPT_QUEUE);
    let accepting = runtime::task::spawn(
        "accept",
        accept(
            listener,
            TlsAcceptor::from(tls),
            ready,
            services.connections,
            metrics,
        ),
    );
    let control = ControlServer::new(ControlService {
        certifier: services.certifier,
        streams: services.streams,
    })
    .max_decoding_message_size(MAX_RECEIVED);
    let replica = ReplicaServer::new(services.replica);
    let replica = replica.max_decoding_message_size(MAX_RECEIVED);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(MAX_CALLS)
        .add_service(control)
        .add_service(replica)
        .serve_with_incoming_shutdown(ReceiverStream::new(accepted), told(stop))
        .await;
    accepting.abort();
    served
}

/// Resolves when `stop` says true or nobody can say it any more.
pub async fn told(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    ready: mpsc::Sender<io::Result<Connection>>,
    connections: usize,
    metrics: ConnectionMetrics,
) {
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let (socket, addr) = runtime::accept::next(&listener, "proxies").await;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            metrics.turned_away.inc();
            continue;
        };
        let place = Place::new(place, &metrics);
        let (tls, ready, metrics) = (tls.clone(), ready.clone(), metrics.clone());
        runtime::task::spawn("handshake", async move {
            match handshake(tls, socket, addr, place).await {
                // Fails only while the server is ending.
                Ok(connection) => drop(ready.send(Ok(connection)).await),
                Err(error) => {
                    metrics.handshakes_failed.inc();
                    debug!(%addr, %error, "handshake failed");
                }
            }
        });
    }
}

async fn handshake(
    tls: TlsAcceptor,
    socket: TcpStream,
    addr: SocketAddr,
    place: Place,
) -> io::Result<Connection> {
    socket.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE_TIMEOUT, tls.accept(socket))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let identity = match stream.get_ref().1.peer_certificates() {
        None | Some([]) => None,
        Some(chain) => Some(peer_identity(chain).map_err(io::Error::other)?),
    };
    Ok(Connection {
        stream,
        peer: Peer { addr, identity },
        _place: place,
    })
}

/// A place among [`Services::connections`], counted while it is held.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: ConnectionMetrics,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, metrics: &ConnectionMetrics) -> Self {
        metrics.open.inc();
        Self {
            _permit: permit,
            metrics: metrics.clone(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.open.dec();
    }
}

/// A connection with what its handshake proved.
#[derive(Debug)]
struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _place: Place,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Who calls.
pub(crate) fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>();
    peer.cloned()
        .ok_or_else(|| Status::internal("the connection has no peer"))
}

struct ControlService {
    certifier: Certifier,
    streams: Streams,
}

#[async_trait]
impl Control for ControlService {
    async fn certify(
        &self,
        request: Request<v1::CertifyRequest>,
    ) -> Result<Response<v1::CertifyResponse>, Status> {
        let answer = self.certifier.certify(request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    type StreamStream = ToProxies;

    async fn stream(
        &self,
        request: Request<Streaming<v1::FromProxy>>,
    ) -> Result<Response<ToProxies>, Status> {
        let peer = peer(&request)?;
        let Some(identity) = peer.identity else {
            return Err(Status::unauthenticated(
                "a stream needs a client certificate: call Certify first",
            ));
        };
        let stream = self.streams.open(identity, request.into_inner()).await?;
        info!(addr = %peer.addr, "stream opened");
        Ok(Response::new(stream))
    }
}

#[async_trait]
impl Replica for replica::Answerer {
    type ObserveStream = replica::Report;

    async fn observe(
        &self,
        request: Request<v1::ObserveRequest>,
    ) -> Result<Response<replica::Report>, Status> {
        let peer = peer(&request)?;
        Ok(Response::new(self.report(peer.identity.as_ref())?))
    }

    type ReportsStream = replica::Told;

    async fn reports(
        &self,
        request: Request<v1::ReportsRequest>,
    ) -> Result<Response<replica::Told>, Status> {
        let peer = peer(&request)?;
        let told = Self::reports(self, peer.identity.as_ref())?;
        Ok(Response::new(told))
    }
}

#[cfg(test)]
#[path = "serve/tests.rs"]
mod tests;
