//! Counts connections whose peer owes a sign of life, of all that count together.
//!
//! The choice among peers reads this first: while there is no such connection, which is nearly
//! always, it need not look at the peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[derive(Clone, Debug, Default)]
pub(crate) struct Suspects(Arc<AtomicUsize>);

impl Suspects {
    /// Whether there is one.
    pub(crate) fn any(&self) -> bool {
        self.0.load(Relaxed) > 0
    }

    /// Counts one until the guard is dropped.
    pub(super) fn begin(&self) -> Suspected {
        self.0.fetch_add(1, Relaxed);
        Suspected(self.clone())
    }
}

#[derive(Debug)]
pub(super) struct Suspected(Suspects);

impl Drop for Suspected {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
