//! Connections that may be closed as usual, and not by a reset.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use runtime::rate::{Allowance, Rate};
use tokio::time::Instant;

use crate::net::abort::Abort;

/// The port of each stays taken for a minute, and there are some 28 000: even a burst of two
/// kinds and what follows it within that minute take fewer.
const MAY_LEAVE: Allowance = Allowance {
    burst: 200,
    every: Duration::from_millis(5),
};

/// One kind of them.
#[derive(Clone, Debug)]
pub(crate) struct GracefulCloses(Arc<Mutex<Rate>>);

impl Default for GracefulCloses {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Rate::new(MAY_LEAVE))))
    }
}

impl GracefulCloses {
    /// A connection is about to be closed, which `abort` makes a reset.
    pub(crate) fn close(&self, abort: &Abort) {
        if self.0.lock().take(Instant::now()).is_err() {
            // A reset leaves no port taken.
            abort.set();
        }
    }
}
