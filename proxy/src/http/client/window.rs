//! Room for an answer whose server closes with a part of the request's body unread.
//!
//! That close is a reset, and with it the server's kernel drops what it has not sent yet.
//! What has come stays to be read. So a connection with room for the whole answer loses
//! nothing, however slowly its reader takes it.
//!
//! Claims: calls-11

use std::sync::Arc;

use crate::net::budget::Budget;

/// Bytes requested of the kernel for received data; it takes twice as many, for its own overhead.
/// What most kernels allow (`net.core.rmem_max`), so that nodes do not differ.
pub(crate) const WINDOW: u32 = 208 * 1024;
/// What one takes of the kernel's memory at most, in bytes.
const TAKES: usize = 2 * WINDOW as usize;
/// At once.
const AT_ONCE: usize = 64;
/// Part of the process's memory that all of them may take: with what else is held it stays
/// below what the budget calls tight.
const PART: usize = 8;

/// Counts the connections with such a window.
#[derive(Debug, Default)]
pub(crate) struct Windows(Arc<()>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Window(#[expect(dead_code, reason = "counts")] Arc<()>);

impl Windows {
    /// One more, where memory allows it.
    pub(crate) fn take(&self, budget: &Budget) -> Option<Window> {
        let window = Window(Arc::clone(&self.0));
        let limit = AT_ONCE.min(budget.heap() / PART / TAKES);
        // One of the holders is the count itself.
        let is_free = Arc::strong_count(&self.0) <= limit + 1;
        (is_free && !budget.is_tight()).then_some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::{AT_ONCE, PART, TAKES, Windows};
    use crate::net::budget::Budget;

    #[test]
    fn windows_take_an_eighth_of_the_memory_at_most() {
        for (heap, at_once) in [(usize::MAX, AT_ONCE), (10 * PART * TAKES, 10), (TAKES, 0)] {
            let budget = Budget::measured(1 << 20, heap, || 0);
            let windows = Windows::default();
            let mut taken: Vec<_> = (0..at_once)
                .map(|_| windows.take(&budget).expect("room"))
                .collect();
            assert!(windows.take(&budget).is_none(), "{heap}");
            if taken.pop().is_some() {
                assert!(windows.take(&budget).is_some(), "{heap}");
            }
        }
    }

    #[test]
    fn a_process_that_is_short_of_memory_opens_none() {
        let budget = Budget::measured(1 << 20, 100 * TAKES, || 60 * TAKES);
        assert!(Windows::default().take(&budget).is_none());
    }
}
