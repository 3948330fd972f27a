//! Opaque bytes: copied both ways, with half-close, until both sides ended.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::http::client::multiplexed::{PING_INTERVAL, PING_TIMEOUT};
use crate::net::budget::Budget;
use crate::net::chunk::{Pieces, Room};

/// Longest wait for a connection to an endpoint or the application.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Outside the mesh distances are unknown, so the wait is the usual one.
pub const CONNECT_TIMEOUT_EXTERNAL: Duration = Duration::from_secs(10);
/// A dead peer is noticed after about a minute and a half of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

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

/// For connections that nothing but TCP watches: a dead peer is noticed as soon
/// as HTTP/2 notices one by its pings, idle or waiting for an answer. Only for
/// connections that send little: a peer that takes nothing for as long, though it
/// lives, counts as dead too.
pub fn tune_closely(stream: &impl AsFd) {
    let keepalive = TcpKeepalive::new()
        .with_time(PING_INTERVAL)
        .with_interval(PING_TIMEOUT)
        .with_retries(1);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(PING_INTERVAL + PING_TIMEOUT));
}

/// Bytes that went each way: from the caller, and to the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub sent: u64,
    pub received: u64,
}

/// While one side does not take what the other sent, nobody reads that other side, so
/// nobody notices when it breaks. Then it is asked this often.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// Relays until both directions have ended or one side fails. Then the other one is
/// broken off as well: what came until then is not all of it. What was copied until
/// then is told in either case.
pub async fn relay<A: Pieces, B: Pieces>(
    caller: &mut A,
    callee: &mut B,
    budget: &Arc<Budget>,
) -> (Copied, io::Result<()>) {
    let (mut there, mut back) = (Direction::default(), Direction::default());
    let mut holder = None;
    let mut look: Option<Pin<Box<Sleep>>> = None;
    let outcome = poll_fn(|cx| {
        let most = budget.piece();
        let polled = (
            there.poll(cx, most, caller, callee)?,
            back.poll(cx, most, callee, caller)?,
        );
        if polled.0.is_ready() && polled.1.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !there.is_stuck() && !back.is_stuck() {
            (look, holder) = (None, None);
            return Poll::Pending;
        }
        holder.get_or_insert_with(|| budget.hold());
        let look = look.get_or_insert_with(|| Box::pin(sleep(LOOK_AFTER)));
        while look.as_mut().poll(cx).is_ready() {
            look.as_mut().reset(Instant::now() + LOOK_AFTER);
            caller.poll_broken(cx)?;
            callee.poll_broken(cx)?;
        }
        Poll::Pending
    })
    .await;
    if outcome.is_err() {
        caller.abort();
        callee.abort();
    }
    (
        Copied {
            sent: there.copied,
            received: back.copied,
        },
        outcome,
    )
}

/// One direction of a relay. Nothing more is read before the receiver took what
/// was read before.
#[derive(Debug, Default)]
struct Direction {
    room: Room,
    piece: Bytes,
    copied: u64,
    ended: bool,
    closed: bool,
}

impl Direction {
    /// Holds what the receiver does not take.
    fn is_stuck(&self) -> bool {
        !self.piece.is_empty()
    }

    fn poll<R: Pieces, W: Pieces>(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        from: &mut R,
        to: &mut W,
    ) -> io::Result<Poll<()>> {
        while !self.closed {
            if to.poll_send(cx, &mut self.piece)?.is_pending() {
                return Ok(Poll::Pending);
            }
            if self.ended {
                if to.poll_end(cx)?.is_pending() {
                    return Ok(Poll::Pending);
                }
                self.closed = true;
                break;
            }
            self.room.limit(most);
            let Poll::Ready(piece) = from.poll_piece(cx, &mut self.room)? else {
                return Ok(Poll::Pending);
            };
            self.ended = piece.is_empty();
            self.copied += piece.len() as u64;
            self.piece = piece;
        }
        Ok(Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{Budget, Copied, relay};

    #[tokio::test]
    async fn bytes_pass_both_ways_through_narrow_pipes_and_are_counted() {
        let (mut client, mut near) = duplex(1000);
        let (mut far, mut server) = duplex(7);
        let relayed =
            tokio::spawn(async move { relay(&mut near, &mut far, &Budget::new(1 << 26)).await });
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
