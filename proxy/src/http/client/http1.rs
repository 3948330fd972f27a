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
use crate::http::client::upstream::Upstream;
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
}

struct Idle {
    connection: Http1,
    since: Instant,
}

/// HTTP/1.1 connections to one address.
#[derive(Default)]
pub(crate) struct Pool {
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
    pub(crate) fn reuse(&self) -> Option<Http1> {
        let mut idle = self.idle.lock();
        while let Some(entry) = idle.pop() {
            if entry.connection.sender.is_ready() && entry.since.elapsed() < IDLE_POOLED {
                return Some(entry.connection);
            }
        }
        None
    }

    pub(crate) fn put(&self, connection: Http1) {
        let mut idle = self.idle.lock();
        if idle.len() < POOL_LIMIT {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    pub(crate) fn sweep(&self) -> bool {
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
pub(crate) async fn http1_connection(
    addr: SocketAddr,
    limit: Duration,
    budget: &Arc<Budget>,
) -> Result<Http1, Failure> {
    let stream = connect::connect(addr, limit)
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
    #[expect(
        clippy::disallowed_methods,
        reason = "one connection to an application"
    )]
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a server ended");
        }
    });
    Ok(Http1 { sender, abort })
}
