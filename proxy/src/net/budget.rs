//! How many bytes connections may hold, all together.
//!
//! Whoever reads faster than somebody else writes has to keep what it read. Everything
//! that may hold bytes on their way, a stream of HTTP/2 or a connection of anything
//! else, counts as a holder. What one of them may hold follows from how many there are,
//! so a thousand slow readers cost as much memory as fifty, each of them is slowed as
//! much as the others, and none has to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A piece that is on its way. Smaller ones cost more in system calls than they save.
const LEAST_PIECE: usize = 4 * 1024;
/// More than any piece has.
const LARGEST_PIECE: usize = 128 * 1024;

/// The bytes of one process.
#[derive(Debug)]
pub struct Budget {
    /// What the process may use of memory, in bytes.
    limit: usize,
    holders: AtomicUsize,
    /// What windows have grown by, in bytes.
    grown: AtomicUsize,
}

impl Budget {
    /// `limit` of the process's memory, in bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            holders: AtomicUsize::new(0),
            grown: AtomicUsize::new(0),
        })
    }

    /// Counts a holder until the guard is dropped.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Holder {
        self.holders.fetch_add(1, Relaxed);
        Holder(Arc::clone(self))
    }

    #[must_use]
    pub fn holders(&self) -> usize {
        self.holders.load(Relaxed)
    }

    /// Bytes that one read may bring, or that may wait to be written at one place.
    /// There are up to five such places in a proxy, and who came first may hold what was
    /// right then: a harmonic sum, which for a thousand is some seven times the 64th part.
    #[must_use]
    pub fn piece(&self) -> usize {
        (self.limit / 64 / self.holders().max(1)).clamp(LEAST_PIECE, LARGEST_PIECE)
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

/// Something that may hold bytes.
#[derive(Debug)]
pub struct Holder(Arc<Budget>);

impl Holder {
    /// As [`Budget::piece`].
    #[must_use]
    pub fn piece(&self) -> usize {
        self.0.piece()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.holders.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Holder, LARGEST_PIECE, LEAST_PIECE};

    const LIMIT: usize = 64 * 1024 * 1024;
    /// Places of a stream that hold a piece each.
    const PLACES: usize = 5;

    #[test]
    fn what_a_thousand_may_hold_that_came_one_by_one_fits_the_memory() {
        let budget = Budget::new(LIMIT);
        assert_eq!(budget.piece(), LARGEST_PIECE);
        let (mut held, mut all): (Vec<Holder>, _) = (Vec::new(), 0);
        for _ in 0..1000 {
            held.push(budget.hold());
            all += PLACES * budget.piece() + budget.window().min(64 * 1024);
        }
        assert!(all <= LIMIT * 7 / 8, "{all}");
        assert_eq!(budget.piece(), LEAST_PIECE);
        held.clear();
        assert_eq!((budget.holders(), budget.piece()), (0, LARGEST_PIECE));
    }
}
