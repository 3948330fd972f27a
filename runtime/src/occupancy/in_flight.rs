//! How many requests whoever has a connection has in flight on all of its connections,
//! and who of its own waits with the next one, in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Place;
use super::seat::Seat;

/// The requests of one holder on one listener.
#[derive(Debug, Default)]
pub struct Requests {
    in_flight: AtomicUsize,
    /// Somebody else holds much more.
    light: AtomicBool,
    /// As many as wait.
    length: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
    /// With fewer in flight the first one may begin.
    share: usize,
    /// There is room for the first one.
    called: bool,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    waker: Option<Waker>,
}

impl Requests {
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Somebody else holds much more, as [`super::Occupancy::weigh`] found last.
    #[must_use]
    pub fn is_light(&self) -> bool {
        self.light.load(Relaxed)
    }

    pub(super) fn note_weight(&self, light: bool) {
        self.light.store(light, Relaxed);
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.length.load(Relaxed)
    }

    /// Whether the first one has waited for so long.
    #[must_use]
    pub fn has_waited(&self, long: Duration) -> bool {
        let queue = self.queue.lock();
        let first = queue.waiting.first_key_value();
        first.is_some_and(|(_, first)| first.since.elapsed() >= long)
    }

    /// A request waits behind the others; the first one may begin with fewer than `share`
    /// in flight. Gives its number.
    pub fn enter(&self, share: usize) -> u64 {
        let mut queue = self.queue.lock();
        let number = queue.next;
        queue.next += 1;
        queue.share = share;
        let waiting = Waiting {
            since: Instant::now(),
            waker: None,
        };
        queue.waiting.insert(number, waiting);
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

    /// Notes who is to be woken for this number.
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
        if self.in_flight() < queue.share {
            return Look::BelowShare;
        }
        if std::mem::take(&mut queue.called) {
            return Look::Called;
        }
        Look::First
    }

    /// There is room for the first one.
    pub fn call(&self) {
        let mut queue = self.queue.lock();
        queue.called = true;
        queue.wake_first();
    }

    /// Wakes the first one when it may begin whatever room there is.
    pub fn wake_below_share(&self) {
        if self.waiting() > 0 {
            let queue = self.queue.lock();
            if self.in_flight() < queue.share {
                queue.wake_first();
            }
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

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Seat>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
        let of_holder = self.0.of_holder();
        of_holder.in_flight.fetch_sub(1, Relaxed);
        of_holder.wake_below_share();
    }
}

impl Seat {
    /// Those of whoever has it.
    pub(super) fn of_holder(&self) -> &Arc<Requests> {
        self.proven.get().unwrap_or(&self.entered)
    }

    /// From here on its requests are those of another holder. Nobody begins or ends any
    /// on this connection meanwhile.
    pub(super) fn proves(&self, requests: Arc<Requests>) {
        let before = Arc::clone(self.of_holder());
        if self.proven.set(Arc::clone(&requests)).is_ok() {
            let moved = self.requests.load(Relaxed);
            before.in_flight.fetch_sub(moved, Relaxed);
            requests.in_flight.fetch_add(moved, Relaxed);
            before.wake_below_share();
        }
    }
}

impl Place {
    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn begin_request(&self) -> InFlight {
        self.seat.requests.fetch_add(1, Relaxed);
        self.seat.of_holder().in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(&self.seat))
    }

    /// Those of all connections of its holder; `None` for a place in no table.
    #[must_use]
    pub fn requests(&self) -> Option<&Arc<Requests>> {
        self.of.as_ref().map(|_| self.seat.of_holder())
    }

    /// Requests in flight on all connections of its holder; 0 for a place in no table.
    #[must_use]
    pub fn requests_of_holder(&self) -> usize {
        self.requests().map_or(0, |requests| requests.in_flight())
    }
}
