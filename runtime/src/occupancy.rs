//! The permits of a listener: which peers hold its connections, and which peer loses one when there
//! are too many.
//!
//! Any peer can fill a listener that is open to all. So each listener has permits of its own, a
//! head must be complete soon after its first byte, and once nine tenths of the permits are taken
//! every new connection costs the largest holder a connection that does nothing: one between two
//! requests, the longest idle first, else one on which nothing was sent or whose head is
//! incomplete. What is in use (a response, a stream, a tunnel, an upgrade) is never taken away,
//! unless its server yields it ([`Permit::yields`]). Not in use is a tunnel that is served as HTTP
//! and between two requests, or before the first: where nothing else is open on its connection,
//! that is idle.
//!
//! A holder is a proven identity where there is one, else an address. The last tenth of the permits
//! is kept for small holders, against large ones that hold only what is in use: further connections
//! are rejected of the largest holder, and of any that holds more than half as many as permits are
//! left. So each further large holder gets a third of what those before it left, and a first
//! connection gets in as long as there is a permit. Where there is none, a large holder does not
//! queue before others.
//!
//! Beside its permit a connection notes about how many bytes the process holds for it; `eviction`
//! decides what follows when memory runs out.

mod eviction;
mod permit;
mod requests;
mod tracked;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

pub use eviction::Weights;
pub use permit::InFlight;
pub use requests::{Look, Requests, ReservedPermit};
pub use tracked::ReservedBytes;
use tracked::{CLOSE, CUT, GRACE, IDLE, Loss, STAY, TrackedConnection, millis};

/// The holder of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// No identity was proven. Whole addresses, of IPv6 too: the pods of a node
    /// often share a /64.
    Address(IpAddr),
    /// From a certificate.
    Identity(Arc<str>),
}

impl From<IpAddr> for Holder {
    fn from(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

/// The bounds of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at one time.
    pub permits: usize,
    /// Connections of one holder at one time.
    pub per_holder: usize,
    /// Every peer can connect, so a hoarder is rejected before all permits are
    /// taken. A listener with one caller has no other to keep permits for.
    pub shared: bool,
    /// Time for a head, from its first byte.
    pub head_within: Duration,
    /// Longest rest between two requests.
    pub idle_within: Duration,
}

/// What happened, for counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reached {
    /// All permits are taken.
    Full,
    /// A holder of most lost a connection, or one of many was rejected.
    Hoarder,
    /// A head was not complete in time.
    SlowHead,
    /// A request waits for memory before it begins; else for what is only expected to be in use.
    NoMemory { in_use: bool },
    /// A connection brought so many frames that nothing called for that it ends.
    Flood,
}

/// The permits of one listener.
pub struct Occupancy {
    bounds: Bounds,
    began: Instant,
    table: Mutex<Table>,
    /// Connections that were asked to go and are not gone.
    leaving: AtomicUsize,
    freed: Notify,
    reached: Box<dyn Fn(Reached) + Send + Sync>,
}

#[derive(Default)]
struct Table {
    holders: HashMap<Holder, HashMap<u64, Arc<TrackedConnection>>>,
    /// Of each of them.
    requests: HashMap<Holder, Arc<Requests>>,
    /// Holders that have some in flight.
    active: Arc<AtomicUsize>,
    taken: usize,
    next: u64,
    /// No holder had anything to lose; milliseconds.
    asked_in_vain: Option<u64>,
}

/// The permit of one connection. Given back when the last clone of the `Arc` is gone.
pub struct Permit {
    conn: Arc<TrackedConnection>,
    began: Instant,
    of: Option<Of>,
    account: Option<Account>,
}

struct Of {
    occupancy: Arc<Occupancy>,
    holder: Mutex<Holder>,
    id: u64,
}

/// The connection within which the one of a permit lies, which is charged for it.
#[derive(Clone)]
struct Account {
    conn: Arc<TrackedConnection>,
    occupancy: Arc<Occupancy>,
}

/// There is no permit for this connection: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnedAway;

impl Occupancy {
    #[must_use]
    pub fn new(bounds: Bounds, reached: impl Fn(Reached) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            began: Instant::now(),
            table: Mutex::default(),
            leaving: AtomicUsize::new(0),
            freed: Notify::new(),
            reached: Box::new(reached),
        })
    }

    /// A permit for a connection of `holder`, at once or when there is one.
    ///
    /// # Errors
    /// When the holder has its share.
    pub async fn admit(self: &Arc<Self>, holder: Holder) -> Result<Arc<Permit>, TurnedAway> {
        let mut counted = false;
        loop {
            let freed = self.freed.notified();
            if let Some(permit) = self.try_admit(&holder)? {
                return Ok(permit);
            }
            if !counted {
                counted = true;
                (self.reached)(Reached::Full);
            }
            // A holder that had nothing to lose may have something now.
            let _ = timeout(GRACE, freed).await;
        }
    }

    /// `None` when all permits are taken.
    ///
    /// # Errors
    /// When the holder has its share.
    pub fn try_admit(self: &Arc<Self>, holder: &Holder) -> Result<Option<Arc<Permit>>, TurnedAway> {
        let now = self.now();
        let mut table = self.table.lock();
        let in_use = table.in_use(holder);
        if in_use >= self.bounds.per_holder && !self.take_from(&table, holder, now) {
            (self.reached)(Reached::Hoarder);
            return Err(TurnedAway);
        }
        let full = self.staying(&table) >= self.eviction_threshold()
            && !self.evict(&mut table, holder, now);
        if full
            && self.bounds.shared
            && in_use > 1
            && self.hoards(&table, holder, (in_use, table.taken))
        {
            (self.reached)(Reached::Hoarder);
            return Err(TurnedAway);
        }
        if table.taken >= self.bounds.permits {
            return self.may_wait(&table, holder, now).map(|()| None);
        }
        let id = table.next;
        table.next += 1;
        table.taken += 1;
        let conn = Arc::new(TrackedConnection {
            entered: table.requests_of(holder),
            ..TrackedConnection::default()
        });
        conn.since.store(now, Relaxed);
        let conns = table.holders.entry(holder.clone()).or_default();
        conns.insert(id, Arc::clone(&conn));
        Ok(Some(Arc::new(Permit {
            conn,
            began: self.began,
            of: Some(Of {
                occupancy: Arc::clone(self),
                holder: Mutex::new(holder.clone()),
                id,
            }),
            account: None,
        })))
    }

    /// Connections that have a permit.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.table.lock().taken
    }

    /// Returns when no connection has a permit.
    pub async fn emptied(&self) {
        loop {
            let freed = self.freed.notified();
            if self.taken() == 0 {
                return;
            }
            let _ = timeout(GRACE, freed).await;
        }
    }

    /// Requests in flight of all holders but the pod itself.
    #[must_use]
    pub fn requests_of_callers(&self) -> usize {
        if !self.bounds.shared {
            return 0;
        }
        let table = self.table.lock();
        table.requests.values().map(|one| one.in_flight()).sum()
    }

    /// There is room for all: requests that began by reserved permits are like all others from
    /// now on.
    pub fn release_reserved(&self) {
        self.release_older_reserved();
        self.release_older_reserved();
    }

    /// The same of those that began so before the last call of this.
    pub fn release_older_reserved(&self) {
        let table = self.table.lock();
        let all = table.requests.values();
        all.for_each(|requests| requests.release_older());
    }

    /// Connections that have a permit and were not asked to go.
    fn staying(&self, table: &Table) -> usize {
        table.taken.saturating_sub(self.leaving.load(Relaxed))
    }

    /// From here on each newcomer costs a holder a connection.
    const fn eviction_threshold(&self) -> usize {
        self.bounds.permits - self.bounds.permits / 10
    }

    /// Whether a holder of `in_use` of all that are `taken` has to leave what is left to others.
    fn hoards(&self, table: &Table, holder: &Holder, (in_use, taken): (usize, usize)) -> bool {
        let left = self.bounds.permits.saturating_sub(taken);
        let others = table.holders.iter().filter(|(other, _)| *other != holder);
        let most = others.map(|(_, conns)| conns.len()).max();
        // Where nothing is left, a waiting newcomer takes nothing from others.
        most.is_none_or(|most| in_use >= most) || (left > 0 && in_use > left / 2)
    }

    /// Takes one from a holder that has its share, the oldest first.
    fn take_from(&self, table: &Table, holder: &Holder, now: u64) -> bool {
        let conns = table.holders.get(holder).into_iter();
        let longest = conns
            .flat_map(HashMap::values)
            .filter_map(|conn| Some((conn.loss(now)?, conn)))
            .min_by_key(|(loss, _)| *loss);
        longest.is_some_and(|(loss, conn)| self.take(conn, loss))
    }

    fn take(&self, conn: &TrackedConnection, loss: Loss) -> bool {
        let verdict = if loss.class == IDLE { CLOSE } else { CUT };
        let sent = self.send(conn, verdict);
        if sent {
            (self.reached)(Reached::Hoarder);
        }
        sent
    }

    fn send(&self, conn: &TrackedConnection, verdict: u8) -> bool {
        if conn.verdict.load(Relaxed) == STAY {
            conn.verdict_at.store(self.now(), Relaxed);
        }
        let before = conn.verdict.fetch_max(verdict, Relaxed);
        if before == STAY {
            self.leaving.fetch_add(1, Relaxed);
            conn.leaves.store(true, Relaxed);
        }
        if before < verdict {
            conn.changed.notify_waiters();
        }
        before == STAY
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    fn leave(&self, of: &Of, conn: &TrackedConnection) {
        let holder = of.holder.lock();
        let mut table = self.table.lock();
        table.remove(&holder, of.id);
        table.taken -= 1;
        if conn.leaves.load(Relaxed) {
            self.leaving.fetch_sub(1, Relaxed);
        }
        drop(table);
        self.freed.notify_waiters();
    }
}

impl Table {
    fn in_use(&self, holder: &Holder) -> usize {
        self.holders.get(holder).map_or(0, HashMap::len)
    }

    fn remove(&mut self, holder: &Holder, id: u64) -> Option<Arc<TrackedConnection>> {
        let conns = self.holders.get_mut(holder)?;
        let conn = conns.remove(&id);
        if conns.is_empty() {
            self.holders.remove(holder);
            self.requests.remove(holder);
        }
        conn
    }

    /// Those of this holder.
    fn requests_of(&mut self, holder: &Holder) -> Arc<Requests> {
        if let Some(known) = self.requests.get(holder) {
            return Arc::clone(known);
        }
        let entry = self.requests.entry(holder.clone());
        let active = &self.active;
        Arc::clone(entry.or_insert_with(|| Arc::new(Requests::counted_in(active))))
    }
}

impl fmt::Debug for Occupancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Occupancy")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
