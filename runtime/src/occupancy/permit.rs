//! The permit of a connection, by which its server reports what the connection does, and the
//! connection for which it counts: its own, the one that carries it, such as that of a tunnel, or
//! those of the identity that its peer proved.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::requests::{Requests, ReservedPermit};
use super::tracked::{
    BUSY, CLOSE, CUT, IDLE, ReservedBytes, SHED, SILENT, STAY, TrackedConnection, YIELDS, millis,
};
use super::{Account, Holder, Occupancy, Permit, Reached};

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    connection: Arc<TrackedConnection>,
    /// By which it began, where there was no room; given back after it ended.
    _reserved: Option<Arc<ReservedPermit>>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.requests.fetch_sub(1, Relaxed);
        self.connection.of_holder().end(1);
    }
}

impl Permit {
    /// A permit in no table: for connections that are not bounded here.
    #[must_use]
    pub fn unlisted() -> Arc<Self> {
        Arc::new(Self {
            conn: Arc::default(),
            began: Instant::now(),
            of: None,
            account: None,
        })
    }

    /// A permit in no table for what is served within this connection: its requests and
    /// what they hold count for this one, and what it is doing does not, except that it
    /// is idle ([`Self::carries`]). It holds no permit of the listener.
    #[must_use]
    pub fn within(&self) -> Arc<Self> {
        let own = self.of.as_ref().map(|of| Account {
            conn: Arc::clone(&self.conn),
            occupancy: Arc::clone(&of.occupancy),
        });
        Arc::new(Self {
            conn: Arc::default(),
            began: self.began,
            of: None,
            account: own.or_else(|| self.account.clone()),
        })
    }

    /// Neither side has sent anything yet: may be cut off.
    pub fn silent(&self) {
        self.does(SILENT);
    }

    /// Whatever head was coming has come whole.
    pub fn head_came(&self) {
        self.conn.head.store(0, Relaxed);
    }

    /// Between two requests: may be closed. A head may be coming already.
    pub fn idle(&self) {
        self.does(IDLE);
        if self.conn.verdict.load(Relaxed) != STAY {
            // It came while this was in use.
            self.conn.changed.notify_waiters();
        }
    }

    /// In use: stays, however long. Whatever head was coming is complete.
    pub fn busy(&self) {
        self.head_came();
        self.does(BUSY);
    }

    /// In use, though a head may be coming: stays.
    pub fn stuck(&self) {
        self.does(BUSY);
    }

    /// In use, at the pace of the peer: stays, however long, unless others need its permit. For
    /// servers whose exchanges are short unless a peer draws them out.
    pub fn yields(&self) {
        self.does(YIELDS);
        if self.conn.verdict.load(Relaxed) != STAY {
            // It came while this had to stay.
            self.conn.changed.notify_waiters();
        }
    }

    /// The first byte of a head came, or a handshake begins. Later bytes of the
    /// same head change nothing.
    pub fn head_begins(&self) {
        let now = self.now() + 1;
        let _ = self.conn.head.compare_exchange(0, now, Relaxed, Relaxed);
    }

    /// True, and counted once, when the head that is coming began `within` ago:
    /// for servers that need not wait for the next poll.
    pub fn head_is_overdue(&self, within: Duration) -> bool {
        let age = self.conn.head_age(self.now());
        let overdue = !self.conn.is_in_use() && age.is_some_and(|age| age >= millis(within));
        if overdue
            && let Some(of) = &self.of
            && of.occupancy.send(&self.conn, CUT)
        {
            (of.occupancy.reached)(Reached::SlowHead);
        }
        overdue
    }

    /// So much is open on it: streams, and responses that go on without theirs. While a permit
    /// within this one is idle for each, the connection may be closed though it is in use.
    pub fn carries(&self, open: usize) {
        self.conn.open.store(open, Relaxed);
    }

    /// Returns when the connection should end as between two requests, or after
    /// the one in flight.
    pub async fn wanted(&self) {
        self.verdict(CLOSE).await;
    }

    /// Returns when the connection should be dropped as it is.
    pub async fn cut(&self) {
        self.verdict(CUT).await;
    }

    /// Serves a connection for as long as it may keep its permit.
    pub async fn keep(&self, serving: impl Future<Output = ()>) {
        tokio::select! {
            // What has come is read before that it was late counts: a process that stalled
            // still finds both, and a request that has started goes on.
            biased;
            () = serving => {}
            () = self.cut() => {}
        }
    }

    /// From here on the connection counts for the proven identity, once for all. It came in as
    /// one of its address; where that identity has its share already, it goes again.
    pub fn prove(&self, identity: &str) {
        let Some(of) = &self.of else { return };
        let mut holder = of.holder.lock();
        let mut table = of.occupancy.table.lock();
        if self.conn.proven.get().is_some() {
            return;
        }
        let proven = Holder::Identity(identity.into());
        if let Some(conn) = table.remove(&holder, of.id) {
            conn.proves(&table.requests_of(&proven));
            let conns = table.holders.entry(proven.clone()).or_default();
            conns.insert(of.id, conn);
        }
        let one_too_many = of.occupancy.hoards_with_last(&table, &proven);
        drop(table);
        *holder = proven;
        // No request has started on it.
        if one_too_many && of.occupancy.send(&self.conn, SHED) {
            (of.occupancy.reached)(Reached::Hoarder);
        }
    }

    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn begin_request(&self) -> InFlight {
        self.begin_request_by(None)
    }

    /// The same of a request that may have started by a reserved permit, which is given back
    /// with the guard.
    #[must_use]
    pub fn begin_request_by(&self, reserved: Option<Arc<ReservedPermit>>) -> InFlight {
        let conn = self.charged();
        conn.requests.fetch_add(1, Relaxed);
        conn.of_holder().begin(1);
        InFlight {
            connection: Arc::clone(conn),
            _reserved: reserved,
        }
    }

    /// Those of all connections of its holder; `None` for a permit in no table.
    #[must_use]
    pub fn requests(&self) -> Option<&Arc<Requests>> {
        self.occupancy().map(|_| self.charged().of_holder())
    }

    /// A request of this connection waits for memory that is in use, or that others are
    /// expected to use.
    pub fn waits_for_memory(&self, in_use: bool) {
        if let Some(occupancy) = self.occupancy() {
            (occupancy.reached)(Reached::NoMemory { in_use });
        }
    }

    /// This connection ends because it brings next to nothing but frames that nothing called for.
    pub fn flooded(&self) {
        if let Some(occupancy) = self.occupancy() {
            (occupancy.reached)(Reached::Flood);
        }
    }

    /// Counts `bytes` as held for this connection.
    #[must_use]
    pub fn reserve_bytes(&self, bytes: usize) -> ReservedBytes {
        TrackedConnection::reserve_bytes(self.charged(), bytes)
    }

    async fn verdict(&self, at_least: u8) {
        loop {
            let changed = self.conn.changed.notified();
            let verdict = self.conn.verdict.load(Relaxed);
            let in_use = self.conn.is_in_use();
            // What began meanwhile goes on: it was not to be lost.
            let spared = at_least == CUT && in_use && verdict != SHED;
            if verdict >= at_least && !spared {
                return;
            }
            changed.await;
        }
    }

    fn does(&self, activity: u8) {
        let now = self.now();
        self.conn.since.store(now, Relaxed);
        let Some(account) = &self.account else {
            return self.conn.activity.store(activity, Relaxed);
        };
        let before = self.conn.activity.swap(activity, Relaxed);
        match (before == BUSY, activity == BUSY) {
            (true, false) => account.conn.goes_idle(now),
            (false, true) => account.conn.ends_idle(now),
            _ => {}
        }
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    /// The slot for which requests and bytes count.
    fn charged(&self) -> &Arc<TrackedConnection> {
        self.account.as_ref().map_or(&self.conn, |of| &of.conn)
    }

    /// Whose table it stands in, or the connection within which it lies.
    fn occupancy(&self) -> Option<&Arc<Occupancy>> {
        let own = self.of.as_ref().map(|of| &of.occupancy);
        own.or_else(|| self.account.as_ref().map(|of| &of.occupancy))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(of) = &self.of {
            of.occupancy.leave(of, &self.conn);
        }
        if let Some(account) = &self.account
            && self.conn.activity.load(Relaxed) != BUSY
        {
            account.conn.ends_idle(self.now());
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}
