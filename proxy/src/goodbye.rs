//! The end of a quiet line, on the side that serves it.
//!
//! A peer may send its next request in the moment in which the line is closed.
//! It learns from the goodbye (`close_notify`) that the request was not taken, if
//! it gets to read that: bytes that come to a socket that nobody reads any more
//! are answered with a reset, and a reset may overtake what was said before. So
//! after the goodbye everything is read, and dropped, until the peer has closed
//! its side or had the time to notice.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::switched::MayAbort;

/// Long against the way between two pods, short against the stop of a proxy.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes read at once, to be dropped.
const SCRAP: usize = 2 * 1024;

/// A connection whose shutdown is over when the peer has noticed it.
pub(crate) struct Goodbye<I> {
    io: I,
    until: Option<Pin<Box<Sleep>>>,
}

impl<I> Goodbye<I> {
    pub(crate) const fn new(io: I) -> Self {
        Self { io, until: None }
    }
}

impl<I: MayAbort> MayAbort for Goodbye<I> {
    fn abort(&mut self) {
        self.io.abort();
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Goodbye<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, out)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Goodbye<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.until.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        let until = this.until.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        while until.as_mut().poll(cx).is_pending() {
            let mut scrap = [0; SCRAP];
            let mut read = ReadBuf::new(&mut scrap);
            let outcome = ready!(Pin::new(&mut this.io).poll_read(cx, &mut read));
            if outcome.is_err() || read.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{Instant, timeout};

    use super::{Goodbye, LINGER};

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_the_goodbye_is_taken_until_the_peer_closes() {
        let (mut peer, served) = duplex(64);
        let begun = Instant::now();
        let ending = tokio::spawn(async move { Goodbye::new(served).shutdown().await });
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
        // More than the pipe holds: somebody takes it.
        let late = peer.write_all(&[b'x'; 1000]);
        timeout(LINGER / 2, late).await.unwrap().unwrap();
        drop(peer);
        ending.await.unwrap().unwrap();
        assert!(begun.elapsed() < LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_close_is_not_waited_for_long() {
        let (_peer, served) = duplex(64);
        let begun = Instant::now();
        Goodbye::new(served).shutdown().await.unwrap();
        let took = begun.elapsed();
        assert!(
            took >= LINGER && took < LINGER + Duration::from_millis(100),
            "{took:?}"
        );
    }
}
