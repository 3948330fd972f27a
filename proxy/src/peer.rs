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
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use policy::name::SpiffeId;
use policy::reason::Reason;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::body::Body;
use crate::budget::Budget;
use crate::failure::Failure;
use crate::http2::client::{self, Sender};
use crate::http2::flow::STREAMS;
use crate::http2::{PLAIN_FRAME, Profile};
use crate::mesh::{MESH_PORT, MeshTls, tls_failure};
use crate::quiet::{Lines, Opening};
use crate::switched::{Abort, Upstream};
use crate::tcp::{self, CONNECT_TIMEOUT};
use crate::wide::{Outlet, Wide};

/// TLS handshake with a peer proxy, after the TCP connection stands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests on one HTTP/2 connection before another is opened.
const STREAMS_PER_CONNECTION: usize = 100;
/// Connections per peer. With 100 streams each, a tunnel for every connection
/// that the proxy serves at all.
const CONNECTIONS_PER_PEER: usize = 100;
/// A connection without a stream is closed after this long.
const IDLE_MULTIPLEXED: Duration = Duration::from_secs(60);
/// Shorter than the keep-alive of common servers, so that ours closes first.
const IDLE_POOLED: Duration = Duration::from_secs(3);
/// Idle HTTP/1.1 connections kept per address.
const POOL_LIMIT: usize = 128;
/// Connections that may be left unused in a second though they could serve again. The
/// port of each stays taken for a minute, and there are some 28 000.
const LEAVE_PER_SECOND: u32 = 200;
/// Between two proxies.
pub const MESH: Profile = Profile {
    frame: LARGEST_PIECE as u32,
    unsent: 4 * LARGEST_PIECE,
    learn_limit: false,
    grows: true,
};

/// With applications.
pub const PLAIN: Profile = Profile {
    frame: PLAIN_FRAME,
    unsent: 256 * 1024,
    learn_limit: true,
    grows: false,
};

/// Bytes that the kernel sends as one packet, if it has them, at the least: it splits
/// at 64 KiB less headers and at whole segments, so this is for MTUs near 9000.
/// Smaller ones leave more, and so does loopback.
const PACKET: usize = 7 * 8896;
/// Bytes of a stream in one frame. Each write is sent as soon as it can be, so what a
/// write has above whole packets becomes a packet of its own, and a packet costs
/// nearly as much with one byte as with 64 KiB. Two packets hold this: one would cost
/// more, with three and four those who send and receive wait for each other longer.
pub const LARGEST_PIECE: usize = 121 * 1024;
/// Bytes of a stream that is not fast yet: one packet.
pub const SMALL_PIECE: usize = 60 * 1024;
const _: () = {
    assert!(with_heads(LARGEST_PIECE) <= 2 * PACKET, "needs a third");
    assert!(with_heads(SMALL_PIECE) <= PACKET, "needs a second");
};

/// Bytes of a piece with the heads of its frame and of its TLS records.
const fn with_heads(piece: usize) -> usize {
    let frame = piece + 9;
    frame + 22 * frame.div_ceil(16 * 1024)
}

/// Bytes that TLS takes at once: two largest frames with their heads.
pub const TLS_BUFFER: usize = 2 * (LARGEST_PIECE + 9);
/// Sum of header names and values, both protocols.
pub const HEADER_BYTES: u32 = 64 * 1024;
/// A peer that TCP alone watches is asked after this silence,
pub const PING_INTERVAL: Duration = Duration::from_secs(7);
/// and has this long to answer.
pub const PING_TIMEOUT: Duration = Duration::from_secs(3);

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
                let stream = tcp::connect(*addr, CONNECT_TIMEOUT)
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
            match secure(ip, &tls, config, tcp::tune_closely).await {
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
    let stream = tcp::connect(addr, CONNECT_TIMEOUT)
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

/// One HTTP/1.1 connection as a client.
#[derive(Debug)]
pub struct Http1 {
    pub sender: http1::SendRequest<Body>,
    /// Makes its close a reset.
    pub abort: Abort,
}

struct Idle {
    connection: Http1,
    since: Instant,
}

/// HTTP/1.1 connections to one address.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<Vec<Idle>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// A connection for one request.
#[derive(Debug)]
pub struct Pooled {
    pub connection: Http1,
    /// True when it served before: the server may have closed it just now.
    pub reused: bool,
}

impl Pool {
    fn reuse(&self) -> Option<Http1> {
        let mut idle = self.idle.lock();
        while let Some(entry) = idle.pop() {
            if entry.connection.sender.is_ready() && entry.since.elapsed() < IDLE_POOLED {
                return Some(entry.connection);
            }
        }
        None
    }

    fn put(&self, connection: Http1) {
        let mut idle = self.idle.lock();
        if idle.len() < POOL_LIMIT {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    fn sweep(&self) -> bool {
        let mut idle = self.idle.lock();
        idle.retain(|entry| {
            entry.connection.sender.is_ready() && entry.since.elapsed() < IDLE_POOLED
        });
        idle.is_empty()
    }
}

/// Opens an HTTP/1.1 connection; `upgradable` ones can be turned into bytes.
///
/// # Errors
/// When the connection cannot be made; the application has seen nothing.
pub async fn http1_connection(
    addr: SocketAddr,
    limit: Duration,
    budget: &Arc<Budget>,
) -> Result<Http1, Failure> {
    let stream = tcp::connect(addr, limit)
        .await
        .map_err(|error| Failure::unsent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    let abort = Abort::default();
    let stream = Upstream::new(stream, abort.clone(), budget.hold());
    let (sender, connection) = http1::Builder::new()
        .max_headers(HEADER_COUNT)
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::unsent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a server ended");
        }
    });
    Ok(Http1 { sender, abort })
}

/// What hyper may hold of one direction of HTTP/1.1: a largest head, and no more of a
/// body, where hyper alone would keep 400 KiB.
pub const BUFFER: usize = MESH_HEADER_BYTES + 16 * 1024;
/// Headers of one message.
pub const HEADER_COUNT: usize = 100;
/// The same between two proxies, which add some of their own.
pub const MESH_HEADER_COUNT: usize = HEADER_COUNT + 16;
/// Sum of header names and values between two proxies in HTTP/1.1.
pub const MESH_HEADER_BYTES: usize = HEADER_BYTES as usize + 16 * 1024;

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
    /// Connections that were left in the second that began then.
    left: Mutex<Option<(Instant, u32)>>,
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
            left: Mutex::default(),
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

    /// Whether one more connection may be left that could serve again, and counts it.
    pub fn may_leave(&self) -> bool {
        let mut left = self.left.lock();
        let (begun, count) = left.get_or_insert_with(|| (Instant::now(), 0));
        if begun.elapsed() >= Duration::from_secs(1) {
            (*begun, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count <= LEAVE_PER_SECOND
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
