//! Connections of HTTP/1.1 to applications, pooled by address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use policy::reason::Reason;

use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::client::upstream::{Upstream, Watch};
use crate::http::limits::{BUFFER, HEADER_COUNT};
use crate::net::abort::Abort;
use crate::net::budget::Budget;
use crate::net::connect;

/// Shorter than the keep-alive of common servers, so that ours closes first.
const IDLE_POOLED: Duration = Duration::from_secs(3);
/// Idle HTTP/1.1 connections kept per address.
const POOL_LIMIT: usize = 128;

/// One HTTP/1.1 connection as a client.
#[derive(Debug)]
pub struct Http1 {
    pub sender: http1::SendRequest<Body>,
    /// Makes its close a reset.
    pub abort: Abort,
    pub watch: Watch,
}

struct Idle {
    connection: Http1,
    since: Instant,
}

impl Idle {
    fn is_open(&self) -> bool {
        self.connection.sender.is_ready() && !self.connection.watch.has_ended()
    }

    fn may_serve(&self, now: Instant) -> bool {
        self.is_open() && now.saturating_duration_since(self.since) < IDLE_POOLED
    }
}

/// HTTP/1.1 connections to one address, which wait for the next request that only reads.
#[derive(Default)]
pub(crate) struct Pool {
    /// Those that were used last are at the end.
    idle: Mutex<Vec<Idle>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// A connection that served before.
    pub(crate) fn reuse(&self) -> Option<Http1> {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        while let Some(entry) = idle.pop() {
            if entry.may_serve(now) {
                return Some(entry.connection);
            }
        }
        None
    }

    /// Gives back what there is no room for.
    pub(crate) fn put(&self, connection: Http1) -> Option<Http1> {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() >= POOL_LIMIT {
            idle.retain(|entry| entry.may_serve(now));
        }
        if idle.len() >= POOL_LIMIT {
            return Some(connection);
        }
        idle.push(Idle {
            connection,
            since: now,
        });
        None
    }

    /// True when it holds no connection.
    pub(crate) fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        idle.retain(|entry| entry.may_serve(now));
        idle.is_empty()
    }
}

/// Opens an HTTP/1.1 connection; `upgradable` ones can be turned into bytes.
///
/// # Errors
/// When the connection cannot be made; the application has seen nothing.
pub(crate) async fn http1_connection(
    addr: SocketAddr,
    limit: Duration,
    budget: &Arc<Budget>,
) -> Result<Http1, Failure> {
    let stream = connect::connect(addr, limit)
        .await
        .map_err(|error| Failure::not_sent(Reason::ConnectFailed, format!("{addr}: {error}")))?;
    let abort = Abort::default();
    let stream = Upstream::new(stream, abort.clone(), budget.hold());
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
        sender,
        abort,
        watch,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::{Http1, POOL_LIMIT, Pool, http1_connection};
    use crate::net::budget::Budget;

    async fn connect(listener: &TcpListener) -> (Http1, TcpStream) {
        let addr = listener.local_addr().unwrap();
        let budget = Budget::new(1 << 20);
        let connecting = http1_connection(addr, Duration::from_secs(1), &budget);
        let mut connection = connecting.await.unwrap();
        connection.sender.ready().await.unwrap();
        (connection, listener.accept().unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_whose_end_was_read_is_not_reused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = Pool::default();
        for closes in [false, true] {
            let (connection, server) = connect(&listener).await;
            let watch = connection.watch.clone();
            assert!(pool.put(connection).is_none());
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
        let pool = Pool::default();
        let mut servers = Vec::new();
        for at in 0..=POOL_LIMIT {
            let (connection, server) = connect(&listener).await;
            servers.push(server);
            assert_eq!(pool.put(connection).is_some(), at == POOL_LIMIT);
        }
        servers.clear();
        while !pool.sweep() {
            tokio::task::yield_now().await;
        }
    }
}
