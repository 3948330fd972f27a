//! HTTP/2 connections to one peer or application; all callers share their streams.
//!
//! One handshake at a time per peer: callers that come while it runs share its outcome, so a dead
//! peer costs one attempt and not one per request.
//!
//! Some servers stop reading uploads, which then use up the window of their connection. A new body
//! goes by another connection: on that one it would wait for as long as they do. A body that waits
//! there already cannot leave it.
//!
//! Servers do not know that callers share a connection, and clients without a mesh have one each.
//! So an application that has fallen silent on its connections, or sends large responses by all of
//! them, gets another connection for the next request, up to a bound: it may have stopped to serve
//! the one, or may hold more of the others than it grants a single client. Requests under way stay
//! where they are.

mod attempt;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body::Body as HttpBody;
use parking_lot::Mutex;
use policy::reason::Reason;
use tokio::time::{Instant, timeout};
use weft_proxy_net::budget::Budget;
use weft_proxy_net::coalesce::FlushHandle;
use weft_proxy_net::connect::ConnectTimeout;

use crate::body::Body;
use crate::client::multiplexed::attempt::{Attempts, Connect};
use crate::failure::Failure;
use crate::http2::Tuning;
use crate::http2::client::{self, RequestSender};
use crate::http2::flow::STREAMS;
use crate::http2::send_window::Credit;
use crate::http2::silence::SILENT_AFTER;

/// Requests on one HTTP/2 connection before another is opened.
const STREAMS_PER_CONNECTION: usize = 100;
/// Connections per peer. With 100 streams each, a tunnel for every connection
/// that the proxy serves at all.
const CONNECTIONS_PER_PEER: usize = 100;
/// Connections whose server has fallen silent, until no further one is opened for that: it
/// may think about each request for a minute, and is no other on a new connection.
const SILENT_CONNECTIONS: usize = 4;
/// Connections that are opened so that large answers come apart. Node's server refuses streams
/// while it holds more than 10 MB for the others of their connection, so that with these
/// sixteen answers of 10 MB come at once, and a hundred small ones need no second connection.
const LARGE_APART: usize = 8;
/// Where none could be opened beside those that are there, it is not tried again for this long.
const REFUSED_FOR: Duration = SILENT_AFTER;
/// How long a request that could use an open connection waits for a better one. Less than a server
/// has to announce its limit: one that takes connections and serves none is no better.
const BESIDE_WITHIN: Duration = Duration::from_millis(500);
/// A connection without a stream is closed after this long.
pub const IDLE_MULTIPLEXED: Duration = Duration::from_secs(60);

/// What follows the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sends {
    Nothing,
    /// Which the server has to give credit for.
    Bytes,
}

impl Sends {
    pub fn of(body: &Body) -> Self {
        if body.is_end_stream() {
            Self::Nothing
        } else {
            Self::Bytes
        }
    }

    /// Whether it may have to wait on this connection; `None` where that may be for ever.
    fn may_wait(self, sender: &RequestSender) -> Option<bool> {
        if self == Self::Nothing {
            return Some(false);
        }
        match sender.credit() {
            Credit::Enough => Some(false),
            Credit::Low => Some(true),
            Credit::Stalled => None,
        }
    }
}

/// Which connections a request may go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Eligible {
    /// One without a burden, where another one may be opened instead.
    Unburdened,
    Any,
}

/// Why another connection is chosen, the weightiest reason first. The least is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_silent: bool,
    waits: bool,
    large: usize,
    streams: usize,
}

struct Connection {
    sender: RequestSender,
    streams: Arc<AtomicUsize>,
    idle_since: Instant,
}

impl Connection {
    /// For a request that `sends` this; `None` where it may have to wait for ever.
    fn rank(&self, sends: Sends, now: Instant) -> Option<Rank> {
        let burden = self.sender.burden(now);
        Some(Rank {
            is_silent: burden.is_silent,
            waits: sends.may_wait(&self.sender)?,
            large: burden.large,
            streams: self.streams.load(Ordering::Relaxed),
        })
    }
}

/// One peer, with the connections to it.
pub struct Multiplexed {
    connector: Box<Connect>,
    connections: Mutex<Vec<Connection>>,
    /// Held while connecting.
    connecting: tokio::sync::Mutex<Attempts>,
    attempts: std::sync::atomic::AtomicU64,
    /// It has answered since a new connection to it took nothing.
    serves: AtomicBool,
    /// When it last took no further connection.
    refused: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multiplexed").finish_non_exhaustive()
    }
}

/// The right to one stream; frees its permit when dropped.
#[derive(Debug)]
pub struct Http2Stream {
    pub sender: RequestSender,
    /// The connection was opened for this stream.
    pub first: bool,
    _permit: StreamPermit,
}

#[derive(Debug)]
pub struct StreamPermit {
    /// Streams of its connection.
    streams: Arc<AtomicUsize>,
    /// Of all holders of the same one, where there are several.
    shared: Option<Arc<()>>,
}

impl StreamPermit {
    const fn new(streams: Arc<AtomicUsize>) -> Self {
        Self {
            streams,
            shared: None,
        }
    }

    /// The same once more: the stream has it until both are dropped.
    pub fn share(&mut self) -> Self {
        let shared = self.shared.get_or_insert_default();
        Self {
            streams: Arc::clone(&self.streams),
            shared: Some(Arc::clone(shared)),
        }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let shared = self.shared.take();
        if shared.is_none_or(|shared| Arc::into_inner(shared).is_some()) {
            self.streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Http2Stream {
    /// Splits into the sender and what frees the permit.
    #[must_use]
    pub fn into_parts(self) -> (RequestSender, StreamPermit) {
        (self.sender, self._permit)
    }
}

impl Multiplexed {
    /// Connections that `connect` opens, when one is needed.
    pub fn new<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<RequestSender, Failure>> + Send + 'static,
    {
        Self {
            // Boxed: its future is large, and every waiting request holds this one.
            connector: Box::new(move || Box::pin(connect())),
            connections: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            attempts: std::sync::atomic::AtomicU64::new(0),
            serves: AtomicBool::new(false),
            refused: Mutex::default(),
        }
    }

    /// A permit for one request, which `sends` this.
    ///
    /// # Errors
    /// When no connection can be made; the application has seen nothing.
    pub fn stream(
        &self,
        sends: Sends,
    ) -> impl Future<Output = Result<Http2Stream, Failure>> + Send {
        self.stream_within(sends, ConnectTimeout::Replaceable)
    }

    /// The same for a call that may have to keep time for others, by `limit`. What is opened has a
    /// limit of its own.
    ///
    /// # Errors
    /// As [`Self::stream`], and when no connection was opened in that time.
    pub(crate) async fn stream_within(
        &self,
        sends: Sends,
        limit: ConnectTimeout,
    ) -> Result<Http2Stream, Failure> {
        match self.free(STREAMS_PER_CONNECTION, sends, Eligible::Unburdened) {
            Some(stream) => Ok(stream),
            // On the heap: most requests find one.
            None => Box::pin(self.new_stream_within(sends, limit)).await,
        }
    }

    /// Each waits for itself: those that come while a connection is being opened have to leave in
    /// time as well as the one that opens it.
    async fn new_stream_within(
        &self,
        sends: Sends,
        limit: ConnectTimeout,
    ) -> Result<Http2Stream, Failure> {
        let opening = self.new_stream(sends);
        let Some(within) = limit.of_call() else {
            return opening.await;
        };
        timeout(within, opening).await.unwrap_or_else(|_| {
            let spare = self.free(STREAMS_PER_CONNECTION, Sends::Nothing, Eligible::Any);
            spare.ok_or_else(|| {
                let detail = "no connection was opened within most of the call's time";
                Failure::not_sent(Reason::ConnectFailed, detail)
            })
        })
    }

    async fn new_stream(&self, sends: Sends) -> Result<Http2Stream, Failure> {
        let seen = self.attempts.load(Ordering::Acquire);
        let mut connecting = self.connecting.lock().await;
        if let Some(stream) = self.free(STREAMS_PER_CONNECTION, sends, Eligible::Unburdened) {
            return Ok(stream);
        }
        // Where bodies stall they may move again: better than none.
        let any = |limit| self.free(limit, Sends::Nothing, Eligible::Any);
        // Another caller tried while this one waited: the outcome is that of both.
        if let (true, Some(failure)) = (connecting.ended > seen, &connecting.failed) {
            return any(STREAMS_PER_CONNECTION).ok_or_else(|| failure.shared());
        }
        if self.connections.lock().len() >= CONNECTIONS_PER_PEER {
            let limit = STREAMS as usize;
            let stream = self.free(limit, sends, Eligible::Any);
            let stream = stream.or_else(|| any(limit));
            return stream.ok_or_else(|| {
                Failure::not_sent(Reason::Overload, "every stream to the peer is taken")
            });
        }
        let outcome = match self.free(STREAMS_PER_CONNECTION, sends, Eligible::Any) {
            None => connecting.go_on(self.connector.as_ref()).await,
            Some(spare) => match self.open_beside().await {
                Some(outcome) => outcome,
                None => return Ok(spare),
            },
        };
        connecting.ended = self.attempts.fetch_add(1, Ordering::AcqRel) + 1;
        match outcome {
            Ok(sender) => {
                connecting.failed = None;
                let streams = Arc::new(AtomicUsize::new(1));
                self.connections.lock().push(Connection {
                    sender: sender.clone(),
                    streams: Arc::clone(&streams),
                    idle_since: Instant::now(),
                });
                Ok(Http2Stream {
                    sender,
                    first: true,
                    _permit: StreamPermit::new(streams),
                })
            }
            Err(failure) => {
                connecting.failed = Some(failure.clone());
                *self.refused.lock() = Some(Instant::now());
                any(STREAMS_PER_CONNECTION).ok_or(failure)
            }
        }
    }

    /// Opens one that is better than those that are there; `None` where that takes too long.
    async fn open_beside(&self) -> Option<Result<RequestSender, Failure>> {
        // Noted first: a caller that leaves before the outcome had no connection either.
        *self.refused.lock() = Some(Instant::now());
        let outcome = timeout(BESIDE_WITHIN, (self.connector)()).await.ok()?;
        if outcome.is_ok() {
            *self.refused.lock() = None;
        }
        Some(outcome)
    }

    /// Whether there is a connection that requests may use.
    pub fn is_connected(&self) -> bool {
        let connections = self.connections.lock();
        let mut all = connections.iter();
        all.any(|connection| connection.sender.is_usable())
    }

    /// Whether there are connections, and their peer owes a sign of life on each.
    pub fn is_suspect(&self) -> bool {
        let connections = self.connections.lock();
        let mut all = connections.iter();
        all.any(|connection| connection.sender.is_suspect())
            && !connections.iter().any(|one| one.sender.is_usable())
    }

    /// It has answered a request.
    pub fn answered(&self) {
        if !self.serves.load(Ordering::Relaxed) {
            self.serves.store(true, Ordering::Relaxed);
        }
    }

    /// Whether another connection may do where a new one took nothing: a server whose port goes
    /// over to another process takes its last connections so. Only once until it answers again, or
    /// every request would try a server twice that never takes anything.
    pub(crate) fn may_take_more(&self) -> bool {
        self.serves.swap(false, Ordering::Relaxed)
    }

    /// A connection that was opened for a request ended and answered nothing: its server takes no
    /// further one, though it began to speak on it.
    pub(crate) fn took_nothing(&self) {
        *self.refused.lock() = Some(Instant::now());
    }

    /// Whether what a new connection did not take may go by one of those that are there, and would
    /// fare no better on another new one.
    pub fn takes_no_further(&self) -> bool {
        self.is_connected() && !self.may_try_again(Instant::now())
    }

    /// Whether its server may take a further connection by now.
    fn may_try_again(&self, now: Instant) -> bool {
        let again = |refused| now.saturating_duration_since(refused) >= REFUSED_FOR;
        self.refused.lock().is_none_or(again)
    }

    /// Sends nothing more on the connection that `permit` belongs to. Streams
    /// that it carries go on.
    pub(crate) fn retire(&self, permit: &StreamPermit) {
        self.connections
            .lock()
            .retain(|connection| !Arc::ptr_eq(&connection.streams, &permit.streams));
    }

    /// The same for the connections of which `ends` is true.
    pub fn retire_if(&self, ends: impl Fn(&RequestSender) -> bool) {
        let mut connections = self.connections.lock();
        connections.retain(|connection| !ends(&connection.sender));
    }

    /// A permit on the connection with the fewest streams, if one has room: for
    /// `limit` streams at most, and for no more than its server allows, since more
    /// would wait for a permit, and beside tunnels that can be for ever. A body goes
    /// where it can move, and where it need not wait before others; everything goes where
    /// the server is not silent, and where no large answers come.
    fn free(&self, limit: usize, sends: Sends, eligible: Eligible) -> Option<Http2Stream> {
        let now = Instant::now();
        let mut connections = self.connections.lock();
        connections.retain_mut(|connection| connection.sender.takes_requests());
        let usable = connections.iter().enumerate().filter(|(_, connection)| {
            let streams = connection.streams.load(Ordering::Relaxed);
            streams < limit.min(connection.sender.stream_limit()) && connection.sender.is_usable()
        });
        let ranked = usable.filter_map(|(at, connection)| Some((connection.rank(sends, now)?, at)));
        let (rank, at) = ranked.min()?;
        if eligible == Eligible::Unburdened && self.wants_another(&connections, rank, now) {
            return None;
        }
        let best = &mut connections[at];
        best.streams.fetch_add(1, Ordering::Relaxed);
        best.idle_since = now;
        Some(Http2Stream {
            sender: best.sender.clone(),
            first: false,
            _permit: StreamPermit::new(Arc::clone(&best.streams)),
        })
    }

    /// Whether a new connection is better than the `best` of those that are there.
    fn wants_another(&self, connections: &[Connection], best: Rank, now: Instant) -> bool {
        let has_room = if best.is_silent {
            let silent = |connection: &&Connection| connection.sender.burden(now).is_silent;
            connections.iter().filter(silent).count() < SILENT_CONNECTIONS
        } else {
            best.large > 0 && connections.len() < LARGE_APART
        };
        has_room && self.may_try_again(now)
    }

    /// Closes connections that were idle for a while; true when none is left.
    pub fn sweep(&self) -> bool {
        // The holder of the lock goes on with what there is.
        if let Ok(mut connecting) = self.connecting.try_lock() {
            connecting.forget_old();
        }
        let mut connections = self.connections.lock();
        connections.retain(|connection| {
            !connection.sender.is_closed()
                && (connection.streams.load(Ordering::Relaxed) > 0
                    || connection.idle_since.elapsed() < IDLE_MULTIPLEXED)
        });
        connections.is_empty()
    }
}

/// Begins to speak HTTP/2 on a connection that stands.
///
/// # Errors
/// When it breaks before that, or the application speaks something else, which the error names.
pub async fn handshake<I>(
    io: I,
    profile: Tuning,
    budget: Arc<Budget>,
    flush_handle: Option<FlushHandle>,
) -> Result<RequestSender, Failure>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    client::handshake(io, profile, budget, flush_handle)
        .await
        .map_err(|error| Failure::not_sent(Reason::ConnectFailed, error.to_string()))
}

#[cfg(test)]
mod tests;
