//! The queue of spans, or lines of the access log, that wait for the collector: bounded in number
//! and in bytes, so that a collector that takes nothing costs a proxy no more than that, and a
//! request nothing at all.
//!
//! Claims: observe-94

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Spans that may wait: twenty seconds of the rate that is the default.
const SPANS: usize = 2048;
/// Bytes that may wait. A span has some 600 bytes, and no more than about 3 KiB.
const BYTES: usize = 1536 * 1024;
/// Spans of one message to the collector.
pub(super) const BATCH: usize = 512;
/// Bytes of the spans of one message: it is held twice while it is sent.
const MESSAGE: usize = 256 * 1024;
/// The first span of a message waits so long for others.
const WITHIN: Duration = Duration::from_secs(1);

/// See the module header.
#[derive(Debug, Default)]
pub(super) struct Queue {
    queued: Mutex<QueuedSpans>,
    /// Something found no room since the last message was taken.
    full: AtomicBool,
    news: Notify,
}

#[derive(Debug, Default)]
struct QueuedSpans {
    spans: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Queue {
    /// False where there is no room for it.
    pub(super) fn push(&self, span: Vec<u8>) -> bool {
        let mut queued = self.queued.lock();
        if queued.spans.len() >= SPANS || queued.bytes + span.len() > BYTES {
            self.full.store(true, Relaxed);
            return false;
        }
        queued.bytes += span.len();
        queued.spans.push_back(span);
        let waiting = queued.spans.len();
        drop(queued);
        if waiting == 1 || waiting == BATCH {
            self.news.notify_one();
        }
        true
    }

    /// Whether a span that begins now may find no room when it ends.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }

    /// The oldest, as many as one message has.
    pub(super) fn take(&self) -> Vec<Vec<u8>> {
        let mut queued = self.queued.lock();
        let mut bytes = 0;
        let fitting = queued.spans.iter().take(BATCH).take_while(|span| {
            bytes += span.len();
            bytes <= MESSAGE
        });
        // One that is larger than a message alone has one of its own.
        let most = fitting.count().max(1).min(queued.spans.len());
        let taken: Vec<Vec<u8>> = queued.spans.drain(..most).collect();
        queued.bytes -= taken.iter().map(Vec::len).sum::<usize>();
        self.full.store(false, Relaxed);
        if queued.spans.is_empty() {
            // What a burst needed is given back.
            queued.spans = VecDeque::new();
        }
        taken
    }

    /// Waits until a message's worth of spans is there, or some, and a moment has passed.
    pub(super) async fn ready(&self) {
        while self.len() == 0 {
            self.news.notified().await;
        }
        let full = async {
            while self.len() < BATCH {
                self.news.notified().await;
            }
        };
        let _ = timeout(WITHIN, full).await;
    }

    fn len(&self) -> usize {
        self.queued.lock().spans.len()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    // Claims: observability-12
    #[test]
    fn span_queue_is_bounded_in_count_and_bytes() {
        let queue = Queue::default();
        let small = (0..10_000).filter(|_| queue.push(vec![0; 10])).count();
        // As the manual has it.
        assert_eq!(small, 2048);
        assert!(queue.is_full());
        assert_eq!(queue.take().len(), BATCH);
        assert!(!queue.is_full());
        assert!(queue.push(vec![0; 10]), "there is room again");

        let queue = Queue::default();
        let large = (0..1000).filter(|_| queue.push(vec![0; 64 * 1024])).count();
        let kib = 64 * large;
        assert_eq!(kib, 1536);
        // Control: as many bytes of what was taken are free again.
        let messages = (0..large).map(|_| queue.take().len());
        let taken: Vec<usize> = messages.take_while(|spans| *spans > 0).collect();
        assert_eq!(taken, vec![MESSAGE / (64 * 1024); BYTES / MESSAGE]);
        // The promise is 4 MiB for spans and lines together, each with a message that is held
        // twice while it is sent.
        assert!(2 * (kib + 2 * 64 * taken[0]) <= 4 * 1024, "{taken:?}");
        assert_eq!((queue.len(), queue.queued.lock().bytes), (0, 0));
        // One that alone is more than a message goes by itself.
        assert!(queue.push(vec![0; 2 * MESSAGE]) && queue.push(vec![0; 10]));
        assert_eq!((queue.take().len(), queue.take().len()), (1, 1));
        assert_eq!(queue.take().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn few_spans_wait_briefly_unlike_full_batch() {
        let queue = Queue::default();
        let began = Instant::now();
        assert!(queue.push(vec![0; 10]));
        queue.ready().await;
        assert_eq!(began.elapsed(), WITHIN);

        let began = Instant::now();
        while queue.len() < BATCH {
            assert!(queue.push(vec![0; 10]));
        }
        queue.ready().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
