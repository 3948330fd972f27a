//! Permits that are reserved for the next requests of each holder: few, for when it has so
//! much in flight that another request waits for some of that to end.
//!
//! Requests that never end would otherwise hold up all others of their holder. Each
//! holder has permits of its own, so one that takes all of them takes none from others.
//!
//! Once there is room for all again, a request with a permit would start without. So the
//! permit is free for the next, or requests that never end would keep all of them for ever.
//! And so it is after a while where there is no room: what such a request takes is in use by
//! then, and is what the next one is measured by.

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
        self.reserved.lock().taken.iter().sum()
    }

    /// A reserved permit; `None` when `most` are taken.
    #[must_use]
    pub fn reserve_permit(self: &Arc<Self>, most: usize) -> Option<Arc<ReservedPermit>> {
        let mut reserved = self.reserved.lock();
        if reserved.taken.iter().sum::<usize>() >= most {
            return None;
        }
        reserved.taken[0] += 1;
        Some(Arc::new(ReservedPermit {
            of: Arc::clone(self),
            round: reserved.round,
        }))
    }

    /// Gives those back that were taken before the last call of this, whatever becomes of the
    /// requests that have them.
    fn release_older(&self) {
        let mut reserved = self.reserved.lock();
        let [newer, older] = reserved.taken;
        if newer + older == 0 {
            return;
        }
        reserved.taken = [0, newer];
        reserved.round += 1;
        drop(reserved);
        if older > 0 && self.waiting() > 0 {
            self.call();
        }
    }
}

impl Occupancy {
    /// There is room for all: requests that began by reserved permits are like all others from
    /// now on.
    pub fn release_reserved(&self) {
        self.release_older_reserved();
        self.release_older_reserved();
    }

    /// The same of those that began so before the last call of this.
    pub fn release_older_reserved(&self) {
        let table = self.table.lock();
        let all = table.requests.values();
        all.for_each(|requests| requests.release_older());
    }
}

impl Drop for ReservedPermit {
    fn drop(&mut self) {
        let mut reserved = self.of.reserved.lock();
        let rounds = reserved.round.wrapping_sub(self.round);
        if let Some(taken) = usize::try_from(rounds)
            .ok()
            .and_then(|rounds| reserved.taken.get_mut(rounds))
        {
            *taken -= 1;
        }
        drop(reserved);
        if self.of.waiting() > 0 {
            self.of.call();
        }
    }
}
