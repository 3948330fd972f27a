//! For which connection counts what is served within another one, such as a tunnel.

use std::sync::Arc;

use super::slot::{ReservedBytes, TrackedConnection};
use super::{Account, Occupancy, Permit, Reached};

impl Permit {
    /// A permit in no table for what is served within this connection: its requests and
    /// what they hold count for this one, and what it is doing does not, except that it
    /// is idle ([`Self::carries`]). It holds no permit of the listener.
    #[must_use]
    pub fn within(&self) -> Arc<Self> {
        let own = self.of.as_ref().map(|of| Account {
            slot: Arc::clone(&self.slot),
            occupancy: Arc::clone(&of.occupancy),
        });
        Arc::new(Self {
            slot: Arc::default(),
            began: self.began,
            of: None,
            account: own.or_else(|| self.account.clone()),
        })
    }

    /// A request of this connection waits for memory that is in use, or that others are
    /// expected to use.
    pub fn waits_for_memory(&self, in_use: bool) {
        if let Some(occupancy) = self.occupancy() {
            (occupancy.reached)(Reached::NoMemory { in_use });
        }
    }

    /// This connection ends because it brings next to nothing but frames that nothing called for.
    pub fn flooded(&self) {
        if let Some(occupancy) = self.occupancy() {
            (occupancy.reached)(Reached::Flood);
        }
    }

    /// Counts `bytes` as held for this connection.
    #[must_use]
    pub fn reserve_bytes(&self, bytes: usize) -> ReservedBytes {
        TrackedConnection::reserve_bytes(self.charged(), bytes)
    }

    /// The slot for which requests and bytes count.
    pub(super) fn charged(&self) -> &Arc<TrackedConnection> {
        self.account.as_ref().map_or(&self.slot, |of| &of.slot)
    }

    /// Whose table it stands in, or the connection within which it lies.
    pub(super) fn occupancy(&self) -> Option<&Arc<Occupancy>> {
        let own = self.of.as_ref().map(|of| &of.occupancy);
        own.or_else(|| self.account.as_ref().map(|of| &of.occupancy))
    }
}
