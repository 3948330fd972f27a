//! What one connection is doing, and how many pages that may be large are held for readers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::occupancy::Permit;

/// Pages that are read at one time, of those that the kubelet does not ask for:
/// they may be a megabyte each, and their readers slow.
pub(super) const MAX_PAGES: usize = 16;
/// The same for one address, so that no other reader keeps a scraper out.
const MAX_PAGES_PER_ADDRESS: usize = 4;

/// What one connection is doing.
pub(super) struct Exchange {
    permit: Arc<Permit>,
    waits: AtomicBool,
    /// All that was answered has been taken.
    taken: AtomicBool,
    /// Held while an answer that may be large is made and taken.
    large: Mutex<Option<Reading>>,
}

impl Exchange {
    pub(super) fn of(permit: &Arc<Permit>) -> Self {
        Self {
            permit: Arc::clone(permit),
            waits: AtomicBool::new(false),
            taken: AtomicBool::new(true),
            large: Mutex::new(None),
        }
    }

    /// The next head may come. What was answered may still be on its way.
    pub(super) fn waits(&self) {
        self.waits.store(true, Relaxed);
    }

    /// An answer is there, and nothing of it has been taken. Its reader may be slow.
    pub(super) fn answers(&self) {
        self.taken.store(false, Relaxed);
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
        self.permit.yields();
    }

    /// All was said, and the answer is being made.
    pub(super) fn makes(&self) {
        self.permit.busy();
    }

    /// Whether an answer may be made that may be large. Not where the one before is still held:
    /// its permit would count for both.
    pub(super) fn may_be_large(&self, readers: &Arc<Large>, reader: IpAddr) -> bool {
        let mut large = self.large.lock();
        if large.is_none() {
            *large = Large::begin(readers, reader);
            return large.is_some();
        }
        self.taken.load(Relaxed)
    }
}

/// Pages that are being read, by their readers' addresses.
#[derive(Default)]
pub(super) struct Large(Mutex<HashMap<IpAddr, usize>>);

struct Reading {
    of: Arc<Large>,
    reader: IpAddr,
}

impl Large {
    fn begin(of: &Arc<Self>, reader: IpAddr) -> Option<Reading> {
        let mut readers = of.0.lock();
        if readers.values().sum::<usize>() >= MAX_PAGES {
            return None;
        }
        let pages = readers.entry(reader).or_default();
        if *pages >= MAX_PAGES_PER_ADDRESS {
            return None;
        }
        *pages += 1;
        Some(Reading {
            of: Arc::clone(of),
            reader,
        })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut readers = self.of.0.lock();
        if let Some(pages) = readers.get_mut(&self.reader) {
            *pages -= 1;
            if *pages == 0 {
                readers.remove(&self.reader);
            }
        }
    }
}
