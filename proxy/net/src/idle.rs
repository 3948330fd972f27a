//! Idle timers: detect that nothing moves any more, and bound waits for another process.
//!
//! Claims: attack-28, attack-29, calls-51

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use crate::budget::Budget;
use crate::chunk::{ChunkIo, ReadSize};
use crate::relay::{Flows, relay};

/// Looks within the time. What stalls ends a quarter later at most, and what moves arms no timer
/// for each part that passes.
const LOOKS: u32 = 4;

/// How long nothing has moved.
#[derive(Debug)]
pub struct Idle {
    look: Pin<Box<Sleep>>,
    every: Duration,
    moved: bool,
    /// Looks in a row that saw no movement.
    still: u32,
}

impl Idle {
    pub fn new(limit: Duration) -> Self {
        let every = limit / LOOKS;
        Self {
            look: Box::pin(sleep(every)),
            every,
            moved: false,
            still: 0,
        }
    }

    pub fn limit(&self) -> Duration {
        self.every * LOOKS
    }

    /// Something has moved.
    pub const fn moved(&mut self) {
        self.moved = true;
    }

    /// Ready when nothing has moved for the whole time. `other`: whether anything that is not
    /// reported here has moved since the last poll.
    pub fn poll(&mut self, cx: &mut Context<'_>, mut other: impl FnMut() -> bool) -> Poll<()> {
        while self.look.as_mut().poll(cx).is_ready() {
            let moved = std::mem::take(&mut self.moved) | other();
            self.still = if moved { 0 } else { self.still + 1 };
            if self.still >= LOOKS {
                return Poll::Ready(());
            }
            self.look.as_mut().reset(Instant::now() + self.every);
        }
        Poll::Pending
    }
}

/// Returns when nothing has moved for this long; without a limit never. `moved`: since the last
/// call.
pub async fn still(limit: Option<Duration>, mut moved: impl FnMut() -> bool) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let mut idle = Box::new(Idle::new(limit));
    std::future::poll_fn(|cx| idle.poll(cx, &mut moved)).await;
}

/// What `work` comes to. `None`: nothing of it has moved for this long, as by [`still`].
pub async fn unless_still<T>(
    work: impl Future<Output = T>,
    limit: Option<Duration>,
    moved: impl FnMut() -> bool,
) -> Option<T> {
    tokio::select! {
        // What has come moves only where the work is looked at, and a process that stood
        // still finds it together with the end of the time.
        biased;
        done = work => Some(done),
        () = still(limit, moved) => None,
    }
}

/// Why a relay ended of which nothing moved.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nothing moved for too long")]
struct IdleTimeout;

/// Whether it was the proxy that ended a relay, because nothing moved.
pub fn is_still(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|error| error.is::<IdleTimeout>())
}

/// Relays as [`relay`] does, and aborts each side that has not received its end when nothing has
/// moved for `limit`.
pub async fn relay_moving<A: ChunkIo, B: ChunkIo>(
    caller: &mut A,
    callee: &mut B,
    budget: &Arc<Budget>,
    flows: &Flows,
    limit: Duration,
) -> io::Result<()> {
    let moved = AtomicBool::new(false);
    let mut watched = Moving {
        io: caller,
        moved: &moved,
    };
    // Where it is dropped before its end, it aborts each side as needed.
    let relayed = pin!(relay(&mut watched, callee, budget, flows));
    let ended = unless_still(relayed, Some(limit), || moved.swap(false, Relaxed)).await;
    ended.unwrap_or_else(|| Err(io::Error::other(IdleTimeout)))
}

/// One side of a relay, and whether anything has moved there. All that passes either way
/// moves there.
struct Moving<'a, T> {
    io: &'a mut T,
    moved: &'a AtomicBool,
}

impl<T: ChunkIo> ChunkIo for Moving<'_, T> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>, room: &mut ReadSize) -> Poll<io::Result<Bytes>> {
        let chunk = ready!(self.io.poll_chunk(cx, room));
        self.moved.store(true, Relaxed);
        Poll::Ready(chunk)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        let before = chunk.len();
        let sent = self.io.poll_send(cx, chunk);
        if chunk.len() != before {
            self.moved.store(true, Relaxed);
        }
        sent
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_end(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.io.poll_broken(cx)
    }

    fn abort(&mut self) {
        self.io.abort();
    }
}

/// By which a wait goes.
const STEP: Duration = Duration::from_millis(250);
/// A step that ends so much later than it was to end is one of a process that stood still.
const LATE: Duration = Duration::from_millis(100);

/// Waits for another process that count only the time in which this one ran.
///
/// A process that is not scheduled, on a CPU that others have, reads nothing, and once it goes on
/// its timers end before it has read what came meanwhile. What takes several turns, as a handshake
/// or the answer to a ping, would fail by that, and the other side would be blamed.
///
/// So such a wait goes by short steps, and one that ends late does not count.
///
/// What `work` comes to; `None` where it does not within this time. Steps that end late count as
/// well once they have taken as much: work that is never on time waits for twice as many turns.
pub async fn scheduled_within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let (mut left, mut spared) = (time, time);
    loop {
        let step = left.min(STEP);
        let due = Instant::now() + step;
        if let Ok(done) = timeout_at(due, work.as_mut()).await {
            return Some(done);
        }
        let counted = if due.elapsed() >= LATE && !spared.is_zero() {
            &mut spared
        } else {
            &mut left
        };
        *counted = counted.saturating_sub(step);
        if left.is_zero() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, poll_fn, ready};
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Instant, advance, sleep, timeout};

    use super::{
        Budget, Flows, Idle, LOOKS, is_still, relay_moving, scheduled_within, still, unless_still,
    };

    const LIMIT: Duration = Duration::from_secs(4);

    #[tokio::test(start_paused = true)]
    async fn idle_timeout_is_exact_or_quarter_late_after_movement() {
        let started = Instant::now();
        still(Some(LIMIT), || false).await;
        assert!((4000..4010).contains(&started.elapsed().as_millis()));

        let started = Instant::now();
        let moves = Cell::new(5);
        // At each of the first five looks.
        still(Some(LIMIT), || moves.replace(moves.get().max(1) - 1) > 0).await;
        let took = started.elapsed().as_millis();
        assert!((9000..9010).contains(&took), "{took}");

        let mut idle = Idle::new(LIMIT);
        let started = Instant::now();
        std::future::poll_fn(|cx| {
            if started.elapsed() < Duration::from_secs(20) {
                idle.moved();
            }
            idle.poll(cx, || false)
        })
        .await;
        let took = started.elapsed().as_secs();
        assert!((23..=25).contains(&took), "{took}");
    }

    /// As where the process stood still: both are there when it is looked.
    #[tokio::test(start_paused = true)]
    async fn timely_movement_counts_even_if_noticed_late() {
        for _ in 0..64 {
            let (came, moved) = (Cell::new(false), Cell::new(false));
            let work = poll_fn(|_| {
                moved.set(moved.get() | came.take());
                Poll::<()>::Pending
            });
            let mut kept = pin!(unless_still(work, Some(LIMIT), || moved.take()));
            for look in 0..=LOOKS {
                came.set(look == LOOKS);
                let looked = poll_fn(|cx| Poll::Ready(kept.as_mut().poll(cx)));
                assert!(looked.await.is_pending(), "look {look}");
                sleep(LIMIT / LOOKS + Duration::from_millis(1)).await;
            }
        }
    }

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// As where a server has sent all and its slow reader sends nothing more.
    #[tokio::test]
    async fn idle_relay_completes_closed_side_and_resets_other() {
        const ALL: usize = 256 * 1024;
        const SHORT: Duration = Duration::from_millis(400);
        for closed in [true, false] {
            let (mut client, mut near) = connected().await;
            let (mut far, mut server) = connected().await;
            let relayed = tokio::spawn(async move {
                let (budget, flows) = (Budget::new(1 << 26), Flows::default());
                relay_moving(&mut near, &mut far, &budget, &flows, SHORT).await
            });
            server.write_all(&vec![b'x'; ALL]).await.unwrap();
            if closed {
                server.shutdown().await.unwrap();
            }
            let ended = timeout(Duration::from_secs(5), relayed).await;
            let ended = ended.expect("it ends").unwrap();
            assert!(
                ended.is_err_and(|error| is_still(&error)),
                "closed: {closed}"
            );
            let mut all = Vec::new();
            let read = timeout(Duration::from_secs(3), client.read_to_end(&mut all)).await;
            let whole = read.expect("it ends").is_ok_and(|got| got == ALL);
            assert_eq!(whole, closed, "{} bytes", all.len());
            let ended = timeout(Duration::from_secs(3), server.read(&mut [0; 8])).await;
            assert!(ended.expect("it ends").is_err(), "closed: {closed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_ends() {
        let day = Duration::from_secs(86_400);
        assert!(timeout(day, still(None, || false)).await.is_err());
    }

    const WAIT: Duration = Duration::from_secs(2);
    const MOMENT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn wait_does_not_count_what_the_process_stood_still() {
        let mut wait = pin!(scheduled_within(WAIT, pending::<()>()));
        assert!(timeout(Duration::ZERO, wait.as_mut()).await.is_err());
        advance(Duration::from_secs(12)).await;
        assert!(timeout(WAIT - MOMENT, wait.as_mut()).await.is_err());
        assert_eq!(timeout(2 * MOMENT, wait.as_mut()).await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn scheduled_wait_ends_in_always_late_process() {
        let mut wait = pin!(scheduled_within(WAIT, pending::<()>()));
        let mut turns = 0;
        while timeout(Duration::ZERO, wait.as_mut()).await.is_err() {
            turns += 1;
            assert!(turns <= 17, "it waits for ever");
            advance(Duration::from_secs(1)).await;
        }
        assert!(turns > 8, "{turns}");
    }

    #[tokio::test(start_paused = true)]
    async fn wait_takes_its_time_and_no_more() {
        assert_eq!(scheduled_within(WAIT, ready(1)).await, Some(1));
        let began = Instant::now();
        assert_eq!(scheduled_within(WAIT, sleep(WAIT * 2)).await, None);
        assert!((WAIT..WAIT + MOMENT).contains(&began.elapsed()));
    }
}
