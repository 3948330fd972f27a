//! Draining of a proxy when its pod is deleted (connections are closed gracefully), and its stop.
//!
//! Draining begins when the pod is deleted (the `preStop` hook requests it): inbound connections
//! are closed gracefully while everything is still served. Stopping begins with SIGTERM, which a
//! native sidecar gets after the application has ended, so little is left to wait for.
//!
//! Imports nothing of this crate.
//!
//! Claims: calls-15

pub(crate) mod command;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

/// After SIGTERM open connections get this long to end.
pub(crate) const STOP_WITHIN: Duration = Duration::from_millis(1500);

/// How long a connection is served that came while draining.
const LATECOMER: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<DrainState>);

#[derive(Debug, Default)]
struct DrainState {
    draining: watch::Sender<bool>,
    stopping: AtomicBool,
}

impl Drain {
    pub fn begin(&self) {
        self.0.draining.send_replace(true);
    }

    /// Stopping begins, and draining where it had not.
    pub fn stop(&self) {
        self.0.stopping.store(true, Relaxed);
        self.begin();
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.draining.borrow()
    }

    /// Notifies when draining begins.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.draining.subscribe()
    }

    /// Returns when a connection that begins now should be closed gracefully: when draining
    /// begins, or a moment later for one that came while draining, because its client knew no
    /// better address. At once when the proxy stops: later work has less time to end.
    pub async fn time_to_go(&self) {
        if self.is_draining() && !self.0.stopping.load(Relaxed) {
            tokio::time::sleep(LATECOMER).await;
        }
        self.drained().await;
    }

    /// Returns when draining begins, or at once while draining.
    pub(crate) async fn drained(&self) {
        let mut draining = self.watch();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = draining.wait_for(|draining| *draining).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Drain, LATECOMER};

    async fn served(drain: &Drain) -> Duration {
        let started = Instant::now();
        drain.time_to_go().await;
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn draining_proxy_serves_late_calls_briefly_until_stop() {
        let drain = Drain::default();
        drain.begin();
        assert!(served(&drain).await >= LATECOMER);
        drain.stop();
        assert_eq!(served(&drain).await, Duration::ZERO);
    }
}
