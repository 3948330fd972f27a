//! A cache of responses about the graph: equal queries between two updates share one response.

use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::graph::answer::Extent;
use crate::graph::written::Written;
use crate::observe::reports::interval_of;

/// Different responses that are shared until the next look.
pub(super) const MAX_SHARED: usize = 4;
/// Bytes of these: three responses of 10 000 edges. A query beyond that gets one of its own.
pub(super) const MAX_SHARED_BYTES: usize = 20 * 1024 * 1024;

/// Which window, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GraphWindow {
    /// Length in intervals.
    pub intervals: u64,
    /// Only what is settled.
    pub settled: bool,
    /// The interval before which it ends, if not now.
    pub end: Option<u64>,
    /// What of it.
    pub extent: Extent,
}

/// A response that several readers share.
#[derive(Debug)]
struct Shared {
    /// Interval and look.
    at: (u64, u64),
    requested: GraphWindow,
    written: Arc<Written>,
}

/// Those since the last look.
#[derive(Debug)]
pub(super) struct SharedResponses {
    written: Mutex<Vec<Shared>>,
    /// Counts looks.
    looks: watch::Sender<u64>,
}

impl SharedResponses {
    pub(super) fn new() -> Self {
        Self {
            written: Mutex::default(),
            looks: watch::Sender::new(0),
        }
    }

    /// Changes with every look.
    pub(super) fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    /// A look is over. Responses from before it are never shown again, and would stay until the
    /// next query.
    pub(super) fn looked(&self) {
        self.looks.send_modify(|looks| *looks += 1);
        let looks = *self.looks.borrow();
        self.written.lock().retain(|cached| cached.at.1 == looks);
    }

    /// A response. While nothing new was folded, readers share it.
    pub(super) fn response(
        &self,
        requested: &GraphWindow,
        now: SystemTime,
        write: impl FnOnce() -> Written,
    ) -> Arc<Written> {
        let at = (interval_of(now), *self.looks.borrow());
        let mut shared = self.written.lock();
        shared.retain(|cached| cached.at == at);
        if let Some(cached) = shared.iter().find(|cached| cached.requested == *requested) {
            return Arc::clone(&cached.written);
        }
        let written = Arc::new(write());
        let cached = shared.iter().map(|cached| cached.written.size());
        if has_room(cached, written.size()) {
            shared.push(Shared {
                at,
                requested: requested.clone(),
                written: Arc::clone(&written),
            });
        }
        written
    }

    /// How many are shared now.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.written.lock().len()
    }
}

/// Whether a response of so many bytes is shared beside those that are `cached`, by their bytes.
pub(super) fn has_room(cached: impl Iterator<Item = usize>, bytes: usize) -> bool {
    let (number, all) = cached.fold((0, bytes), |(number, all), one| (number + 1, all + one));
    number < MAX_SHARED && all <= MAX_SHARED_BYTES
}
