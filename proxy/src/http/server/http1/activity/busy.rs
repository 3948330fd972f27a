//! A request on a connection of HTTP/1.1, from its admission until it was answered.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use runtime::occupancy::{InFlight, ReservedBytes};
use tokio::time::Instant;

use super::{ConnectionUse, MOMENT};
use crate::net::budget::{Holder, Promise};

/// A request that was let in, by the first bytes of its head or by all of it, and counts
/// though it is not on its way.
#[derive(Debug)]
pub(in super::super) struct Begun {
    pub(super) since: Instant,
    /// All of its head had come.
    pub(super) whole: bool,
    /// By a reserved permit.
    pub(super) reserved: bool,
    pub(super) in_flight: InFlight,
    pub(super) _promise: Promise,
}

impl Begun {
    /// Otherwise it asks once more.
    pub(super) fn is_still_admitted(&self) -> bool {
        self.whole || self.since.elapsed() < MOMENT
    }
}

/// Held until an answer has been handed over. What makes it a request in flight is held
/// until its own body has come as well.
#[derive(Debug)]
pub(in super::super) struct Busy {
    pub(in super::super) used: Arc<ConnectionUse>,
    /// Its head, and that of the answer.
    pub(in super::super) reserved: ReservedBytes,
    /// What it will cost on the way.
    pub(in super::super) promise: Promise,
    /// Bytes of its head.
    pub(super) head: usize,
    /// It was let in.
    pub(super) in_flight: Option<(InFlight, Holder)>,
}

impl Busy {
    /// It goes on its way. `upgrade`: it asks for another protocol, which nobody gives to
    /// one with a body.
    pub(in super::super) fn proceed(&mut self, upgrade: bool) {
        let used = &self.used;
        let switches = upgrade && !used.body.load(Relaxed);
        used.switches.store(switches, Relaxed);
        let begun = used.begun.lock().take();
        // From here on: what it takes was not there to be measured before.
        self.promise = used.budget.promise(self.head);
        self.promise.begins();
        let in_flight = match begun {
            Some(begun) => begun.in_flight,
            None => used.permit.begin_request(),
        };
        self.in_flight = Some((in_flight, used.budget.enter()));
    }

    /// It has its answer.
    pub(in super::super) fn answered(&mut self) {
        self.used.switches.store(false, Relaxed);
        self.promise.answered();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // A body on its way to an application that has answered already holds as much as
        // one that waits for its answer.
        if self.used.body.load(Relaxed) {
            *self.used.unfinished.lock() = self.in_flight.take();
        }
        self.used.in_flight.fetch_sub(1, Relaxed);
    }
}
