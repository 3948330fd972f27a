//! Ends requests on a dedicated connection whose peer has gone silent.
//!
//! HTTP/1.1 has no ping, and the kernel of a stopped process goes on to answer TCP. So every 2.5
//! seconds a watch checks whether a connection in use has received anything since the last time.
//! Where it has not, the peer is pinged by HTTP/2, and only a peer that does not answer there loses
//! the connection: a response may take its time. Requests pay no timer for that.
//!
//! Claims: calls-21

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Context;

use futures::task::AtomicWaker;

/// Why a request or answer ended that such a connection carried.
pub(super) const DEAD: &str = "the peer gave no sign of life";

/// What a dedicated connection shows of its peer.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// The peer sent something since the last request.
    received: AtomicBool,
    /// Something was sent or received since the last check.
    moved: AtomicBool,
    /// Some of a request went out since the last check of that.
    sent: AtomicBool,
    /// A ping to the peer is under way.
    probing: AtomicBool,
    broken: AtomicBool,
    /// Wakes the request that waits for the peer.
    waits: AtomicWaker,
}

impl Signs {
    /// A request begins.
    pub(super) fn begin(&self) {
        self.received.store(false, Relaxed);
        self.moved.store(true, Relaxed);
    }

    /// Bytes of the peer came.
    pub(super) fn came(&self) {
        self.received.store(true, Relaxed);
        self.moved.store(true, Relaxed);
    }

    /// Bytes for the peer went out.
    pub(super) fn sent(&self) {
        self.sent.store(true, Relaxed);
    }

    /// Whether any did since the last call of this.
    pub(super) fn take_sent(&self) -> bool {
        self.sent.swap(false, Relaxed)
    }

    pub(super) fn has_received(&self) -> bool {
        self.received.load(Relaxed)
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// True when the peer counts as dead; otherwise wakes when it does.
    pub(super) fn poll_broken(&self, cx: &Context<'_>) -> bool {
        self.waits.register(cx.waker());
        self.is_broken()
    }
}

/// A connection in use by which nothing came between two looks.
#[derive(Debug)]
pub struct Silent(Arc<Signs>);

impl Silent {
    /// Looks; `None` also while an earlier one is not over.
    pub(super) fn look(signs: &Arc<Signs>) -> Option<Self> {
        let silent = !signs.moved.swap(false, Relaxed) && !signs.probing.swap(true, Relaxed);
        silent.then(|| Self(Arc::clone(signs)))
    }

    /// The peer gives no sign of life. False when it sent something by the connection itself
    /// meanwhile.
    pub fn break_off(self) -> bool {
        let dead = !self.0.moved.load(Relaxed);
        if dead {
            self.0.broken.store(true, Relaxed);
            self.0.waits.wake();
        }
        dead
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.0.probing.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn broken(signs: &Signs) -> bool {
        signs.poll_broken(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn connection_is_silent_after_two_checks_without_data() {
        let signs = Arc::<Signs>::default();
        signs.begin();
        assert!(Silent::look(&signs).is_none(), "it was asked just now");
        let silent = Silent::look(&signs).unwrap();
        assert!(Silent::look(&signs).is_none(), "one asks at a time");
        assert!(!broken(&signs), "as long as it is unknown");
        assert!(silent.break_off());
        assert!(broken(&signs));
    }

    #[test]
    fn data_received_during_check_is_sign_of_life() {
        let signs = Arc::<Signs>::default();
        let silent = Silent::look(&signs).unwrap();
        signs.came();
        assert!(!silent.break_off());
        assert!(!broken(&signs) && signs.has_received());
        assert!(Silent::look(&signs).is_none());
        assert!(Silent::look(&signs).is_some(), "it may fall silent again");
    }
}
