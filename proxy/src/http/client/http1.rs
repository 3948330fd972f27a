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
use crate::http::client::body_reading::BodyReading;
use crate::http::client::keep_alive::KeepAlive;
use crate::http::client::upstream::{Upstream, Watch};
use crate::http::limits::{BUFFER, HEADER_COUNT};
use crate::net::abort::Abort;
use crate::net::budget::Budget;
use crate::net::connect;

/// Shorter than the keep-alive of common servers, so that ours closes first.
const IDLE_POOLED: Duration = Duration::from_secs(3);
/// Idle HTTP/1.1 connections kept per address.
const POOL_LIMIT: usize = 128;
/// The same, of those that could have used none of the others: enough for one of them to
/// rest while the others serve, which is what proves that the server keeps them.
const POOL_UNPROVEN: usize = 8;
/// Whether a server keeps its connections is looked at in steps of this size.
const STEP: Duration = Duration::from_millis(50);

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
    /// Its last request had a body.
    behind_body: bool,
}

impl Idle {
    fn is_open(&self) -> bool {
        self.connection.sender.is_ready() && self.connection.watch.ended().is_none()
    }

    /// For how long nobody used it, until now or its end.
    fn unused(&self, now: Instant) -> Duration {
        let until = self.connection.watch.ended().unwrap_or(now);
        until.saturating_duration_since(self.since)
    }
}

/// How an exchange left its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// Which connections its request could have used.
    pub reuse: Reuse,
    /// The server announced with its answer that the connection ends.
    pub last: bool,
    /// The request had a body, which the server may have left.
    pub had_body: bool,
}

/// Which connection a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    Pooled,
    /// Pooled where the server is proven to keep connections: it cannot be sent again.
    Proven,
    Never,
}

/// HTTP/1.1 connections to one address.
#[derive(Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that were used last are at the end.
    idle: Vec<Idle>,
    keep_alive: KeepAlive,
    bodies: BodyReading,
}

impl State {
    /// Takes out what is closed, and learns from it and from what is not.
    fn observe(&mut self, now: Instant) {
        let (keep_alive, bodies) = (&mut self.keep_alive, &mut self.bodies);
        self.idle.retain(|entry| {
            let watch = &entry.connection.watch;
            if !entry.is_open() && entry.behind_body && watch.has_heard() {
                // An answer that nobody asked for.
                bodies.left(now);
            }
            if !entry.is_open() && watch.ended().is_some() {
                keep_alive.closed(entry.unused(now), now);
            }
            entry.is_open()
        });
        if let Some(oldest) = self.idle.first() {
            let unused = oldest.unused(now);
            if unused >= keep_alive.longest() + STEP && oldest.connection.watch.is_quiet() {
                keep_alive.survived(unused, now);
            }
        }
    }
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
    /// For how long it was unused, if it served before: the server may have closed it
    /// just now.
    pub unused: Option<Duration>,
    /// The request before had a body, which the server may have left.
    pub behind_body: bool,
}

impl Pool {
    /// A connection that served before. `may_leave`: asked whether one may be left that the
    /// request could use but for the body before it.
    pub(crate) fn reuse(&self, reuse: Reuse, may_leave: impl Fn() -> bool) -> Option<Pooled> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let once = match reuse {
            Reuse::Never => return None,
            Reuse::Proven => true,
            Reuse::Pooled => false,
        };
        if once {
            state.observe(now);
        }
        while let Some(entry) = state.idle.pop() {
            let unused = entry.unused(now);
            if !entry.is_open() {
                if entry.connection.watch.ended().is_some() {
                    state.keep_alive.closed(unused, now);
                }
                continue;
            }
            if unused >= IDLE_POOLED {
                continue;
            }
            let trusted = !entry.behind_body || !state.bodies.is_doubted();
            let refuses = || !state.keep_alive.is_proven(unused, now) || (!trusted && may_leave());
            if once && refuses() {
                state.idle.push(entry);
                return None;
            }
            if (once || entry.behind_body) && !entry.connection.watch.is_quiet() {
                if once {
                    state.keep_alive.closed(unused, now);
                }
                continue;
            }
            return Some(Pooled {
                connection: entry.connection,
                unused: Some(unused),
                behind_body: entry.behind_body,
            });
        }
        None
    }

    /// Gives back what there is no room for.
    pub(crate) fn put(&self, connection: Http1, ended: Ended) -> Option<Http1> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let proven = state.keep_alive.is_proven(Duration::ZERO, now);
        // Otherwise each such request would leave one more, though none takes it.
        let most = if ended.reuse == Reuse::Proven && !proven {
            POOL_UNPROVEN
        } else {
            POOL_LIMIT
        };
        if state.idle.len() >= most {
            state.observe(now);
        }
        if state.idle.len() >= most {
            return Some(connection);
        }
        state.idle.push(Idle {
            connection,
            since: now,
            behind_body: ended.had_body,
        });
        None
    }

    /// The server closed a connection that had been unused for so long, unannounced.
    pub(crate) fn closed(&self, unused: Duration) {
        self.state.lock().keep_alive.closed(unused, Instant::now());
    }

    /// A request that followed a body was served as any other, or was not understood.
    pub(crate) fn followed_body(&self, understood: bool) {
        self.state.lock().bodies.followed(understood);
    }

    /// A request that followed a body was not understood, and was on a connection of its own.
    pub(crate) fn left_body(&self) {
        self.state.lock().bodies.left(Instant::now());
    }

    /// Whether requests with a body are to have connections of their own.
    pub(crate) fn leaves_bodies(&self) -> bool {
        self.state.lock().bodies.leaves(Instant::now())
    }

    /// Whether it began to leave bodies since this was asked last.
    pub(crate) fn has_begun_to_leave_bodies(&self) -> bool {
        self.state.lock().bodies.take_news()
    }

    /// True when it holds no connection.
    pub(crate) fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.observe(now);
        state.idle.retain(|entry| entry.unused(now) < IDLE_POOLED);
        state.idle.is_empty()
    }

    /// Whether nothing was learned of late.
    pub(crate) fn is_forgotten(&self) -> bool {
        let (state, now) = (self.state.lock(), Instant::now());
        state.keep_alive.is_forgotten(now) && !state.bodies.leaves(now)
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
    use std::time::{Duration, Instant};

    use super::{Ended, Http1, POOL_UNPROVEN, Pool, Reuse, http1_connection};
    use crate::net::budget::Budget;

    const fn ended(reuse: Reuse) -> Ended {
        Ended {
            reuse,
            last: false,
            had_body: false,
        }
    }

    async fn connect(listener: &TcpListener) -> (Http1, TcpStream) {
        let addr = listener.local_addr().unwrap();
        let budget = Budget::new(1 << 20);
        let connecting = http1_connection(addr, Duration::from_secs(1), &budget);
        let mut connection = connecting.await.unwrap();
        connection.sender.ready().await.unwrap();
        (connection, listener.accept().unwrap().0)
    }

    /// The task that would read the end cannot run between the close and the look.
    #[tokio::test]
    async fn a_connection_whose_end_waits_to_be_read_is_not_reused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = Pool::default();
        pool.state
            .lock()
            .keep_alive
            .survived(Duration::from_secs(2), Instant::now());
        for closes in [false, true] {
            let (connection, server) = connect(&listener).await;
            assert!(pool.put(connection, ended(Reuse::Pooled)).is_none());
            if closes {
                drop(server);
            }
            assert!(pool.state.lock().idle[0].is_open(), "as far as was read");
            assert_eq!(pool.reuse(Reuse::Proven, || true).is_some(), !closes);
        }
    }

    /// Each is 20 KiB here, and a thread or a process of the application in some servers.
    #[tokio::test]
    async fn requests_that_may_use_no_pooled_connection_leave_few_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pool = Pool::default();
        let mut servers = Vec::new();
        let mut left = async |reuse| {
            let (connection, server) = connect(&listener).await;
            servers.push(server);
            pool.put(connection, ended(reuse)).is_none()
        };
        for _ in 0..POOL_UNPROVEN {
            assert!(left(Reuse::Proven).await);
        }
        assert!(!left(Reuse::Proven).await);
        assert!(left(Reuse::Pooled).await, "whoever may use it finds it");
        let now = Instant::now();
        pool.state
            .lock()
            .keep_alive
            .survived(Duration::from_secs(2), now);
        assert!(left(Reuse::Proven).await, "the next one may use it");
    }
}
