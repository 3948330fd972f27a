//! Live queries on one control stream: sends them to the proxy and takes its responses.
//!
//! Configuration goes first: a query waits while there is no more room than batches may need, and
//! is dropped and counted where too many wait.

use std::sync::Arc;

use runtime::limit::Reached;
use runtime::stop;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::Streaming;
use wire::capability::{Capabilities, Capability};
use wire::v1;
use wire::v1::ask::What;
use wire::v1::to_proxy::Message;

use super::framed::{Outbox, ToProxies};
use crate::observe::live_queries::{LiveQueries, LiveQueryRegistration, Orders};

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
    registration: Option<(LiveQueryRegistration, Orders)>,
    /// It tries rules on command.
    tries: bool,
}

impl ProxyQueries {
    /// Those for the proxy of this pod; none where it does not understand them.
    pub(super) fn of(
        live_queries: &LiveQueries,
        uid: Option<&str>,
        capabilities: &Capabilities,
    ) -> Self {
        let uid = uid.filter(|_| capabilities.has(Capability::Asks));
        Self {
            registration: uid.map(|uid| live_queries.listens(uid.into())),
            tries: capabilities.has(Capability::Trial),
        }
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Message {
        if let Some((_, orders)) = &mut self.registration {
            while let Some(order) = orders.recv().await {
                // An older proxy gets no query, and sends nothing: it takes no part.
                if self.tries || !is_dry_run(&order) {
                    return order;
                }
            }
        }
        // None, or a newer stream of the pod gets them.
        std::future::pending().await
    }
}

fn is_dry_run(order: &Message) -> bool {
    matches!(order, Message::Ask(ask) if matches!(ask.what, Some(What::Trial(_))))
}

/// Takes what the proxy of this pod answers until it, or the process, ends.
///
/// Read as fast as it may come: a proxy that sends more is slowed down, and then keeps or drops at
/// its own end what it has to send. No reader is waited for.
pub(super) async fn take_answers(
    live_queries: &LiveQueries,
    limits: &Reached,
    stop: watch::Receiver<bool>,
    uid: &str,
    mut answers: Streaming<v1::Answered>,
) {
    let pod: Arc<str> = uid.into();
    let taking = async {
        while let Ok(Some(answered)) = answers.message().await {
            while let Err(wait) = live_queries.may_answer(&pod, Instant::now()) {
                limits.counter("ask-answers").inc();
                sleep(wait).await;
            }
            live_queries.answered(uid, answered);
        }
    };
    tokio::select! {
        () = taking => {}
        () = stop::requested(stop) => {}
    }
}
