//! Session affinity: the same endpoint for the same caller, while a session lasts.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use policy::sticky::Session;

/// Session affinity of this pod's calls to one Service port.
#[derive(Debug)]
pub struct Affinity {
    pub(super) limit: Duration,
    pub(super) session: Mutex<Session>,
}

impl Affinity {
    /// The epoch of a call that is made at `now`.
    pub fn epoch(&self, now: Instant) -> u64 {
        self.session.lock().call(now, self.limit)
    }
}
