//! The state of one connection of the admin port, and its permit for a large page.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::large::{Large, Reading};
use crate::occupancy::Permit;

/// What one connection is doing.
pub(super) struct Exchange {
    permit: Arc<Permit>,
    waits: AtomicBool,
    /// All that was answered has been taken.
    taken: AtomicBool,
    /// Held while an answer that may be large is made and taken.
    large: Mutex<Option<Reading>>,
    /// Another reader may be about to get the permit of that.
    goes: Arc<Notify>,
}

impl Exchange {
    pub(super) fn of(permit: &Arc<Permit>) -> Self {
        Self {
            permit: Arc::clone(permit),
            waits: AtomicBool::new(false),
            taken: AtomicBool::new(true),
            large: Mutex::new(None),
            goes: Arc::default(),
        }
    }

    /// The next head may come. What was answered may still be on its way.
    pub(super) fn waits(&self) {
        self.waits.store(true, Relaxed);
    }

    /// An answer is there, and nothing of it has been taken. Its reader may be slow.
    pub(super) fn answers(&self) {
        self.taken.store(false, Relaxed);
        if let Some(reading) = &*self.large.lock() {
            reading.is_read();
        }
        self.permit.yields();
    }

    /// All that was answered has been taken.
    pub(super) fn flushed(&self) {
        self.taken.store(true, Relaxed);
        if self.waits.load(Relaxed) {
            *self.large.lock() = None;
            self.permit.idle();
        }
    }

    pub(super) fn head_begins(&self) {
        if self.waits.load(Relaxed) {
            self.permit.head_begins();
        }
    }

    pub(super) fn begins(&self) {
        self.waits.store(false, Relaxed);
        self.permit.busy();
    }

    /// A body is read, and its sender may be slow.
    pub(super) fn reads(&self) {
        if let Some(reading) = &*self.large.lock() {
            reading.is_read();
        }
        self.permit.yields();
    }

    /// All was said, and the answer is being made.
    pub(super) fn makes(&self) {
        if let Some(reading) = &*self.large.lock() {
            reading.is_made();
        }
        self.permit.busy();
    }

    /// Whether an answer may be made that may be large. Not where the one before is still held:
    /// its place would count for both.
    pub(super) async fn may_be_large(&self, readers: &Arc<Large>, reader: IpAddr) -> bool {
        if let Some(reading) = &*self.large.lock() {
            let taken = self.taken.load(Relaxed);
            if taken {
                reading.is_made();
            }
            return taken;
        }
        let reading = Large::enter(readers, reader, &self.goes).await;
        let may = reading.is_some();
        *self.large.lock() = reading;
        may
    }

    /// Returns when another reader is to get the permit of what is read here.
    pub(super) async fn lost(&self) {
        loop {
            self.goes.notified().await;
            if self.is_lost() {
                return;
            }
        }
    }

    fn is_lost(&self) -> bool {
        let large = self.large.lock();
        large.as_ref().is_some_and(Reading::is_lost)
    }
}
