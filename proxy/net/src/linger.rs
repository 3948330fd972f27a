//! Lingering close: how the serving side ends a connection without losing what it sent.
//!
//! The kernel answers bytes to a socket without a reader with a reset, and a reset overtakes what
//! was sent before. A client that uploads would not get to read why it was refused; a peer proxy
//! that sends its next request in the moment in which a dedicated connection is closed would not
//! learn from `close_notify` that it was not taken, nor one by HTTP/2 from GOAWAY or from a
//! response that lies before it. So after these everything is read, and dropped, until the other
//! side has closed or had the time to notice. Not where the other direction goes on and has a
//! reader: that is a half-close.
//!
//! Claims: attack-29

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::abort::MayAbort;
use crate::forward::{forward_read, forward_write};

/// For peers. Long against the way between two pods, short against the stop of a proxy.
const LINGER: Duration = Duration::from_millis(500);
/// For clients, which may send all of an upload before they read: as long as it takes at some MiB
/// per second, and not for one that sends nothing more.
pub const LINGER_FOR_UPLOADS: Duration = Duration::from_secs(30);
const LINGER_IN_SILENCE: Duration = Duration::from_secs(2);
/// Bytes read at once, to be dropped.
const SCRAP: usize = 2 * 1024;

/// A connection whose shutdown is over when the other side has noticed it.
#[derive(Debug)]
pub struct Lingering<I> {
    io: I,
    /// `None`: its shutdown waits for nothing.
    waits: Option<&'static Waits>,
    /// The end of the whole wait, and the wait.
    lingering: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// Longest wait for the end of what comes, and for more of it.
#[derive(Debug)]
struct Waits {
    whole: Duration,
    silence: Duration,
}

static FOR_PEERS: Waits = Waits {
    whole: LINGER,
    silence: LINGER,
};
static FOR_CLIENTS: Waits = Waits {
    whole: LINGER_FOR_UPLOADS,
    silence: LINGER_IN_SILENCE,
};

impl<I> Lingering<I> {
    /// Of a peer proxy.
    pub const fn to_peer(io: I) -> Self {
        Self {
            io,
            waits: Some(&FOR_PEERS),
            lingering: None,
        }
    }

    /// Of a client that may be sending.
    pub const fn to_client(io: I) -> Self {
        Self {
            io,
            waits: Some(&FOR_CLIENTS),
            lingering: None,
        }
    }

    /// Of one whose shutdown is over when it is sent: what serves is compiled for one type.
    pub const fn not_at_all(io: I) -> Self {
        Self {
            io,
            waits: None,
            lingering: None,
        }
    }
}

impl<I: MayAbort> MayAbort for Lingering<I> {
    fn abort(&mut self) {
        self.io.abort();
    }

    fn half_close(&mut self) {
        self.waits = None;
    }

    fn was_reset(&mut self, cx: &mut Context<'_>) -> bool {
        self.io.was_reset(cx)
    }

    fn broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.io.broken(cx)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Lingering<I> {
    forward_read!(io);
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<I> {
    forward_write!(io);

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        let Some(&Waits { whole, silence }) = this.waits else {
            return Poll::Ready(Ok(()));
        };
        let (until, wait) = this
            .lingering
            .get_or_insert_with(|| (Instant::now() + whole, Box::pin(sleep(silence))));
        loop {
            let mut scrap = [0; SCRAP];
            let mut read = ReadBuf::new(&mut scrap);
            // Before the time is looked at: a process that stalled must not take a peer for
            // silent whose bytes are there.
            match Pin::new(&mut this.io).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return wait.as_mut().poll(cx).map(Ok),
            }
            let now = Instant::now();
            if now >= *until {
                return Poll::Ready(Ok(()));
            }
            wait.as_mut().reset((*until).min(now + silence));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{Instant, sleep, timeout};

    use super::{LINGER, LINGER_FOR_UPLOADS, LINGER_IN_SILENCE, Lingering};
    use crate::abort::MayAbort;

    #[tokio::test(start_paused = true)]
    async fn data_after_goodbye_is_read_until_peer_closes() {
        let (mut peer, served) = duplex(64);
        let started = Instant::now();
        let ending = tokio::spawn(async move { Lingering::to_peer(served).shutdown().await });
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
        // More than the pipe holds: it is read.
        let late = peer.write_all(&[b'x'; 1000]);
        timeout(LINGER / 2, late).await.unwrap().unwrap();
        drop(peer);
        ending.await.unwrap().unwrap();
        assert!(started.elapsed() < LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn peer_that_does_not_close_is_awaited_briefly() {
        let (_peer, served) = duplex(64);
        let started = Instant::now();
        Lingering::to_peer(served).shutdown().await.unwrap();
        let took = started.elapsed();
        assert!(
            took >= LINGER && took < LINGER + Duration::from_millis(100),
            "{took:?}"
        );
    }

    /// As where a connection carries another protocol, one direction of which has ended.
    #[tokio::test(start_paused = true)]
    async fn half_close_finishes_immediately_and_consumes_nothing() {
        let (mut client, served) = duplex(64);
        let mut served = Lingering::to_client(served);
        served.half_close();
        client.write_all(b"goes on").await.unwrap();
        let started = Instant::now();
        served.shutdown().await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "its end came");
        let mut came = [0; 7];
        served.read_exact(&mut came).await.unwrap();
        assert_eq!(&came, b"goes on");
    }

    /// As where the process stood still: both are there when it is looked.
    #[tokio::test(start_paused = true)]
    async fn sending_client_is_not_silent_when_polled_late() {
        let (mut client, served) = duplex(64);
        let mut served = Lingering::to_client(served);
        let mut ending = pin!(served.shutdown());
        for _ in 0..3 {
            let looked = poll_fn(|cx| Poll::Ready(ending.as_mut().poll(cx)));
            assert!(looked.await.is_pending());
            client.write_all(b"x").await.unwrap();
            sleep(LINGER_IN_SILENCE * 2).await;
        }
        drop(client);
        ending.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn lingering_close_bounds_sending_and_silent_clients_separately() {
        let (mut client, served) = duplex(64);
        let started = Instant::now();
        let ending = tokio::spawn(async move { Lingering::to_client(served).shutdown().await });
        let sending = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        ending.await.unwrap().unwrap();
        assert_eq!(started.elapsed(), LINGER_FOR_UPLOADS);
        sending.await.unwrap();
        let (_client, served) = duplex(64);
        let started = Instant::now();
        Lingering::to_client(served).shutdown().await.unwrap();
        assert_eq!(started.elapsed(), LINGER_IN_SILENCE);
    }
}
