//! The plaintext connection that an HTTP server gets: a socket, or a tunnel of a peer proxy. It is
//! one type for both, since the server is compiled for each type, with all of hyper and `h2` that
//! belongs to it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use weft_proxy_net::abort::MayAbort;

use crate::byte_stream::ByteStream;

#[derive(Debug)]
pub enum PlainStream {
    Socket(TcpStream),
    /// Boxed: it is several times as large as a socket, and rare.
    Tunnel(Box<ByteStream>),
}

impl From<TcpStream> for PlainStream {
    fn from(socket: TcpStream) -> Self {
        Self::Socket(socket)
    }
}

impl From<ByteStream> for PlainStream {
    fn from(tunnel: ByteStream) -> Self {
        Self::Tunnel(Box::new(tunnel))
    }
}

/// The same of whichever it is.
macro_rules! of_either {
    ($stream:expr, $inner:ident => $does:expr) => {
        match $stream {
            Self::Socket($inner) => $does,
            Self::Tunnel($inner) => $does,
        }
    };
}

impl AsyncRead for PlainStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        of_either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, out))
    }
}

impl AsyncWrite for PlainStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        of_either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, data))
    }

    fn is_write_vectored(&self) -> bool {
        of_either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl MayAbort for PlainStream {
    fn abort(&mut self) {
        of_either!(self, stream => stream.abort());
    }

    fn was_reset(&mut self, cx: &mut Context<'_>) -> bool {
        of_either!(self, stream => stream.was_reset(cx))
    }

    fn broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        of_either!(self, stream => stream.broken(cx))
    }
}
