//! Connections to whoever serves: multiplexed HTTP/2 to peer proxies (over
//! mutual TLS) and to h2c applications, pooled HTTP/1.1 to everything else.
//!
//! One handshake at a time per peer: callers that come while it runs share its
//! outcome, so a dead peer costs one attempt and not one per request.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::identity::tls::{QUIET_ALPN, peer_name};
use hyper::client::conn::http1;
use parking_lot::Mutex;
use policy::name::SpiffeId;
use policy::reason::Reason;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::failure::Failure;
use crate::http::client::http1::{Http1, Pool, Pooled, http1_connection};
use crate::http::client::taskless::{Lines, Opening};
use crate::http::http2::Profile;
use crate::http::http2::client::{self, Sender};
use crate::http::http2::flow::STREAMS;
use crate::http::http2::{MESH, PLAIN};
use crate::http::limits::MESH_HEADER_COUNT;
use crate::mesh::tls::{MeshTls, tls_failure};
use crate::net::budget::Budget;
use crate::net::coalesce::{Outlet, Wide};
use crate::net::connect::{self, CONNECT_TIMEOUT};
use crate::net::tuning::TLS_BUFFER;
use crate::ports::MESH_PORT;

/// TLS handshake with a peer proxy, after the TCP connection stands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests on one HTTP/2 connection before another is opened.
const STREAMS_PER_CONNECTION: usize = 100;
/// Connections per peer. With 100 streams each, a tunnel for every connection
/// that the proxy serves at all.
const CONNECTIONS_PER_PEER: usize = 100;
/// A connection without a stream is closed after this long.
const IDLE_MULTIPLEXED: Duration = Duration::from_secs(60);
/// How one multiplexed peer is reached.
#[derive(Clone, Debug)]
pub enum Via {
    /// The mesh port of a pod whose certificate must carry this identity.
    Mesh(IpAddr, SpiffeId, MeshTls),
    /// An application that speaks HTTP/2 without TLS.
    Plain(SocketAddr),
}

struct Connection {
    sender: Sender,
    streams: Arc<AtomicUsize>,
    idle_since: Instant,
}

/// One peer, with the connections to it.
pub struct Multiplexed {
    via: Via,
    budget: Arc<Budget>,
    connections: Mutex<Vec<Connection>>,
    /// For requests while little else is said to this peer.
    pub lines: Arc<Lines>,
    /// Held while connecting; counts attempts and remembers how the last failed.
    connecting: tokio::sync::Mutex<(u64, Option<Failure>)>,
    attempts: std::sync::atomic::AtomicU64,
}

impl std::fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multiplexed")
            .field("via", &self.via)
            .finish_non_exhaustive()
    }
}

/// The right to one stream; frees its place when dropped.
#[derive(Debug)]
pub struct Stream {
    pub sender: Sender,
    _place: Place,
}

#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stream {
    /// Splits into the sender and what frees the place.
    #[must_use]
    pub fn into_parts(self) -> (Sender, Place) {
        (self.sender, self._place)
    }
}

impl Multiplexed {
    #[must_use]
    pub fn new(via: Via, budget: Arc<Budget>) -> Self {
        Self {
            via,
            budget,
            connections: Mutex::default(),
            lines: Arc::default(),
            connecting: tokio::sync::Mutex::new((0, None)),
            attempts: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// A place for one request.
    ///
    /// # Errors
    /// When no connection can be made; the application has seen nothing.
    pub async fn stream(&self) -> Result<Stream, Failure> {
        if let Some(stream) = self.free(STREAMS_PER_CONNECTION) {
            return Ok(stream);
        }
        let seen = self.attempts.load(Ordering::Acquire);
        let mut connecting = self.connecting.lock().await;
        if let Some(stream) = self.free(STREAMS_PER_CONNECTION) {
            return Ok(stream);
        }
        // Somebody tried while this caller waited: the outcome counts for both.
        if let (true, Some(failure)) = (connecting.0 > seen, &connecting.1) {
            return Err(failure.clone());
        }
        if self.connections.lock().len() >= CONNECTIONS_PER_PEER {
            return self.free(STREAMS as usize).ok_or_else(|| {
                Failure::unsent(Reason::Overload, "every stream to the peer is taken")
            });
        }
        // Boxed: its future is large, and every waiting request holds this one.
        let outcome = Box::pin(self.connect()).await;
        connecting.0 = self.attempts.fetch_add(1, Ordering::AcqRel) + 1;
        match outcome {
            Ok(sender) => {
                connecting.1 = None;
                let streams = Arc::new(AtomicUsize::new(1));
                self.connections.lock().push(Connection {
                    sender: sender.clone(),
                    streams: Arc::clone(&streams),
                    idle_since: Instant::now(),
                });
                Ok(Stream {
                    sender,
                    _place: Place(streams),
                })
            }
            Err(failure) => {
                connecting.1 = Some(failure.clone());
                Err(failure)
            }
        }
    }

    /// Sends nothing more on the connection that `place` belongs to. Streams
    /// that it carries go on.
    pub fn retire(&self, place: &Place) {
        self.connections
            .lock()
            .retain(|connection| !Arc::ptr_eq(&connection.streams, &place.0));
    }

    /// A place on the connection with the fewest streams, if one has room: for `limit`
    /// streams at most, and for no more than its server allows, since more would wait
    /// for a place, and beside tunnels that can be for ever.
    fn free(&self, limit: usize) -> Option<Stream> {
        let mut connections = self.connections.lock();
        connections.retain_mut(|connection| connection.sender.takes_requests());
        let least = connections
            .iter_mut()
            .filter(|connection| {
                let streams = connection.streams.load(Ordering::Relaxed);
                streams < limit.min(connection.sender.stream_limit())
                    && connection.sender.is_usable()
            })
            .min_by_key(|connection| connection.streams.load(Ordering::Relaxed))?;
        least.streams.fetch_add(1, Ordering::Relaxed);
        least.idle_since = Instant::now();
        Some(Stream {
            sender: least.sender.clone(),
            _place: Place(Arc::clone(&least.streams)),
        })
    }

    async fn connect(&self) -> Result<Sender, Failure> {
        match &self.via {
            Via::Plain(addr) => {
                let stream = connect::connect(*addr, CONNECT_TIMEOUT)
                    .await
                    .map_err(|error| {
                        Failure::unsent(Reason::ConnectFailed, format!("{addr}: {error}"))
                    })?;
                self.handshake(stream, PLAIN, None).await
            }
            Via::Mesh(ip, identity, tls) => {
                let (secured, outlet) = secure(*ip, tls, tls.client(identity), |_| {}).await?;
                self.handshake(secured, MESH, Some(outlet)).await
            }
        }
    }

    async fn handshake<I>(
        &self,
        io: I,
        profile: Profile,
        outlet: Option<Outlet>,
    ) -> Result<Sender, Failure>
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        client::handshake(io, profile, Arc::clone(&self.budget), outlet)
            .await
            .map_err(|error| Failure::unsent(Reason::ConnectFailed, format!("HTTP/2: {error}")))
    }

    /// Opens a quiet line, beside whatever else goes on.
    pub fn open_line(&self, opening: Opening) {
        let Via::Mesh(ip, identity, tls) = &self.via else {
            return;
        };
        let (ip, tls, config) = (*ip, tls.clone(), tls.quiet_client(identity));
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
    fn sweep(&self) -> bool {
        let quiet = self.lines.sweep(IDLE_MULTIPLEXED);
        let mut connections = self.connections.lock();
        connections.retain(|connection| {
            !connection.sender.is_closed()
                && (connection.streams.load(Ordering::Relaxed) > 0
                    || connection.idle_since.elapsed() < IDLE_MULTIPLEXED)
        });
        connections.is_empty() && quiet
    }
}

/// Mutual TLS with the mesh port of a pod.
async fn secure(
    ip: IpAddr,
    tls: &MeshTls,
    config: Arc<rustls::ClientConfig>,
    tune: fn(&TcpStream),
) -> Result<(TlsStream<Wide>, Outlet), Failure> {
    let addr = SocketAddr::new(ip, MESH_PORT);
    let stream = connect::connect(addr, CONNECT_TIMEOUT)
        .await
        .map_err(|error| Failure::unsent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    tune(&stream);
    let connector = tokio_rustls::TlsConnector::from(config);
    let (wide, outlet) = Wide::new(stream);
    let secured = timeout(
        HANDSHAKE_TIMEOUT,
        connector.connect_with(peer_name(), wide, |tls| {
            tls.set_buffer_limit(Some(TLS_BUFFER))
        }),
    )
    .await
    .map_err(|_| {
        tls.failed("timeout");
        Failure::unsent(
            Reason::TlsFailed,
            format!("{addr}: the TLS handshake took too long"),
        )
    })?
    .map_err(|error| {
        tls.failed(tls_failure(&error));
        Failure::unsent(Reason::TlsFailed, format!("{addr}: {error}"))
    })?;
    Ok((secured, outlet))
}

/// An application's address, and who calls it: a pod's uid, a name, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Served(SocketAddr, Arc<str>);

/// Every connection that the proxy opens for HTTP.
#[derive(Debug)]
pub struct Peers {
    tls: MeshTls,
    budget: Arc<Budget>,
    mesh: Mutex<HashMap<(IpAddr, SpiffeId), Arc<Multiplexed>>>,
    plain2: Mutex<HashMap<Served, Arc<Multiplexed>>>,
    plain1: Mutex<HashMap<SocketAddr, Arc<Pool>>>,
}

impl Peers {
    #[must_use]
    pub fn new(tls: MeshTls, budget: Arc<Budget>) -> Self {
        Self {
            tls,
            budget,
            mesh: Mutex::default(),
            plain2: Mutex::default(),
            plain1: Mutex::default(),
        }
    }

    pub fn mesh(&self, ip: IpAddr, identity: &SpiffeId) -> Arc<Multiplexed> {
        let mut mesh = self.mesh.lock();
        Arc::clone(mesh.entry((ip, identity.clone())).or_insert_with(|| {
            Arc::new(Multiplexed::new(
                Via::Mesh(ip, identity.clone(), self.tls.clone()),
                Arc::clone(&self.budget),
            ))
        }))
    }

    /// Connections to an application for one caller: what an application does not take
    /// from one of them must not hold up another.
    pub fn http2(&self, addr: SocketAddr, caller: &Arc<str>) -> Arc<Multiplexed> {
        let mut plain = self.plain2.lock();
        let served = Served(addr, Arc::clone(caller));
        Arc::clone(plain.entry(served).or_insert_with(|| {
            Arc::new(Multiplexed::new(Via::Plain(addr), Arc::clone(&self.budget)))
        }))
    }

    /// A pooled connection, or a new one.
    ///
    /// # Errors
    /// When none can be made; the application has seen nothing.
    pub async fn http1(
        &self,
        addr: SocketAddr,
        limit: Duration,
        fresh: bool,
    ) -> Result<Pooled, Failure> {
        if !fresh {
            let pool = self.plain1.lock().get(&addr).cloned();
            if let Some(connection) = pool.and_then(|pool| pool.reuse()) {
                return Ok(Pooled {
                    connection,
                    reused: true,
                });
            }
        }
        Ok(Pooled {
            connection: Box::pin(http1_connection(addr, limit, &self.budget)).await?,
            reused: false,
        })
    }

    /// Gives a connection back once its exchange is over.
    pub fn give_back(&self, addr: SocketAddr, mut connection: Http1) {
        let pool = Arc::clone(self.plain1.lock().entry(addr).or_default());
        tokio::spawn(async move {
            if connection.sender.ready().await.is_ok() {
                pool.put(connection);
            }
        });
    }

    /// Closes what is idle. Called every few seconds.
    pub fn sweep(&self) {
        // A peer that somebody is connecting to right now is held by them too.
        self.mesh
            .lock()
            .retain(|_, peer| !peer.sweep() || Arc::strong_count(peer) > 1);
        self.plain2
            .lock()
            .retain(|_, peer| !peer.sweep() || Arc::strong_count(peer) > 1);
        self.plain1
            .lock()
            .retain(|_, pool| !pool.sweep() || Arc::strong_count(pool) > 1);
    }
}
