//! Wraps the socket of an HTTP/1.1 connection, and notes whether the client takes what is written
//! and when a request's head begins.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_proxy_net::abort::MayAbort;
use weft_proxy_net::chunk::read_at_most;
use weft_proxy_net::prefixed::Prefixed;

use crate::server::http1::activity::ConnectionUse;
use crate::server::refused_head;

/// Notes whether the client takes what is written, and when a head begins.
pub(super) struct WriteObserver<I: MayAbort> {
    /// There until it is taken out of here.
    pub(super) io: Option<Prefixed<I>>,
    pub(super) used: Arc<ConnectionUse>,
}

impl<I: MayAbort> WriteObserver<I> {
    /// What hyper spoke by, with what hyper read of it and did not use.
    pub(super) fn taken_back(mut self, unused: &[u8]) -> Option<Prefixed<I>> {
        let mut io = self.io.take()?;
        if !unused.is_empty() {
            io.put_back(unused);
        }
        Some(io)
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        let stuck = written.is_pending();
        if self.used.answers.stuck.swap(stuck, Relaxed) != stuck && self.used.head.is_expected() {
            self.used.becomes_idle_or_stuck();
        }
        written
    }

    fn written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            if self.used.answers.unwritten.load(Relaxed) > 0 {
                self.used.answers.unwritten.fetch_add(1, Relaxed);
            }
            self.used.answers.written(*bytes);
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
        if this.used.holds_back() {
            // The connection is taken apart soon, and waits without hyper's buffers.
            return Poll::Pending;
        }
        ready!(this.used.budget.poll_room(cx));
        let most = this.used.chunk_size();
        let before = out.filled().len();
        let read = read_at_most(this.io()?, cx, out, most);
        if out.filled().len() == before {
            return read;
        }
        this.used.note_head_bytes(out.filled().len() - before);
        // Behind a body nothing is repaired: only what hyper waits for as a head is one.
        let mut read = read;
        if this.used.head.begins()
            && let Some(mended) = refused_head::mend(&out.filled()[before..])
        {
            out.set_filled(before);
            this.io()?.put_back(&mended);
            read = read_at_most(this.io()?, cx, out, most);
        }
        let came = out.filled().len() - before;
        this.used.head.bytes.fetch_add(came, Relaxed);
        read
    }
}

impl<I: AsyncRead + AsyncWrite + MayAbort + Unpin> AsyncWrite for WriteObserver<I> {
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
        // hyper flushes whenever it has nothing else to do.
        if let Some(io) = &mut this.io {
            this.used.looks_whether_left(io, cx);
            let looks = this.used.looks.swap(false, Relaxed);
            let left = looks && (io.was_reset(cx) || this.used.has_abandoned(io, cx));
            if left || this.used.has_left(io, cx) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if this.used.abort.take_check() {
                io.broken(cx)?;
            }
        }
        let flushed = this.io()?.poll_flush(cx);
        // hyper has nothing left to write by then.
        if this.used.answers.unwritten.load(Relaxed) > 0 && matches!(flushed, Poll::Ready(Ok(()))) {
            this.used.answers.unwritten.store(0, Relaxed);
            this.used.answers.taken.wake();
        }
        this.note(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.used.abort.is_set() || this.used.refusal.load(Relaxed) != 0 {
            // What was written before must not look complete, or more is to be written.
            return Poll::Ready(Ok(()));
        }
        let half_closes = this.used.abort.half_closes();
        let mut io = this.io()?;
        if half_closes {
            io.half_close();
        }
        io.poll_shutdown(cx)
    }
}
