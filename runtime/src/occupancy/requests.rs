//! The requests of one holder: how many are in flight, and which of its connections wait with the
//! next one, in order.
//!
//! A few permits are reserved for the next requests of each holder, for when it has so much in
//! flight that another request waits for some of that to end.
//!
//! Requests that never end would otherwise hold up all others of their holder. Each
//! holder has permits of its own, so one that takes all of them takes none from others.
//!
//! Once there is room for all again, a request with such a permit would start without one. So the
//! permit becomes free for the next, or requests that never end would keep all of them for ever. It
//! also becomes free after a while where there is no room: what such a request takes is in use by
//! then, and the next one is measured by that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The requests of one holder on one listener.
#[derive(Debug, Default)]
pub struct Requests {
    in_flight: AtomicUsize,
    reserved: Mutex<Reserved>,
    /// Holders of the same listener that have some in flight.
    active: Arc<AtomicUsize>,
    /// Bytes that its connections held at the last check.
    weight: AtomicUsize,
    /// Another holder held much more.
    light: AtomicBool,
    /// As many as wait.
    length: AtomicUsize,
    queue: Mutex<Queue>,
}

/// Its reserved permits that are taken.
#[derive(Debug, Default)]
struct Reserved {
    /// In this round, and in the one before.
    taken: [usize; 2],
    /// How often those of the round before became ordinary requests.
    round: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    /// With fewer in flight the first one may begin.
    share: usize,
    /// There is room for the first one.
    called: bool,
    /// When one of them began, or the first of them came.
    moved: Option<Instant>,
}

#[derive(Debug, Default)]
struct Waiting {
    waker: Option<Waker>,
}

/// A permit that is reserved for the next requests of its holder, for one of them. Given back when
/// the last clone of the `Arc` is gone, however the request ended.
#[derive(Debug)]
pub struct ReservedPermit {
    of: Arc<Requests>,
    /// It was given back before where this is over.
    round: u64,
}

impl Requests {
    pub(super) fn counted_in(active: &Arc<AtomicUsize>) -> Self {
        Self {
            active: Arc::clone(active),
            ..Self::default()
        }
    }

    /// So many more are in flight.
    pub(super) fn begin(&self, many: usize) {
        if self.in_flight.fetch_add(many, Relaxed) == 0 && many > 0 {
            self.active.fetch_add(1, Relaxed);
        }
    }

    /// So many are over; the first one that waits may have come below its share.
    pub(super) fn end(&self, many: usize) {
        if self.in_flight.fetch_sub(many, Relaxed) == many && many > 0 {
            self.active.fetch_sub(1, Relaxed);
        }
        self.wake_below_share();
    }

    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Holders of the same listener that have requests in flight; counts this one.
    #[must_use]
    pub fn sharers(&self) -> usize {
        self.active.load(Relaxed) + usize::from(self.in_flight() == 0)
    }

    /// Bytes that its connections have the process hold, as [`super::Occupancy::weigh`]
    /// found last.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight.load(Relaxed)
    }

    /// Another holder holds much more, as [`super::Occupancy::weigh`] found last.
    #[must_use]
    pub fn is_light(&self) -> bool {
        self.light.load(Relaxed)
    }

    pub(super) fn note_weight(&self, weight: usize, light: bool) {
        self.weight.store(weight, Relaxed);
        self.light.store(light, Relaxed);
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.length.load(Relaxed)
    }

    /// Whether some wait, and none of them began for so long.
    #[must_use]
    pub fn is_stalled(&self, long: Duration) -> bool {
        let queue = self.queue.lock();
        let moved = queue.moved.filter(|_| !queue.waiting.is_empty());
        moved.is_some_and(|moved| moved.elapsed() >= long)
    }

    /// One that waited begins.
    pub fn moves(&self) {
        self.queue.lock().moved = Some(Instant::now());
    }

    /// A request waits behind the others; the first one may begin with fewer than `share`
    /// in flight. Gives its number.
    pub fn enter(&self, share: usize) -> u64 {
        let mut queue = self.queue.lock();
        let number = queue.next;
        queue.next += 1;
        queue.share = share;
        if queue.waiting.is_empty() {
            queue.moved = Some(Instant::now());
        }
        queue.waiting.insert(number, Waiting::default());
        self.length.store(queue.waiting.len(), Relaxed);
        number
    }

    /// One waits no more; the next one may be the first, and looks.
    pub fn leave(&self, number: u64) {
        let mut queue = self.queue.lock();
        queue.waiting.remove(&number);
        self.length.store(queue.waiting.len(), Relaxed);
        if queue.waiting.is_empty() {
            queue.called = false;
        }
        drop(queue);
        self.wake_below_share();
    }

    /// Notes the waker for this number.
    pub fn look(&self, number: u64, waker: &Waker) -> Look {
        let mut queue = self.queue.lock();
        if let Some(waiting) = queue.waiting.get_mut(&number) {
            match &mut waiting.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        let first = queue.waiting.first_key_value();
        if first.is_some_and(|(first, _)| *first < number) {
            return Look::Behind;
        }
        if std::mem::take(&mut queue.called) {
            return Look::Called;
        }
        if self.in_flight() < queue.share {
            return Look::BelowShare;
        }
        Look::First
    }

    /// From now on the first one may begin with fewer than `share` in flight; wakes it
    /// where that is so.
    pub fn look_again(&self, share: usize) {
        if self.waiting() > 0 {
            self.queue.lock().share = share;
            self.wake_below_share();
        }
    }

    /// There is room for the first one.
    pub fn call(&self) {
        let mut queue = self.queue.lock();
        queue.called = true;
        queue.wake_first();
    }

    /// Wakes the first one when it may begin though there is no room for others.
    fn wake_below_share(&self) {
        if self.waiting() > 0 {
            let queue = self.queue.lock();
            if self.in_flight() < queue.share {
                queue.wake_first();
            }
        }
    }

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
    pub(super) fn release_older(&self) {
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

impl Queue {
    fn wake_first(&self) {
        if let Some((_, first)) = self.waiting.first_key_value()
            && let Some(waker) = &first.waker
        {
            waker.wake_by_ref();
        }
    }
}

/// Where one that waits stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Behind,
    First,
    /// The first one, and there was room for it a moment ago.
    Called,
    /// The first one, and its holder has less than its share in flight.
    BelowShare,
}
