//! Relays opaque bytes both ways, with half-close, until both sides have ended.
//!
//! Claims: attack-73, calls-60

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};

use crate::budget::{Budget, Holder};
use crate::chunk::{ChunkIo, ReadSize};

/// Adds up the bytes of relays while they pass: from the caller, and to the caller.
#[derive(Debug, Default)]
pub struct Flows {
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

impl Flows {
    /// Bytes either way.
    pub fn passed(&self) -> u64 {
        self.sent.load(Relaxed).wrapping_add(self.received())
    }

    /// Bytes that went to the caller.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }
}

/// While one side does not take what the other sent, that other side is not read, nor is one that
/// has ended its direction, so a reset goes unnoticed. Then it is polled this often.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// Relays until both directions have ended or one side fails. Then the other one is
/// broken off as well: what came until then is not all of it. Where this is dropped before, so is
/// each side that has not received its end by then. What is copied is added to `flows` as it
/// passes.
pub fn relay<'a, A: ChunkIo, B: ChunkIo>(
    caller: &'a mut A,
    callee: &'a mut B,
    budget: &'a Arc<Budget>,
    flows: &'a Flows,
) -> Relay<'a, A, B> {
    Relay {
        caller,
        callee,
        budget,
        flows,
        there: Direction::default(),
        back: Direction::default(),
        holder: None,
        look: None,
        over: false,
    }
}

/// See [`relay`].
#[derive(Debug)]
pub struct Relay<'a, A: ChunkIo, B: ChunkIo> {
    caller: &'a mut A,
    callee: &'a mut B,
    budget: &'a Arc<Budget>,
    flows: &'a Flows,
    there: Direction,
    back: Direction,
    holder: Option<Holder>,
    look: Option<Pin<Box<Sleep>>>,
    /// Both sides have ended, or were broken off.
    over: bool,
}

impl<A: ChunkIo, B: ChunkIo> Relay<'_, A, B> {
    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (budget, flows) = (self.budget, self.flows);
        let (caller, callee) = (&mut *self.caller, &mut *self.callee);
        let polled = (
            self.there.poll(cx, budget, caller, callee, &flows.sent)?,
            self.back
                .poll(cx, budget, callee, caller, &flows.received)?,
        );
        if polled.0.is_ready() && polled.1.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.there.is_stuck() || self.back.is_stuck() {
            self.holder.get_or_insert_with(|| budget.enter());
        } else {
            self.holder = None;
            if !self.there.ended && !self.back.ended {
                self.look = None;
                return Poll::Pending;
            }
        }
        let look = &mut self.look;
        let look = look.get_or_insert_with(|| Box::pin(sleep(LOOK_AFTER)));
        while look.as_mut().poll(cx).is_ready() {
            look.as_mut().reset(Instant::now() + LOOK_AFTER);
            caller.poll_broken(cx)?;
            callee.poll_broken(cx)?;
        }
        Poll::Pending
    }
}

impl<A: ChunkIo, B: ChunkIo> Future for Relay<'_, A, B> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let polled = this.poll_both(cx);
        if let Poll::Ready(outcome) = &polled {
            this.over = true;
            if outcome.is_err() {
                this.caller.abort();
                this.callee.abort();
            }
        }
        polled
    }
}

impl<A: ChunkIo, B: ChunkIo> Drop for Relay<'_, A, B> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // A side that received the end gets all of it: the last of it may still be on its way.
        if !self.back.closed {
            self.caller.abort();
        }
        if !self.there.closed {
            self.callee.abort();
        }
    }
}

/// One direction of a relay. Nothing more is read before the receiver took what
/// was read before.
#[derive(Debug, Default)]
struct Direction {
    room: ReadSize,
    chunk: Bytes,
    ended: bool,
    closed: bool,
}

impl Direction {
    /// Holds what the receiver does not take.
    fn is_stuck(&self) -> bool {
        !self.chunk.is_empty()
    }

    fn poll<R: ChunkIo, W: ChunkIo>(
        &mut self,
        cx: &mut Context<'_>,
        budget: &Budget,
        from: &mut R,
        to: &mut W,
        flow: &AtomicU64,
    ) -> io::Result<Poll<()>> {
        while !self.closed {
            if to.poll_send(cx, &mut self.chunk)?.is_pending() {
                return Ok(Poll::Pending);
            }
            if self.ended {
                if to.poll_end(cx)?.is_pending() {
                    return Ok(Poll::Pending);
                }
                self.closed = true;
                break;
            }
            // What is held is sent all the same: memory gets less by that.
            if budget.poll_room(cx).is_pending() {
                return Ok(Poll::Pending);
            }
            self.room.limit(budget.chunk_size());
            let Poll::Ready(chunk) = from.poll_chunk(cx, &mut self.room)? else {
                return Ok(Poll::Pending);
            };
            self.ended = chunk.is_empty();
            flow.fetch_add(chunk.len() as u64, Relaxed);
            self.chunk = chunk;
        }
        Ok(Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::{Budget, Flows, relay};

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// A side that has ended its direction is not read.
    #[tokio::test]
    async fn reset_after_half_close_ends_relay_despite_silence() {
        for caller_ends in [true, false] {
            let (client, mut near) = connected().await;
            let (mut far, server) = connected().await;
            let relayed = tokio::spawn(async move {
                let (budget, flows) = (Budget::new(1 << 26), Flows::default());
                relay(&mut near, &mut far, &budget, &flows).await
            });
            let (mut ends, mut silent) = if caller_ends {
                (client, server)
            } else {
                (server, client)
            };
            ends.shutdown().await.unwrap();
            assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!relayed.is_finished(), "half-close alone ends nothing");
            ends.set_zero_linger().unwrap();
            drop(ends);
            let ended = timeout(Duration::from_secs(3), relayed).await;
            assert!(ended.expect("it ends").unwrap().is_err());
            assert!(silent.read(&mut [0; 8]).await.is_ok_and(|got| got == 0));
        }
    }

    /// As where a connection is closed for want of memory, whatever it does.
    // Claims: R4
    #[tokio::test]
    async fn dropped_relay_resets_both_sides_and_finished_one_neither() {
        for dropped in [true, false] {
            let (mut client, mut near) = connected().await;
            let (mut far, mut server) = connected().await;
            let relayed = tokio::spawn(async move {
                let (budget, flows) = (Budget::new(1 << 26), Flows::default());
                relay(&mut near, &mut far, &budget, &flows).await
            });
            server.write_all(b"some of it").await.unwrap();
            client.read_exact(&mut [0; 10]).await.unwrap();
            if dropped {
                relayed.abort();
            } else {
                client.shutdown().await.unwrap();
                server.shutdown().await.unwrap();
            }
            for side in [&mut client, &mut server] {
                let ended = timeout(Duration::from_secs(3), side.read(&mut [0; 8])).await;
                let ended = ended.expect("it ends");
                assert_eq!(ended.is_err(), dropped, "{ended:?}");
            }
        }
    }

    /// As where the process ends while a slow reader has not taken all that the kernel holds.
    // Claims: R4
    #[tokio::test]
    async fn dropped_relay_completes_closed_side_and_resets_other() {
        const ALL: usize = 256 * 1024;
        let (mut client, mut near) = connected().await;
        let (mut far, mut server) = connected().await;
        let relayed = tokio::spawn(async move {
            let (budget, flows) = (Budget::new(1 << 26), Flows::default());
            relay(&mut near, &mut far, &budget, &flows).await
        });
        server.write_all(&vec![b'x'; ALL]).await.unwrap();
        server.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        relayed.abort();
        assert!(relayed.await.is_err_and(|error| error.is_cancelled()));
        let mut all = Vec::new();
        let read = timeout(Duration::from_secs(3), client.read_to_end(&mut all)).await;
        assert_eq!(read.expect("it ends").unwrap(), ALL);
        let ended = timeout(Duration::from_secs(3), server.read(&mut [0; 8])).await;
        assert!(ended.expect("it ends").is_err());
    }

    #[tokio::test]
    async fn relay_counts_bytes_both_ways_through_narrow_pipes() {
        let (mut client, mut near) = duplex(1000);
        let (mut far, mut server) = duplex(7);
        let relayed = tokio::spawn(async move {
            let flows = Flows::default();
            let outcome = relay(&mut near, &mut far, &Budget::new(1 << 26), &flows).await;
            outcome.map(|()| (flows.sent.into_inner(), flows.received.into_inner()))
        });
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
        assert_eq!(relayed.await.unwrap().unwrap(), (100_000, 6));
    }
}
