//! Whose the requests of a connection are that are in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::requests::Requests;
use super::reserved::ReservedPermit;
use super::slot::TrackedConnection;
use super::{Holder, Occupancy, Permit, Table};

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    connection: Arc<TrackedConnection>,
    /// By which it began, where there was no room; given back after it ended.
    _reserved: Option<Arc<ReservedPermit>>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.connection.requests.fetch_sub(1, Relaxed);
        self.connection.of_holder().end(1);
    }
}

impl TrackedConnection {
    /// Those of the connection's holder.
    pub(super) fn of_holder(&self) -> &Arc<Requests> {
        self.proven.get().unwrap_or(&self.entered)
    }

    /// From here on its requests are those of another holder. None begins or ends
    /// on this connection meanwhile.
    pub(super) fn proves(&self, requests: &Arc<Requests>) {
        let before = Arc::clone(self.of_holder());
        if self.proven.set(Arc::clone(requests)).is_ok() {
            let moved = self.requests.load(Relaxed);
            requests.begin(moved);
            before.end(moved);
        }
    }
}

impl Permit {
    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn begin_request(&self) -> InFlight {
        self.begin_request_by(None)
    }

    /// The same of a request that may have started by a reserved permit, which is given back
    /// with the guard.
    #[must_use]
    pub fn begin_request_by(&self, reserved: Option<Arc<ReservedPermit>>) -> InFlight {
        let slot = self.charged();
        slot.requests.fetch_add(1, Relaxed);
        slot.of_holder().begin(1);
        InFlight {
            connection: Arc::clone(slot),
            _reserved: reserved,
        }
    }

    /// Those of all connections of its holder; `None` for a permit in no table.
    #[must_use]
    pub fn requests(&self) -> Option<&Arc<Requests>> {
        self.occupancy().map(|_| self.charged().of_holder())
    }
}

impl Table {
    /// Those of this holder.
    pub(super) fn requests_of(&mut self, holder: &Holder) -> Arc<Requests> {
        if let Some(known) = self.requests.get(holder) {
            return Arc::clone(known);
        }
        let entry = self.requests.entry(holder.clone());
        let active = &self.active;
        Arc::clone(entry.or_insert_with(|| Arc::new(Requests::counted_in(active))))
    }
}

impl Occupancy {
    /// Requests in flight of all holders but the pod itself.
    #[must_use]
    pub fn requests_of_callers(&self) -> usize {
        if !self.bounds.shared {
            return 0;
        }
        let table = self.table.lock();
        table.requests.values().map(|one| one.in_flight()).sum()
    }
}
