//! The memory that copies of requests may use. Copies are extra work that no client waits for, so
//! they hold a known part of the memory whatever is copied, and however long their receivers hang;
//! beyond, no copy is made.
//!
//! Claims: calls-53

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Copies of one workload at a time: a receiver that takes a second for each gets as many
/// in a second.
const AT_ONCE: usize = 64;

/// Bytes of all their heads and bodies, each of which is held twice while it is sent. Most
/// requests have a few KiB; 15 of the largest bodies that are copied fit.
const BYTES: usize = 2 * 1024 * 1024;

/// The room of one workload.
#[derive(Clone, Debug)]
pub(crate) struct Copies {
    permits: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// What a copy holds of it until it is dropped.
#[derive(Debug)]
pub(crate) struct CopyPermit {
    _permit: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            bytes: Arc::new(Semaphore::new(BYTES)),
        }
    }
}

impl Copies {
    /// Room for one of so many bytes, if there is any now.
    pub(crate) fn admit(&self, bytes: usize) -> Option<CopyPermit> {
        let bytes = u32::try_from(bytes).ok()?;
        let (permits, all) = (Arc::clone(&self.permits), Arc::clone(&self.bytes));
        Some(CopyPermit {
            _permit: permits.try_acquire_owned().ok()?,
            _bytes: all.try_acquire_many_owned(bytes).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_bounded_in_number_and_bytes() {
        let copies = Copies::default();
        let mut admitted: Vec<_> = (0..AT_ONCE).map(|_| copies.admit(1).unwrap()).collect();
        assert!(copies.admit(1).is_none(), "no permit is left");
        admitted.pop();
        assert!(copies.admit(BYTES).is_none(), "others hold some");
        assert!(copies.admit(BYTES - admitted.len()).is_some());
        admitted.clear();
        assert!(copies.admit(BYTES + 1).is_none());
        assert!(copies.admit(usize::MAX).is_none());
        assert!(copies.admit(BYTES).is_some(), "all that was held is back");
    }
}
