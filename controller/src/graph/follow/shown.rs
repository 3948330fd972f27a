//! The responses that readers share: several equal queries make one response for each look.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Graph, GraphWindow, Shared};
use crate::graph::history;
use crate::graph::written::Written;
use crate::observe::reports::slot_of;

/// Different responses that are shared until the next look.
pub(super) const MAX_SHARED: usize = 4;
/// Bytes of these: three responses of 10 000 edges. A query beyond that gets one of its own.
pub(super) const MAX_SHARED_BYTES: usize = 20 * 1024 * 1024;

impl Graph {
    /// A response as it is written. While nothing new was folded, readers share it.
    pub(crate) fn written(&self, requested: &GraphWindow, now: SystemTime) -> Arc<Written> {
        let at = (slot_of(now), *self.inner.looks.borrow());
        let mut shared = self.inner.written.lock();
        shared.retain(|cached| cached.at == at);
        if let Some(cached) = shared.iter().find(|cached| cached.requested == *requested) {
            return Arc::clone(&cached.written);
        }
        let written = Arc::new(Written::of(|to| self.write_answer(requested, now, to)));
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

    /// What a reader was shown whose window ended before this slot, or more. `None` where that is
    /// not known any more. `now`: of the reader's next response, which was made before: it is what
    /// workloads are compared with.
    pub(crate) fn shown_before(
        &self,
        requested: &GraphWindow,
        end: u64,
        now: SystemTime,
    ) -> Option<Arc<Written>> {
        let current = slot_of(now);
        let is_held = requested.slots <= history::FINE
            && end <= current
            && end + history::FINE_HISTORY >= current
            && self.inner.state.lock().workloads.known_from() <= end;
        if !is_held {
            return None;
        }
        let mut before = GraphWindow {
            end: Some(end),
            ..requested.clone()
        };
        // Ends of quiet edges may have gone since.
        before.extent.gone = true;
        let written = self.written(&before, now);
        (!written.lacks()).then_some(written)
    }
}

/// Whether a response of so many bytes is shared beside those that are `cached`, by their bytes.
pub(super) fn has_room(cached: impl Iterator<Item = usize>, bytes: usize) -> bool {
    let (number, all) = cached.fold((0, bytes), |(number, all), one| (number + 1, all + one));
    number < MAX_SHARED && all <= MAX_SHARED_BYTES
}
