//! Opaque bytes: copied both ways, with half-close, until both sides ended.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for a connection to an endpoint or the application.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Outside the mesh distances are unknown, so the wait is the usual one.
pub const CONNECT_TIMEOUT_EXTERNAL: Duration = Duration::from_secs(10);
/// A dead peer is noticed after about a minute and a half of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// What one read may bring. The buffer belongs to the thread, not to the
/// connection, so it may be large: idle connections hold none of it.
const SCRATCH: usize = 64 * 1024;

/// Opens a connection with the socket options of every connection of ours.
///
/// # Errors
/// When the peer refuses, is unreachable, or does not answer within `limit`.
pub async fn connect(addr: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = timeout(limit, TcpStream::connect(addr))
        .await
        .map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "no answer to the connection attempt",
            )
        })??;
    tune(&stream);
    Ok(stream)
}

/// No delay, and keepalive. Failing to set an option never fails a connection.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Bytes that went each way: from the caller, and to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub sent: u64,
    pub received: u64,
}

/// Relays until both directions have ended or one side fails. What was copied
/// until then is told in either case.
pub async fn relay<A, B>(caller: &mut A, callee: &mut B) -> (Copied, io::Result<()>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Direction::default(), Direction::default());
    let outcome = std::future::poll_fn(|cx| {
        let there = there.poll(cx, caller, callee)?;
        let back = back.poll(cx, callee, caller)?;
        if there.is_ready() && back.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await;
    (
        Copied {
            sent: there.copied,
            received: back.copied,
        },
        outcome,
    )
}

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// One direction of a relay. Bytes that the receiver did not take at once wait
/// here; nothing more is read before they are gone.
#[derive(Debug, Default)]
struct Direction {
    waiting: Vec<u8>,
    at: usize,
    copied: u64,
    unflushed: bool,
    ended: bool,
    closed: bool,
}

impl Direction {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> io::Result<Poll<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.closed {
                return Ok(Poll::Ready(()));
            }
            while self.at < self.waiting.len() {
                let Poll::Ready(written) =
                    Pin::new(&mut *to).poll_write(cx, &self.waiting[self.at..])?
                else {
                    return Ok(Poll::Pending);
                };
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.at += written;
            }
            self.waiting = Vec::new();
            self.at = 0;
            if self.ended {
                let Poll::Ready(()) = Pin::new(&mut *to).poll_shutdown(cx)? else {
                    return Ok(Poll::Pending);
                };
                self.closed = true;
                continue;
            }
            if !self.step(cx, from, to)? {
                if self.unflushed && Pin::new(&mut *to).poll_flush(cx)?.is_ready() {
                    self.unflushed = false;
                }
                return Ok(Poll::Pending);
            }
        }
    }

    /// Reads once and passes on what the receiver takes. `false`: nothing came.
    fn step<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> io::Result<bool>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            if Pin::new(from).poll_read(cx, &mut read)?.is_pending() {
                return Ok(false);
            }
            let data = read.filled();
            self.ended = data.is_empty();
            self.copied += data.len() as u64;
            if data.is_empty() {
                return Ok(true);
            }
            self.unflushed = true;
            let taken = match Pin::new(to).poll_write(cx, data)? {
                Poll::Ready(taken) => taken,
                Poll::Pending => 0,
            };
            self.waiting.extend_from_slice(&data[taken..]);
            Ok(true)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{Copied, relay};

    #[tokio::test]
    async fn bytes_pass_both_ways_through_narrow_pipes_and_are_counted() {
        let (mut client, mut near) = duplex(1000);
        let (mut far, mut server) = duplex(7);
        let relayed = tokio::spawn(async move { relay(&mut near, &mut far).await });
        let sent: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
        let expected = sent.clone();
        let serving = tokio::spawn(async move {
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            server.write_all(b"thanks").await.unwrap();
            got
        });
        client.write_all(&sent).await.unwrap();
        // Half-close: the answer comes after the end of what was sent.
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "thanks");
        assert_eq!(serving.await.unwrap(), expected);
        assert_eq!(
            relayed.await.unwrap().0,
            Copied {
                sent: 100_000,
                received: 6
            }
        );
    }
}
