//! A request on a connection of HTTP/1.1 that was let in and is not on its way.

use std::time::Duration;

use runtime::occupancy::InFlight;
use tokio::time::Instant;

use crate::net::budget::Promise;

/// A client that is admitted with the first bytes of a head sends the rest within this. Later its
/// room is free again.
const MOMENT: Duration = Duration::from_millis(250);

/// A request that was let in, by the first bytes of its head or by all of it, and counts
/// though it is not on its way.
#[derive(Debug)]
pub(in super::super) struct AdmittedHead {
    pub(super) since: Instant,
    /// All of its head had come.
    pub(super) whole: bool,
    /// By a reserved permit.
    pub(super) reserved: bool,
    pub(super) in_flight: InFlight,
    pub(super) _promise: Promise,
}

impl AdmittedHead {
    /// Otherwise it queues once more.
    pub(super) fn is_still_admitted(&self) -> bool {
        self.whole || self.since.elapsed() < MOMENT
    }
}
