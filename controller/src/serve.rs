//! The controller's gRPC port: issues certificates to new proxies, serves control streams to
//! certified ones.
//!
//! Connections are accepted here and not by tonic, so that their number, the time of a handshake
//! and the meaning of a certificate are decided here. A client certificate is optional at TLS
//! level, because a new proxy has none; each method checks whether it needs one.
//!
//! A client without a certificate can be any pod of the cluster. Such connections have permits of
//! their own, whose largest holder by address is evicted; they live for seconds, and may send what
//! a request for a certificate needs and no more. They never take a permit of a client with a
//! certificate.
//!
//! May import `authority`, `fleet`, `grants`, `latest_model`, `metrics`, `observe` and `shares`.

pub(crate) mod allowances;
mod announced_breakers;
mod buffers;
mod configuration;
mod framed;
mod grpc;
mod open;
mod proxy_info;
mod queries;
mod quota_shares;
mod sent_grants;
pub(crate) mod session;
pub(crate) mod stream;
mod stream_end;
mod stream_owner;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::Request as HttpRequest;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use identity::tls::{ClientAuth, H2_ALPN, mesh_server_config};
use identity::verify::peer_identity;
use identity::{CertHandle, PeerIdentity, Roots};
use runtime::limit::Reached;
use runtime::pool::{Limits, Pool, Share};
use runtime::rate::{Allowance, Rates};
use runtime::stop;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tracing::debug;
use wire::v1::control_server::{self, ControlServer};
use wire::v1::replica_server::{self, ReplicaServer};

use self::buffers::Buffers;
use self::grpc::{ControlService, Peer};
use self::stream::Streams;
use crate::authority::certify::Certifier;
use crate::metrics::ConnectionMetrics;
use crate::observe::exchange;

/// Connections that have not proven anything, of all clients, for a moment. A certificate takes
/// milliseconds, so this serves some thousand new proxies a second; each may cost 100 kB. One
/// address may be a whole node, so it may have many.
const UNPROVEN: Limits = Limits {
    total: 512,
    per_holder: 256,
};
/// From accepting to the end of such a connection: a handshake, and a certificate with
/// all that it may wait for.
const UNPROVEN_LIFE: Duration = Duration::from_secs(15);
/// Connections of one proxy: it has one, and another while it finds out that the first
/// is dead.
const PER_PROXY: usize = 4;
/// New connections of one address. A handshake costs a third of a millisecond.
const ARRIVALS: Allowance = Allowance {
    burst: 500,
    every: Duration::from_millis(10),
};
/// Addresses whose connections are counted at one time.
const MAX_SOURCES: usize = 16 * 1024;
/// From accepting to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which a peer gets a ping, and how long its answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
/// Bytes of one message on a proxy's stream. A Hello with its full share of
/// destinations and resources has about 1 MB.
const MAX_RECEIVED: usize = 4 * 1024 * 1024;
/// Bytes of any other message: a token and a request for a certificate have 24 KiB at
/// most.
const MAX_RECEIVED_UNPROVEN: usize = 32 * 1024;

/// What one connection may take before any of it is read.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Calls at one time.
    calls: u32,
    /// Bytes of one call, and of all, that wait to be read.
    windows: (u32, u32),
    /// Bytes of the headers of one call.
    headers: u32,
}

/// Of a client without a certificate, which calls Certify and goes.
const STRANGER: Bounds = Bounds {
    calls: 2,
    windows: (32 * 1024, 64 * 1024),
    headers: 8 * 1024,
};
/// Of a proxy, which has one stream and answers beside it, and of a replica, which makes three
/// calls.
const MEMBER: Bounds = Bounds {
    calls: 4,
    windows: (256 * 1024, 512 * 1024),
    headers: 16 * 1024,
};

/// What the port offers.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    /// Certify.
    pub certifier: Certifier,
    /// Stream.
    pub streams: Streams,
    /// Serves what other replicas call.
    pub replica: exchange::Answerer,
    /// Connections at one time, one per proxy; see [`crate::settings::caps`].
    pub connections: usize,
}

/// Serves `listener` until `stop` says true; then no connection is accepted any
/// more, streams end in order, and this returns.
pub(crate) async fn serve(
    listener: TcpListener,
    roots: &Roots,
    certificate: &CertHandle,
    services: Services,
    metrics: ConnectionMetrics,
    stop: watch::Receiver<bool>,
) {
    let limits = services.streams.limits.clone();
    let tls = mesh_server_config(roots, certificate, &[H2_ALPN], ClientAuth::Optional);
    let (open, mut ended) = mpsc::channel(1);
    let port = Arc::new(Port {
        tls: TlsAcceptor::from(tls),
        proven: Pool::new(
            Limits {
                total: services.connections,
                per_holder: PER_PROXY,
            },
            limits.counter("proven-connections"),
        ),
        buffers: Buffers::new(services.connections, MAX_RECEIVED, &limits),
        router: Router::new(services),
        unproven: Pool::new(UNPROVEN, limits.counter("unproven-connections")),
        metrics,
        stop,
        _open: open,
    });
    port.accept(listener, &limits).await;
    // Nothing is sent: it ends when the last connection has dropped its end.
    let _: Option<Infallible> = ended.recv().await;
}

/// What every connection needs, once for all of them.
struct Port {
    tls: TlsAcceptor,
    router: Router,
    unproven: Pool<IpAddr>,
    /// By pod.
    proven: Pool<Arc<str>>,
    /// What proven ones' messages take.
    buffers: Buffers,
    metrics: ConnectionMetrics,
    stop: watch::Receiver<bool>,
    _open: mpsc::Sender<Infallible>,
}

impl Port {
    async fn accept(self: Arc<Self>, listener: TcpListener, limits: &Reached) {
        let arrivals: Rates<IpAddr> = Rates::new(ARRIVALS, MAX_SOURCES);
        let too_often = limits.counter("connection-rate");
        let no_file = limits.counter("open-files");
        let ran_out = || {
            no_file.inc();
        };
        let mut stop = pin!(stop::requested(self.stop.clone()));
        loop {
            let (socket, addr) = tokio::select! {
                accepted = runtime::listen::next(&listener, "proxies", &ran_out) => accepted,
                () = &mut stop => return,
            };
            let source = addr.ip().to_canonical();
            if arrivals.take(&source, Instant::now()).is_err() {
                too_often.inc();
                self.metrics.turned_away.inc();
                continue;
            }
            let Ok(permit) = self.unproven.take(source, 1) else {
                self.metrics.turned_away.inc();
                continue;
            };
            let port = Arc::clone(&self);
            runtime::task::spawn("connection", port.attend(socket, addr, permit));
        }
    }

    /// One connection, from its handshake to its end. There are as many of these as
    /// proxies, so what it holds is bounded by a test.
    async fn attend(self: Arc<Self>, socket: TcpStream, addr: SocketAddr, permit: Share<IpAddr>) {
        let _open = Open::new(&self.metrics);
        let until = Instant::now() + UNPROVEN_LIFE;
        let shaken = tokio::select! {
            // Boxed, for it holds much and is over in milliseconds.
            shaken = Box::pin(handshake(&self.tls, socket)) => shaken,
            () = permit.taken() => return self.turned_away(addr),
            () = stop::requested(self.stop.clone()) => return,
        };
        let (stream, identity) = match shaken {
            Ok(shaken) => shaken,
            Err(error) => {
                self.metrics.handshakes_failed.inc();
                return debug!(%addr, %error, "handshake failed");
            }
        };
        let Some(identity) = identity else {
            let permit = Arc::new(permit);
            let peer = Peer {
                addr,
                identity: None,
                permit: Some(Arc::clone(&permit)),
            };
            tokio::select! {
                () = self.serve_connection(stream, peer, STRANGER) => {}
                () = permit.taken() => self.turned_away(addr),
                () = sleep_until(until) => debug!(%addr, "connection without a certificate ended"),
            }
            return;
        };
        let Ok(proven) = self.proven.take(holder(&identity, addr.ip()), 1) else {
            return self.turned_away(addr);
        };
        drop(permit);
        let peer = Peer {
            addr,
            identity: Some(identity),
            permit: None,
        };
        tokio::select! {
            () = self.serve_connection(stream, peer, MEMBER) => {}
            () = proven.taken() => self.turned_away(addr),
        }
    }

    /// Answers the calls of one connection.
    async fn serve_connection(
        &self,
        stream: Box<TlsStream<TcpStream>>,
        peer: Peer,
        bounds: Bounds,
    ) {
        let (router, addr) = (self.router.clone(), peer.addr);
        let buffers = self.buffers.clone();
        let proven = peer.identity.as_ref();
        let pod = proven.map(|identity| holder(identity, addr.ip()));
        let service = service_fn(move |mut request: HttpRequest<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let request = request.map(|body| match &pod {
                Some(pod) => Body::new(buffers.count(body, Arc::clone(pod))),
                // It lives for seconds, and what it may send is little.
                None => Body::new(body),
            });
            router.call(&peer, request)
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .max_concurrent_streams(bounds.calls)
            .initial_stream_window_size(bounds.windows.0)
            .initial_connection_window_size(bounds.windows.1)
            .max_header_list_size(bounds.headers)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop::requested(self.stop.clone()) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%addr, %error, "connection ended");
        }
    }

    fn turned_away(&self, addr: SocketAddr) {
        self.metrics.turned_away.inc();
        debug!(%addr, "connection closed: there are too many");
    }
}

/// Whose connection it is: a pod's, or a replica's, which is known by its address.
fn holder(identity: &PeerIdentity, ip: IpAddr) -> Arc<str> {
    match identity.pod_uid() {
        Some(uid) => uid.into(),
        None => format!("{} at {}", identity.spiffe.as_str(), ip.to_canonical()).into(),
    }
}

async fn handshake(
    tls: &TlsAcceptor,
    socket: TcpStream,
) -> io::Result<(Box<TlsStream<TcpStream>>, Option<PeerIdentity>)> {
    socket.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE_TIMEOUT, tls.accept(socket))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let identity = match stream.get_ref().1.peer_certificates() {
        None | Some([]) => None,
        Some(chain) => Some(peer_identity(chain).map_err(io::Error::other)?),
    };
    // It goes through several hands, each of which would keep room for it.
    Ok((Box::new(stream), identity))
}

/// Counts a connection as open for as long as it lives.
struct Open(ConnectionMetrics);

impl Open {
    fn new(metrics: &ConnectionMetrics) -> Self {
        metrics.open.inc();
        Self(metrics.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.dec();
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// The calls, each with the bytes that it may send.
#[derive(Clone)]
struct Router {
    /// Every call of a client without a certificate, and all but Stream of every client.
    small: ControlServer<ControlService>,
    /// For a proxy's stream.
    control: Arc<ControlService>,
    replica: ReplicaServer<exchange::Answerer>,
}

impl Router {
    fn new(services: Services) -> Self {
        let control = Arc::new(ControlService {
            certifier: services.certifier,
            streams: services.streams,
        });
        let small = ControlServer::from_arc(Arc::clone(&control));
        let replica = ReplicaServer::new(services.replica);
        Self {
            small: small.max_decoding_message_size(MAX_RECEIVED_UNPROVEN),
            control,
            replica: replica.max_decoding_message_size(MAX_RECEIVED_UNPROVEN),
        }
    }

    fn call(&self, peer: &Peer, request: HttpRequest<Body>) -> Answering {
        let path = request.uri().path();
        let mut parts = path.trim_start_matches('/').split('/');
        match (parts.next(), parts.next()) {
            (Some(control_server::SERVICE_NAME), Some("Stream")) if peer.identity.is_some() => {
                let control = Arc::clone(&self.control);
                Box::pin(async move { Ok(framed::call(&*control, request, MAX_RECEIVED).await) })
            }
            (Some(control_server::SERVICE_NAME), _) => self.small.clone().call(request),
            (Some(replica_server::SERVICE_NAME), _) => self.replica.clone().call(request),
            _ => {
                let unknown = Status::unimplemented("no such service");
                Box::pin(std::future::ready(Ok(unknown.into_http())))
            }
        }
    }
}

#[cfg(test)]
mod future_sizes;
#[cfg(test)]
mod tests;
