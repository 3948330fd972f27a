//! The pool of HTTP/1.1 connections to one application.
//!
//! Claims: calls-11

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use policy::reason::Reason;
use runtime::rate::{Allowance, Rate};
use tokio::time::{Instant, sleep};
use weft_proxy_net::abort::Abort;
use weft_proxy_net::budget::Budget;
use weft_proxy_net::connect::{ConnectTimeout, Connector};

use crate::body::Body;
use crate::client::server_stream::{OriginTls, ServerStream};
use crate::client::upstream::{Upstream, UpstreamWatch, WINDOW, Window};
use crate::failure::Failure;
use crate::head::{BUFFER, HEADER_COUNT};

/// Idle HTTP/1.1 connections kept per address.
const POOL_LIMIT: usize = 128;

/// One HTTP/1.1 connection as a client.
#[derive(Debug)]
pub struct Http1 {
    /// What was open before this moment is not behind it at its server.
    opened: Instant,
    pub sender: http1::SendRequest<Body>,
    /// Makes its close a reset.
    pub abort: Abort,
    pub watch: UpstreamWatch,
}

impl Http1 {
    /// Its own first answer has come, which was waited for since `opened`: whatever that took,
    /// it need not close for itself.
    pub(crate) fn answered_first(&mut self, opened: Instant) {
        self.opened = opened;
    }
}

struct Idle {
    connection: Http1,
    since: Instant,
}

impl Idle {
    fn is_open(&self) -> bool {
        self.connection.sender.is_ready() && !self.connection.watch.has_ended()
    }

    fn may_serve(&self, limit: Duration) -> bool {
        self.is_open() && self.since.elapsed() < limit
    }
}

/// HTTP/1.1 connections to one address, which wait for the next request that only reads.
///
/// A server that has one thread, or as many processes as there are connections here, serves
/// no other one before one of these ends. So idle ones are closed for those.
pub struct Pool {
    state: Mutex<State>,
    leaving: GracefulCloses,
    /// For how long one waits for a request.
    idle: Duration,
}

#[derive(Default)]
struct State {
    /// Those that were used last are at the end.
    idle: Vec<Idle>,
    /// What was there before is not kept.
    renewed: Option<Instant>,
    /// A sweep closes what has waited for too long.
    expires: bool,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    pub fn new(leaving: GracefulCloses, idle: Duration) -> Self {
        Self {
            state: Mutex::default(),
            leaving,
            idle,
        }
    }

    /// A connection that served before.
    pub fn reuse(&self) -> Option<Http1> {
        let mut state = self.state.lock();
        while let Some(entry) = state.idle.pop() {
            if entry.may_serve(self.idle) {
                return Some(entry.connection);
            }
            self.leaving.close(&entry.connection.abort);
        }
        None
    }

    /// Keeps it for the next request, where there is room and it need not close.
    pub fn put(&self, connection: Http1) {
        let mut state = self.state.lock();
        if state.idle.len() >= POOL_LIMIT {
            self.close_expired(&mut state);
        }
        let gives_way = state.renewed.is_some_and(|then| connection.opened < then);
        if gives_way || state.idle.len() >= POOL_LIMIT {
            self.leaving.close(&connection.abort);
        } else {
            let since = Instant::now();
            state.idle.push(Idle { connection, since });
        }
    }

    fn close_expired(&self, state: &mut State) {
        for entry in state
            .idle
            .extract_if(.., |entry| !entry.may_serve(self.idle))
        {
            self.leaving.close(&entry.connection.abort);
        }
    }

    /// Closes those that were there before `opened`, and those of them that are in use once
    /// they are free: the server is silent on a connection of that moment, and takes them in
    /// the order in which they came.
    pub fn renew(&self, opened: Instant) {
        let mut state = self.state.lock();
        if state.renewed.is_none_or(|then| then < opened) {
            state.renewed = Some(opened);
        }
        let before = |entry: &mut Idle| entry.connection.opened < opened;
        for entry in state.idle.extract_if(.., before) {
            self.leaving.close(&entry.connection.abort);
        }
    }

    /// Closes connections that were not used in time, until none is left. Returns at once where
    /// another task does so already.
    pub(crate) async fn expire(&self) {
        if std::mem::replace(&mut self.state.lock().expires, true) {
            return;
        }
        loop {
            sleep(self.idle / 2).await;
            let mut state = self.state.lock();
            self.close_expired(&mut state);
            if state.idle.is_empty() {
                state.expires = false;
                return;
            }
        }
    }

    /// True when it holds no connection.
    pub fn is_empty(&self) -> bool {
        self.state.lock().idle.is_empty()
    }
}

/// Opens an HTTP/1.1 connection, with TLS where there is `tls`; `upgradable` ones can be turned into
/// bytes.
///
/// # Errors
/// When the connection cannot be made; the application has seen nothing.
pub(crate) async fn http1_connection(
    (connector, tls): (&Connector, Option<&OriginTls>),
    addr: SocketAddr,
    limit: ConnectTimeout,
    budget: &Arc<Budget>,
    window: Option<Window>,
) -> Result<Http1, Failure> {
    let opened = Instant::now();
    let stream = match window {
        Some(_) => connector.connect_buffered(addr, limit, WINDOW).await,
        None => connector.connect(addr, limit).await,
    };
    let stream = stream
        .map_err(|error| Failure::not_sent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    let stream = ServerStream::begin(stream, tls, Version::HTTP_11).await?;
    let abort = Abort::default();
    let stream = Upstream::new(stream, abort.clone(), budget.enter(), window);
    let watch = stream.watch();
    let (sender, connection) = http1::Builder::new()
        .max_headers(HEADER_COUNT)
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::not_sent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "one connection to an application"
    )]
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a server ended");
        }
    });
    Ok(Http1 {
        opened,
        sender,
        abort,
        watch,
    })
}

/// The port of each stays taken for a minute, and there are some 28 000: even a burst of two
/// kinds and what follows it within that minute take fewer.
const MAY_LEAVE: Allowance = Allowance {
    burst: 200,
    every: Duration::from_millis(5),
};

/// Connections of one kind that may be closed as usual, and not by a reset.
#[derive(Clone, Debug)]
pub struct GracefulCloses(Arc<Mutex<Rate>>);

impl Default for GracefulCloses {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Rate::new(MAY_LEAVE))))
    }
}

impl GracefulCloses {
    /// A connection is about to be closed, which `abort` makes a reset.
    pub fn close(&self, abort: &Abort) {
        if self.0.lock().take(Instant::now()).is_err() {
            // A reset leaves no port taken.
            abort.set();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use weft_proxy_net::budget::Budget;
    use weft_proxy_net::connect::{ConnectTimeout, Connector};

    use super::{GracefulCloses, Http1, Instant, POOL_LIMIT, Pool, http1_connection};

    const IDLE: Duration = Duration::from_millis(500);

    fn pool() -> Pool {
        Pool::new(GracefulCloses::default(), IDLE)
    }

    async fn connect(listener: &TcpListener) -> (Http1, TcpStream) {
        let addr = listener.local_addr().unwrap();
        let (connector, budget) = (Connector::default(), Budget::new(1 << 20));
        let limit = ConnectTimeout::Replaceable;
        let connecting = http1_connection((&connector, None), addr, limit, &budget, None);
        let mut connection = connecting.await.unwrap();
        connection.sender.ready().await.unwrap();
        (connection, listener.accept().unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_whose_end_was_read_is_not_reused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = pool();
        for closes in [false, true] {
            let (connection, server) = connect(&listener).await;
            let watch = connection.watch.clone();
            pool.put(connection);
            if closes {
                drop(server);
                while !watch.has_ended() {
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(pool.reuse().is_some(), !closes);
        }
    }

    /// Each is 20 KiB here, and a thread or a process of the application in some servers.
    #[tokio::test]
    async fn no_more_than_so_many_connections_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = pool();
        let mut servers = Vec::new();
        for at in 0..=POOL_LIMIT {
            let (connection, server) = connect(&listener).await;
            servers.push(server);
            pool.put(connection);
            assert_eq!(pool.state.lock().idle.len(), POOL_LIMIT.min(at + 1));
        }
        servers.clear();
        pool.expire().await;
        assert!(pool.is_empty());
    }

    #[tokio::test]
    async fn connections_open_during_server_silence_are_not_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = pool();
        let (idle, _idle) = connect(&listener).await;
        let (used, _used) = connect(&listener).await;
        let silent = Instant::now();
        let (behind, _behind) = connect(&listener).await;
        pool.put(idle);
        pool.renew(silent);
        assert!(pool.is_empty());
        pool.put(used);
        assert!(pool.is_empty());
        // Later ones are behind the waiters, and not before.
        pool.put(behind);
        pool.renew(silent);
        assert!(!pool.is_empty());
    }

    #[tokio::test]
    async fn what_waits_is_closed_before_a_probe_loses_patience() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = pool();
        let (connection, mut server) = connect(&listener).await;
        pool.put(connection);
        let start = std::time::Instant::now();
        pool.expire().await;
        assert!(start.elapsed() < Duration::from_millis(900));
        server
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let read = tokio::task::spawn_blocking(move || server.read(&mut [0])).await;
        assert_eq!(read.unwrap().unwrap(), 0);
    }
}
