//! The memory budget: how many bytes all connections together may hold.
//!
//! A fast reader has to keep what a slow writer does not take. Everything that may hold bytes on
//! their way, a stream of HTTP/2 or a connection of anything else, counts as a holder. What one of
//! them may hold follows from how many there are, so a thousand slow readers cost as much memory as
//! fifty, all are slowed alike, and none has to end.
//!
//! Not all memory is counted here: heads, what `h2` keeps of a stream, tasks. So the memory that
//! the program really holds is read as well, before every read, since nothing grows without one.
//! From [`Budget::is_tight`] on chunks and windows are the smallest, and soon after that holders
//! with much in flight wait with more ([`crate::ticket`]). From [`Budget::is_full`] on nothing is
//! read until the largest holder has lost connections (`process::relief`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use runtime::occupancy::{Permit, Requests, ReservedPermit};
use tokio::sync::Notify;

use crate::admission::{
    Admission, AdmissionClass, Entry, Generation, Headroom, MIN_IN_FLIGHT, NoneLeft, least,
    reserved_permits,
};
use crate::memory::{Memory, Watermark};

/// A chunk that is on its way. Smaller ones cost more in system calls than they save.
const LEAST_CHUNK: usize = 4 * 1024;
/// A holder of much less than the holder of most waits no longer without getting anything before
/// that one loses something. Where requests end at all, room changes hands within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any chunk has.
const LARGEST_CHUNK: usize = 128 * 1024;

/// What heads have that cost nothing beside their requests.
const SMALL_HEAD: usize = 8 * 1024;
/// Readers that wait at most; with more of them all look again.
const WAITING: usize = 64 * 1024;

/// Bytes are read until memory is full.
const WITH_ROOM: u8 = 0;
/// Nothing is read: a holder is to lose something.
const STOPPED: u8 = 1;
/// Bytes are read for a moment though what was taken from holders did not suffice.
const THOUGH_FULL: u8 = 2;

/// The bytes of one process.
pub struct Budget {
    /// What is shared out among connections, in bytes.
    limit: usize,
    memory: Memory,
    holders: AtomicUsize,
    /// What windows have grown by, in bytes.
    grown: AtomicUsize,
    /// [`WITH_ROOM`], [`STOPPED`] or [`THOUGH_FULL`].
    reading: AtomicU8,
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
            memory: Memory::new(heap, used),
            holders: AtomicUsize::new(0),
            grown: AtomicUsize::new(0),
            reading: AtomicU8::new(WITH_ROOM),
            waiting: Mutex::default(),
            full: Notify::new(),
            admission: Admission::default(),
        })
    }

    /// What the process may use of memory, in bytes.
    #[must_use]
    pub const fn heap(&self) -> usize {
        self.memory.heap()
    }

    /// What the process holds of memory, or will without reading more, in bytes.
    #[must_use]
    pub fn used(&self) -> usize {
        self.memory.used()
    }

    /// Notes what the kernel holds for the sockets, in bytes.
    pub fn note_sockets(&self, bytes: usize) {
        self.memory.note_sockets(bytes);
    }

    /// Counts a head of so many bytes until the guard is dropped: it is held once more for its
    /// receiver, and while that grows once more. A small one costs nothing beside its request.
    #[must_use]
    pub fn promise(self: &Arc<Self>, head: usize) -> Promise {
        let bytes = 2 * head.saturating_sub(SMALL_HEAD);
        if bytes > 0 {
            self.memory.promise(bytes);
        }
        Promise {
            budget: Arc::clone(self),
            bytes,
            started: None,
        }
    }

    /// So much is in use that each holder gets only the least.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.memory.is_tight()
    }

    /// So much is in use that a holder must lose something.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.memory.is_full()
    }

    /// How much is in use at this mark, in bytes.
    #[must_use]
    pub const fn at(&self, mark: Watermark) -> usize {
        self.memory.at(mark)
    }

    /// Ready when bytes may be read from anywhere.
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let reading = self.reading.load(Relaxed);
        if reading != STOPPED {
            if !self.is_full() || reading == THOUGH_FULL {
                return Poll::Ready(());
            }
            self.reading.store(STOPPED, Relaxed);
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
        let reading = if though_full { THOUGH_FULL } else { WITH_ROOM };
        self.reading.store(reading, Relaxed);
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
    pub fn chunk_size(&self) -> usize {
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

    /// How a request may begin that has just come. It overtakes no request of its own holder, nor
    /// others for which there is room.
    pub(super) fn passes(&self, requests: &Requests, class: AdmissionClass) -> Option<Entry> {
        if requests.waiting() > 0 {
            return None;
        }
        self.headroom().passes(requests, class)
    }

    /// A request of this holder begins so. Gives what it keeps until it has ended, if anything.
    ///
    /// # Errors
    /// When it was to begin by a reserved permit, and none is left: it has to wait.
    pub(super) fn enters(
        &self,
        entry: Entry,
        requests: &Arc<Requests>,
    ) -> Result<Option<Arc<ReservedPermit>>, NoneLeft> {
        match entry {
            Entry::Headroom => {}
            Entry::Spared => self.admission.note_spared(),
            Entry::Reserved => {
                let permit = requests
                    .reserve_permit(reserved_permits(self.heap(), requests))
                    .ok_or(NoneLeft)?;
                return Ok(Some(permit));
            }
        }
        Ok(None)
    }

    /// Lets the next request by this permit begin of which no more than the first bytes have
    /// come, where it need not wait. It gets no reserved permit: the rest may never come.
    pub fn lets_in(&self, permit: &Permit, class: AdmissionClass) -> bool {
        let Some(requests) = permit.requests() else {
            return true;
        };
        let Some(entry) = self.passes(requests, class) else {
            return false;
        };
        entry != Entry::Reserved && self.enters(entry, requests).is_ok()
    }

    /// Whether the next request by this permit would wait.
    pub fn holds_back(&self, permit: &Permit, class: AdmissionClass) -> bool {
        let requests = permit.requests();
        requests.is_some_and(|requests| self.passes(requests, class).is_none())
    }

    /// Notes how many requests of callers are in flight.
    pub fn note_callers(&self, requests: usize) {
        self.admission.note_callers(requests);
    }

    /// There may be room for one that waits.
    pub fn look_again(&self) {
        if self.admission.is_empty() {
            return;
        }
        let headroom = self.headroom();
        self.admission
            .call(|requests, class| headroom.admits(requests, class).is_some());
    }

    /// What requests take that began before the last call of this has been measured, and
    /// there may be room. To be called every now and then.
    pub fn settle(&self) {
        self.admission.settle();
        self.admission
            .look_again(|requests, class| self.least(requests, class));
        self.look_again();
    }

    /// A request waits, or may have to.
    pub fn may_hold_back(&self) -> bool {
        self.is_tight() || !self.admission.is_empty()
    }

    /// What those will take, in bytes, that hold much less than another one and waited for
    /// long without getting anything.
    pub fn pressed_for(&self) -> usize {
        let headroom = self.headroom();
        let waiting = self.admission.waiting(|requests, class| {
            requests.is_light()
                && requests.is_stalled(PATIENCE)
                && !headroom.is_for(requests, class)
        });
        waiting.saturating_mul(MIN_IN_FLIGHT)
    }

    /// No request waits, and no holder's next request would.
    pub fn has_room_for_all(&self) -> bool {
        self.headroom().is_for_all()
    }

    /// Whether what is in use bounds requests by reserved permits, and not their number alone.
    pub fn reserves_by_what_is_in_use(&self) -> bool {
        self.headroom().is_below_reserved()
    }

    /// Whether what is in use leaves no room for the next request of this holder, whatever is
    /// expected beside that of requests that began just now.
    pub(super) fn lacks_memory(&self, requests: &Requests, class: AdmissionClass) -> bool {
        !Headroom::in_use(&self.memory, &self.admission).is_for(requests, class)
    }

    pub(super) fn headroom(&self) -> Headroom<'_> {
        Headroom::new(&self.memory, &self.admission)
    }

    /// As [`least`].
    pub(super) fn least(&self, requests: &Requests, class: AdmissionClass) -> usize {
        least(&self.admission, requests, class)
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
    pub fn answered(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            self.budget.memory.settle(bytes);
        }
    }

    /// The request was let in and takes from now on what a request takes.
    pub fn begins(&mut self) {
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
    pub fn chunk_size(&self) -> usize {
        self.0.chunk_size()
    }

    /// As [`Budget::poll_room`].
    pub fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
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
mod tests;
