//! Memory admission: the holders whose requests wait for memory, and the bytes that requests
//! admitted a moment ago will take. [`crate::ticket`] decides which requests wait, and for what.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use runtime::occupancy::Requests;

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
pub(super) const REQUEST: usize = 64 * 1024;
/// What one in flight takes at least over HTTP/1.1.
pub(super) const MIN_IN_FLIGHT: usize = 32 * 1024;

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
    pub(super) fn spared(&self) -> usize {
        self.spared.iter().map(|bytes| bytes.load(Relaxed)).sum()
    }

    /// One more is let in so.
    pub(super) fn spares(&self) {
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
    pub(super) fn any(&self, so: impl Fn(&Requests, AdmissionClass) -> bool) -> bool {
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

    pub(super) fn callers(&self) -> usize {
        self.callers.load(Relaxed)
    }
}
