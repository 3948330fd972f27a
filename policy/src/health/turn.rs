//! Judgements about the endpoints of one set, one after the other.

use std::sync::{Mutex, TryLockError};

/// Between counting who rests and making one more rest nobody else may do the same, or two
/// take the last place. One per set of endpoints.
#[derive(Debug, Default)]
pub struct Turn(Mutex<()>);

impl Turn {
    /// Counts and judges, unless somebody else is doing so: the next failure asks again, and
    /// no request waits for it.
    pub fn take<T>(&self, judge: impl FnOnce() -> Option<T>) -> Option<T> {
        let _held = match self.0.try_lock() {
            Ok(held) => held,
            // It guards nothing that could be left half done.
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        judge()
    }
}
