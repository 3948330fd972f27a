//! How the proxy ends: first it drains, then it stops.
//!
//! Draining begins when the pod is deleted (the `preStop` hook asks for it):
//! inbound connections are told to go elsewhere while everything is still
//! served. Stopping begins with SIGTERM, which a native sidecar gets after the
//! application has ended, so little is left to wait for.
//!
//! Imports `ports`.

pub(crate) mod command;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// After SIGTERM open connections get this long to end.
pub(crate) const STOP_WITHIN: Duration = Duration::from_millis(1500);

/// How long a connection is served that came while draining.
const LATECOMER: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Drain {
    draining: Arc<watch::Sender<bool>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            draining: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Drain {
    pub fn begin(&self) {
        self.draining.send_replace(true);
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Tells when draining begins.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Returns when a connection that begins now should be told to go
    /// elsewhere: when draining begins, or a moment later for one that came
    /// while draining, because whoever sent it knew no better address.
    pub async fn time_to_go(&self) {
        if self.is_draining() {
            tokio::time::sleep(LATECOMER).await;
        }
        self.drained().await;
    }

    /// Returns when draining begins, or at once when it has begun.
    pub async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = draining.wait_for(|draining| *draining).await;
    }
}
