//! One address that serves, with what this proxy has learned of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use policy::balance::Cost;
use policy::name::SpiffeId;

use crate::telemetry::cell::Kept;

/// One address that serves.
#[derive(Debug)]
pub struct Endpoint {
    pub addr: SocketAddr,
    /// Expected of the peer; `None`: plaintext.
    pub identity: Option<SpiffeId>,
    /// `namespace/name`, empty when no pod stands behind the address.
    pub pod: Arc<str>,
    pub opaque: bool,
    /// Where calls to it are counted, by each route that leads here.
    pub cells: Kept,
    pub(super) cost: Mutex<Cost>,
    pub(super) in_flight: AtomicU32,
}

impl Endpoint {
    #[must_use]
    pub const fn meshed(&self) -> bool {
        self.identity.is_some()
    }

    pub fn observe(&self, latency: Duration) {
        self.cost.lock().observe(Instant::now(), latency);
    }

    pub fn observe_failure(&self) {
        self.cost.lock().penalise(Instant::now());
    }

    pub(super) fn score(&self, now: Instant) -> f64 {
        self.cost
            .lock()
            .score(now, self.in_flight.load(Ordering::Relaxed) as usize)
    }

    /// Counts a request as in flight until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
