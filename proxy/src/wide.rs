//! A TCP connection between two proxies, read and written in large pieces.
//!
//! TLS asks for one record at a time, so a fast stream would cost a system call
//! for every 16 KiB. Here one call brings up to 64 KiB into memory that belongs
//! to the thread; what the caller did not ask for waits in a buffer that exists
//! only while something is in it.
//!
//! HTTP/2 writes every frame by itself. Once an [`Outlet`] has taken over, frames
//! wait until everything that is ready was said, and leave in one call.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What one read may bring.
const PIECE: usize = 64 * 1024;
/// A write of this size is worth a system call of its own.
const LARGE: usize = 32 * 1024;
/// Bytes that wait for the end of a turn; beyond it the writer waits for the peer.
const FULL: usize = 128 * 1024;
/// Empty buffers that a thread keeps for the next turn.
const SPARE: usize = 4;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into_boxed_slice());
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
pub struct Wide {
    stream: OwnedReadHalf,
    /// Read and not yet asked for, from `at` on.
    rest: Vec<u8>,
    at: usize,
    out: Arc<Mutex<Out>>,
}

/// The writing side, for whoever knows when a turn is over.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Mutex<Out>>);

#[derive(Debug)]
struct Out {
    stream: OwnedWriteHalf,
    /// Not yet sent, from `at` on.
    waiting: Vec<u8>,
    at: usize,
    /// True once an outlet sends what waits.
    collecting: bool,
    /// Counts writes, to tell who writes.
    writes: u64,
    failed: Option<io::ErrorKind>,
}

impl Wide {
    pub fn new(stream: TcpStream) -> (Self, Outlet) {
        let (read, write) = stream.into_split();
        let out = Arc::new(Mutex::new(Out {
            stream: write,
            waiting: Vec::new(),
            at: 0,
            collecting: false,
            writes: 0,
            failed: None,
        }));
        let wide = Self {
            stream: read,
            rest: Vec::new(),
            at: 0,
            out: Arc::clone(&out),
        };
        (wide, Outlet(out))
    }
}

impl Outlet {
    /// From now on what is written waits for [`Self::end_of_turn`].
    pub fn collect(&self) {
        self.0.lock().collecting = true;
    }

    /// Sends what was written while the connection's task was polled. To be called
    /// after each such poll, with the context of that task.
    pub fn end_of_turn(&self, cx: &mut Context<'_>) {
        let mut out = self.0.lock();
        if let Poll::Ready(Err(error)) = out.send(cx) {
            // Told at the next flush, and what waits is lost anyway.
            out.failed = Some(error.kind());
            out.clear();
            cx.waker().wake_by_ref();
        }
    }

    fn writes(&self) -> u64 {
        self.0.lock().writes
    }
}

/// Spawns the tasks of one HTTP/2 client connection. One of them writes to the
/// connection; which one is not said, so the first that does is taken for it.
#[derive(Clone, Debug)]
pub struct Tasks(pub Option<Outlet>);

impl<T> hyper::rt::Executor<T> for Tasks
where
    T: Future + Send + 'static,
    T::Output: Send,
{
    fn execute(&self, task: T) {
        let Some(outlet) = self.0.clone() else {
            tokio::spawn(task);
            return;
        };
        tokio::spawn(async move {
            let mut task = pin!(task);
            let mut writer = false;
            outlet.collect();
            poll_fn(|cx| {
                let before = outlet.writes();
                let polled = task.as_mut().poll(cx);
                writer |= outlet.writes() != before;
                // Only the writer may wait for room: there is place for one.
                if writer {
                    outlet.end_of_turn(cx);
                }
                polled
            })
            .await
        });
    }
}

impl Out {
    fn clear(&mut self) {
        self.at = 0;
        let mut spare = std::mem::take(&mut self.waiting);
        if spare.capacity() > 0 {
            spare.clear();
            SPARES.with_borrow_mut(|spares| {
                if spares.len() < SPARE {
                    spares.push(spare);
                }
            });
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

    fn write(&mut self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(kind.into()));
        }
        self.writes += 1;
        let size: usize = data.iter().map(|piece| piece.len()).sum();
        if !self.collecting || size >= LARGE {
            ready!(self.send(cx))?;
            return Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        }
        if self.waiting.len() - self.at >= FULL {
            ready!(self.send(cx))?;
        }
        if self.waiting.capacity() == 0 {
            self.waiting = SPARES.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        for piece in data {
            self.waiting.extend_from_slice(piece);
        }
        Poll::Ready(Ok(size))
    }
}

impl AsyncRead for Wide {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.at == this.rest.len() {
            this.rest = Vec::new();
            this.at = 0;
            if out.remaining() >= PIECE {
                return Pin::new(&mut this.stream).poll_read(cx, out);
            }
            return SCRATCH.with_borrow_mut(|scratch| {
                let mut piece = ReadBuf::new(scratch);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
                let (now, later) = piece
                    .filled()
                    .split_at(piece.filled().len().min(out.remaining()));
                out.put_slice(now);
                this.rest.extend_from_slice(later);
                Poll::Ready(Ok(()))
            });
        }
        let rest = &this.rest[this.at..];
        let now = rest.len().min(out.remaining());
        out.put_slice(&rest[..now]);
        this.at += now;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wide {
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
