//! Permits that are reserved for the next requests of each holder: few, for when it has so
//! much in flight that another request waits for some of that to end.
//!
//! What never ends would otherwise hold up all that its holder asks for beside it. Each
//! holder has permits of its own, so who takes all of them takes none from others.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::requests::Requests;

/// One of them, for one request. Given back when the last clone of the `Arc` is gone,
/// however the request ended.
#[derive(Debug)]
pub struct ReservedPermit(Arc<Requests>);

impl Requests {
    /// Reserved permits that are taken.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.reserved.load(Relaxed)
    }

    /// A reserved permit; `None` when `most` are taken.
    #[must_use]
    pub fn reserve_permit(self: &Arc<Self>, most: usize) -> Option<Arc<ReservedPermit>> {
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        let before = self.reserved.fetch_update(Relaxed, Relaxed, one_more);
        before
            .is_ok()
            .then(|| Arc::new(ReservedPermit(Arc::clone(self))))
    }
}

impl Drop for ReservedPermit {
    fn drop(&mut self) {
        self.0.reserved.fetch_sub(1, Relaxed);
        if self.0.waiting() > 0 {
            self.0.call();
        }
    }
}
