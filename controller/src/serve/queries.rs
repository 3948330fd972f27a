//! Users' queries, which go to a proxy on its stream.
//!
//! Configuration goes first: a query waits while there is no more room than batches may need, and
//! is lost, counted, where too many wait.

use wire::capability::{Capabilities, Capability};
use wire::v1::ask::What;
use wire::v1::to_proxy::Message;

use super::framed::{Outbox, ToProxies};
use crate::observe::asks::{AskRegistration, Asks, Orders};

/// Batches on their way to the proxy. Sessions leave at most three unanswered, so they
/// always find room.
pub(super) const OUTBOX: usize = 4;
/// Queries on their way beside them.
const QUERIES: usize = 8;

/// The queue of a stream.
pub(super) fn outbox() -> (Outbox, ToProxies) {
    ToProxies::queue(OUTBOX + QUERIES)
}

/// The queries for one proxy.
#[derive(Debug)]
pub(super) struct ProxyQueries {
    registration: Option<(AskRegistration, Orders)>,
    /// It tries rules on command.
    tries: bool,
}

impl ProxyQueries {
    /// Those for the proxy of this pod; none where it does not understand them.
    pub(super) fn of(asks: &Asks, uid: Option<&str>, capabilities: &Capabilities) -> Self {
        let uid = uid.filter(|_| capabilities.has(Capability::Asks));
        Self {
            registration: uid.map(|uid| asks.listens(uid.into())),
            tries: capabilities.has(Capability::Trial),
        }
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Message {
        if let Some((_, orders)) = &mut self.registration {
            while let Some(order) = orders.recv().await {
                // An older proxy gets no query, and sends nothing: it takes no part.
                if self.tries || !is_trial(&order) {
                    return order;
                }
            }
        }
        // None, or a newer stream of the pod gets them.
        std::future::pending().await
    }
}

fn is_trial(order: &Message) -> bool {
    matches!(order, Message::Ask(ask) if matches!(ask.what, Some(What::Trial(_))))
}
