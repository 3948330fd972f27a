//! The server side of one HTTP/2 connection.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use parking_lot::Mutex;
use policy::reason::Reason::ConnectionLost;
use runtime::occupancy::{Permit, ReservedBytes, ReservedPermit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::timeout;
use weft_proxy_net::admission::AdmissionClass;
use weft_proxy_net::budget::Budget;
use weft_proxy_net::coalesce::FlushHandle;
use weft_proxy_net::prefixed::HEAD_WITHIN;
use weft_proxy_net::ticket::NotAdmitted;

use super::flow::{CONNECTION_WINDOW, Flow, STREAMS, base};
use super::frame_filter::FrameFilter;
use super::graceful_shutdown::ShuttingDown;
use super::keepalive::{Keepalive, Peer, WatchedIo};
use super::pipe::{Pipe, Stopped, flushed};
use super::queued::{AcceptedStream, QueuedRequests};
use super::recv::RecvBody;
use super::{RESET_FOR, SMALL_FRAMES, Tuning, reset_errors, strip_connection_headers, trim_values};
use crate::body::Body;
use crate::deadline::PreviousHop;
use crate::ending_body::{ended_for, is_delivered};
use crate::failure::StreamReset;
use crate::grpc::{self, is_grpc};
use crate::head::{HEADER_BYTES, size};
use crate::replay::KeptBody;

/// What a connection costs beside its permit, in bytes: what `h2` reads and writes by.
const CONNECTION: usize = 24 * 1024;
/// What a request in flight costs beside its head, in bytes.
const REQUEST: usize = 16 * 1024;

/// In the extensions of an answer: takes over the sending side of the stream, for bytes both ways.
/// The body of the answer is not sent then.
#[derive(Clone, Debug)]
pub struct Accept(Arc<Mutex<Option<oneshot::Sender<SendStream<Bytes>>>>>);

impl Accept {
    #[must_use]
    pub fn new() -> (Self, oneshot::Receiver<SendStream<Bytes>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(sender)))), receiver)
    }
}

/// What a connection may take, and what sends for it.
#[derive(Debug)]
pub struct Limits {
    pub profile: Tuning,
    pub budget: Arc<Budget>,
    /// The class by which requests wait where there is no room for them.
    pub class: AdmissionClass,
    /// Where they come from.
    pub from: PreviousHop,
    /// Sends what was written in a turn, where there is one.
    pub flush_handle: Option<FlushHandle>,
    pub permit: Arc<Permit>,
}

/// Serves one connection until it ends, or until `close` asks to end it after what is in flight.
///
/// # Errors
/// The cause of an early end.
pub async fn serve<I, H, F>(
    io: I,
    limits: Limits,
    mut close: Pin<&mut impl Future<Output = ()>>,
    handler: H,
) -> Result<(), h2::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<RecvBody>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let Limits {
        profile,
        budget,
        class,
        from,
        flush_handle,
        permit,
    } = limits;
    permit.silent();
    permit.head_begins();
    let _connection = permit.reserve_bytes(CONNECTION);
    let flow = Flow::new(Arc::clone(&budget), profile.windows);
    let mut queued = QueuedRequests::new(Arc::clone(&budget), Arc::clone(&permit), class, from);
    let io = FrameFilter::of_client(io, flow.small_frames(profile.paces()), Arc::clone(&permit));
    let mut shutting_down = ShuttingDown::new(io.shutdown_state());
    let (io, received) = WatchedIo::new(io, budget);
    let mut connection = handshake(&builder(&profile, &flow), io).await?;
    // The preface has come complete.
    permit.busy();
    let mut busy = None;
    let mut keepalive = connection
        .ping_pong()
        .filter(|_| profile.pings)
        .map(|pings| Keepalive::new(pings, received));
    if let Some(flush_handle) = &flush_handle {
        flush_handle.collect();
    }
    // Held by every answer on its way. A request's own body is often gone by then.
    let open = Arc::new(());
    // Announces other windows to the peer, where they are due.
    let adjust = |connection: &mut Connection<_, Bytes>| {
        let announce = |window| connection.set_initial_window_size(window).is_ok();
        flow.adjust(announce)
    };
    poll_fn(|cx| {
        flow.begin_turn();
        let is_stuck = shutting_down.poll(close.as_mut(), &mut connection, cx);
        if is_stuck && !is_in_use(&flow, &open, &queued) {
            return Poll::Ready(Err(end(&mut connection, Reason::NO_ERROR, cx)));
        }
        if let Some(keepalive) = &mut keepalive
            && keepalive.poll(cx, is_in_use(&flow, &open, &queued)) == Peer::Dead
        {
            return Poll::Ready(Err(h2::Reason::NO_ERROR.into()));
        }
        let ended = loop {
            adjust(&mut connection);
            match connection.poll_accept(cx) {
                // A request that came with it would start on a connection that ends.
                Poll::Pending | Poll::Ready(Some(Ok(_))) if flow.is_flooded() => {
                    permit.flooded();
                    break Some(Err(end(&mut connection, Reason::ENHANCE_YOUR_CALM, cx)));
                }
                Poll::Pending => {
                    flow.join_small_frames();
                    // What was read just now may allow it, and it is not sent by itself.
                    if adjust(&mut connection) {
                        cx.waker().wake_by_ref();
                    }
                    break None;
                }
                Poll::Ready(None) => break Some(Ok(())),
                Poll::Ready(Some(Err(error))) => break Some(Err(error)),
                Poll::Ready(Some(Ok(accepted))) => {
                    let Some(accepted) = shutting_down.take(accepted) else {
                        continue;
                    };
                    if let Some(accepted) = queued.admit(trimmed(accepted), flow.window(), cx) {
                        begin(accepted, &flow, &permit, Arc::clone(&open), &handler);
                    }
                }
            }
        };
        while !matches!(ended, Some(Err(_)))
            && let Some(accepted) = queued.next(cx)
        {
            begin(accepted, &flow, &permit, Arc::clone(&open), &handler);
        }
        // Behind what begins in this turn: nothing wakes this before its answer comes.
        note_use(&permit, &mut busy, is_in_use(&flow, &open, &queued));
        let answers = Arc::strong_count(&open) - 1;
        permit.carries(flow.streams() + answers + usize::from(!queued.is_empty()));
        if let Some(flush_handle) = &flush_handle {
            flush_handle.flush(cx);
        }
        ended.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Bounds its own time: within a tunnel no other part does.
async fn handshake<I>(builder: &Builder, io: I) -> Result<Connection<I, Bytes>, h2::Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let shaken = timeout(HEAD_WITHIN, builder.handshake(io)).await;
    shaken.unwrap_or_else(|_| Err(Reason::SETTINGS_TIMEOUT.into()))
}

/// Reports to a client why its connection ends, where its socket takes that at once.
fn end<I>(connection: &mut Connection<I, Bytes>, why: Reason, cx: &mut Context<'_>) -> h2::Error
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    connection.abrupt_shutdown(why);
    let _ = connection.poll_closed(cx);
    why.into()
}

/// Reports a change of state to the permit.
fn note_use(permit: &Permit, last: &mut Option<bool>, in_use: bool) {
    if last.replace(in_use) == Some(in_use) {
        return;
    }
    if in_use {
        permit.busy();
    } else {
        permit.idle();
    }
}

/// Whether a request is on its way, an answer to one, or one that waits. `open` is held by every
/// answer.
fn is_in_use(flow: &Flow, open: &Arc<()>, queued: &QueuedRequests) -> bool {
    flow.streams() > 0 || Arc::strong_count(open) > 1 || !queued.is_empty()
}

fn builder(profile: &Tuning, flow: &Flow) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(flow.window())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(profile.unsent(flow.budget()))
        .max_frame_size(profile.frame)
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_reset_streams(profile.resets)
        .reset_stream_duration(RESET_FOR)
        .max_local_error_reset_streams(Some(reset_errors(profile.resets)))
        .max_pending_accept_reset_streams(profile.resets)
        .data_frame_budget(SMALL_FRAMES)
        .max_concurrent_streams(STREAMS);
    builder
}

/// Runs before anything reads the head.
fn trimmed((mut request, respond): AcceptedStream) -> AcceptedStream {
    trim_values(request.headers_mut());
    (request, respond)
}

/// Begins to answer one request. `guard` lives for as long as the answer is on its way.
fn begin<F>(
    (request, respond): AcceptedStream,
    flow: &Arc<Flow>,
    permit: &Arc<Permit>,
    guard: Arc<()>,
    handler: &impl Fn(Request<RecvBody>) -> F,
) where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let traits = RequestTraits::of(&request);
    let (mut head, stream) = request.into_parts();
    let bytes = size(&head.headers);
    let mut promise = flow.budget().promise(bytes);
    let reserved = head.extensions.remove::<Arc<ReservedPermit>>();
    let in_flight = Arc::new(permit.begin_request_by(reserved));
    let cost = permit.reserve_bytes(REQUEST + bytes);
    if !stream.is_end_stream() {
        head.extensions.insert(KeptBody::new(cost.beside(0)));
    }
    let body = RecvBody::new(stream, flow.open(), &head.headers)
        .counted(cost.beside(0))
        .of(&in_flight);
    if head.extensions.get::<NotAdmitted>().is_none() {
        promise.begins();
    }
    let answer = handler(Request::from_parts(head, body));
    let budget = Arc::clone(flow.budget());
    #[expect(clippy::disallowed_methods, reason = "one stream")]
    tokio::spawn(async move {
        let _guard = (guard, in_flight);
        let answer = async {
            let answer = answer.await;
            promise.answered();
            answer
        };
        exchange(answer, respond, traits, cost, &budget).await;
    });
}

/// What of a request decides how its answer is sent.
#[derive(Clone, Copy)]
struct RequestTraits {
    head_only: bool,
    grpc: bool,
}

impl RequestTraits {
    fn of<B>(request: &Request<B>) -> Self {
        Self {
            head_only: request.method() == Method::HEAD,
            grpc: is_grpc(request.headers()),
        }
    }
}

/// One request, until its answer was sent or has no receiver any more.
async fn exchange(
    answer: impl Future<Output = Response<Body>>,
    mut respond: SendResponse<Bytes>,
    traits: RequestTraits,
    cost: ReservedBytes,
    budget: &Budget,
) {
    let response = {
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            // The caller has left.
            respond.poll_reset(cx).map(|_| None)
        })
        .await
    };
    let Some(response) = response else { return };
    if let Some(StreamReset(code)) = response.extensions().get() {
        return respond.send_reset(*code);
    }
    // The sender of the answer got as much when the answer began, or about so much.
    let ahead = base(budget) as usize;
    if let Err(error) = send(response, &mut respond, traits, cost, ahead).await {
        tracing::debug!(%error, "an answer could not be sent");
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
    }
}

async fn send(
    response: Response<Body>,
    respond: &mut SendResponse<Bytes>,
    traits: RequestTraits,
    cost: ReservedBytes,
    ahead: usize,
) -> Result<(), h2::Error> {
    let (mut head, body) = response.into_parts();
    cost.add(size(&head.headers));
    strip_connection_headers(&mut head.headers);
    if head.status == StatusCode::NO_CONTENT {
        // It must have none (RFC 9110, 8.6), and a strict client misses the content.
        head.headers.remove(header::CONTENT_LENGTH);
    }
    let accept = head.extensions.remove::<Accept>();
    if let Some(accept) = accept {
        let stream = respond.send_response(Response::from_parts(head, ()), false)?;
        if let Some(taker) = accept.0.lock().take() {
            // Without a taker the stream is reset when it is dropped.
            let _ = taker.send(stream);
        }
        return Ok(());
    }
    if !body.is_end_stream()
        && let Some(length) = HttpBody::size_hint(&body).exact()
        && !head.headers.contains_key(header::CONTENT_LENGTH)
    {
        head.headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let whole = traits.head_only || body.is_end_stream();
    let stream = respond.send_response(Response::from_parts(head, ()), whole)?;
    if whole {
        return Ok(());
    }
    let mut pipe = Pipe::new(stream, body).counted(cost, ahead);
    match Pin::new(&mut pipe).await {
        Ok(()) | Err(Stopped::Peer | Stopped::Stuck) => {}
        Err(Stopped::Body(error)) => {
            tracing::debug!(%error, "the body of an answer broke off");
            if is_delivered(&*error) {
                pipe.drained().await;
            } else {
                flushed().await;
            }
            let mut stream = pipe.into_stream();
            if let Some(StreamReset(code)) = StreamReset::behind(&*error) {
                stream.send_reset(code);
                return Ok(());
            }
            // A gRPC client reads a reset as an error in the server's program.
            if !traits.grpc || stream.send_trailers(grpc_end(&*error)).is_err() {
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
            }
        }
    }
    Ok(())
}

/// The gRPC status for an answer whose body broke off, also where its head is not gRPC: an end by
/// this proxy is not reported as a lost server.
fn grpc_end(error: &(dyn Error + 'static)) -> HeaderMap {
    match ended_for(error) {
        Some(reason) => grpc::ending(reason, ""),
        None => grpc::ending(ConnectionLost, "the server ended the stream early"),
    }
}
