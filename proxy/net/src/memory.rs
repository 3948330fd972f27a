//! The memory of the process: how much is in use, and the watermarks from which on requests wait,
//! reads pause and connections are closed.
//!
//! What the program holds is read each time. What no such reading shows is added: what the kernel
//! holds for sockets, and what heads that have come will cost.
//!
//! There is one high-water mark. At it nothing is read until a holder has lost connections, so
//! each step below it slows those down that would fill the rest, holders of much first. All
//! figures stand here, and docs/decisions/0051 has the attack that each of them answers.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// In percent of what the process may use. What is left is for what no read brings, for pages
/// that are free and not given back yet, and for the program itself.
const HIGH_WATER: usize = 65;

/// What begins where, in percent of what the process may use, the lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Watermark {
    /// Chunks and windows are the smallest. A [`HEAVY`] holder that has to lose something loses
    /// so much that no more than this is in use.
    Tight = HIGH_WATER - 10,
    /// The next request of a caller that holds a [`QUARTER`] waits. More than where chunks and
    /// windows are the smallest: three hundred streams that stall hold that much of 64 MiB now
    /// and then, and calls beside them go on, as many at once as fit. From here on they go on as
    /// well, but only as many at once as there are reserved permits.
    LargeCallersWait = HIGH_WATER - 7,
    /// The same of the own application.
    LargeOwnWaits = HIGH_WATER - 5,
    /// Requests begin by reserved permits up to here, whatever their holder holds; beyond it those
    /// of a [`HEAVY`] holder. Less than where all wait, so that room is left for holders of next
    /// to nothing. All of one holder fit below where nothing is read even if each takes twice what
    /// is expected of it.
    ReservedWait = HIGH_WATER - 3,
    /// The next request of every holder waits, of one of nothing too. The rest up to where nothing
    /// is read is for responses that take more than was expected of them.
    AllWait = HIGH_WATER - 2,
    /// Nothing is read before a holder has lost something.
    Full = HIGH_WATER,
    /// A holder loses something however little is known of what it holds, since the alternative
    /// is that the process is killed with all. Above what no read brings on top.
    LastResort = HIGH_WATER + 20,
}

// Parts of the memory: each is one by so many.

/// A holder of so much waits first, and any other the later, the less it holds. Where all
/// connections together hold less, taking some of them does not help: configuration fills it.
pub const QUARTER: usize = 4;
/// A holder of so much makes more room than others do where memory runs out, and does so for
/// those that it keeps waiting.
pub const HEAVY: usize = 8;
/// So much is let in without room until it was measured, which takes half a second.
pub(super) const UNMEASURED: usize = 16;
/// A holder of less loses nothing on account of others, and others lose no more at a time for
/// those that they keep waiting.
pub const SMALL: usize = 32;
/// So much begins at once that nothing else would let begin, 8 requests of 64 MiB: of each
/// holder by permits that are reserved for it, and beyond any mark of all holders together.
pub(super) const BURST: usize = 128;

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
        self.used() > self.at(Watermark::Tight)
    }

    /// So much is in use that a holder must lose something.
    pub(super) fn is_full(&self) -> bool {
        self.used() > self.at(Watermark::Full)
    }

    /// How much is in use at this mark, in bytes.
    pub(super) const fn at(&self, mark: Watermark) -> usize {
        self.heap / 100 * mark as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Watermark::{
        AllWait, Full, LargeCallersWait, LargeOwnWaits, LastResort, ReservedWait, Tight,
    };

    /// Operators read them there.
    #[test]
    fn watermarks_are_the_rows_of_the_manual() {
        let manual = include_str!("../../../docs/reference.md");
        let (_, section) = manual.split_once("\n### When memory runs out\n").unwrap();
        let (section, _) = section.split_once("\n### ").unwrap();
        let rows = section.lines().filter_map(|line| {
            let (percent, _) = line.strip_prefix("| ")?.split_once(" % | ")?;
            percent.parse::<usize>().ok()
        });
        let marks = [
            Tight,
            LargeCallersWait,
            LargeOwnWaits,
            ReservedWait,
            AllWait,
            Full,
            LastResort,
        ];
        let marks = marks.map(|mark| mark as usize);
        assert!(marks.is_sorted());
        assert_eq!(rows.collect::<Vec<_>>(), marks);
    }
}
