//! Requests that wait for memory, in order, and what those take that began a moment ago.
//! Who waits, and for what, stands in [`crate::net::turn`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;

use parking_lot::Mutex;

/// What a request takes that begins, in bytes: buffers of HTTP/1.1 towards the
/// application and towards the caller, and what waits for its answer.
pub(super) const REQUEST: usize = 32 * 1024;
/// When a request began, counted in [`Budget::settle`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(usize);

/// Requests that wait, and those that began a moment ago.
#[derive(Default)]
pub(super) struct Admission {
    pub(super) lines: [Queue; 2],
    generation: AtomicUsize,
    /// Bytes that those of this generation and of the one before will take, by turns.
    begun: [AtomicUsize; 2],
}

/// Who waits, in the order in which they came.
#[derive(Default)]
pub(super) struct Queue {
    wakers: Mutex<BTreeMap<u64, Waker>>,
    /// As many as are in there.
    length: AtomicUsize,
    pub(super) numbers: AtomicU64,
}

impl Admission {
    /// A request was let in.
    pub(super) fn begins(&self) -> Generation {
        let now = self.generation.load(Relaxed);
        self.begun[now % 2].fetch_add(REQUEST, Relaxed);
        Generation(now)
    }

    /// Its answer comes, or never will.
    pub(super) fn answered(&self, begun: Generation) {
        let now = self.generation.load(Relaxed);
        if now.wrapping_sub(begun.0) < 2 {
            let less = |bytes: usize| Some(bytes.saturating_sub(REQUEST));
            let _ = self.begun[begun.0 % 2].fetch_update(Relaxed, Relaxed, less);
            self.look_again();
        }
    }

    /// Bytes that are going to be taken and were not measured yet.
    pub(super) fn expected(&self) -> usize {
        self.begun.iter().map(|bytes| bytes.load(Relaxed)).sum()
    }

    /// What began before the last call of this has been measured.
    pub(super) fn settle(&self) {
        let next = self.generation.load(Relaxed).wrapping_add(1);
        self.begun[next % 2].store(0, Relaxed);
        self.generation.store(next, Relaxed);
        self.lines.iter().for_each(Queue::wake_all);
    }

    /// There may be room for whoever waits longest.
    pub(super) fn look_again(&self) {
        self.lines.iter().for_each(Queue::wake_first);
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.length.load(Relaxed) == 0
    }

    pub(super) fn wake_first(&self) {
        if !self.is_empty()
            && let Some((_, first)) = self.wakers.lock().first_key_value()
        {
            first.wake_by_ref();
        }
    }

    pub(super) fn wake_all(&self) {
        if !self.is_empty() {
            self.wakers.lock().values().for_each(Waker::wake_by_ref);
        }
    }

    pub(super) fn is_first(&self, number: u64) -> bool {
        let wakers = self.wakers.lock();
        wakers.first_key_value().is_none_or(|(at, _)| *at >= number)
    }

    pub(super) fn wait(&self, number: u64, waker: &Waker) {
        let mut wakers = self.wakers.lock();
        match wakers.get_mut(&number) {
            Some(known) => known.clone_from(waker),
            None => {
                wakers.insert(number, waker.clone());
                self.length.fetch_add(1, Relaxed);
            }
        }
    }

    pub(super) fn leave(&self, number: u64) {
        if self.wakers.lock().remove(&number).is_some() {
            self.length.fetch_sub(1, Relaxed);
        }
        self.wake_first();
    }
}
