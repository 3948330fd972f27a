//! What ends without a newcomer: heads that take too long, long idle times, and connections
//! that were asked to go and stay.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::sleep;

use super::slot::{CLOSE, CUT, millis};
use super::{Occupancy, Reached};

/// So often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A client that is asked to go between two requests has this long. One of HTTP/2 may never
/// respond to that, and would keep its permit for ever.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(2);

impl Occupancy {
    /// Cuts off connections that take too long over a head or do not go when asked, and closes
    /// those that were idle too long, for ever.
    pub async fn watch(self: Arc<Self>) {
        loop {
            sleep(LOOK_EVERY).await;
            self.look();
        }
    }

    fn look(&self) {
        let now = self.now();
        let table = self.table.lock();
        for slot in table.holders.values().flat_map(HashMap::values) {
            let ignores = slot
                .verdict_age(now, &[CLOSE, CUT])
                .is_some_and(|age| age >= millis(CLOSE_WITHIN));
            // No newcomer needs the permit of what yields, or it would be gone.
            let in_use = slot.is_in_use() || slot.yields();
            let goes_on = in_use || slot.age(now) < millis(CLOSE_WITHIN);
            // It is used all the same, as through a tunnel: its place is taken.
            if ignores && goes_on && slot.leaves.swap(false, Relaxed) {
                self.leaving.fetch_sub(1, Relaxed);
            }
            if in_use {
                continue;
            }
            let overdue = slot
                .head_age(now)
                .map(|age| age >= millis(self.bounds.head_within));
            let rested = slot.age(now) >= millis(self.bounds.idle_within);
            if overdue == Some(true) && self.send(slot, CUT) {
                (self.reached)(Reached::SlowHead);
            }
            if overdue.is_none() && !slot.is_silent() && rested {
                self.send(slot, CLOSE);
            }
            // What was in use when it was asked has its time from then on.
            if ignores && !goes_on {
                self.send(slot, CUT);
            }
        }
    }
}
