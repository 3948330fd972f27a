//! Admission by memory: which requests begin, and which wait until less is in use.
//!
//! It counts which holders wait, and what the requests take that began a moment ago; how much
//! memory must be free for the next one follows from that, from what is in use and from what its
//! holder holds. [`crate::ticket`] is the wait itself.
//!
//! A holder of nothing may begin up to [`Watermark::AllWait`], and the more a holder holds, the
//! earlier its next request waits. So there is always room for holders of less than those that
//! fill the memory, however many they are, and among equals all get the same. What is in use
//! counts with what is going to be, so all together stay below the part of the memory from which
//! on nothing is read.
//!
//! Beyond that each holder may have `LEAST` requests in flight, or its part of so many where
//! there are more callers: one may have to end for others to end.
//!
//! A holder of more than those in flight of which none ends, as downloads without a reader, would
//! wait for ever with the next. So a few requests of each holder begin by permits that are
//! reserved for it, up to [`Watermark::ReservedWait`], and give them back when they end, or some
//! seconds later: by then what they take is in use.
//!
//! What stalls may stay above that and below where any holder loses anything. A holder that is
//! known to hold an [`HEAVY`]th part of the memory goes on there as well, by half of its permits:
//! where that fills the memory it is among those who make room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use runtime::occupancy::Requests;

use crate::memory::{BURST, HEAVY, Memory, QUARTER, UNMEASURED, Watermark};

/// Whose requests wait, which decides from which part of the memory on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionClass {
    /// Callers from outside the pod.
    Callers,
    /// Calls of the pod's own application.
    Own,
}

/// What a request may take that begins, in bytes: buffers of HTTP/1.1 towards the
/// application and towards the caller, a head of 8 KiB and its copies, what waits for its
/// answer, and what of that waits for the caller. Most take less, and what they took counts
/// once it was measured.
const REQUEST: usize = 64 * 1024;
/// What one in flight takes at least over HTTP/1.1.
pub(super) const MIN_IN_FLIGHT: usize = 32 * 1024;
/// Requests that callers may have in flight where there is no room for more.
const LEAST: usize = 64;

/// When a request began, counted in [`Budget::settle`]s.
///
/// [`Budget::settle`]: crate::budget::Budget::settle
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(usize);

/// Whose requests wait, and what those take that began a moment ago.
#[derive(Default)]
pub(super) struct Admission {
    /// Few: each of them has its share of requests in flight.
    waiting: Mutex<Vec<(Arc<Requests>, AdmissionClass)>>,
    /// As many as are in there.
    holders: AtomicUsize,
    /// Requests of callers that were in flight when it was looked last.
    callers: AtomicUsize,
    generation: AtomicUsize,
    /// Bytes that those of this generation and of the one before will take, by turns.
    started: [AtomicUsize; 2],
    /// Bytes of those of them that were let in without room.
    spared: [AtomicUsize; 2],
}

impl Admission {
    /// A request was let in.
    pub(super) fn begins(&self) -> Generation {
        let now = self.generation.load(Relaxed);
        self.started[now % 2].fetch_add(REQUEST, Relaxed);
        Generation(now)
    }

    /// It is over. True when it was not measured yet.
    pub(super) fn ended(&self, started: Generation) -> bool {
        let now = self.generation.load(Relaxed);
        let unmeasured = now.wrapping_sub(started.0) < 2;
        if unmeasured {
            let less = |bytes: usize| Some(bytes.saturating_sub(REQUEST));
            let _ = self.started[started.0 % 2].fetch_update(Relaxed, Relaxed, less);
        }
        unmeasured
    }

    /// Bytes that are going to be taken and were not measured yet.
    pub(super) fn expected(&self) -> usize {
        self.started.iter().map(|bytes| bytes.load(Relaxed)).sum()
    }

    /// Bytes of requests that were let in without room and are not measured.
    fn spared(&self) -> usize {
        self.spared.iter().map(|bytes| bytes.load(Relaxed)).sum()
    }

    /// One more is let in so.
    pub(super) fn note_spared(&self) {
        let now = self.generation.load(Relaxed);
        self.spared[now % 2].fetch_add(REQUEST, Relaxed);
    }

    /// What began before the last call of this has been measured.
    pub(super) fn settle(&self) {
        let next = self.generation.load(Relaxed).wrapping_add(1);
        self.started[next % 2].store(0, Relaxed);
        self.spared[next % 2].store(0, Relaxed);
        self.generation.store(next, Relaxed);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.holders.load(Relaxed) == 0
    }

    /// A request waits behind those of its holder; gives its number.
    pub(super) fn enter(
        &self,
        requests: &Arc<Requests>,
        class: AdmissionClass,
        share: usize,
    ) -> u64 {
        let mut waiting = self.waiting.lock();
        if requests.waiting() == 0 {
            waiting.push((Arc::clone(requests), class));
            self.holders.store(waiting.len(), Relaxed);
        }
        requests.enter(share)
    }

    /// It waits no more.
    pub(super) fn leave(&self, requests: &Arc<Requests>, number: u64) {
        let mut waiting = self.waiting.lock();
        requests.leave(number);
        if requests.waiting() == 0 {
            waiting.retain(|(one, _)| !Arc::ptr_eq(one, requests));
            self.holders.store(waiting.len(), Relaxed);
        }
    }

    /// Calls the first request of that holder which has fewest in flight, of those for
    /// which there is room.
    pub(super) fn call(&self, has_headroom: impl Fn(&Requests, AdmissionClass) -> bool) {
        if self.is_empty() {
            return;
        }
        let waiting = self.waiting.lock();
        let able = waiting
            .iter()
            .filter(|(one, class)| has_headroom(one, *class));
        if let Some((next, _)) = able.min_by_key(|(one, _)| one.in_flight()) {
            next.call();
        }
    }

    /// Whether this is so of a holder whose requests wait.
    fn any(&self, so: impl Fn(&Requests, AdmissionClass) -> bool) -> bool {
        !self.is_empty()
            && self
                .waiting
                .lock()
                .iter()
                .any(|(one, class)| so(one, *class))
    }

    /// Requests that wait of those holders of which this is so.
    pub(super) fn waiting(&self, so: impl Fn(&Requests, AdmissionClass) -> bool) -> usize {
        if self.is_empty() {
            return 0;
        }
        let waiting = self.waiting.lock();
        let those = waiting.iter().filter(|(one, class)| so(one, *class));
        those.map(|(one, _)| one.waiting()).sum()
    }

    /// Gives waiters their present share, and wakes those that have less than that in flight.
    pub(super) fn look_again(&self, share: impl Fn(&Requests, AdmissionClass) -> usize) {
        if !self.is_empty() {
            let waiting = self.waiting.lock();
            let look = |(one, class): &(Arc<Requests>, _)| one.look_again(share(one, *class));
            waiting.iter().for_each(look);
        }
    }

    pub(super) fn note_callers(&self, requests: usize) {
        self.callers.store(requests, Relaxed);
    }

    fn callers(&self) -> usize {
        self.callers.load(Relaxed)
    }
}

/// How a request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Headroom,
    /// There is none.
    Spared,
    /// By a permit that is reserved for its holder, which has too much in flight for either.
    Reserved,
}

/// Others took the last reserved permit meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoneLeft;

/// What is in use, looked at once for all requests.
#[derive(Clone, Copy)]
pub(super) struct Headroom<'a> {
    memory: &'a Memory,
    admission: &'a Admission,
    /// With what is going to be in use, and one request more, in bytes.
    taken: usize,
}

impl<'a> Headroom<'a> {
    /// Beside what is expected of requests that began just now.
    pub(super) fn new(memory: &'a Memory, admission: &'a Admission) -> Self {
        let expected = admission.expected() + REQUEST;
        Self {
            memory,
            admission,
            taken: memory.used().saturating_add(expected),
        }
    }

    /// Whatever is expected of those.
    pub(super) fn in_use(memory: &'a Memory, admission: &'a Admission) -> Self {
        Self {
            memory,
            admission,
            taken: memory.used().saturating_add(REQUEST),
        }
    }

    /// How a request may begin that has just come. It overtakes no others for which there is room.
    pub(super) fn passes(&self, requests: &Requests, class: AdmissionClass) -> Option<Entry> {
        if self.is_for_all() {
            return Some(Entry::Headroom);
        }
        match self.admits(requests, class) {
            Some(Entry::Headroom | Entry::Reserved) if self.others_first(requests) => {
                self.spares(requests, class).then_some(Entry::Spared)
            }
            entry => entry,
        }
    }

    /// A request waits for which there is room, and its holder has no more in flight.
    fn others_first(&self, requests: &Requests) -> bool {
        self.admission
            .any(|one, class| one.in_flight() <= requests.in_flight() && self.is_for(one, class))
    }

    /// How the next request of this holder may begin, where none goes before it.
    pub(super) fn admits(&self, requests: &Requests, class: AdmissionClass) -> Option<Entry> {
        if self.is_for(requests, class) {
            return Some(Entry::Headroom);
        }
        if self.spares(requests, class) {
            return Some(Entry::Spared);
        }
        self.reserves(requests).then_some(Entry::Reserved)
    }

    /// Whether no request waits, and there is room for the next request of any holder.
    pub(super) fn is_for_all(&self) -> bool {
        self.taken <= self.memory.at(Watermark::LargeCallersWait) && self.admission.is_empty()
    }

    /// Whether there is room for the next request of this holder.
    pub(super) fn is_for(&self, requests: &Requests, class: AdmissionClass) -> bool {
        const STEPS: usize = 256;
        let much = (self.memory.heap() / QUARTER).max(1);
        let of_much = self.memory.at(match class {
            AdmissionClass::Callers => Watermark::LargeCallersWait,
            AdmissionClass::Own => Watermark::LargeOwnWaits,
        });
        let of_none = self.memory.at(Watermark::AllWait);
        let counted = requests.in_flight().saturating_mul(MIN_IN_FLIGHT);
        let holds = counted.max(requests.weight()).min(much);
        let steps = holds.saturating_mul(STEPS) / much;
        self.taken <= of_none - (of_none - of_much) / STEPS * steps
    }

    /// Whether its next request may begin though there is none: up to where nothing is read, and
    /// whatever is in use at a rate, until it was answered or measured. What bounds those over
    /// time, where none ends, is [`LEAST`]: callers that come one after the other have 64, 32, 21
    /// and so on, and beyond the 64th one each. Where they fill the memory, it is they or the
    /// holder of most who lose something.
    fn spares(&self, requests: &Requests, class: AdmissionClass) -> bool {
        let (admission, heap) = (self.admission, self.memory.heap());
        if requests.in_flight() >= least(admission, requests, class) {
            return false;
        }
        let below = self.memory.used() + REQUEST <= self.memory.at(Watermark::Full);
        (below && admission.spared() + REQUEST <= heap / UNMEASURED)
            || admission.expected() + REQUEST <= heap / BURST
    }

    /// Whether what is in use bounds requests by reserved permits, and not their number alone.
    pub(super) fn is_below_reserved(&self) -> bool {
        self.taken <= self.memory.at(Watermark::ReservedWait)
    }

    /// Whether its next request may begin by a reserved permit.
    fn reserves(&self, requests: &Requests) -> bool {
        let heap = self.memory.heap();
        let permits = reserved_permits(heap, requests);
        let usable = if self.is_below_reserved() {
            permits
        } else if requests.weight() >= heap / HEAVY && !self.memory.is_full() {
            // By number and not by what is in use, or it would wait for ever at the mark.
            (permits / 2).max(1)
        } else {
            0
        };
        requests.reserved() < usable
    }
}

/// Requests that may be in flight though there is no room. For the own application as many
/// more as callers have: each of those may have to end after one of its own calls. A call
/// that can only end after another one does so through a request of a caller, and no two do
/// through the same one next to them, so with more in flight than callers have some of them
/// wait for no other here.
pub(super) fn least(admission: &Admission, requests: &Requests, class: AdmissionClass) -> usize {
    let part = (LEAST / requests.sharers().max(1)).max(1);
    match class {
        AdmissionClass::Callers => part,
        AdmissionClass::Own => part + admission.callers(),
    }
}

/// Reserved permits of a holder where the process may use `heap` bytes, or its part of them where
/// there are more holders. At least one, however many they are: what all of them take is bounded by
/// [`Watermark::ReservedWait`].
pub(super) fn reserved_permits(heap: usize, requests: &Requests) -> usize {
    let all = heap / BURST / REQUEST;
    (all / requests.sharers().max(1)).max(1)
}
