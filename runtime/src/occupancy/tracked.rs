//! The state of one connection for the permits of its listener: what it is doing, and what its
//! eviction would lose.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use super::requests::Requests;

/// A head or a handshake that is younger goes last, and not for another connection
/// of its own holder: an honest one takes milliseconds.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// What a connection is doing. Written at every request, so without a lock.
#[derive(Debug, Default)]
pub(super) struct TrackedConnection {
    pub(super) activity: AtomicU8,
    /// Milliseconds, when `activity` began.
    pub(super) since: AtomicU64,
    /// Milliseconds and one, when the head that is coming began; 0: none is.
    pub(super) head: AtomicU64,
    pub(super) verdict: AtomicU8,
    /// Milliseconds, when it was asked to go.
    pub(super) verdict_at: AtomicU64,
    /// It was asked to go, and counts as going.
    pub(super) leaves: AtomicBool,
    /// About what is held for it, beside [`CONNECTION`], in bytes.
    pub(super) reserved: AtomicUsize,
    /// Requests in flight.
    pub(super) requests: AtomicUsize,
    /// What is open on it, as its server saw last.
    pub(super) open: AtomicUsize,
    /// How much of that has a permit within this connection, and is idle.
    pub(super) idle: AtomicUsize,
    /// All of its holder, and of the identity that it proved.
    pub(super) entered: Arc<Requests>,
    pub(super) proven: OnceLock<Arc<Requests>>,
    pub(super) changed: Notify,
}

/// Bytes that are held for one connection, until they are dropped.
#[derive(Debug)]
pub struct ReservedBytes {
    conn: Arc<TrackedConnection>,
    bytes: AtomicUsize,
}

impl ReservedBytes {
    /// So many from now on; gives how many there were.
    pub fn set(&self, bytes: usize) -> usize {
        // Most say again what is known, and a load costs less than a swap.
        if self.bytes.load(Relaxed) == bytes {
            return bytes;
        }
        let before = self.bytes.swap(bytes, Relaxed);
        if before != bytes {
            self.conn.reserved.fetch_add(bytes, Relaxed);
            self.conn.reserved.fetch_sub(before, Relaxed);
        }
        before
    }

    /// So many more.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.conn.reserved.fetch_add(bytes, Relaxed);
    }

    /// Others for the same connection.
    #[must_use]
    pub fn beside(&self, bytes: usize) -> Self {
        TrackedConnection::reserve_bytes(&self.conn, bytes)
    }
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        self.conn.reserved.fetch_sub(*self.bytes.get_mut(), Relaxed);
    }
}

/// Nothing is known, or it is in use.
pub(super) const BUSY: u8 = 0;
/// Between two requests.
pub(super) const IDLE: u8 = 1;
/// Nothing was said yet.
pub(super) const SILENT: u8 = 2;
/// A class of losses only: a head, or what yields, that is no older than [`GRACE`].
pub(super) const WITHIN_GRACE: u8 = 3;
/// In use at the pace of the peer: others may take its permit.
pub(super) const YIELDS: u8 = 4;

pub(super) const STAY: u8 = 0;
/// To be closed as between two requests.
pub(super) const CLOSE: u8 = 1;
/// To be cut off.
pub(super) const CUT: u8 = 2;
/// To be cut off even when it is in use.
pub(super) const SHED: u8 = 3;

/// What a connection costs of which nothing is known, in bytes.
pub(super) const CONNECTION: usize = 8 * 1024;

/// What is lost with a connection: the smallest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Loss {
    pub(super) class: u8,
    pub(super) since: u64,
}

impl TrackedConnection {
    pub(super) fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.since.load(Relaxed))
    }

    pub(super) fn head_age(&self, now: u64) -> Option<u64> {
        let started = self.head.load(Relaxed).checked_sub(1)?;
        Some(now.saturating_sub(started))
    }

    /// For how long it has been asked to go by one of these verdicts; `None` where it is not.
    pub(super) fn verdict_age(&self, now: u64, verdicts: &[u8]) -> Option<u64> {
        let is_given = verdicts.contains(&self.verdict.load(Relaxed));
        is_given.then(|| now.saturating_sub(self.verdict_at.load(Relaxed)))
    }

    /// Nothing was said on it yet.
    pub(super) fn is_silent(&self) -> bool {
        self.activity.load(Relaxed) == SILENT
    }

    /// It is in use, and goes where others need its permit.
    pub(super) fn yields(&self) -> bool {
        self.activity.load(Relaxed) == YIELDS
    }

    /// Whether it must stay. Where all that is open on it is idle, it is idle as well.
    pub(super) fn is_in_use(&self) -> bool {
        let idle = self.idle.load(Relaxed);
        let all_idle = idle > 0 && idle >= self.open.load(Relaxed);
        self.activity.load(Relaxed) == BUSY && !all_idle
    }

    /// What is served within it is idle from now on.
    pub(super) fn goes_idle(&self, now: u64) {
        self.since.store(now, Relaxed);
        self.idle.fetch_add(1, Relaxed);
        if self.verdict.load(Relaxed) != STAY {
            // It came while this was in use.
            self.changed.notify_waiters();
        }
    }

    /// What rested within it is in use, or gone.
    pub(super) fn ends_idle(&self, now: u64) {
        self.since.store(now, Relaxed);
        self.idle.fetch_sub(1, Relaxed);
    }

    /// Those of the connection's holder.
    pub(super) fn of_holder(&self) -> &Arc<Requests> {
        self.proven.get().unwrap_or(&self.entered)
    }

    /// From here on its requests are those of another holder. None begins or ends
    /// on this connection meanwhile.
    pub(super) fn proves(&self, requests: &Arc<Requests>) {
        let before = Arc::clone(self.of_holder());
        if self.proven.set(Arc::clone(requests)).is_ok() {
            let moved = self.requests.load(Relaxed);
            requests.begin(moved);
            before.end(moved);
        }
    }

    pub(super) fn reserve_bytes(this: &Arc<Self>, bytes: usize) -> ReservedBytes {
        this.reserved.fetch_add(bytes, Relaxed);
        ReservedBytes {
            conn: Arc::clone(this),
            bytes: AtomicUsize::new(bytes),
        }
    }

    /// About what is held for it, in bytes; nothing when it goes at once.
    pub(super) fn weight(&self) -> usize {
        if self.is_shed() {
            return 0;
        }
        CONNECTION + self.reserved.load(Relaxed)
    }

    /// It was asked to go, whatever it does.
    pub(super) fn is_shed(&self) -> bool {
        self.verdict.load(Relaxed) == SHED
    }

    /// None when it must stay, or goes already.
    pub(super) fn loss(&self, now: u64) -> Option<Loss> {
        if self.is_in_use() || self.verdict.load(Relaxed) != STAY {
            return None;
        }
        let since = self.since.load(Relaxed);
        let late = |age: u64| {
            if age < millis(GRACE) {
                WITHIN_GRACE
            } else {
                SILENT
            }
        };
        if self.yields() {
            return Some(Loss {
                class: late(self.age(now)),
                since,
            });
        }
        match self.head_age(now) {
            None if self.is_silent() => Some(Loss {
                class: SILENT,
                since,
            }),
            None => Some(Loss { class: IDLE, since }),
            Some(age) => Some(Loss {
                class: late(age),
                since: now - age,
            }),
        }
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
