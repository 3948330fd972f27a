//! Judgements about the endpoints of one set, one after the other.

use std::sync::atomic::{AtomicBool, Ordering};

/// Between counting who rests and making one more rest nobody else may do the same, or two
/// take the last place. One per set of endpoints.
#[derive(Debug, Default)]
pub struct Turn(AtomicBool);

/// Gives the turn back, also when the judgement panics.
struct Taken<'a>(&'a AtomicBool);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Turn {
    /// Counts and judges, unless somebody else is doing so: the next failure asks again, and
    /// no request waits for it.
    pub fn take<T>(&self, judge: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.0.swap(true, Ordering::Acquire) {
            return None;
        }
        let _taken = Taken(&self.0);
        judge()
    }
}
