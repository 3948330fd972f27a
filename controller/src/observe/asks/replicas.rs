//! Queries that replicas pass on to each other.
//!
//! One call from each replica to each other carries all of them. A replica that is queried by
//! another queries its own proxies only, so that nothing goes round in circles.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use runtime::stop;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use wire::v1;
use wire::v1::replica_ask::Message;
use wire::v1::replica_client::ReplicaClient;

use super::{Answers, AskRegistration, AskTarget, Asks, Joining, MAX_ASKS};

/// Queries and ends of queries on their way to one replica.
const ORDERS: usize = 4 * MAX_ASKS;
/// Answers on their way to one replica; each query keeps what does not fit for a while.
const OUTBOX: usize = 64;

/// The longest query that is passed on, and what is added to each.
const LONGEST: Duration = Duration::from_secs(600);
const GRACE: Duration = Duration::from_secs(5);
/// After this time without an answer a message says whether some were dropped meanwhile.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// What a querying replica sends.
pub(in crate::observe) trait AskMessages:
    Stream<Item = Result<v1::ReplicaAsk, Status>> + Unpin + Send + 'static
{
}

impl<S> AskMessages for S where
    S: Stream<Item = Result<v1::ReplicaAsk, Status>> + Unpin + Send + 'static
{
}

/// What a querying replica is sent.
pub(crate) type Passed = ReceiverStream<Result<v1::ReplicaAnswered, Status>>;

impl Asks {
    /// Passes queries on to another replica, and takes what its proxies answer, until the call
    /// ends.
    pub(in crate::observe) async fn pass_to(
        &self,
        peer: IpAddr,
        mut client: ReplicaClient<Channel>,
    ) -> Result<(), tower::BoxError> {
        let (orders, messages) = mpsc::channel(ORDERS);
        let mut answers = match client.ask(ReceiverStream::new(messages)).await {
            Ok(answers) => answers.into_inner(),
            // A replica of the version before passes nothing on.
            Err(status) if status.code() == Code::Unimplemented => {
                return std::future::pending().await;
            }
            Err(status) => return Err(status.into()),
        };
        let _joined = self.joins(peer, orders);
        while let Some(answered) = answers.message().await? {
            self.answered_elsewhere(peer, answered);
        }
        Ok(())
    }

    pub(super) fn joins(
        &self,
        peer: IpAddr,
        orders: mpsc::Sender<v1::ReplicaAsk>,
    ) -> AskRegistration {
        let mut state = self.inner.state.lock();
        let number = state.next();
        state.replicas.insert(peer, Joining { number, orders });
        self.here(number, AskTarget::Replica(peer))
    }

    pub(super) fn answered_elsewhere(&self, peer: IpAddr, answered: v1::ReplicaAnswered) {
        let v1::ReplicaAnswered {
            uid,
            answered,
            id,
            dropped,
        } = answered;
        // First: with the last proxy that goes the query is over.
        self.dropped_elsewhere(peer, id, dropped);
        match answered {
            Some(answered) => self.answered(&uid, v1::Answered { id, ..answered }),
            None if uid.is_empty() => {}
            None => self.finish(&mut self.inner.state.lock(), id, &uid),
        }
    }

    /// Another replica had no room for so many answers since it was queried. Its own metrics count
    /// them.
    fn dropped_elsewhere(&self, peer: IpAddr, id: u64, dropped: u64) {
        if dropped == 0 {
            return;
        }
        let mut state = self.inner.state.lock();
        let Some(open) = state.open.get_mut(&id) else {
            return;
        };
        let counted = open.dropped_elsewhere.entry(peer).or_default();
        let more = dropped.saturating_sub(*counted);
        *counted += more;
        open.dropped.fetch_add(more, Ordering::Relaxed);
    }

    /// Queries this replica's proxies for another replica, until `stop` says true.
    pub(in crate::observe) fn pass(
        &self,
        messages: impl AskMessages,
        stop: watch::Receiver<bool>,
    ) -> Passed {
        let (outbox, sent) = mpsc::channel(OUTBOX);
        let passing = self.clone().keep_passing(messages, outbox);
        runtime::task::spawn("asks of a replica", async move {
            tokio::select! {
                () = passing => {}
                () = stop::requested(stop) => {}
            }
        });
        ReceiverStream::new(sent)
    }

    async fn keep_passing(
        self,
        mut messages: impl AskMessages,
        outbox: mpsc::Sender<Result<v1::ReplicaAnswered, Status>>,
    ) {
        let mut open: BTreeMap<u64, AbortHandle> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = outbox.closed() => return,
            };
            let Some(Ok(message)) = message else { return };
            while tasks.try_join_next().is_some() {}
            open.retain(|_, task| !task.is_finished());
            match message.message {
                Some(Message::Ask(request)) if open.len() < MAX_ASKS => {
                    let lasts = request.ask.as_ref().map_or(0, |ask| ask.lasts);
                    let lasts = Duration::from_millis(lasts).min(LONGEST);
                    let Some((id, answers)) = self.passed_on(request) else {
                        continue;
                    };
                    let passing = pass_back(id, answers, outbox.clone());
                    // What says that it is over may be lost on its way.
                    #[expect(clippy::disallowed_methods, reason = "its panic ends one question")]
                    let task = tasks.spawn(async move {
                        let _ = timeout(lasts + GRACE, passing).await;
                    });
                    if let Some(before) = open.insert(id, task) {
                        before.abort();
                    }
                }
                Some(Message::Ask(_)) => {
                    self.inner.too_many.inc();
                }
                Some(Message::EndAsk(id)) => {
                    if let Some(task) = open.remove(&id) {
                        task.abort();
                    }
                }
                None => {}
            }
        }
    }

    /// Queries them, and gives the id that the other replica knows the query by.
    fn passed_on(&self, request: v1::PodsAsk) -> Option<(u64, Answers)> {
        let ask = request.ask?;
        let uids: Vec<Arc<str>> = request.uids.into_iter().map(Arc::from).collect();
        let question = (ask.what?, Duration::from_millis(ask.lasts));
        let answers = self.open(&mut self.inner.state.lock(), question, &uids, false);
        Some((ask.id, answers))
    }
}

/// Passes answers back, and with them how many found no room here: the other replica cannot know.
async fn pass_back(
    id: u64,
    mut answers: Answers,
    outbox: mpsc::Sender<Result<v1::ReplicaAnswered, Status>>,
) {
    let mut counted = 0;
    loop {
        let next = timeout(COUNT_EVERY, answers.next()).await;
        let is_last = matches!(next, Ok(None));
        // Keeps its room until it is on its way.
        let mut answer = next.ok().flatten();
        let what = answer.as_mut().and_then(|answer| answer.what.take());
        let dropped = answers.dropped();
        if answer.is_some() || dropped > counted {
            counted = dropped;
            let uid = answer.as_ref().map(|answer| answer.uid.to_string());
            let answered = v1::ReplicaAnswered {
                uid: uid.unwrap_or_default(),
                answered: what.map(|what| v1::Answered {
                    id,
                    what: Some(what),
                }),
                id,
                dropped,
            };
            if outbox.send(Ok(answered)).await.is_err() {
                return;
            }
        }
        if is_last {
            return;
        }
    }
}
