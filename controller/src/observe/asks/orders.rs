//! Commands that wait to be sent to one proxy.

use tokio::sync::mpsc;
#[cfg(test)]
use tokio::sync::mpsc::error::TryRecvError;
use wire::v1::to_proxy::Message as Order;

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
