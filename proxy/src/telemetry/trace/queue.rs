//! Spans, or lines of the access log, that wait for the collector: bounded in number and in bytes, so that a collector
//! that takes nothing costs a proxy no more than that, and a request nothing at all.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Spans that may wait: twenty seconds of the rate that is the default.
const SPANS: usize = 2048;
/// Bytes that may wait. A span has some 600 bytes.
const BYTES: usize = 2 * 1024 * 1024;
/// Spans of one message to the collector.
pub(super) const BATCH: usize = 512;
/// The first span of a message waits so long for others.
const WITHIN: Duration = Duration::from_secs(1);

/// See the module header.
#[derive(Debug, Default)]
pub(super) struct Queue {
    held: Mutex<Held>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Held {
    spans: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Queue {
    /// False where there is no room for it.
    pub(super) fn push(&self, span: Vec<u8>) -> bool {
        let mut held = self.held.lock();
        if held.spans.len() >= SPANS || held.bytes + span.len() > BYTES {
            return false;
        }
        held.bytes += span.len();
        held.spans.push_back(span);
        let waiting = held.spans.len();
        drop(held);
        if waiting == 1 || waiting == BATCH {
            self.news.notify_one();
        }
        true
    }

    /// The oldest, as many as one message has.
    pub(super) fn take(&self) -> Vec<Vec<u8>> {
        let mut held = self.held.lock();
        let most = held.spans.len().min(BATCH);
        let taken: Vec<Vec<u8>> = held.spans.drain(..most).collect();
        held.bytes -= taken.iter().map(Vec::len).sum::<usize>();
        if held.spans.is_empty() {
            // What a burst needed is given back.
            held.spans = VecDeque::new();
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
        self.held.lock().spans.len()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn spans_that_wait_are_bounded_in_number_and_in_bytes() {
        let queue = Queue::default();
        let small = (0..10_000).filter(|_| queue.push(vec![0; 10])).count();
        assert_eq!(small, SPANS);
        assert_eq!(queue.take().len(), BATCH);
        assert!(queue.push(vec![0; 10]), "there is room again");

        let queue = Queue::default();
        let large = (0..1000).filter(|_| queue.push(vec![0; 64 * 1024])).count();
        assert_eq!(large, BYTES / (64 * 1024));
        // Control: as many bytes of what was taken are free again.
        assert_eq!(queue.take().len(), large);
        assert_eq!((queue.len(), queue.held.lock().bytes), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_spans_wait_a_moment_for_others_and_many_do_not() {
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
