//! Permits that are reserved for the next requests of each holder: few, for when it has so
//! much in flight that another request waits for some of that to end.
//!
//! What never ends would otherwise hold up all that its holder asks for beside it. Each
//! holder has permits of its own, so who takes all of them takes none from others.
//!
//! Once there is room for all again, whoever has one would begin without. So it is free for
//! the next, or requests that never end would keep all of them for ever.

use std::sync::Arc;

use super::Occupancy;
use super::requests::Requests;

/// One of them, for one request. Given back when the last clone of the `Arc` is gone,
/// however the request ended.
#[derive(Debug)]
pub struct ReservedPermit {
    of: Arc<Requests>,
    /// It was given back before where this is over.
    round: u64,
}

impl Requests {
    /// Reserved permits that are taken.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.reserved.lock().taken
    }

    /// A reserved permit; `None` when `most` are taken.
    #[must_use]
    pub fn reserve_permit(self: &Arc<Self>, most: usize) -> Option<Arc<ReservedPermit>> {
        let mut reserved = self.reserved.lock();
        if reserved.taken >= most {
            return None;
        }
        reserved.taken += 1;
        Some(Arc::new(ReservedPermit {
            of: Arc::clone(self),
            round: reserved.round,
        }))
    }

    /// Gives all of them back, whatever becomes of the requests that have them.
    fn release_reserved(&self) {
        let mut reserved = self.reserved.lock();
        if reserved.taken > 0 {
            reserved.taken = 0;
            reserved.round += 1;
        }
    }
}

impl Occupancy {
    /// There is room for all: requests that began by reserved permits are like all others from
    /// now on.
    pub fn release_reserved(&self) {
        let table = self.table.lock();
        let all = table.requests.values();
        all.for_each(|requests| requests.release_reserved());
    }
}

impl Drop for ReservedPermit {
    fn drop(&mut self) {
        let mut reserved = self.of.reserved.lock();
        if reserved.round == self.round {
            reserved.taken -= 1;
        }
        drop(reserved);
        if self.of.waiting() > 0 {
            self.of.call();
        }
    }
}
