//! Finds the HTTP/2 streams whose reader is slow, so that up to a window of bytes of each waits in
//! this proxy.
//!
//! The sum of what a stream received shows little of that. A watch of gRPC or server-sent events
//! receive more than any window in the end, and their sender holds nothing of it. So a stream is
//! large while it fills windows: one was received quickly just now, or nearly nothing is left of
//! the current one, since its reader is slow.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use h2::{FlowControl, StreamId};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A sender that sends a window within this time sent as fast as it could. It is large for as long
/// after that.
const QUICK: Duration = Duration::from_secs(1);
/// A sender that has used this part of a window waits for its reader: the peer gets an update once
/// half of it was read, so less may wait here at times.
const WAITS: usize = 4;

/// As many as the connection has streams at most.
#[derive(Debug, Default)]
pub(super) struct UsedStreams {
    all: Mutex<HashMap<StreamId, Used>>,
    /// Those that filled a window, and may be large.
    filled: AtomicUsize,
}

#[derive(Debug)]
struct Used {
    stream: FlowControl,
    /// Since when its next window is counted.
    since: Instant,
    /// When it last filled one.
    filled: Option<Instant>,
}

impl Used {
    /// Of what came a good part is unread.
    fn waits(&self, window: usize) -> bool {
        self.stream.used_capacity() * WAITS >= window
    }
}

impl UsedStreams {
    pub(super) fn insert(&self, stream: &FlowControl) {
        let used = Used {
            stream: stream.clone(),
            since: Instant::now(),
            filled: None,
        };
        self.all.lock().insert(stream.stream_id(), used);
    }

    pub(super) fn remove(&self, id: StreamId) {
        let used = self.all.lock().remove(&id);
        if used.as_ref().is_some_and(|used| used.filled.is_some()) {
            self.filled.fetch_sub(1, Relaxed);
        }
        // Maybe the last that holds it, so it ends here and not under the lock.
        drop(used);
    }

    /// Has `h2` check again whether WINDOW_UPDATEs for what was given back are due.
    pub(super) fn look_again(&self) {
        for used in self.all.lock().values_mut() {
            let _ = used.stream.release_capacity(0);
        }
    }

    /// One more window of this stream came and was read.
    pub(super) fn filled(&self, id: StreamId, window: usize) {
        let now = Instant::now();
        let mut all = self.all.lock();
        let Some(used) = all.get_mut(&id) else {
            return;
        };
        let quick = now.saturating_duration_since(used.since) < QUICK;
        used.since = now;
        if (quick || used.waits(window)) && used.filled.replace(now).is_none() {
            self.filled.fetch_add(1, Relaxed);
        }
    }

    /// Those that are large by now. What is not is not looked at again before it has filled
    /// another window.
    pub(super) fn large(&self, window: usize, now: Instant) -> usize {
        if self.filled.load(Relaxed) == 0 {
            return 0;
        }
        let mut large = 0;
        for used in self.all.lock().values_mut() {
            let Some(filled) = used.filled else {
                continue;
            };
            if now.saturating_duration_since(filled) < QUICK || used.waits(window) {
                large += 1;
            } else {
                used.filled = None;
                self.filled.fetch_sub(1, Relaxed);
            }
        }
        large
    }
}
