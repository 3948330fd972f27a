//! A TCP connection between two proxies, read and written in large chunks.
//!
//! TLS reads one record at a time, so a fast stream would cost a system call for every 16 KiB.
//! Here one call brings up to 64 KiB, in a buffer that belongs to the thread. A connection keeps
//! it only while something is left in it.
//!
//! HTTP/2 writes every frame by itself. Once a [`FlushHandle`] has taken over, frames wait until
//! everything that is ready was written, and leave in one call.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::connect;

/// What one read may bring.
const CHUNK: usize = 64 * 1024;
/// A write of this size is worth a system call of its own.
const LARGE: usize = 32 * 1024;
/// Bytes that wait for the end of a turn; beyond it the writer waits for the peer.
const FULL: usize = 128 * 1024;
/// What one turn needs whose peer takes all: a larger write leaves by itself. A buffer that
/// became larger is that of a peer that took nothing for a while, and is not kept for the next
/// turn.
const LARGEST_SPARE: usize = FULL + LARGE;
/// Empty buffers of a kind that a thread keeps for the next turn.
const SPARE: usize = 4;

thread_local! {
    static UNREAD: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static UNSENT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A connection's reading and writing side, as TLS sees it.
#[derive(Debug)]
pub struct Coalescing {
    stream: OwnedReadHalf,
    rest: Option<Rest>,
    out: Arc<Mutex<Out>>,
}

/// Read from the socket and not yet taken.
#[derive(Debug)]
struct Rest {
    buffer: Box<[u8]>,
    unread: Range<usize>,
}

/// The writing side, for the task that knows when a turn is over.
#[derive(Clone, Debug)]
pub struct FlushHandle(Arc<Mutex<Out>>);

/// The connection, for what may end it from elsewhere. Does not keep it open.
#[derive(Clone, Debug)]
pub struct BreakOff(Weak<Mutex<Out>>);

#[derive(Debug)]
struct Out {
    stream: OwnedWriteHalf,
    /// Not yet sent, from `at` on.
    waiting: Vec<u8>,
    at: usize,
    /// True once a [`FlushHandle`] sends what waits.
    collecting: bool,
    failed: Option<io::ErrorKind>,
}

impl Coalescing {
    pub fn new(stream: TcpStream) -> (Self, FlushHandle) {
        let (read, write) = stream.into_split();
        let out = Arc::new(Mutex::new(Out {
            stream: write,
            waiting: Vec::new(),
            at: 0,
            collecting: false,
            failed: None,
        }));
        let coalescing = Self {
            stream: read,
            rest: None,
            out: Arc::clone(&out),
        };
        (coalescing, FlushHandle(out))
    }

    /// As [`connect::broken`].
    ///
    /// # Errors
    /// As there.
    pub fn broken(&self) -> io::Result<()> {
        connect::broken(self.stream.as_ref())
    }
}

impl FlushHandle {
    /// What may end the connection from elsewhere.
    #[must_use]
    pub fn break_off(&self) -> BreakOff {
        BreakOff(Arc::downgrade(&self.0))
    }

    /// From now on what is written waits for [`Self::flush`].
    pub fn collect(&self) {
        self.0.lock().collecting = true;
    }

    /// Sends what was written while the connection's task was polled. To be called
    /// after each such poll, with the context of that task.
    pub fn flush(&self, cx: &mut Context<'_>) {
        let mut out = self.0.lock();
        if let Poll::Ready(Err(error)) = out.send(cx) {
            // Reported at the next flush, and what waits is lost anyway.
            out.failed = Some(error.kind());
            out.clear();
            cx.waker().wake_by_ref();
        }
    }
}

impl BreakOff {
    /// Ends both directions at once. The connection's task finds that out by its next read, which
    /// this wakes.
    pub fn now(&self) {
        if let Some(out) = self.0.upgrade() {
            let out = out.lock();
            let stream: &TcpStream = out.stream.as_ref();
            // One that has ended already is what is wanted.
            let _ = SockRef::from(stream).shutdown(std::net::Shutdown::Both);
        }
    }

    /// False once the connection was dropped.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Out {
    fn clear(&mut self) {
        self.at = 0;
        let mut spare = std::mem::take(&mut self.waiting);
        if spare.capacity() > 0 {
            spare.clear();
            if spare.capacity() <= LARGEST_SPARE {
                UNSENT.with_borrow_mut(|spares| keep(spares, spare));
            }
        }
    }

    /// Sends all that waits.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.at < self.waiting.len() {
            let written =
                ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting[self.at..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += written;
        }
        if self.at > 0 {
            self.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Of a peer that takes a part each turn something always waits. So what it took goes
    /// before, once it is no less than what waits: that many bytes are moved at most.
    fn drop_sent(&mut self) {
        if self.at > 0 && self.at >= self.waiting.len() - self.at {
            self.waiting.drain(..self.at);
            self.at = 0;
        }
    }

    /// Doubles, but up to [`LARGEST_SPARE`] before it goes beyond: what doubled past that would
    /// be freed after each turn, and grow anew in the next one.
    fn grow_for(&mut self, more: usize) {
        let (needed, now) = (self.waiting.len() + more, self.waiting.capacity());
        if needed <= now {
            return;
        }
        let doubled = needed.max(2 * now);
        let wanted = if needed <= LARGEST_SPARE {
            doubled.min(LARGEST_SPARE)
        } else {
            doubled
        };
        self.waiting.reserve_exact(wanted - self.waiting.len());
    }

    fn write(&mut self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(kind.into()));
        }
        let size: usize = data.iter().map(|chunk| chunk.len()).sum();
        if !self.collecting || size >= LARGE {
            ready!(self.send(cx))?;
            return Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        }
        if self.waiting.len() - self.at >= FULL {
            ready!(self.send(cx))?;
        }
        if self.waiting.capacity() == 0 {
            self.waiting = UNSENT.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        self.drop_sent();
        self.grow_for(size);
        for chunk in data {
            self.waiting.extend_from_slice(chunk);
        }
        Poll::Ready(Ok(size))
    }
}

impl AsyncRead for Coalescing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Rest { buffer, mut unread } = match this.rest.take() {
            Some(rest) => rest,
            None if out.remaining() >= CHUNK => {
                return Pin::new(&mut this.stream).poll_read(cx, out);
            }
            None => {
                let mut buffer = UNREAD
                    .with_borrow_mut(Vec::pop)
                    .unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice());
                let mut chunk = ReadBuf::new(&mut buffer);
                let polled = Pin::new(&mut this.stream).poll_read(cx, &mut chunk);
                let unread = 0..chunk.filled().len();
                if !matches!(polled, Poll::Ready(Ok(()))) {
                    UNREAD.with_borrow_mut(|spares| keep(spares, buffer));
                    return polled;
                }
                Rest { buffer, unread }
            }
        };
        let now = unread.len().min(out.remaining());
        out.put_slice(&buffer[unread.start..][..now]);
        unread.start += now;
        if unread.is_empty() {
            UNREAD.with_borrow_mut(|spares| keep(spares, buffer));
        } else {
            this.rest = Some(Rest { buffer, unread });
        }
        Poll::Ready(Ok(()))
    }
}

/// Puts an empty buffer where the thread finds it again.
fn keep<T>(spares: &mut Vec<T>, buffer: T) {
    if spares.len() < SPARE {
        spares.push(buffer);
    }
}

impl AsyncWrite for Coalescing {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.out.lock().write(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.out.lock().write(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.out.lock();
        if let Some(kind) = out.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if out.collecting {
            return Poll::Ready(Ok(()));
        }
        out.send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.out.lock();
        ready!(out.send(cx))?;
        Pin::new(&mut out.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
