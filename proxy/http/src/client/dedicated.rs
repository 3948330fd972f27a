//! Dedicated connections: HTTP/1.1 to a peer proxy, one request at a time.
//!
//! A peer has one beside its HTTP/2 connections. While nothing else waits for the peer, a request
//! on it costs a sixth less, as only its own task touches the connection. The connection has no
//! task; the request's sender polls it until the response has ended. Only what is left of a
//! request's body by then has a task, and is sent as it would be by HTTP/2.
//!
//! No request waits for a dedicated connection. It is opened beside a request that goes by HTTP/2,
//! and closed when it was idle for a while.
//!
//! No request is lost with it. A peer proxy that took a request answers it or breaks the TLS stream
//! off; it ends TLS with `close_notify` only between two requests. So a clean end before the first
//! byte of a response proves that the request was not taken, whatever its method, and it goes by
//! HTTP/2 instead.

pub mod connection;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio_util::io::{InspectReader, InspectWriter};

use crate::body::{Body, BoxError};
use crate::client::dedicated::connection::{DedicatedConnection, Wire, deaf, wake_if_cut_short};
use crate::client::silence::{DEAD, Signs, Silent};
use crate::failure::Failure;
use crate::http2::recv::RecvBody;
use crate::incoming::IncomingBody;

/// So many requests at once are served better by HTTP/2. Without this the first of
/// every wave would take the dedicated connection while the others wait together.
const MULTIPLEXED_FROM: usize = 3;
/// After so many the dedicated connection is not used for this long.
const COOLDOWN: Duration = Duration::from_millis(10);
/// Requests that could have used a dedicated connection before one is opened: a single call needs
/// no second handshake.
const WORTH_OPENING: u32 = 2;
/// Between two attempts to open one.
const ATTEMPT_EVERY: Duration = Duration::from_secs(1);
/// A peer that does not know this transport gets no new attempt for this long.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// The dedicated connection to one peer, or the way to get one.
#[derive(Default)]
pub struct Dedicated {
    state: Mutex<Usage>,
}

/// One for each peer. What comes while it is in use goes by HTTP/2: two or four
/// cost no less at 1000 requests/s, and each has to be opened and kept.
#[derive(Default)]
enum ConnectionState {
    #[default]
    Empty,
    Connecting,
    Used,
    Free(Box<DedicatedConnection>),
}

#[derive(Default)]
struct Usage {
    held: ConnectionState,
    /// Of the dedicated connection, as long as there is one.
    signs: Option<Arc<Signs>>,
    /// The connection that is in use, or being opened, takes no further request.
    retired: bool,
    wanted: u32,
    not_before: Option<Instant>,
    /// Requests that wait for an answer by HTTP/2.
    beside: usize,
    /// When [`MULTIPLEXED_FROM`] of them were there last, if that is not long ago.
    multiplexed_at: Option<Instant>,
    /// Requests that got the dedicated connection.
    taken: u64,
}

impl std::fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Dedicated")
            .field("exists", &state.held.exists())
            .field("beside", &state.beside)
            .field("taken", &state.taken)
            .finish_non_exhaustive()
    }
}

impl Usage {
    /// There is no connection any more.
    fn empty(&mut self) {
        self.held = ConnectionState::Empty;
        self.signs = None;
        self.retired = false;
    }
}

impl ConnectionState {
    const fn exists(&self) -> bool {
        !matches!(self, Self::Empty)
    }
}

/// Whether a request gets the dedicated connection.
#[derive(Debug)]
pub enum Acquire {
    Leased(Lease),
    /// The caller should open one, beside what it does.
    Open(Connecting),
    No,
}

impl Dedicated {
    /// The dedicated connection, if it is free and nothing else waits for the peer.
    pub fn offer(self: &Arc<Self>) -> Acquire {
        let mut state = self.state.lock();
        if state.beside > 0 {
            return Acquire::No;
        }
        if let Some(then) = state.multiplexed_at {
            if then.elapsed() < COOLDOWN {
                return Acquire::No;
            }
            state.multiplexed_at = None;
        }
        match std::mem::take(&mut state.held) {
            busy @ (ConnectionState::Connecting | ConnectionState::Used) => {
                state.held = busy;
                return Acquire::No;
            }
            ConnectionState::Free(mut dedicated) => {
                if dedicated.is_free() {
                    state.held = ConnectionState::Used;
                    state.taken += 1;
                    return Acquire::Leased(Lease {
                        dedicated: Some(dedicated),
                        home: Arc::clone(self),
                    });
                }
            }
            ConnectionState::Empty => {}
        }
        state.wanted = state.wanted.saturating_add(1);
        let now = Instant::now();
        if state.wanted < WORTH_OPENING || state.not_before.is_some_and(|then| now < then) {
            return Acquire::No;
        }
        state.held = ConnectionState::Connecting;
        state.not_before = Some(now + ATTEMPT_EVERY);
        Acquire::Open(Connecting {
            home: Arc::clone(self),
            opened: false,
        })
    }

    /// Dedicated connections that exist, 0 or 1, and requests that got one.
    #[must_use]
    pub fn used(&self) -> (usize, u64) {
        let state = self.state.lock();
        (usize::from(state.held.exists()), state.taken)
    }

    /// Counts a request as waiting by HTTP/2 until the guard is dropped.
    #[must_use]
    pub fn beside(self: &Arc<Self>) -> MultiplexedGuard {
        let mut state = self.state.lock();
        state.beside += 1;
        if state.beside >= MULTIPLEXED_FROM {
            state.multiplexed_at = Some(Instant::now());
        }
        drop(state);
        MultiplexedGuard(Arc::clone(self))
    }

    /// The dedicated connection, if it is in use and nothing came by it since the last call.
    pub fn silent(&self) -> Option<Silent> {
        let state = self.state.lock();
        match (&state.held, &state.signs) {
            (ConnectionState::Used, Some(signs)) => Silent::look(signs),
            _ => None,
        }
    }

    /// Sends no further request by the connection that there is. One under way goes on.
    pub fn retire(&self) {
        let mut state = self.state.lock();
        if matches!(state.held, ConnectionState::Free(_)) {
            state.empty();
        } else {
            state.retired = state.held.exists();
        }
    }

    /// Closes a dedicated connection that was idle for `limit`; true when none is left.
    pub fn sweep(&self, limit: Duration) -> bool {
        let mut state = self.state.lock();
        if let ConnectionState::Free(dedicated) = &mut state.held {
            let (free, unused) = (dedicated.is_free(), dedicated.since.elapsed() >= limit);
            if (!free || unused)
                && let ConnectionState::Free(dedicated) = std::mem::take(&mut state.held)
                && free
            {
                dedicated.close();
            }
        }
        !state.held.exists()
    }
}

#[derive(Debug)]
pub struct MultiplexedGuard(Arc<Dedicated>);

impl Drop for MultiplexedGuard {
    fn drop(&mut self) {
        self.0.state.lock().beside -= 1;
    }
}

/// The right to open one dedicated connection.
#[derive(Debug)]
pub struct Connecting {
    home: Arc<Dedicated>,
    opened: bool,
}

impl Connecting {
    /// Begins to speak HTTP/1.1 on a connection that the peer takes it on.
    pub async fn opened(mut self, wire: impl Wire, builder: http1::Builder) {
        let signs = Arc::<Signs>::default();
        let (reads, writes) = (Arc::clone(&signs), Arc::clone(&signs));
        let wire = InspectReader::new(wire, move |bytes: &[u8]| {
            if !bytes.is_empty() {
                reads.came();
            }
        });
        let wire = InspectWriter::new(wire, move |_: &[u8]| writes.sent());
        let wire: Box<dyn Wire> = Box::new(wire);
        let Ok((sender, connection)) = builder.handshake(TokioIo::new(wire)).await else {
            return;
        };
        let mut dedicated = Box::new(DedicatedConnection {
            sender,
            connection,
            signs: Arc::clone(&signs),
            since: Instant::now(),
            ended: false,
        });
        if dedicated.is_free() {
            let mut state = self.home.state.lock();
            if !state.retired {
                self.opened = true;
                state.held = ConnectionState::Free(dedicated);
                state.signs = Some(signs);
            }
        }
    }

    /// The peer speaks HTTP/2 only.
    pub fn unknown(self) {
        self.home.state.lock().not_before = Some(Instant::now() + UNKNOWN_FOR);
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if !self.opened {
            self.home.state.lock().empty();
        }
    }
}

/// A dedicated connection in use. Given back when the answer has ended and the request was
/// sent, and broken off when this is dropped before.
pub struct Lease {
    dedicated: Option<Box<DedicatedConnection>>,
    home: Arc<Dedicated>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

impl Lease {
    /// Sends one request, in origin form and with its Host.
    ///
    /// # Errors
    /// [`Failure::ConnectionClosed`] when the peer did not take the request.
    pub async fn send(mut self, request: Request<Body>) -> Result<Response<ResponseBody>, Failure> {
        let Some(dedicated) = &mut self.dedicated else {
            return Err(Failure::connection_closed("the connection is in use"));
        };
        dedicated.signs.begin();
        let mut sending = pin!(dedicated.sender.try_send_request(request));
        let (connection, ended) = (&mut dedicated.connection, &mut dedicated.ended);
        let signs = Arc::clone(&dedicated.signs);
        let answer = poll_fn(|cx| {
            // Only the connection, polled here as well, can bring the answer.
            if let Poll::Ready(answer) = sending.as_mut().poll(&mut deaf()) {
                return Poll::Ready(Some(answer));
            }
            if !*ended {
                *ended = Pin::new(&mut *connection).poll(cx).is_ready();
            }
            let answer = sending.as_mut().poll(&mut deaf());
            if answer.is_pending() {
                wake_if_cut_short(cx);
                if signs.poll_broken(cx) {
                    return Poll::Ready(None);
                }
            }
            answer.map(Some)
        })
        .await;
        match answer {
            None => Err(Failure::lost(DEAD)),
            Some(Ok(response)) => Ok(response.map(|body| ResponseBody::by(self, body.into()))),
            Some(Err(mut error)) => {
                let unsent = error.take_message().is_some();
                let error = error.into_error();
                // An end without close_notify is an error of its own kind.
                let untouched = error.is_incomplete_message() && !signs.has_received();
                if unsent || untouched {
                    Err(Failure::connection_closed(error.to_string()))
                } else {
                    Err(Failure::lost(error.to_string()))
                }
            }
        }
    }

    /// The answer has ended. What is left of the request goes on by itself.
    fn give_back(mut self) {
        let Some(dedicated) = &mut self.dedicated else {
            return;
        };
        if dedicated.is_free() {
            self.put_back();
        } else if !dedicated.is_over() {
            #[expect(
                clippy::disallowed_methods,
                reason = "one upload for each peer, dropped once nothing of it moves"
            )]
            tokio::spawn(async move {
                let Some(dedicated) = &mut self.dedicated else {
                    return;
                };
                if dedicated.finish_upload().await {
                    self.put_back();
                }
            });
        }
    }

    /// The next request may use it.
    fn put_back(mut self) {
        if let Some(mut dedicated) = self.dedicated.take() {
            dedicated.since = Instant::now();
            let mut state = self.home.state.lock();
            match state.retired {
                true => state.empty(),
                false => state.held = ConnectionState::Free(dedicated),
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.dedicated.is_some() {
            self.home.state.lock().empty();
        }
    }
}

/// The body of an answer, with the dedicated connection that it comes by, if it does.
#[derive(Debug)]
pub struct ResponseBody {
    body: IncomingBody,
    lease: Option<Lease>,
}

impl<B: Into<IncomingBody>> From<B> for ResponseBody {
    fn from(body: B) -> Self {
        Self {
            body: body.into(),
            lease: None,
        }
    }
}

impl ResponseBody {
    fn by(lease: Lease, body: IncomingBody) -> Self {
        let mut coming = Self {
            body,
            lease: Some(lease),
        };
        coming.settle();
        coming
    }

    /// The stream that it comes by, if that is one of HTTP/2.
    #[must_use]
    pub fn into_http2(self) -> Option<RecvBody> {
        match self.body {
            IncomingBody::Http2(body) => Some(body),
            _ => None,
        }
    }

    fn settle(&mut self) {
        if self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(dedicated) = this.lease.as_mut().and_then(|of| of.dedicated.as_mut()) else {
            return Pin::new(&mut this.body).poll_frame(cx);
        };
        let mut polled = Pin::new(&mut this.body).poll_frame(&mut deaf());
        if polled.is_pending() {
            dedicated.poll(cx);
            polled = Pin::new(&mut this.body).poll_frame(&mut deaf());
        }
        match &polled {
            Poll::Pending => {
                wake_if_cut_short(cx);
                if dedicated.signs.poll_broken(cx) {
                    this.lease = None;
                    return Poll::Ready(Some(Err(DEAD.into())));
                }
            }
            Poll::Ready(None) => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
            }
            // What failed is broken off.
            Poll::Ready(Some(Err(_))) => this.lease = None,
            Poll::Ready(Some(Ok(_))) => this.settle(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
