//! The client side of one HTTP/2 connection.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, SendStream};
use http::{HeaderValue, Method, Request, Response, header};
use http_body::Body as HttpBody;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};
use weft_proxy_net::budget::Budget;
use weft_proxy_net::coalesce::FlushHandle;
use weft_proxy_net::idle::scheduled_within;

use super::flood::log_server_left;
use super::flow::{CONNECTION_WINDOW, Flow, STREAMS};
use super::frame_filter::FrameFilter;
use super::keepalive::{Keepalive, Peer, Suspected, Suspects, WatchedIo};
use super::pipe::{Pipe, send_body};
use super::recv::{RecvBody, UploadGuard};
use super::send_window::{Credit, CreditSignal, SendWindow};
use super::silence::{AwaitedResponse, SilenceDetector};
use super::until_end::UntilEnd;
use super::{
    HandshakeError, RESET_FOR, RESETS, SMALL_FRAMES, SendError, Tuning, reset_errors,
    strip_connection_headers, trim_values,
};
use crate::body::Body;
use crate::head::HEADER_BYTES;
use crate::stuck_upload::Answered;

/// A server has this long to announce its limits.
const SETTINGS_WITHIN: Duration = Duration::from_secs(1);
/// How often [`RequestSender::gives_sign`] looks for a sign of life; it is called rarely.
const LOOK: Duration = Duration::from_millis(100);

/// The state that the connection's task shares with its senders.
#[derive(Debug, Default)]
struct Shared {
    closed: AtomicBool,
    /// The peer missed a sign of life.
    suspect: AtomicBool,
    /// Counts that, where the opener of the connection does.
    suspects: OnceLock<Suspects>,
    /// A sender wants a sign of life.
    ping_wanted: AtomicBool,
    /// Pings that the peer has answered.
    pongs: AtomicU64,
    credit: Arc<CreditSignal>,
    /// Where the server gets no pings.
    silence: Option<Arc<SilenceDetector>>,
    /// Large answers keep further requests off.
    spreads: bool,
    /// Wakes the task, which does not notice otherwise that the last sender is gone.
    task: AtomicWaker,
    /// Held by the opener of the connection for as long as the connection lives.
    held: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// What keeps further requests off a connection where another one can be had. More is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burden {
    /// Its server owes answers, and nothing comes.
    pub is_silent: bool,
    /// Answers that come by it and are larger than what its server sends ahead.
    pub large: usize,
}

/// Sends requests.
#[derive(Clone)]
pub struct RequestSender {
    send: SendRequest<Bytes>,
    flow: Arc<Flow>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for RequestSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestSender")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Drop for RequestSender {
    fn drop(&mut self) {
        // The task has one and this is one: there is no other sender.
        if Arc::strong_count(&self.shared) <= 2 {
            self.shared.task.wake();
        }
    }
}

/// Begins to speak HTTP/2 on `io`.
///
/// # Errors
/// When the connection breaks before it stands.
pub async fn handshake<I>(
    io: I,
    profile: Tuning,
    budget: Arc<Budget>,
    flush_handle: Option<FlushHandle>,
) -> Result<RequestSender, HandshakeError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let unsent = profile.unsent(&budget);
    let flow = Flow::new(Arc::clone(&budget), profile.windows);
    let shared = Arc::new(Shared {
        silence: (!profile.pings).then(Arc::default),
        spreads: profile.spreads,
        ..Shared::default()
    });
    let window = SendWindow::new(Arc::clone(&shared.credit));
    let io = FrameFilter::of_server(UntilEnd::new(io), flow.small_frames(false), window);
    let (io, received) = WatchedIo::new(io, budget);
    let (send, mut connection) = Builder::new()
        .initial_window_size(flow.window())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(STREAMS as usize)
        .max_send_buffer_size(unsent)
        .max_frame_size(profile.frame)
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_reset_streams(RESETS)
        .reset_stream_duration(RESET_FOR)
        .max_local_error_reset_streams(Some(reset_errors(RESETS)))
        .data_frame_budget(SMALL_FRAMES)
        .enable_push(false)
        .handshake(io)
        .await?;
    let Some(mut pings) = connection.ping_pong() else {
        // It is taken once per connection, here.
        return Err(h2::Error::from(h2::Reason::INTERNAL_ERROR).into());
    };
    if profile.learn_limit {
        pings.send_ping(Ping::opaque())?;
        // The first frame of a server announces how many streams it takes, so that is known with
        // the answer to anything.
        let learned = poll_fn(|cx| {
            flow.begin_turn();
            let ended = Pin::new(&mut connection).poll(cx);
            if flow.is_flooded() {
                return Poll::Ready(Err(h2::Reason::ENHANCE_YOUR_CALM.into()));
            }
            if let Poll::Ready(ended) = ended {
                // A good end as well: there is no server to send to.
                let error = ended.err().unwrap_or_else(|| h2::Reason::NO_ERROR.into());
                return Poll::Ready(Err(error));
            }
            pings.poll_pong(cx).map_ok(|_| ())
        });
        if let Ok(Err(error)) = timeout(SETTINGS_WITHIN, learned).await {
            if shared.credit.is_text() {
                return Err(HandshakeError::OtherProtocol);
            }
            return Err(error.into());
        }
    }
    if !profile.pings {
        // What came until now came behind no request.
        received.store(false, Relaxed);
    }
    let task = Task {
        connection,
        keepalive: profile
            .pings
            .then(|| Keepalive::new(pings, Arc::clone(&received))),
        suspected: None,
        received,
        flow: Arc::clone(&flow),
        shared: Arc::clone(&shared),
        flush_handle,
    };
    #[expect(clippy::disallowed_methods, reason = "one connection")]
    tokio::spawn(task);
    Ok(RequestSender { send, flow, shared })
}

impl RequestSender {
    /// True while new requests may be sent by it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.shared.closed.load(Relaxed) && !self.shared.suspect.load(Relaxed)
    }

    /// True while the peer owes a sign of life for so long that no request goes by it.
    pub fn is_suspect(&self) -> bool {
        !self.is_closed() && self.shared.suspect.load(Relaxed)
    }

    /// Counts the connection there while that is so. Once only, when it is new.
    pub fn counts_in(&self, suspects: &Suspects) {
        let _ = self.shared.suspects.set(suspects.clone());
    }

    /// Drops `guard` with the connection, however long requests go on after their callers left.
    /// Once only.
    pub fn holds(&self, guard: impl Send + Sync + 'static) {
        let _ = self.shared.held.set(Box::new(guard));
    }

    /// What the connection holds, where that is of this type.
    #[must_use]
    pub fn held<T: 'static>(&self) -> Option<&T> {
        self.shared.held.get()?.downcast_ref()
    }

    /// True when the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Relaxed)
    }

    /// What a body that is sent now may expect.
    pub(crate) fn credit(&self) -> Credit {
        self.shared.credit.credit()
    }

    /// What keeps further requests off the connection.
    pub(crate) fn burden(&self, now: Instant) -> Burden {
        let silence = self.shared.silence.as_ref();
        let is_silent = silence.is_some_and(|owed| owed.is_silent(now));
        Burden {
            // Nothing is read while memory is full, which proves nothing of the server.
            is_silent: is_silent && !self.flow.budget().is_full(),
            large: if self.shared.spreads {
                self.flow.large_streams(now)
            } else {
                0
            },
        }
    }

    /// Whether the peer answers a ping within this time, or ends the connection well.
    pub async fn gives_sign(self, within: Duration) -> bool {
        let shared = &self.shared;
        let before = shared.pongs.load(Relaxed);
        shared.ping_wanted.store(true, Relaxed);
        shared.task.wake();
        let sign = async {
            while shared.pongs.load(Relaxed) == before && !shared.closed.load(Relaxed) {
                sleep(LOOK).await;
            }
        };
        let came = scheduled_within(within, sign).await.is_some();
        came && !(shared.closed.load(Relaxed) && shared.suspect.load(Relaxed))
    }

    /// False as soon as the server announced that it takes nothing more, though streams that it has
    /// taken go on.
    pub(crate) fn takes_requests(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.is_closed() && !matches!(self.send.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Streams that the server allows at once.
    #[must_use]
    pub(crate) fn stream_limit(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// Sends a request and its body, and waits for the head of the answer.
    ///
    /// # Errors
    /// When there is no answer; holds whether the server can have seen the request.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<RecvBody>, SendError> {
        self.send_with(request, ()).await
    }

    /// The same. `kept` is dropped once nothing is sent any more, which may be behind the answer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn send_with(
        &mut self,
        request: Request<Body>,
        kept: impl Send + 'static,
    ) -> Result<Response<RecvBody>, SendError> {
        let (mut parts, body) = request.into_parts();
        strip_connection_headers(&mut parts.headers);
        if let Some(length) = HttpBody::size_hint(&body).exact() {
            let says_so = [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method);
            if (length > 0 || says_so) && !parts.headers.contains_key(header::CONTENT_LENGTH) {
                parts
                    .headers
                    .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        let whole = body.is_end_stream();
        let (response, stream) = self.begin(Request::from_parts(parts, ()), whole).await?;
        let awaited = AwaitedResponse::on(self.shared.silence.as_ref());
        let upload = if whole {
            awaited.sent(true);
            None
        } else {
            let answered = Answered::default();
            let pipe = Pipe::new(stream, body).until_answered(answered.clone());
            let mut pipe = Box::pin(send_body(pipe));
            // Most bodies are there already, and need no task.
            match pipe.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(whole) => {
                    awaited.sent(whole);
                    None
                }
                #[expect(
                    clippy::disallowed_methods,
                    reason = "one body, aborted with its stream"
                )]
                Poll::Pending => {
                    let sending = async move {
                        let _kept = kept;
                        awaited.sent(pipe.await);
                    };
                    let task = tokio::spawn(sending);
                    Some(UploadGuard::new(task.abort_handle(), answered))
                }
            }
        };
        self.answer(response, upload).await
    }

    /// Sends a head and keeps the stream open for bytes both ways. `begins`: the first of them.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn open(
        &mut self,
        head: Request<()>,
        begins: Option<Box<Bytes>>,
    ) -> Result<(Response<RecvBody>, SendStream<Bytes>), SendError> {
        let (response, mut stream) = self.begin(head, false).await?;
        if let Some(bytes) = begins {
            // `h2` keeps what there is no credit for: it is little. Where it fails, the answer has
            // the reason.
            let _ = stream.send_data(*bytes, false);
        }
        Ok((self.answer(response, None).await?, stream))
    }

    async fn begin(
        &mut self,
        head: Request<()>,
        whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), SendError> {
        poll_fn(|cx| self.send.poll_ready(cx))
            .await
            .map_err(SendError::Unsent)?;
        self.send.send_request(head, whole).map_err(|error| {
            if error.is_go_away() || error.is_io() {
                SendError::Unsent(error)
            } else {
                SendError::Malformed(error)
            }
        })
    }

    async fn answer(
        &self,
        mut response: ResponseFuture,
        upload: Option<UploadGuard>,
    ) -> Result<Response<RecvBody>, SendError> {
        let share = self.flow.open();
        let answered = (&mut response).await;
        let has_started = || {
            self.shared
                .credit
                .has_started(response.stream_id().as_u32())
        };
        let failed = |error| SendError::of(error, has_started());
        let (mut head, stream) = answered.map_err(failed)?.into_parts();
        trim_values(&mut head.headers);
        let body = RecvBody::new(stream, share, &head.headers).sent_by(upload);
        Ok(Response::from_parts(head, body))
    }
}

/// Reads and writes for all streams of a connection.
struct Task<I>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    connection: Connection<WatchedIo<FrameFilter<I>>, Bytes>,
    keepalive: Option<Keepalive>,
    suspected: Option<Suspected>,
    /// Something came.
    received: Arc<AtomicBool>,
    flow: Arc<Flow>,
    shared: Arc<Shared>,
    flush_handle: Option<FlushHandle>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Task<I> {
    /// Reports the state to senders and to the choice of a peer.
    fn suspect(&mut self, suspect: bool) {
        self.shared.suspect.store(suspect, Relaxed);
        if !suspect {
            self.suspected = None;
        } else if self.suspected.is_none() {
            self.suspected = self.shared.suspects.get().map(Suspects::begin);
        }
    }

    /// Announces other windows to the peer, where they are due.
    fn adjust(&mut self) -> bool {
        let connection = &mut self.connection;
        let announce = |window| connection.set_initial_window_size(window).is_ok();
        self.flow.adjust(announce)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Future for Task<I> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.task.register(cx.waker());
        this.flow.begin_turn();
        if let Some(flush_handle) = &this.flush_handle {
            flush_handle.collect();
        }
        let busy = this.flow.streams() > 0;
        if let Some(keepalive) = &mut this.keepalive {
            if this.shared.ping_wanted.load(Relaxed) {
                this.shared.ping_wanted.store(false, Relaxed);
                keepalive.ping(cx);
            }
            let peer = keepalive.poll(cx, busy);
            this.shared.pongs.store(keepalive.pongs(), Relaxed);
            match peer {
                Peer::Alive => this.suspect(false),
                Peer::Suspect => this.suspect(true),
                Peer::Dead => {
                    tracing::debug!("a peer gave no sign of life");
                    return Poll::Ready(());
                }
            }
        }
        this.adjust();
        let ended = Pin::new(&mut this.connection).poll(cx);
        if this.flow.is_flooded() {
            log_server_left();
            return Poll::Ready(());
        }
        // With a keepalive, the keepalive takes the note.
        if let Some(silence) = &this.shared.silence
            && this.received.swap(false, Relaxed)
        {
            silence.came();
        }
        this.flow.join_small_frames();
        // What was read just now may allow it, and it is not sent by itself.
        if ended.is_pending() && this.adjust() {
            cx.waker().wake_by_ref();
        }
        if let Some(flush_handle) = &this.flush_handle {
            flush_handle.flush(cx);
        }
        if let Err(error) = ready!(ended) {
            tracing::debug!(%error, "an HTTP/2 connection to a peer ended");
        }
        Poll::Ready(())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Drop for Task<I> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Relaxed);
    }
}
