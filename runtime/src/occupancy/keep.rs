//! How a connection is served while it has its permit.

use std::sync::atomic::Ordering::Relaxed;

use super::Permit;
use super::slot::{STAY, YIELDS};

impl Permit {
    /// In use, at the pace of the peer: stays, however long, unless others need its permit. For
    /// servers whose exchanges are short unless a peer draws them out.
    pub fn yields(&self) {
        self.does(YIELDS);
        if self.slot.verdict.load(Relaxed) != STAY {
            // It came while this had to stay.
            self.slot.changed.notify_waiters();
        }
    }

    /// Serves a connection for as long as it may keep its permit.
    pub async fn keep(&self, serving: impl Future<Output = ()>) {
        tokio::select! {
            // What has come is read before that it was late counts: a process that stalled
            // still finds both, and a request that has started goes on.
            biased;
            () = serving => {}
            () = self.cut() => {}
        }
    }
}
