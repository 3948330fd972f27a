//! The taps that there are: how many records each may show, and how many it did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};
use wire::v1;

use crate::telemetry::tap::filter::Filter;

/// Records of one tap that wait to be sent.
const QUEUE: usize = 256;

/// All taps of a proxy.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// Whether there is any. Stale for a moment, which costs a look or a record.
    any: AtomicBool,
    pub(super) open: ArcSwap<Vec<Arc<Tap>>>,
}

impl Taps {
    /// The only thing that a request reads without a tap.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Begins to watch. Ends when what is returned is dropped.
    pub(crate) fn watch(
        self: &Arc<Self>,
        request: v1::TapAsk,
    ) -> (Watch, mpsc::Receiver<v1::TapRecord>) {
        let (queue, records) = mpsc::channel(QUEUE);
        let tap = Arc::new(Tap {
            most: request.max_per_second.max(1),
            filter: Filter::of(request),
            started: Instant::now(),
            window: AtomicU64::new(0),
            counts: Counts::default(),
            queue,
            half_full: Notify::new(),
        });
        self.change(|open| open.push(Arc::clone(&tap)));
        let taps = Arc::clone(self);
        (Watch { taps, tap }, records)
    }

    fn change(&self, change: impl Fn(&mut Vec<Arc<Tap>>)) {
        self.open.rcu(|open| {
            let mut open = Vec::clone(open);
            change(&mut open);
            open
        });
        self.any
            .store(!self.open.load().is_empty(), Ordering::Relaxed);
    }
}

/// What a client wants to see.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(super) filter: Filter,
    /// Records in one second.
    most: u32,
    started: Instant,
    /// Second since the begin, and records in it.
    window: AtomicU64,
    counts: Counts,
    queue: mpsc::Sender<v1::TapRecord>,
    /// Of those who let records collect.
    half_full: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    matched: AtomicU64,
    shown: AtomicU64,
    dropped: AtomicU64,
}

impl Tap {
    /// Shows what `record` makes, if there is room and not too much was shown.
    pub(super) fn show(&self, record: impl FnOnce() -> v1::TapRecord) {
        let count = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        count(&self.counts.matched);
        if !self.may_show() {
            return;
        }
        // Checked first: making one costs more than this.
        let sent = match self.queue.try_reserve() {
            Ok(room) => {
                room.send(record());
                if self.queue.capacity() <= QUEUE / 2 {
                    self.half_full.notify_one();
                }
                true
            }
            Err(_) => false,
        };
        count(if sent {
            &self.counts.shown
        } else {
            &self.counts.dropped
        });
    }

    fn may_show(&self) -> bool {
        let second = u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX);
        let mut current = self.window.load(Ordering::Relaxed);
        loop {
            let (at, shown) = ((current >> 32) as u32, current as u32);
            let shown = if at == second { shown } else { 0 };
            if shown >= self.most {
                return false;
            }
            let next = (u64::from(second) << 32) | u64::from(shown + 1);
            let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            match self
                .window
                .compare_exchange_weak(current, next, success, failure)
            {
                Ok(_) => return true,
                Err(now) => current = now,
            }
        }
    }
}

/// A tap for as long as this lives.
#[derive(Debug)]
pub(crate) struct Watch {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
}

impl Watch {
    /// Until so many records wait that more of them may soon find no place.
    pub(crate) async fn half_full(&self) {
        self.tap.half_full.notified().await;
    }

    /// Since it began.
    pub(crate) fn summary(&self) -> v1::TapSummary {
        let counts = &self.tap.counts;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        v1::TapSummary {
            matched: count(&counts.matched),
            shown: count(&counts.shown),
            dropped: count(&counts.dropped),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let own = &self.tap;
        self.taps
            .change(|open| open.retain(|tap| !Arc::ptr_eq(tap, own)));
    }
}
