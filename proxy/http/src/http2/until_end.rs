//! Wraps a connection to a server so that nothing more is written once the server has ended its
//! side.
//!
//! `h2` reports the end to all calls of a connection, and then still writes what the socket had no
//! room for before. A call of which nothing had been written by then is sent again by another
//! connection, so nothing of it may be written to this one.
//!
//! Claims: calls-14

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use weft_proxy_net::forward::forward_shutdown;

/// Why nothing more is handed on.
#[derive(Debug, thiserror::Error)]
#[error("the server has ended its side")]
struct Ended;

/// How many bytes of what was `offered` may have gone out. TLS may have put a record of it out
/// before it failed, and a call of which anything was read is not sent twice.
pub(super) fn may_have_left(offered: usize, written: &Poll<io::Result<usize>>) -> usize {
    let is_ended = |error: &io::Error| error.get_ref().is_some_and(|cause| cause.is::<Ended>());
    match written {
        Poll::Ready(Ok(written)) => *written,
        Poll::Ready(Err(error)) if !is_ended(error) => offered,
        Poll::Ready(Err(_)) | Poll::Pending => 0,
    }
}

#[derive(Debug)]
pub(super) struct UntilEnd<I> {
    io: I,
    has_ended: bool,
}

impl<I> UntilEnd<I> {
    pub(super) const fn new(io: I) -> Self {
        Self {
            io,
            has_ended: false,
        }
    }

    fn writable(&mut self) -> io::Result<&mut I> {
        if self.has_ended {
            Err(io::Error::new(io::ErrorKind::BrokenPipe, Ended))
        } else {
            Ok(&mut self.io)
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for UntilEnd<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (before, room) = (out.filled().len(), out.remaining());
        let read = Pin::new(&mut this.io).poll_read(cx, out);
        this.has_ended |= match &read {
            Poll::Ready(Ok(())) => room > 0 && out.filled().len() == before,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for UntilEnd<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().writable()?).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().writable()?).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    forward_shutdown!(io);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::UntilEnd;

    #[tokio::test]
    async fn nothing_is_written_after_server_closes_its_side() {
        let (near, mut far) = duplex(64);
        let mut near = UntilEnd::new(near);
        far.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        near.read_exact(&mut answer).await.unwrap();
        near.write_all(b"more").await.unwrap();
        far.shutdown().await.unwrap();
        near.write_all(b"before that is read").await.unwrap();
        assert_eq!(near.read(&mut answer).await.unwrap(), 0);
        assert!(near.write_all(b"behind").await.is_err());
        near.shutdown().await.unwrap();
        let mut came = String::new();
        far.read_to_string(&mut came).await.unwrap();
        assert_eq!(came, "morebefore that is read");
    }
}
