//! The bounded queues of live queries: commands for one proxy, and responses for one client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
#[cfg(test)]
use tokio::sync::mpsc::error::TryRecvError;
use wire::v1::answered::What as Answered;
use wire::v1::to_proxy::Message as Order;

/// Bytes of the answers to one query that wait. A proxy sends what it holds in 4 MiB at most.
const QUEUE_BYTES: usize = 6 << 20;
/// Bytes of all answers that wait.
pub(super) const ALL_BYTES: usize = 32 << 20;

/// Where the orders of one proxy are put.
pub(super) type ToOrders = mpsc::Sender<Box<Order>>;

/// Commands on their way to one proxy. They wait boxed: a queue makes room for 32 of them before
/// the first comes, and most proxies never get a query.
#[derive(Debug)]
pub(crate) struct Orders(mpsc::Receiver<Box<Order>>);

impl Orders {
    /// A queue of so many.
    pub(super) fn queue(bound: usize) -> (ToOrders, Self) {
        let (orders, taken) = mpsc::channel(bound);
        (orders, Self(taken))
    }

    /// The next one; `None` when no more can come.
    pub(crate) async fn recv(&mut self) -> Option<Order> {
        self.0.recv().await.map(|order| *order)
    }

    /// The next one if it is there.
    #[cfg(test)]
    pub(crate) fn try_recv(&mut self) -> Result<Order, TryRecvError> {
        self.0.try_recv().map(|order| *order)
    }
}

/// One answer.
#[derive(Debug)]
pub(crate) struct ProxyAnswer {
    /// Of the pod.
    pub(crate) uid: Arc<str>,
    /// `None`: its proxy is away, and says nothing more.
    pub(crate) what: Option<Answered>,
    _bytes: QueuedBytes,
}

impl ProxyAnswer {
    /// Has room for as long as it lives.
    pub(super) fn new(uid: Arc<str>, what: Option<Answered>, bytes: QueuedBytes) -> Self {
        Self {
            uid,
            what,
            _bytes: bytes,
        }
    }
}

/// Bytes that wait.
#[derive(Debug)]
pub(super) struct QueuedBytes {
    bytes: usize,
    of: [Arc<AtomicUsize>; 2],
}

impl QueuedBytes {
    /// Takes room in the queue and among all.
    pub(super) fn take(
        queue: &Arc<AtomicUsize>,
        all: &Arc<AtomicUsize>,
        bytes: usize,
    ) -> Option<Self> {
        let taken = Self {
            bytes,
            of: [Arc::clone(queue), Arc::clone(all)],
        };
        let add = |count: &AtomicUsize| count.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = [add(queue) <= QUEUE_BYTES, add(all) <= ALL_BYTES];
        // Where it does not fit it gives the room back.
        (fits == [true, true]).then_some(taken)
    }
}

impl Drop for QueuedBytes {
    fn drop(&mut self) {
        for count in &self.of {
            count.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}
