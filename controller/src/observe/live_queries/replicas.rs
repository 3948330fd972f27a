//! The exchange of live queries between controller replicas.
//!
//! Each replica makes one call to each other, which carries all queries. A queried replica queries
//! its own proxies only, so that no query circulates.

use std::collections::BTreeMap;
use std::net::IpAddr;
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

use super::{Answers, LiveQueries, MAX_LIVE_QUERIES};

/// Queries and ends of queries on their way to one replica.
const ORDERS: usize = 4 * MAX_LIVE_QUERIES;
/// Answers on their way to one replica; each query keeps what does not fit for a while.
const OUTBOX: usize = 64;

/// The longest query that is passed on, and what is added to each.
const LONGEST: Duration = Duration::from_secs(600);
const GRACE: Duration = Duration::from_secs(5);
/// After this time without an answer a message says whether some were dropped meanwhile.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// What a querying replica sends.
pub(in crate::observe) trait LiveQueryMessages:
    Stream<Item = Result<v1::ReplicaAsk, Status>> + Unpin + Send + 'static
{
}

impl<S> LiveQueryMessages for S where
    S: Stream<Item = Result<v1::ReplicaAsk, Status>> + Unpin + Send + 'static
{
}

/// What a querying replica is sent.
pub(crate) type Passed = ReceiverStream<Result<v1::ReplicaAnswered, Status>>;

/// Passes queries on to another replica, and takes what its proxies answer, until the call
/// ends.
pub(in crate::observe) async fn pass_to(
    live_queries: &LiveQueries,
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
    let _joined = live_queries.joins(peer, orders);
    while let Some(answered) = answers.message().await? {
        live_queries.answered_elsewhere(peer, answered);
    }
    Ok(())
}

/// Queries this replica's proxies for another replica, until `stop` says true.
pub(in crate::observe) fn pass(
    live_queries: &LiveQueries,
    messages: impl LiveQueryMessages,
    stop: watch::Receiver<bool>,
) -> Passed {
    let (outbox, sent) = mpsc::channel(OUTBOX);
    let passing = keep_passing(live_queries.clone(), messages, outbox);
    runtime::task::spawn("asks of a replica", async move {
        tokio::select! {
            () = passing => {}
            () = stop::requested(stop) => {}
        }
    });
    ReceiverStream::new(sent)
}

async fn keep_passing(
    live_queries: LiveQueries,
    mut messages: impl LiveQueryMessages,
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
            Some(Message::Ask(request)) if open.len() < MAX_LIVE_QUERIES => {
                let lasts = request.ask.as_ref().map_or(0, |ask| ask.lasts);
                let lasts = Duration::from_millis(lasts).min(LONGEST);
                let Some((id, answers)) = live_queries.passed_on(request) else {
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
                live_queries.inner.too_many.inc();
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
