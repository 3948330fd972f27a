//! Detects a peer that has gone silent, by pings.
//!
//! A connection that received nothing for a while is pinged. One that does not answer soon gets no
//! new requests. While it has streams it ends at the latest ten seconds after its last byte, and
//! all its streams with it. One without streams is pinged later, because no request waits for it.
//!
//! Those are seconds in which this process ran. A process that stalled, on a CPU that others have,
//! has sent and read nothing meanwhile: the delay of its own timer shows for how long.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use weft_proxy_net::budget::Budget;
use weft_proxy_net::forward::{forward_shutdown, forward_write};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(2500);
/// Silence after which a peer is pinged, while it owes something.
const PING_AFTER: Duration = Duration::from_millis(2500);
/// The same while no stream is open.
const PING_IDLE_AFTER: Duration = Duration::from_secs(10);
/// An answer that takes longer than this makes a peer suspect.
const SUSPECT: Duration = Duration::from_millis(2500);
/// A peer is dead this long after something was last seen to have come, which may have
/// been there for [`LOOK`] already: ten seconds in all.
const DEAD: Duration = Duration::from_millis(7500);

/// Min time between two looks. One that comes so long after its time means that the process
/// stalled.
const LATE: Duration = Duration::from_millis(100);
/// What has come by a look is read within this, and then it is looked for the last time.
const READ: Duration = Duration::from_millis(10);

/// A connection that notes when something came.
#[derive(Debug)]
pub(super) struct WatchedIo<I> {
    io: I,
    budget: Arc<Budget>,
    received: Arc<AtomicBool>,
}

impl<I> WatchedIo<I> {
    pub(super) fn new(io: I, budget: Arc<Budget>) -> (Self, Arc<AtomicBool>) {
        let received = Arc::<AtomicBool>::default();
        let noted = Arc::clone(&received);
        let this = Self {
            io,
            budget,
            received: noted,
        };
        (this, received)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for WatchedIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.budget.poll_room(cx));
        let before = out.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, out);
        if out.filled().len() > before {
            this.received.store(true, Relaxed);
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for WatchedIo<I> {
    forward_write!(io);
    forward_shutdown!(io);
}

/// Watches one connection.
#[derive(Debug)]
pub(super) struct Keepalive {
    pings: PingPong,
    received: Arc<AtomicBool>,
    /// When something was last known to have come.
    last: Instant,
    /// When the peer was pinged, if it has not answered.
    pinged_at: Option<Instant>,
    /// How often it has answered.
    pongs: u64,
    /// It would have been dead at the last look, and what had come by then was still to be read.
    spared: bool,
    timer: Pin<Box<Sleep>>,
}

/// What silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Alive,
    /// Pinged, and has not answered in time.
    Suspect,
    Dead,
}

impl Keepalive {
    pub(super) fn new(pings: PingPong, received: Arc<AtomicBool>) -> Self {
        let now = Instant::now();
        Self {
            pings,
            received,
            last: now,
            pinged_at: None,
            pongs: 0,
            spared: false,
            timer: Box::pin(sleep_until(now + LOOK)),
        }
    }

    /// How many pings the peer has answered.
    pub(super) const fn pongs(&self) -> u64 {
        self.pongs
    }

    /// Sends a ping, unless one is under way.
    pub(super) fn ping(&mut self, cx: &mut Context<'_>) {
        if self.pinged_at.is_some() {
            return;
        }
        // The ping of the handshake may have been answered late, or never; then it is still under
        // way.
        let _ = self.pings.poll_pong(cx);
        let _ = self.pings.send_ping(Ping::opaque());
        self.pinged_at = Some(Instant::now());
        // Registers for the answer.
        self.poll_pong(cx);
    }

    fn poll_pong(&mut self, cx: &mut Context<'_>) {
        if self.pinged_at.is_some() && self.pings.poll_pong(cx).is_ready() {
            self.pinged_at = None;
            self.pongs += 1;
            self.last = Instant::now();
        }
    }

    /// What is known by now; wakes the task when that may change. `busy`: the
    /// connection has streams.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, busy: bool) -> Peer {
        self.poll_pong(cx);
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let late = now - self.timer.deadline();
            if late >= LATE {
                self.stood_still(late, now);
            }
            if self.received.swap(false, Relaxed) {
                self.last = now;
            }
            let dead = self.dead(now);
            if dead && self.spared {
                return Peer::Dead;
            }
            self.spared = dead;
            let after = if busy { PING_AFTER } else { PING_IDLE_AFTER };
            if now - self.last >= after {
                self.ping(cx);
            }
            let again = if dead { READ } else { LATE };
            let next = self.pinged_at.map_or(now + LOOK, |_| {
                (now + LOOK).min((self.last + DEAD).max(now + again))
            });
            self.timer.as_mut().reset(next);
        }
        match self.pinged_at {
            Some(pinged_at) if self.received.load(Relaxed) || pinged_at.elapsed() < SUSPECT => {
                Peer::Alive
            }
            Some(_) => Peer::Suspect,
            None => Peer::Alive,
        }
    }

    /// This process did not run for so long: its peer owed nothing meanwhile.
    fn stood_still(&mut self, time: Duration, now: Instant) {
        self.last = (self.last + time).min(now);
        self.pinged_at = self.pinged_at.map(|at| (at + time).min(now));
    }

    /// Silent for too long, and pinged long enough ago.
    fn dead(&self, now: Instant) -> bool {
        self.pinged_at
            .is_some_and(|pinged_at| now - self.last >= DEAD && now - pinged_at >= 2 * SUSPECT)
    }
}

/// Counts connections whose peer owes a sign of life, of all that count together.
///
/// The choice among peers reads this first: while there is no such connection, which is nearly
/// always, it need not look at the peer.
#[derive(Clone, Debug, Default)]
pub struct Suspects(Arc<AtomicUsize>);

impl Suspects {
    /// Whether there is one.
    pub fn any(&self) -> bool {
        self.0.load(Relaxed) > 0
    }

    /// Counts one until the guard is dropped.
    pub(super) fn begin(&self) -> Suspected {
        self.0.fetch_add(1, Relaxed);
        Suspected(self.clone())
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Suspected(Suspects);

impl Drop for Suspected {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
