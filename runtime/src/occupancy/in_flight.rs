//! How many requests whoever has a connection has in flight, on all of its connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Place;
use super::seat::Seat;

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Seat>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

impl Place {
    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn begin_request(&self) -> InFlight {
        self.seat.requests.fetch_add(1, Relaxed);
        InFlight(Arc::clone(&self.seat))
    }

    /// Requests in flight on all connections of its holder; 0 for a place in no table.
    /// Looks at each of them, so this is not for every request.
    #[must_use]
    pub fn requests_of_holder(&self) -> usize {
        let Some(of) = &self.of else { return 0 };
        let holder = of.holder.lock();
        let table = of.occupancy.table.lock();
        let seats = table.holders.get(&holder).into_iter();
        let requests = seats
            .flat_map(HashMap::values)
            .map(|seat| seat.requests.load(Relaxed));
        requests.sum()
    }
}
