//! Serves one HTTP/1.1 connection, with little memory while it is idle.
//!
//! hyper keeps two buffers of 8 KiB for each connection. A connection that was idle for a while
//! gives them back: it is taken apart between two requests, and put together again when bytes
//! arrive.

mod activity;
mod guarded;
mod write_observer;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, ready};
use std::time::Duration;

use futures::future::Either;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Connection, Parts};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use policy::reason::Reason;
use runtime::head_timer::watch_heads;
use runtime::occupancy::Permit;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use weft_proxy_net::abort::MayAbort;
use weft_proxy_net::admission::AdmissionClass;
use weft_proxy_net::budget::Budget;
use weft_proxy_net::linger::LINGER_FOR_UPLOADS;
use weft_proxy_net::prefixed::{HEAD_WITHIN, Prefixed};
use weft_proxy_net::ticket::NotAdmitted;

use crate::body::Body;
use crate::deadline::PreviousHop;
use crate::head::ReportedHead;
use crate::refusal::{NoAnswer, NotHandled, not_admitted};
use crate::replay::KeptBody;
use crate::server::http1::activity::{Busy, ConnectionUse};
use crate::server::http1::guarded::{Guarded, guard};
use crate::server::http1::write_observer::WriteObserver;
use crate::server::refused_head;
use crate::unread_body::ends_connection;

/// A connection without a request for this long, and for up to twice as long, is
/// taken apart. Putting it together again costs about a microsecond, so busy
/// connections must not get here.
const IDLE_AFTER: Duration = Duration::from_millis(100);

/// A head is waited for without hyper's buffers up to this size, so that half of
/// one costs little more than its bytes.
const SMALL_HEAD: usize = 16 * 1024;

/// A client has this long to take the end of an idle connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection may take, and for how long.
#[derive(Debug)]
pub struct Limits {
    pub builder: Builder,
    /// After this long without a request it is closed.
    pub patience: Option<Duration>,
    pub budget: Arc<Budget>,
    /// The class by which requests wait where there is no room for them.
    pub class: AdmissionClass,
    /// Where they come from.
    pub from: PreviousHop,
    /// How long a client that is no peer proxy has for one more request where its connection is to
    /// end.
    pub last_within: Duration,
    /// Learns what the connection is doing, and sees to slow heads.
    pub permit: Arc<Permit>,
}

/// Serves until the connection ends, or until `close` or its permit asks to end it after the
/// request in flight, where a client that is no peer proxy may send one more after `close`.
/// `refused` is called for a head that cannot be read, or that no room was found for.
///
/// # Errors
/// The cause of an early end.
pub fn serve<I, H, F>(
    io: I,
    limits: Limits,
    close: Pin<&mut impl Future<Output = ()>>,
    refused: impl Fn(NotHandled, ReportedHead<'_>) + Clone + Send + Sync + 'static,
    handler: H,
) -> impl Future<Output = hyper::Result<()>>
where
    I: AsyncRead + AsyncWrite + MayAbort + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let Limits {
        mut builder,
        patience,
        budget,
        class,
        from,
        last_within,
        permit,
    } = limits;
    let peer = from == PreviousHop::Peer;
    let last_within = (!peer).then_some(last_within);
    let used = Arc::new(ConnectionUse::new(budget, permit, class, from));
    let waiting = Arc::clone(&used);
    watch_heads(&mut builder, move || waiting.waits());
    let noted = Arc::clone(&used);
    let (counted, handler) = (refused.clone(), Arc::new(handler));
    let mut service = service_fn(move |mut request: Request<Incoming>| {
        let ticket = noted.admission.ticket();
        let (busy, upgrade) = noted.begin(&request);
        request.extensions_mut().insert(noted.abort.clone());
        if !request.body().is_end_stream() {
            let kept = KeptBody::new(busy.reserved.beside(0));
            request.extensions_mut().insert(kept);
        }
        if upgrade {
            request.extensions_mut().insert(Arc::clone(&noted.permit));
        }
        // A client of HTTP/1.0 may read an answer to the end of the connection.
        let old = request.version() == Version::HTTP_10;
        if let Some(waited) = noted.admission.waited() {
            request.extensions_mut().insert(waited);
        }
        let Some(ticket) = ticket else {
            return Either::Left(answered(handler(request), old, upgrade, busy));
        };
        // Nothing is done for it before it is admitted.
        let (handler, refused) = (Arc::clone(&handler), counted.clone());
        Either::Right(Box::pin(async move {
            let until = busy.used.admission.until(request.headers());
            let admitted = busy.used.admitted(ticket, until).await;
            if let Err(why) = admitted {
                return Ok(guard(rejected(why, request, peer, &refused), old, busy));
            }
            if let Some(waited) = busy.used.admission.waited() {
                request.extensions_mut().insert(waited);
            }
            answered(handler(request), old, upgrade, busy).await
        }))
    });
    let mut io = Prefixed::new(io);
    used.waits();
    // What an async function is given it holds a second time; a block holds it once.
    async move {
        let mut close = pin!(has_to_end(&used, close, last_within));
        loop {
            // Nothing is set up for a connection on which no head has come.
            if !is_spoken_to(&mut io, patience, close.as_mut()).await {
                // As hyper does between two requests: the sender of the next one sees that it was
                // not taken.
                let _ = timeout(CLOSE_TIMEOUT, io.shutdown()).await;
                return Ok(());
            }
            if !begins(&mut io, &used, peer, &refused).await {
                return Ok(());
            }
            let observer = WriteObserver {
                io: Some(io),
                used: Arc::clone(&used),
            };
            let connection = builder.serve_connection(TokioIo::new(observer), service);
            // Boxed: while the connection is idle, nothing of it stays in this future.
            let (parts, refusal) = match Box::pin(run(connection, &used, close.as_mut())).await {
                Served::Over(outcome) => return outcome,
                Served::Idle(parts) => (parts, None),
                Served::Refused(parts, status) => (parts, Some(status)),
            };
            service = parts.service;
            io = match parts.io.into_inner().taken_back(&parts.read_buf) {
                Some(io) => io,
                None => return Ok(()),
            };
            let Some(status) = refusal else { continue };
            refuse_unreadable(&mut io, &used, status, peer, &refused).await;
            return Ok(());
        }
    }
}

/// Returns when the connection has to end between two requests.
fn has_to_end(
    used: &ConnectionUse,
    close: Pin<&mut impl Future<Output = ()>>,
    last_within: Option<Duration>,
) -> impl Future<Output = ()> {
    let after_one_more = async move {
        close.await;
        if let Some(last_within) = last_within {
            used.is_last.store(true, Relaxed);
            // Boxed: an idle connection has no room for a timer.
            Box::pin(sleep(last_within)).await;
        }
    };
    async move {
        tokio::select! {
            () = after_one_more => {}
            () = used.permit.wanted() => {}
        }
    }
}

/// Whether a complete head came, and a request may begin. `refused` is called where it may not.
async fn begins<I>(
    io: &mut Prefixed<I>,
    used: &Arc<ConnectionUse>,
    peer: bool,
    refused: &impl Fn(NotHandled, ReportedHead<'_>),
) -> bool
where
    I: AsyncRead + AsyncWrite + MayAbort + Unpin,
{
    let early = if io.has_head() {
        None
    } else {
        used.admission.lets_in()
    };
    used.note_head_bytes(0);
    let whole = timeout(HEAD_WITHIN, io.whole_head(SMALL_HEAD, &used.budget)).await;
    if !matches!(whole, Ok(Ok(()))) {
        used.permit.head_is_overdue(HEAD_WITHIN);
        return false;
    }
    let Err(why) = used.admission.admits(io, early).await else {
        return true;
    };
    report_unread(io, used, NotHandled::answered(why), refused);
    let status = match why {
        NotAdmitted::Deadline => StatusCode::GATEWAY_TIMEOUT,
        NotAdmitted::Late | NotAdmitted::Left => StatusCode::SERVICE_UNAVAILABLE,
    };
    send_refusal(io, used, status, peer).await;
    false
}

/// Answers a head that could not be read, for which hyper had this status. Calls `refused` for it.
async fn refuse_unreadable<I>(
    io: &mut Prefixed<I>,
    used: &ConnectionUse,
    status: StatusCode,
    peer: bool,
    refused: &impl Fn(NotHandled, ReportedHead<'_>),
) where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let status = refused_head::status(status, used.has_head_of(io));
    let how = NotHandled::Answered(Reason::BadRequest, status);
    report_unread(io, used, how, refused);
    send_refusal(io, used, status, peer).await;
}

/// Calls `refused` for a head that hyper has not read. Of one that it has taken nothing is left.
fn report_unread<I: AsyncRead + Unpin>(
    io: &Prefixed<I>,
    used: &ConnectionUse,
    how: NotHandled,
    refused: &impl Fn(NotHandled, ReportedHead<'_>),
) {
    let head: &[u8] = if used.has_head_of(io) {
        &[]
    } else {
        io.read_ahead()
    };
    let (method, path) = refused_head::asked(head);
    let asked = ReportedHead {
        method: method.as_ref(),
        path,
        ..ReportedHead::default()
    };
    refused(how, asked);
}

/// The answer to a request that was not admitted; calls `refused` for it.
fn rejected(
    why: NotAdmitted,
    request: Request<Incoming>,
    peer: bool,
    refused: &impl Fn(NotHandled, ReportedHead<'_>),
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut answer = not_admitted(why, &parts.method, false, peer);
    if !body.is_end_stream() {
        ends_connection(&mut answer);
    }
    refused(NotHandled::answered(why), ReportedHead::of(&parts));
    answer
}

/// The answer to a request that was let in.
async fn answered(
    answer: impl Future<Output = Response<Body>>,
    old: bool,
    upgrade: bool,
    mut busy: Busy,
) -> Result<Response<Guarded>, WithoutAnswer> {
    if upgrade {
        // Gives the connection the time to become one that can.
        tokio::task::yield_now().await;
    }
    busy.proceed(upgrade);
    let mut answer = answer.await;
    if answer.extensions().get::<NoAnswer>().is_some() {
        busy.used.abort.set();
        return Err(WithoutAnswer);
    }
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        busy.switched();
    }
    if busy.used.is_last.load(Relaxed) && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        ends_connection(&mut answer);
    }
    Ok(guard(answer, old, busy))
}

/// Whether a request comes before the connection has to end.
async fn is_spoken_to<I: AsyncRead + Unpin>(
    io: &mut Prefixed<I>,
    patience: Option<Duration>,
    close: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    let next = async {
        match patience {
            Some(patience) => timeout(patience, io.first_bytes()).await,
            None => Ok(io.first_bytes().await),
        }
    };
    tokio::select! {
        // A request that is there already is served.
        biased;
        next = next => matches!(next, Ok(Ok(true))),
        () = close => false,
    }
}

/// Answers a head that could not or may not be read, in place of hyper, and ends the
/// connection.
async fn send_refusal<I: AsyncRead + AsyncWrite + Unpin>(
    io: &mut Prefixed<I>,
    used: &ConnectionUse,
    status: StatusCode,
    peer: bool,
) {
    used.admission.forgets();
    let taken = used.has_head_of(io);
    let mut head = io.take_prefix();
    if taken {
        // This is what came behind it.
        head.clear();
    }
    let answer = refused_head::answer(&head, status, peer);
    let sent = async {
        io.write_all(&answer).await?;
        io.flush().await
    };
    if let Ok(Ok(())) = timeout(CLOSE_TIMEOUT, sent).await {
        let _ = timeout(LINGER_FOR_UPLOADS + CLOSE_TIMEOUT, io.shutdown()).await;
    }
}

/// The connection ends in place of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection ends without an answer")]
struct WithoutAnswer;

enum Served<P> {
    Over(hyper::Result<()>),
    /// hyper could not read a head and would have answered with this status. What of
    /// the head it did not take is what was read and not used.
    Refused(P, StatusCode),
    /// Between two requests; all that was answered has been sent.
    Idle(P),
}

enum Event {
    Ended(hyper::Result<()>),
    Upgrade,
    Close,
    Tick,
}

async fn run<I, S>(
    mut connection: Connection<TokioIo<WriteObserver<I>>, S>,
    used: &ConnectionUse,
    mut close: Pin<&mut impl Future<Output = ()>>,
) -> Served<Parts<TokioIo<WriteObserver<I>>, S>>
where
    I: AsyncRead + AsyncWrite + MayAbort + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Guarded, Error = WithoutAnswer>,
    S::Future: Send + 'static,
{
    let mut tick = pin!(sleep(IDLE_AFTER));
    let initial = used.requests();
    let mut seen = initial;
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Event::Ended(ended));
            }
            if used.requests_other_protocol() {
                return Poll::Ready(Event::Upgrade);
            }
            if close.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Close);
            }
            tick.as_mut().poll(cx).map(|()| Event::Tick)
        })
        .await;
        match event {
            Event::Ended(outcome) => {
                return match used.refusal() {
                    Some(status) => Served::Refused(connection.into_parts(), status),
                    None => Served::Over(outcome),
                };
            }
            Event::Upgrade => {
                let mut connection = connection.with_upgrades();
                let mut closing = false;
                let ended = poll_fn(|cx| {
                    loop {
                        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                            return Poll::Ready(ended);
                        }
                        if !closing && close.as_mut().poll(cx).is_ready() {
                            closing = true;
                            Pin::new(&mut connection).graceful_shutdown();
                            continue;
                        }
                        if used.is_quiet() {
                            return Poll::Pending;
                        }
                        // It is never idle, but callers leave.
                        ready!(tick.as_mut().poll(cx));
                        used.looks.store(true, Relaxed);
                        tick.as_mut().reset(Instant::now() + IDLE_AFTER);
                    }
                });
                return Served::Over(ended.await);
            }
            Event::Close => {
                Pin::new(&mut connection).graceful_shutdown();
                let ended = poll_fn(|cx| {
                    loop {
                        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                            return Poll::Ready(ended);
                        }
                        // It does not rest any more, but callers leave.
                        ready!(tick.as_mut().poll(cx));
                        used.looks.store(!used.is_quiet(), Relaxed);
                        tick.as_mut().reset(Instant::now() + IDLE_AFTER);
                    }
                });
                let outcome = ended.await;
                return match used.refusal() {
                    Some(status) => Served::Refused(connection.into_parts(), status),
                    None => Served::Over(outcome),
                };
            }
            // What was answered has been taken, or this would be in use.
            Event::Tick if used.permit.head_is_overdue(HEAD_WITHIN) => return Served::Over(Ok(())),
            Event::Tick => {
                let requests = used.requests();
                // A head that comes in small chunks stays where it is.
                if requests == seen && requests != initial && used.is_quiet() {
                    return Served::Idle(connection.into_parts());
                }
                used.looks.store(!used.is_quiet(), Relaxed);
                seen = requests;
                tick.as_mut().reset(Instant::now() + IDLE_AFTER);
            }
        }
    }
}

#[cfg(test)]
mod tests;
