//! The memory budget: how many bytes connections may hold, all together.
//!
//! A fast reader has to keep what a slow writer does not take. Everything
//! that may hold bytes on their way, a stream of HTTP/2 or a connection of anything
//! else, counts as a holder. What one of them may hold follows from how many there are,
//! so a thousand slow readers cost as much memory as fifty, each of them is slowed as
//! much as the others, and none has to end.
//!
//! Not everything that may be held is counted here: heads, what `h2` keeps of a stream,
//! tasks. So the memory that the program really holds is read as well, before every read, since
//! nothing grows without one. From [`Budget::is_tight`] on chunks and windows are the
//! smallest, soon after that holders with much in flight wait with more ([`crate::net::ticket`]);
//! from [`Budget::is_full`] on nothing is read until the holder of most has lost connections
//! (`process::relief`).
//!
//! Claims: attack-35, attack-39

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::net::admission::{Admission, Generation};

/// A chunk that is on its way. Smaller ones cost more in system calls than they save.
const LEAST_CHUNK: usize = 4 * 1024;
/// In percent of what the process may use: chunks and windows are the smallest.
const TIGHT: usize = 55;
/// Part of the memory that a holder must hold to be slowed or to lose anything on account of the
/// others.
pub(crate) const WORTH: usize = 32;
/// A holder of this part of the memory makes more room than others do where it runs out, and does
/// so for those that it keeps waiting.
pub(crate) const HEAVY: usize = 8;
/// Nothing is read before a holder has lost something. What is left is for what no read brings,
/// for pages that are free and not given back yet, and for the program itself.
const FULL: usize = 65;
/// More than any chunk has.
const LARGEST_CHUNK: usize = 128 * 1024;

/// What heads have that cost nothing beside their requests.
const SMALL_HEAD: usize = 8 * 1024;
/// Readers that wait at most; with more of them all look again.
const WAITING: usize = 64 * 1024;

/// The bytes of one process.
pub struct Budget {
    /// What is shared out among connections, in bytes.
    limit: usize,
    /// What the process may use of memory, in bytes.
    heap: usize,
    holders: AtomicUsize,
    /// What windows have grown by, in bytes.
    grown: AtomicUsize,
    /// What heads that have come will cost once they are sent on, in bytes.
    promised: AtomicUsize,
    /// What the program holds of memory, in bytes.
    used: fn() -> usize,
    /// What the kernel holds for its sockets, where that counts, in bytes.
    sockets: AtomicUsize,
    /// Nothing may be read.
    closed: AtomicBool,
    /// Everybody may read, though it is full.
    spared: AtomicBool,
    /// Wakes what would read.
    waiting: Mutex<Vec<Waker>>,
    /// A holder must lose something.
    full: Notify,
    /// Requests that wait for room.
    pub(super) admission: Admission,
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("limit", &self.limit)
            .field("holders", &self.holders())
            .field("grown", &self.grown())
            .finish_non_exhaustive()
    }
}

impl Budget {
    /// `limit` of the process's memory, in bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Self::measured(limit, usize::MAX, || 0)
    }

    /// The same for a process that holds `used` bytes, which is called very often, and may hold
    /// `heap`.
    #[must_use]
    pub fn measured(limit: usize, heap: usize, used: fn() -> usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            heap,
            holders: AtomicUsize::new(0),
            grown: AtomicUsize::new(0),
            promised: AtomicUsize::new(0),
            used,
            sockets: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            spared: AtomicBool::new(false),
            waiting: Mutex::default(),
            full: Notify::new(),
            admission: Admission::default(),
        })
    }

    /// What the process may use of memory, in bytes.
    #[must_use]
    pub const fn heap(&self) -> usize {
        self.heap
    }

    /// What the process holds of memory, or will without reading more, in bytes.
    #[must_use]
    pub fn used(&self) -> usize {
        (self.used)() + self.promised.load(Relaxed) + self.sockets.load(Relaxed)
    }

    /// Notes what the kernel holds for the sockets, in bytes.
    pub(crate) fn note_sockets(&self, bytes: usize) {
        self.sockets.store(bytes, Relaxed);
    }

    /// Counts a head of so many bytes until the guard is dropped: it is held once more for its
    /// receiver, and while that grows once more. A small one costs nothing beside its request.
    #[must_use]
    pub fn promise(self: &Arc<Self>, head: usize) -> Promise {
        let bytes = 2 * head.saturating_sub(SMALL_HEAD);
        if bytes > 0 {
            self.promised.fetch_add(bytes, Relaxed);
        }
        Promise {
            budget: Arc::clone(self),
            bytes,
            started: None,
        }
    }

    /// So much is in use that each holder gets only the least.
    #[must_use]
    pub(crate) fn is_tight(&self) -> bool {
        self.used() > self.tight_from()
    }

    /// So much is in use that a holder must lose something.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used() > self.full_from()
    }

    /// The same, in bytes.
    #[must_use]
    pub(crate) const fn full_from(&self) -> usize {
        self.heap / 100 * FULL
    }

    /// As [`Self::is_tight`], in bytes.
    #[must_use]
    pub(crate) const fn tight_from(&self) -> usize {
        self.heap / 100 * TIGHT
    }

    /// Ready when bytes may be read from anywhere.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.closed.load(Relaxed) {
            if !self.is_full() || self.spared.load(Relaxed) {
                return Poll::Ready(());
            }
            self.closed.store(true, Relaxed);
            self.full.notify_one();
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING {
            waiting.drain(..).for_each(Waker::wake);
        }
        if !waiting
            .last()
            .is_some_and(|last| last.will_wake(cx.waker()))
        {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Returns when a holder must lose something. Until [`Self::reopen`] nothing is read.
    pub async fn filled(&self) {
        self.full.notified().await;
    }

    /// Lets everybody read again as long as there is room, or `though_full`, until this
    /// is called again.
    pub fn reopen(&self, though_full: bool) {
        self.spared.store(though_full, Relaxed);
        self.closed.store(false, Relaxed);
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Counts a holder until the guard is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Holder {
        self.holders.fetch_add(1, Relaxed);
        Holder(Arc::clone(self))
    }

    #[must_use]
    pub fn holders(&self) -> usize {
        self.holders.load(Relaxed)
    }

    /// Bytes that one read may bring, or that may wait to be written at one place. There are up
    /// to five such places in a proxy, and the first may hold what was right then: a harmonic
    /// sum, which for a thousand is some seven times the 64th part.
    #[must_use]
    pub(crate) fn chunk_size(&self) -> usize {
        if self.is_tight() {
            return LEAST_CHUNK;
        }
        (self.limit / 64 / self.holders().max(1)).clamp(LEAST_CHUNK, LARGEST_CHUNK)
    }

    /// Bytes that the windows of all streams may come to, and once more what they may
    /// have grown by.
    #[must_use]
    pub const fn windows(&self) -> usize {
        self.limit / 16
    }

    /// A stream's part of [`Self::windows`].
    #[must_use]
    pub fn window(&self) -> usize {
        if self.is_tight() {
            return 0;
        }
        self.windows() / self.holders().max(1)
    }

    /// What windows have grown by, in bytes.
    #[must_use]
    pub fn grown(&self) -> usize {
        self.grown.load(Relaxed)
    }

    /// A connection's windows have grown by `after` now, not by `before`.
    pub fn grow(&self, before: usize, after: usize) {
        self.grown.fetch_add(after, Relaxed);
        self.grown.fetch_sub(before, Relaxed);
    }
}

/// What a request will cost that is on its way.
#[derive(Debug)]
pub struct Promise {
    budget: Arc<Budget>,
    /// For its head.
    bytes: usize,
    /// It was let in, so all of it counts as well.
    started: Option<Generation>,
}

impl Promise {
    /// Its answer comes: its head costs by now what it was to cost. What is to be sent of
    /// the answer is not there yet.
    pub(crate) fn answered(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            self.budget.promised.fetch_sub(bytes, Relaxed);
        }
    }

    /// The request was let in and takes from now on what a request takes.
    pub(crate) fn begins(&mut self) {
        self.started = Some(self.budget.admission.begins());
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.answered();
        if let Some(generation) = self.started
            && self.budget.admission.ended(generation)
        {
            self.budget.look_again();
        }
    }
}

/// Something that may hold bytes.
#[derive(Debug)]
pub struct Holder(Arc<Budget>);

impl Holder {
    /// As [`Budget::chunk_size`].
    #[must_use]
    pub(crate) fn chunk_size(&self) -> usize {
        self.0.chunk_size()
    }

    /// As [`Budget::poll_room`].
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.poll_room(cx)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.holders.fetch_sub(1, Relaxed);
        self.0.look_again();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use super::{Budget, Holder, LARGEST_CHUNK, LEAST_CHUNK};

    const LIMIT: usize = 64 * 1024 * 1024;
    const MIB: usize = 1024 * 1024;

    thread_local! {
        /// What the program of a test holds.
        static USED: Cell<usize> = const { Cell::new(0) };
    }

    fn measured() -> Arc<Budget> {
        Budget::measured(LIMIT, LIMIT, || USED.get())
    }

    fn may_read(budget: &Budget) -> bool {
        budget
            .poll_room(&Context::from_waker(Waker::noop()))
            .is_ready()
    }
    /// Places of a stream that hold a chunk each.
    const PLACES: usize = 5;

    #[test]
    fn thousand_sequential_connections_fit_in_memory() {
        let budget = Budget::new(LIMIT);
        assert_eq!(budget.chunk_size(), LARGEST_CHUNK);
        let (mut holders, mut all): (Vec<Holder>, _) = (Vec::new(), 0);
        for _ in 0..1000 {
            holders.push(budget.enter());
            all += PLACES * budget.chunk_size() + budget.window().min(64 * 1024);
        }
        assert!(all <= LIMIT * 7 / 8, "{all}");
        assert_eq!(budget.chunk_size(), LEAST_CHUNK);
        holders.clear();
        assert_eq!((budget.holders(), budget.chunk_size()), (0, LARGEST_CHUNK));
    }

    #[test]
    fn chunks_and_windows_are_smallest_when_memory_is_tight() {
        let budget = measured();
        USED.set(35 * MIB);
        assert_eq!(budget.chunk_size(), LARGEST_CHUNK);
        assert!(budget.window() > 0 && may_read(&budget));
        USED.set(36 * MIB);
        assert_eq!((budget.chunk_size(), budget.window()), (LEAST_CHUNK, 0));
        assert!(may_read(&budget), "there is room");
    }

    #[tokio::test]
    async fn reading_stops_at_full_memory_until_room_is_made() {
        let budget = measured();
        USED.set(45 * MIB);
        assert!(!may_read(&budget));
        budget.filled().await;
        // Less is held, but making room is not done.
        USED.set(40 * MIB);
        assert!(!may_read(&budget));
        let waiting = Arc::clone(&budget);
        let reader = tokio::spawn(async move { poll_fn(|cx| waiting.poll_room(cx)).await });
        tokio::task::yield_now().await;
        assert!(!reader.is_finished());
        budget.reopen(false);
        reader.await.unwrap();
        assert!(may_read(&budget));
    }

    #[test]
    fn what_the_kernel_holds_for_sockets_counts() {
        let budget = measured();
        USED.set(20 * MIB);
        budget.note_sockets(10 * MIB);
        assert!(!budget.is_tight());
        budget.note_sockets(25 * MIB);
        assert!(budget.is_full());
    }

    #[test]
    fn received_heads_count_for_their_forwarding_cost() {
        let budget = measured();
        USED.set(40 * MIB);
        let small = budget.promise(8000);
        assert_eq!(budget.used(), 40 * MIB, "no more than a request");
        let heads: Vec<_> = (0..50).map(|_| budget.promise(60_000)).collect();
        assert!(!may_read(&budget), "{}", budget.used());
        drop((heads, small));
        assert_eq!(budget.used(), 40 * MIB);
        budget.reopen(false);
        assert!(may_read(&budget));
    }
}
