//! Byte streams as a relay wants them: pieces that change hands without a copy.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use crate::detect::Prefixed;
use crate::stream::Stream;

/// What one read may bring. Between two proxies a piece becomes an HTTP/2 frame with
/// a head of 9 bytes, in four TLS records with 22 bytes each: together 64 KiB, which
/// is what the peer reads at once. One byte more is one record and one read more.
const PIECE: usize = 64 * 1024 - 9 - 4 * 22;
/// Room below which the next read gets a new buffer.
const LITTLE: usize = 48 * 1024;

thread_local! {
    /// Where reads go. It belongs to the thread, not to the connection, so it may be
    /// large: idle connections hold none of it.
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// One side of a relay.
pub trait Pieces {
    /// The next bytes; empty at the end.
    ///
    /// # Errors
    /// Whatever ended the stream early.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>>;

    /// Sends what it can of `piece`, and takes that away from it. Ready once it is
    /// empty.
    ///
    /// # Errors
    /// When nobody takes it any more.
    fn poll_send(&mut self, cx: &mut Context<'_>, piece: &mut Bytes) -> Poll<io::Result<()>>;

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// When that cannot be said.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Streams of plain bytes.
pub trait Plain: AsyncRead + AsyncWrite + Unpin {}

impl Plain for TcpStream {}
impl Plain for TokioIo<Upgraded> {}
#[cfg(test)]
impl Plain for tokio::io::DuplexStream {}

impl<S: Plain> Pieces for S {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.capacity() < LITTLE {
                buffer.reserve(PIECE);
            }
            ready!(pin!(self.read_buf(&mut buffer.limit(PIECE))).poll(cx))?;
            Poll::Ready(Ok(buffer.split().freeze()))
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, piece: &mut Bytes) -> Poll<io::Result<()>> {
        while !piece.is_empty() {
            let written = ready!(Pin::new(&mut *self).poll_write(cx, piece))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            // Not `advance`: the whole piece is freed with its last byte.
            drop(piece.split_to(written));
        }
        Pin::new(self).poll_flush(cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}

impl Pieces for Stream {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        Self::poll_piece(self, cx)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, piece: &mut Bytes) -> Poll<io::Result<()>> {
        Self::poll_send(self, cx, piece)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}

impl<S: Pieces> Pieces for Prefixed<S> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let prefix = self.take_prefix();
        if !prefix.is_empty() {
            return Poll::Ready(Ok(prefix.into()));
        }
        self.inner.poll_piece(cx)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, piece: &mut Bytes) -> Poll<io::Result<()>> {
        self.inner.poll_send(cx, piece)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_end(cx)
    }
}
