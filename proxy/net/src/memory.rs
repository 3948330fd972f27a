//! The memory of the process: how much is in use, and above which part it is tight or full.
//!
//! What the program holds is read each time. Added is what no such reading shows: what the kernel
//! holds for sockets, and what heads that were received will cost.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// In percent of what the process may use: chunks and windows are the smallest.
const TIGHT: usize = 55;
/// Part of the memory that a holder must hold to be slowed or to lose anything on account of the
/// others.
pub const WORTH: usize = 32;
/// A holder of this part of the memory makes more room than others do where it runs out, and does
/// so for those that it keeps waiting.
pub const HEAVY: usize = 8;
/// Nothing is read before a holder has lost something. What is left is for what no read brings,
/// for pages that are free and not given back yet, and for the program itself.
const FULL: usize = 65;

/// What the process may use, and what is in use.
pub(super) struct Memory {
    /// What the process may use of memory, in bytes.
    heap: usize,
    /// What the program holds of memory, in bytes.
    used: fn() -> usize,
    /// What heads that have come will cost once they are sent on, in bytes.
    promised: AtomicUsize,
    /// What the kernel holds for its sockets, where that counts, in bytes.
    sockets: AtomicUsize,
}

impl Memory {
    pub(super) fn new(heap: usize, used: fn() -> usize) -> Self {
        Self {
            heap,
            used,
            promised: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
        }
    }

    /// What the process may use of memory, in bytes.
    pub(super) const fn heap(&self) -> usize {
        self.heap
    }

    /// What the process holds of memory, or will without reading more, in bytes.
    pub(super) fn used(&self) -> usize {
        (self.used)() + self.promised.load(Relaxed) + self.sockets.load(Relaxed)
    }

    /// Notes what the kernel holds for the sockets, in bytes.
    pub(super) fn note_sockets(&self, bytes: usize) {
        self.sockets.store(bytes, Relaxed);
    }

    /// So many bytes will be in use.
    pub(super) fn promise(&self, bytes: usize) {
        self.promised.fetch_add(bytes, Relaxed);
    }

    /// So many of those are in use by now, or never will be.
    pub(super) fn settle(&self, bytes: usize) {
        self.promised.fetch_sub(bytes, Relaxed);
    }

    /// So much is in use that each holder gets only the least.
    pub(super) fn is_tight(&self) -> bool {
        self.used() > self.tight_from()
    }

    /// So much is in use that a holder must lose something.
    pub(super) fn is_full(&self) -> bool {
        self.used() > self.full_from()
    }

    /// The same, in bytes.
    pub(super) const fn full_from(&self) -> usize {
        self.heap / 100 * FULL
    }

    /// As [`Self::is_tight`], in bytes.
    pub(super) const fn tight_from(&self) -> usize {
        self.heap / 100 * TIGHT
    }
}
