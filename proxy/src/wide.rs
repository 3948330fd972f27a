//! A TCP connection that is read in large pieces.
//!
//! TLS asks for one record at a time, so a fast stream would cost a system call
//! for every 16 KiB. Here one call brings up to 64 KiB into memory that belongs
//! to the thread; what the caller did not ask for waits in a buffer that exists
//! only while something is in it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What one read may bring.
const PIECE: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into_boxed_slice());
}

#[derive(Debug)]
pub struct Wide {
    stream: TcpStream,
    /// Read and not yet asked for, from `at` on.
    rest: Vec<u8>,
    at: usize,
}

impl Wide {
    pub const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            rest: Vec::new(),
            at: 0,
        }
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
        Pin::new(&mut self.get_mut().stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
