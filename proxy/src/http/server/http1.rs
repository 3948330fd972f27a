//! One HTTP/1.1 connection as a server, small while nobody uses it.
//!
//! hyper keeps two buffers of 8 KiB for each connection. One that has rested for
//! a while gives them back: it is taken apart between two requests, and put
//! together again when bytes come.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::{Request, Response, StatusCode, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Connection, Parts};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use runtime::head_timer::watch_heads;
use runtime::occupancy::Place;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep, timeout};

use crate::http::body::{Body, BoxError};
use crate::http::server::refused_head;
use crate::net::abort::{Abort, MayAbort};
use crate::net::budget::{Budget, Holder};
use crate::net::chunk::read_at_most;
use crate::net::linger::LINGER_FOR_UPLOADS;
use crate::net::prefixed::Prefixed;
use crate::net::tuning::HEAD_WITHIN;

/// A connection without a request for this long, and for up to twice as long, is
/// taken apart. Putting it together again costs about a microsecond, so busy
/// connections must not get here.
const REST_AFTER: Duration = Duration::from_millis(100);

/// A head is waited for without hyper's buffers up to this size, so that half of
/// one costs little more than its bytes.
const SMALL_HEAD: usize = 16 * 1024;

/// A client has this long to take the end of a resting connection.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves until the connection ends, or until `close` asks to end it after the
/// request in flight. A resting connection is closed after `patience`, if any.
/// `place` learns what the connection is doing, and sees to slow heads. `refused` is told
/// the status of the answer to a head that cannot be read.
///
/// # Errors
/// Whatever ended the connection early.
#[expect(clippy::too_many_arguments, reason = "each is of another kind")]
pub(crate) async fn serve<I, H, F>(
    io: I,
    mut builder: Builder,
    patience: Option<Duration>,
    budget: Arc<Budget>,
    place: Arc<Place>,
    close: impl Future<Output = ()>,
    refused: impl Fn(StatusCode),
    handler: H,
) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + MayAbort + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let used = Arc::new(Use::new(budget, place));
    let waiting = Arc::clone(&used);
    watch_heads(&mut builder, move || waiting.waits());
    let noted = Arc::clone(&used);
    let mut service = service_fn(move |mut request: Request<Incoming>| {
        let (busy, upgrade) = noted.begin(&request);
        request.extensions_mut().insert(noted.abort.clone());
        // Whoever speaks HTTP/1.0 may read an answer to the end of the connection.
        let old = request.version() == Version::HTTP_10;
        let answer = handler(request);
        async move {
            if upgrade {
                // Gives the connection the time to become one that can.
                tokio::task::yield_now().await;
            }
            let answer = answer.await;
            Ok::<_, Infallible>(guard(answer, old, busy))
        }
    });
    let mut close = pin!(close);
    let mut io = Prefixed::new(io);
    used.waits();
    loop {
        let next = async {
            match patience {
                Some(patience) => timeout(patience, io.first_bytes()).await,
                None => Ok(io.first_bytes().await),
            }
        };
        // Nothing is set up for a connection on which no head has come.
        let spoken = tokio::select! {
            // A request that is there already is served.
            biased;
            next = next => matches!(next, Ok(Ok(true))),
            () = close.as_mut() => false,
        };
        if !spoken {
            // As hyper does between two requests: whoever sends the next one learns
            // that it was not taken.
            let _ = timeout(GOODBYE, io.shutdown()).await;
            return Ok(());
        }
        used.hears();
        let whole = timeout(HEAD_WITHIN, io.whole_head(SMALL_HEAD)).await;
        if !matches!(whole, Ok(Ok(()))) {
            used.place.head_is_overdue(HEAD_WITHIN);
            return Ok(());
        }
        let outlet = WriteObserver {
            io: Some(io),
            used: Arc::clone(&used),
        };
        let connection = builder.serve_connection(TokioIo::new(outlet), service);
        // Boxed: while the connection rests, nothing of it stays in this future.
        let (parts, refusal) = match Box::pin(run(connection, &used, close.as_mut())).await {
            Served::Over(outcome) => return outcome,
            Served::Resting(parts) => (parts, None),
            Served::Refused(parts, status) => (parts, Some(status)),
        };
        service = parts.service;
        io = match parts.io.into_inner().io.take() {
            Some(io) => io,
            None => return Ok(()),
        };
        if !parts.read_buf.is_empty() {
            io.put_back(&parts.read_buf);
        }
        let Some(status) = refusal else { continue };
        refused(status);
        let mut head = io.take_prefix();
        if head.len() < used.head.load(Relaxed) {
            // hyper has taken it, and this is what came behind it.
            head.clear();
        }
        let answer = refused_head::answer(&head, status);
        let said = async {
            io.write_all(&answer).await?;
            io.flush().await
        };
        if let Ok(Ok(())) = timeout(GOODBYE, said).await {
            let _ = timeout(LINGER_FOR_UPLOADS + GOODBYE, io.shutdown()).await;
        }
        return Ok(());
    }
}

enum Served<P> {
    Over(hyper::Result<()>),
    /// hyper could not read a head and would have answered with this status. What of
    /// the head it did not take is what was read and not used.
    Refused(P, StatusCode),
    /// Between two requests; all that was answered has been sent.
    Resting(P),
}

enum Event {
    Ended(hyper::Result<()>),
    Upgrade,
    Close,
    Tick,
}

async fn run<I, S>(
    mut connection: Connection<TokioIo<WriteObserver<I>>, S>,
    used: &Use,
    mut close: Pin<&mut impl Future<Output = ()>>,
) -> Served<Parts<TokioIo<WriteObserver<I>>, S>>
where
    I: AsyncRead + AsyncWrite + MayAbort + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Guarded, Error = Infallible>,
    S::Future: Send + 'static,
{
    let mut tick = pin!(sleep(REST_AFTER));
    let begun = used.requests();
    let mut seen = begun;
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Event::Ended(ended));
            }
            if used.upgrade.load(Relaxed) {
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
                return Served::Over(tokio::select! {
                    ended = &mut connection => ended,
                    () = close => {
                        Pin::new(&mut connection).graceful_shutdown();
                        connection.await
                    }
                });
            }
            Event::Close => {
                Pin::new(&mut connection).graceful_shutdown();
                let outcome = (&mut connection).await;
                return match used.refusal() {
                    Some(status) => Served::Refused(connection.into_parts(), status),
                    None => Served::Over(outcome),
                };
            }
            // What was answered has been taken, or this would be in use.
            Event::Tick if used.place.head_is_overdue(HEAD_WITHIN) => return Served::Over(Ok(())),
            Event::Tick => {
                let requests = used.requests();
                // A head that comes in small pieces stays where it is.
                if requests == seen && requests != begun && used.is_quiet() {
                    return Served::Resting(connection.into_parts());
                }
                seen = requests;
                tick.as_mut().reset(Instant::now() + REST_AFTER);
            }
        }
    }
}

/// What a connection is doing.
#[derive(Debug)]
struct Use {
    place: Arc<Place>,
    /// A head is expected; whatever came before has been read to its end.
    expects: AtomicBool,
    /// Nothing of it has come.
    fresh: AtomicBool,
    /// Bytes that have come since, for all that is known.
    head: AtomicUsize,
    requests: AtomicU64,
    /// Answers that have not been handed over in full.
    in_flight: AtomicU32,
    /// The last request has a body, and not all of it has come. What comes must
    /// never be taken for the next request.
    body: AtomicBool,
    /// A request asks for another protocol.
    upgrade: AtomicBool,
    /// The client does not take what was answered.
    stuck: AtomicBool,
    /// Bytes of answers that hyper has and the client has not taken, or nearly: heads
    /// are not counted when they come, so it may be less.
    unsent: AtomicIsize,
    /// Wakes whoever waits for `unsent` to get less.
    taken: AtomicWaker,
    budget: Arc<Budget>,
    /// The status of an answer of hyper itself that was kept back; 0: none.
    refusal: AtomicU16,
    /// An answer broke off: a client that reads to the end of the connection must not
    /// take what it got for all of it.
    abort: Abort,
}

impl Use {
    fn new(budget: Arc<Budget>, place: Arc<Place>) -> Self {
        Self {
            place,
            expects: AtomicBool::default(),
            fresh: AtomicBool::default(),
            head: AtomicUsize::default(),
            requests: AtomicU64::default(),
            in_flight: AtomicU32::default(),
            body: AtomicBool::default(),
            upgrade: AtomicBool::default(),
            stuck: AtomicBool::default(),
            unsent: AtomicIsize::default(),
            taken: AtomicWaker::new(),
            budget,
            refusal: AtomicU16::default(),
            abort: Abort::default(),
        }
    }

    /// True when `data` is an answer of hyper itself, to a head that no handler gets,
    /// and is to be kept back for one that says more. Answers of handlers that look like
    /// it say that they are the last ones, so that no head is expected after them.
    fn keeps_back(&self, data: &[u8]) -> bool {
        if !self.expects.load(Relaxed)
            || self.upgrade.load(Relaxed)
            || self.unsent.load(Relaxed) > 0
        {
            return false;
        }
        let status = refused_head::by_hyper(data);
        if let Some(status) = status {
            self.refusal.store(status.as_u16(), Relaxed);
        }
        status.is_some()
    }

    fn refusal(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.refusal.swap(0, Relaxed)).ok()
    }

    /// The next head may come.
    fn waits(&self) {
        self.body.store(false, Relaxed);
        self.expects.store(true, Relaxed);
        self.fresh.store(true, Relaxed);
        self.head.store(0, Relaxed);
        self.rests();
    }

    /// An answer that is not taken in full is no rest between two requests.
    fn rests(&self) {
        if self.stuck.load(Relaxed) {
            self.place.stuck();
        } else {
            self.place.idle();
        }
    }

    fn hears(&self) {
        if self.expects.load(Relaxed) {
            self.place.head_begins();
        }
    }

    fn begin(self: &Arc<Self>, request: &Request<Incoming>) -> (Busy, bool) {
        self.expects.store(false, Relaxed);
        self.place.busy();
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        self.body.store(!request.body().is_end_stream(), Relaxed);
        let upgrade = request.headers().contains_key(header::UPGRADE);
        self.upgrade.fetch_or(upgrade, Relaxed);
        let busy = Busy {
            used: Arc::clone(self),
            _holder: self.budget.hold(),
        };
        (busy, upgrade)
    }

    fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    fn piece(&self) -> usize {
        self.budget.piece()
    }

    /// The client has enough to take.
    fn is_full(&self) -> bool {
        usize::try_from(self.unsent.load(Relaxed)).is_ok_and(|unsent| unsent >= self.piece())
    }

    /// `bytes` were written to the client.
    fn written(&self, bytes: usize) {
        let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
        let before = self.unsent.fetch_sub(bytes, Relaxed);
        if before < bytes {
            // A head, or what chunks are wrapped in.
            self.unsent.store(0, Relaxed);
        }
        self.taken.wake();
    }

    fn is_quiet(&self) -> bool {
        self.in_flight.load(Relaxed) == 0 && !self.body.load(Relaxed) && !self.stuck.load(Relaxed)
    }
}

/// Held until an answer has been handed over.
#[derive(Debug)]
struct Busy {
    used: Arc<Use>,
    _holder: Holder,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.used.in_flight.fetch_sub(1, Relaxed);
    }
}

fn guard(answer: Response<Body>, old: bool, busy: Busy) -> Response<Guarded> {
    let by_close = old && !answer.headers().contains_key(header::CONTENT_LENGTH);
    answer.map(|body| Guarded {
        body,
        by_close,
        busy,
    })
}

/// The body of an answer. hyper drops it once it has taken the last of it.
struct Guarded {
    body: Body,
    /// Nothing but the end of the connection tells its end.
    by_close: bool,
    busy: Busy,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let used = &this.busy.used;
        if used.is_full() {
            // hyper would take more, up to a fixed size that many slow readers together
            // do not fit.
            used.taken.register(cx.waker());
            if used.is_full() {
                return Poll::Pending;
            }
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            used.unsent
                .fetch_add(isize::try_from(data.len()).unwrap_or(isize::MAX), Relaxed);
        }
        if let (true, Poll::Ready(Some(Err(_)))) = (this.by_close, &polled) {
            this.busy.used.abort.set();
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

/// Notes whether the client takes what is written, and when a head begins.
struct WriteObserver<I: MayAbort> {
    /// There until it is taken out of here.
    io: Option<Prefixed<I>>,
    used: Arc<Use>,
}

impl<I: MayAbort> WriteObserver<I> {
    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        let stuck = written.is_pending();
        if self.used.stuck.swap(stuck, Relaxed) != stuck && self.used.expects.load(Relaxed) {
            self.used.rests();
        }
        written
    }

    fn written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.used.written(*bytes);
        }
        self.note(written)
    }

    fn io(&mut self) -> io::Result<Pin<&mut Prefixed<I>>>
    where
        I: Unpin,
    {
        self.io
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<I: MayAbort> Drop for WriteObserver<I> {
    fn drop(&mut self) {
        if let Some(io) = &mut self.io
            && self.used.abort.is_set()
        {
            io.abort();
        }
    }
}

impl<I: AsyncRead + MayAbort + Unpin> AsyncRead for WriteObserver<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let most = this.used.piece();
        let before = out.filled().len();
        let read = read_at_most(this.io()?, cx, out, most);
        if out.filled().len() == before {
            return read;
        }
        this.used.hears();
        // Behind a body nothing is mended: only what hyper waits for as a head is one.
        let mut read = read;
        if this.used.expects.load(Relaxed)
            && this.used.fresh.swap(false, Relaxed)
            && let Some(mended) = refused_head::mend(&out.filled()[before..])
        {
            out.set_filled(before);
            this.io()?.put_back(&mended);
            read = read_at_most(this.io()?, cx, out, most);
        }
        let came = out.filled().len() - before;
        this.used.head.fetch_add(came, Relaxed);
        read
    }
}

impl<I: AsyncWrite + MayAbort + Unpin> AsyncWrite for WriteObserver<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.used.keeps_back(data) {
            return Poll::Ready(Ok(data.len()));
        }
        let written = this.io()?.poll_write(cx, data);
        this.written(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = data.iter().filter(|part| !part.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next()) {
            return self.poll_write(cx, only);
        }
        let this = self.get_mut();
        let written = this.io()?.poll_write_vectored(cx, data);
        this.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = this.io()?.poll_flush(cx);
        this.note(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.used.abort.is_set() || this.used.refusal.load(Relaxed) != 0 {
            // Whatever was said before must not look complete, or more is to be said.
            return Poll::Ready(Ok(()));
        }
        this.io()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
