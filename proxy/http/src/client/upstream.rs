//! `Upstream`: wraps the socket of an HTTP/1.1 connection to an application for hyper, and bounds
//! how many of them have a large window.
//!
//! Claims: calls-11

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_proxy_net::abort::Abort;
use weft_proxy_net::budget::{Budget, Holder};
use weft_proxy_net::chunk::read_at_most;
use weft_proxy_net::connect;

use crate::client::server_stream::ServerStream;
use crate::stuck_upload::{Answered, StuckUpload};

/// A connection to an application, as hyper gets it.
///
/// It is reset when it is dropped, if a reset was requested. And an application may answer and
/// close before it has taken the request: what it did not take is dropped then, so that hyper reads
/// the answer and does not stop at the error of writing. One that answers and neither takes nor
/// closes is reset after a while.
#[derive(Debug)]
pub struct Upstream {
    io: ServerStream,
    state: Arc<ConnectionState>,
    abort: Abort,
    holder: Holder,
    stuck: StuckUpload,
    /// The application takes no more.
    deaf: bool,
    /// It broke off, and the error of writing was the only sign of that.
    broken: bool,
    #[expect(dead_code, reason = "counts for as long as the connection is open")]
    window: Option<Window>,
}

/// What was read of a connection.
#[derive(Debug, Default)]
struct ConnectionState {
    /// The server put an end to it.
    ended: AtomicBool,
    /// The server sent something since the last request began.
    received: AtomicBool,
    /// The server does not take what was written last.
    stuck: AtomicBool,
    /// The task that waits until it does.
    taken: AtomicWaker,
    /// hyper has all of the body.
    whole: AtomicBool,
    answered: Answered,
}

impl ConnectionState {
    fn notes(&self, takes: bool) {
        if self.stuck.swap(!takes, Relaxed) && takes {
            self.taken.wake();
        }
    }
}

/// What can be seen of a connection while hyper owns its [`Upstream`].
#[derive(Clone, Debug)]
pub struct UpstreamWatch {
    state: Arc<ConnectionState>,
}

impl UpstreamWatch {
    /// Whether the server put an end to the connection, as far as it was read.
    #[must_use]
    pub(crate) fn has_ended(&self) -> bool {
        self.state.ended.load(Relaxed)
    }

    /// From here on bytes of the server count as an answer to the next request.
    pub(crate) fn start_request(&self) {
        self.state.received.store(false, Relaxed);
    }

    /// From here on hyper has all of the body.
    pub(super) fn note_whole_body(&self) {
        self.state.whole.store(true, Relaxed);
    }

    /// Whether the answer to a request with a body has come whole.
    pub(super) fn answered(&self) -> Answered {
        self.state.answered.clone()
    }

    /// Whether all of the body is on its way, and the server takes it.
    pub(super) fn gets_whole_body(&self) -> bool {
        self.state.whole.load(Relaxed) && !self.is_stuck()
    }

    /// The server does not take what was written last.
    fn is_stuck(&self) -> bool {
        self.state.stuck.load(Relaxed)
    }

    /// Ready unless the server does not take what was written last.
    pub(super) fn poll_takes(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_stuck() {
            return Poll::Ready(());
        }
        self.state.taken.register(cx.waker());
        // It may have taken it just now.
        if self.is_stuck() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Whether the server sent anything since [`Self::start_request`]: an interim answer and a part
    /// of a head too.
    #[must_use]
    pub(crate) fn has_received(&self) -> bool {
        self.state.received.load(Relaxed)
    }
}

impl Upstream {
    #[must_use]
    pub fn new(io: ServerStream, abort: Abort, holder: Holder, window: Option<Window>) -> Self {
        let state = Arc::<ConnectionState>::default();
        Self {
            io,
            stuck: StuckUpload::new(state.answered.clone()),
            state,
            abort,
            holder,
            deaf: false,
            broken: false,
            window,
        }
    }

    #[must_use]
    pub fn watch(&self) -> UpstreamWatch {
        UpstreamWatch {
            state: Arc::clone(&self.state),
        }
    }

    /// What is written goes nowhere.
    fn is_deaf(&self) -> bool {
        if self.abort.discards() {
            self.state.notes(true);
            return true;
        }
        self.deaf
    }

    fn written(
        &mut self,
        cx: &mut Context<'_>,
        size: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.state.notes(written.is_ready());
        if written.is_ready() {
            self.stuck.moves();
        }
        match written {
            Poll::Pending => {
                self.abort.waits(cx);
                ready!(self.stuck.poll_abandoned(cx));
                tracing::debug!("a server takes nothing of a body behind its answer");
                self.abort.discard();
                self.state.notes(true);
                Poll::Ready(Ok(size))
            }
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.deaf = true;
                // After an end in good order the first error is a broken pipe.
                self.broken |= error.kind() == io::ErrorKind::ConnectionReset;
                Poll::Ready(Ok(size))
            }
            other => other,
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if self.abort.is_set() {
            connect::reset(self.io.socket());
        }
    }
}

impl AsyncRead for Upstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.abort.discards() {
            // No caller waits for it: hyper need not either.
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        ready!(this.holder.poll_room(cx));
        let (before, room) = (out.filled().len(), out.remaining());
        let chunk_size = this.holder.chunk_size();
        let read = read_at_most(Pin::new(&mut this.io), cx, out, chunk_size);
        let ended = matches!(read, Poll::Ready(Ok(()))) && out.filled().len() == before;
        if out.filled().len() > before {
            this.state.received.store(true, Relaxed);
        }
        if room > 0 && (ended || matches!(read, Poll::Ready(Err(_)))) {
            this.state.ended.store(true, Relaxed);
        }
        if this.broken && room > 0 && ended {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_deaf() {
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut this.io).poll_write(cx, data);
        this.written(cx, data.len(), written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let size = data.iter().map(|part| part.len()).sum();
        if this.is_deaf() {
            return Poll::Ready(Ok(size));
        }
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, data);
        this.written(cx, size, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.abort.take_check() {
            connect::broken(this.io.socket())?;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.abort.discards() {
            // It is reset, so it must not look complete before.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// Bytes requested of the kernel for received data; it takes twice as many, for its own overhead.
/// What most kernels allow (`net.core.rmem_max`), so that nodes do not differ.
pub(crate) const WINDOW: u32 = 208 * 1024;
/// What one takes of the kernel's memory at most, in bytes.
const TAKES: usize = 2 * WINDOW as usize;
/// At once.
const AT_ONCE: usize = 64;
/// Part of the process's memory that all of them may take: with what else is held it stays
/// below what the budget calls tight.
const PART: usize = 8;

/// Room for an answer whose server closes with a part of the request's body unread.
///
/// That close is a reset, and with it the server's kernel drops what it has not sent yet.
/// What has come stays to be read. So a connection with room for the whole answer loses
/// nothing, however slowly its reader takes it.
///
/// Counts the connections with such a window.
#[derive(Debug, Default)]
pub struct Windows(Arc<()>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Window(#[expect(dead_code, reason = "counts")] Arc<()>);

impl Windows {
    /// One more, where memory allows it.
    pub fn take(&self, budget: &Budget) -> Option<Window> {
        let window = Window(Arc::clone(&self.0));
        let limit = AT_ONCE.min(budget.heap() / PART / TAKES);
        // One of the holders is the count itself.
        let is_free = Arc::strong_count(&self.0) <= limit + 1;
        (is_free && !budget.is_tight()).then_some(window)
    }
}

#[cfg(test)]
mod tests {
    use weft_proxy_net::budget::Budget;

    use super::{AT_ONCE, PART, TAKES, Windows};

    #[test]
    fn windows_take_an_eighth_of_the_memory_at_most() {
        for (heap, at_once) in [(usize::MAX, AT_ONCE), (10 * PART * TAKES, 10), (TAKES, 0)] {
            let budget = Budget::measured(1 << 20, heap, || 0);
            let windows = Windows::default();
            let mut taken: Vec<_> = (0..at_once)
                .map(|_| windows.take(&budget).expect("room"))
                .collect();
            assert!(windows.take(&budget).is_none(), "{heap}");
            if taken.pop().is_some() {
                assert!(windows.take(&budget).is_some(), "{heap}");
            }
        }
    }

    #[test]
    fn a_process_that_is_short_of_memory_opens_none() {
        let budget = Budget::measured(1 << 20, 100 * TAKES, || 60 * TAKES);
        assert!(Windows::default().take(&budget).is_none());
    }
}
