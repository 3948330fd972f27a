//! Live queries: sends users' queries to proxies and collects their responses.
//!
//! A query goes to the proxies that stream from this replica, and through the other replicas to
//! theirs. Responses wait for their client in a queue of its own, and what does not fit is dropped
//! and counted: neither a proxy nor a control stream ever waits for a client. When a client
//! leaves, its proxies get a command to stop.
//!
//! A response counts only for a pod that was queried; the certificate of the connection names the
//! pod.

pub(crate) mod config;
mod queues;
pub(crate) mod replicas;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use runtime::limit::Reached;
use runtime::rate::{Allowance, Rates};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use wire::v1;
use wire::v1::answered::What as Answered;
use wire::v1::ask::What as Question;
use wire::v1::replica_ask::Message as Passed;
use wire::v1::to_proxy::Message as Order;

pub(crate) use self::queues::{Orders, ProxyAnswer};
use self::queues::{QueuedBytes, ToOrders};
use crate::metrics::LiveQueryMetrics;

/// Queries of this replica's users at one time, and of each other replica's.
const MAX_LIVE_QUERIES: usize = 64;
/// Proxies of one query.
const MAX_PODS: usize = 512;
/// Answers to one query that wait for their reader.
const QUEUE: usize = 256;
/// Commands on their way to one proxy: eight queries may run there at a time, and each of them may
/// end.
const ORDERS: usize = 16;
/// Answers of one pod, to all queries or to none, by however many calls, and however often its
/// stream ends and begins.
const ANSWERS: Allowance = Allowance {
    burst: 2_000,
    every: Duration::from_micros(200),
};
/// Pods whose answers are counted at one time, each for as long as it has used something;
/// about 200 bytes each.
const MAX_ANSWERING: usize = 16 * 1024;

/// Shared by streams, replicas and readers. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct LiveQueries {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<LiveQueryState>,
    /// By uid of the pod.
    answering: Rates<Arc<str>>,
    /// Bytes of all answers that wait.
    waiting: Arc<AtomicUsize>,
    metrics: LiveQueryMetrics,
    /// Counts queries beyond the bound.
    too_many: Counter<u64, AtomicU64>,
}

#[derive(Debug, Default)]
struct LiveQueryState {
    /// Given last, to a query or a stream.
    last: u64,
    /// Proxies that stream from this replica and can be queried, by uid of their pods.
    proxies: HashMap<Arc<str>, Listening>,
    /// Other replicas that pass queries on.
    replicas: BTreeMap<IpAddr, Joining>,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Listening {
    number: u64,
    orders: ToOrders,
}

#[derive(Debug)]
struct Joining {
    number: u64,
    orders: mpsc::Sender<v1::ReplicaAsk>,
}

/// A query whose answers have a reader.
#[derive(Debug)]
struct Open {
    /// Pods whose proxies may answer.
    uids: BTreeSet<Arc<str>>,
    /// Of a user of this replica.
    own: bool,
    /// Other replicas were queried as well.
    elsewhere: bool,
    queue: mpsc::Sender<ProxyAnswer>,
    /// What found no room in it, or in that of another replica.
    dropped: Arc<AtomicU64>,
    /// What of that each other replica reported.
    dropped_elsewhere: BTreeMap<IpAddr, u64>,
    /// Bytes that wait in it.
    waiting: Arc<AtomicUsize>,
}

/// There are as many queries as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} questions to proxies are open on this replica; try again later",
    MAX_LIVE_QUERIES
)]
pub(crate) struct TooMany;

/// The answers to one query. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Answers {
    live_queries: LiveQueries,
    id: u64,
    queue: mpsc::Receiver<ProxyAnswer>,
    dropped: Arc<AtomicU64>,
}

impl Answers {
    /// The next one; `None` when no proxy has more to say.
    pub(crate) async fn next(&mut self) -> Option<ProxyAnswer> {
        self.queue.recv().await
    }

    /// The same for a reader of the answers to several.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<ProxyAnswer>> {
        self.queue.poll_recv(cx)
    }

    /// Answers that found no room, here or at a replica that passes them on.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.live_queries.end(self.id);
    }
}

/// A proxy, or another replica, can be queried for as long as this lives.
#[derive(Debug)]
pub(crate) struct LiveQueryRegistration {
    live_queries: LiveQueries,
    number: u64,
    whose: LiveQueryTarget,
}

#[derive(Debug)]
enum LiveQueryTarget {
    Proxy(Arc<str>),
    Replica(IpAddr),
}

impl Drop for LiveQueryRegistration {
    fn drop(&mut self) {
        let mut state = self.live_queries.inner.state.lock();
        match &self.whose {
            LiveQueryTarget::Proxy(uid) => {
                // A newer stream of the same pod stays.
                if state.proxies.get(uid).map(|registered| registered.number) == Some(self.number) {
                    state.proxies.remove(uid);
                    self.live_queries.away(&mut state, uid);
                }
            }
            LiveQueryTarget::Replica(peer) => {
                if state.replicas.get(peer).map(|registered| registered.number) == Some(self.number)
                {
                    state.replicas.remove(peer);
                }
            }
        }
    }
}

impl Default for LiveQueries {
    fn default() -> Self {
        Self::new(LiveQueryMetrics::default(), &Reached::default())
    }
}

impl LiveQueries {
    /// There is no query yet.
    pub(crate) fn new(metrics: LiveQueryMetrics, limits: &Reached) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                answering: Rates::new(ANSWERS, MAX_ANSWERING),
                waiting: Arc::default(),
                metrics,
                too_many: limits.counter("asks"),
            }),
        }
    }

    /// The proxy of this pod streams from this replica, and understands queries. Returns the
    /// commands for it.
    pub(crate) fn listens(&self, uid: Arc<str>) -> (LiveQueryRegistration, Orders) {
        let (orders, taken) = Orders::queue(ORDERS);
        let mut state = self.inner.state.lock();
        let number = state.next();
        let listening = Listening { number, orders };
        if state.proxies.insert(Arc::clone(&uid), listening).is_some() {
            // The queries of the older stream are not this one's.
            self.away(&mut state, &uid);
        }
        (self.here(number, LiveQueryTarget::Proxy(uid)), taken)
    }

    fn here(&self, number: u64, whose: LiveQueryTarget) -> LiveQueryRegistration {
        LiveQueryRegistration {
            live_queries: self.clone(),
            number,
            whose,
        }
    }

    /// Queries the proxies of these pods, wherever they stream. Those that cannot be queried send
    /// nothing.
    ///
    /// # Errors
    /// When there are too many queries already.
    pub(crate) fn query(
        &self,
        what: Question,
        uids: &[Arc<str>],
        lasts: Duration,
    ) -> Result<Answers, TooMany> {
        let mut state = self.inner.state.lock();
        if state.open.values().filter(|open| open.own).count() >= MAX_LIVE_QUERIES {
            self.inner.too_many.inc();
            return Err(TooMany);
        }
        Ok(self.open(&mut state, (what, lasts), uids, true))
    }

    /// Queries those of them that stream from this replica, and passes the query of a user of its
    /// own on.
    fn open(
        &self,
        state: &mut LiveQueryState,
        (what, lasts): (Question, Duration),
        uids: &[Arc<str>],
        passes_on: bool,
    ) -> Answers {
        let id = state.next();
        let ask = v1::Ask {
            id,
            lasts: u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX),
            what: Some(what),
        };
        let (mut reached, mut others) = (BTreeSet::new(), Vec::new());
        for uid in uids.iter().take(MAX_PODS) {
            match state.proxies.get(uid) {
                Some(proxy) if self.send(&proxy.orders, Box::new(Order::Ask(ask.clone()))) => {
                    reached.insert(Arc::clone(uid));
                }
                Some(_) => {}
                None => others.push(Arc::clone(uid)),
            }
        }
        let mut elsewhere = false;
        if passes_on && !others.is_empty() {
            let passed = v1::ReplicaAsk {
                message: Some(Passed::Ask(v1::PodsAsk {
                    ask: Some(ask),
                    uids: others.iter().map(ToString::to_string).collect(),
                })),
            };
            for replica in state.replicas.values() {
                elsewhere |= self.send(&replica.orders, passed.clone());
            }
        }
        if elsewhere {
            reached.extend(others);
        }
        let (queue, taken) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        if !reached.is_empty() {
            let open = Open {
                own: passes_on,
                uids: reached,
                elsewhere,
                queue,
                dropped: Arc::clone(&dropped),
                dropped_elsewhere: BTreeMap::new(),
                waiting: Arc::default(),
            };
            state.open.insert(id, open);
            self.shown(state);
        }
        Answers {
            live_queries: self.clone(),
            id,
            queue: taken,
            dropped,
        }
    }

    /// Gives an order; false, and counted, where there is no room for it.
    fn send<O>(&self, orders: &mpsc::Sender<O>, order: O) -> bool {
        let sent = orders.try_send(order);
        if matches!(sent, Err(TrySendError::Full(_))) {
            self.inner.metrics.orders_dropped.inc();
        }
        sent.is_ok()
    }

    /// Whether the proxy of a pod may answer once more, or how long it has to wait.
    pub(crate) fn may_answer(&self, uid: &Arc<str>, now: Instant) -> Result<(), Duration> {
        self.inner.answering.take(uid, now)
    }

    /// Takes what the proxy of a pod answers.
    pub(crate) fn answered(&self, uid: &str, answered: v1::Answered) {
        // A newer proxy may say more than this controller knows.
        let (id, size) = (answered.id, answered.encoded_len());
        let Some(what) = answered.what else { return };
        let state = self.inner.state.lock();
        if let Some(open) = state.open.get(&id) {
            self.put(open, uid, Some(what), size);
        }
    }

    /// Another replica passes queries on, in this call.
    fn joins(&self, peer: IpAddr, orders: mpsc::Sender<v1::ReplicaAsk>) -> LiveQueryRegistration {
        let mut state = self.inner.state.lock();
        let number = state.next();
        state.replicas.insert(peer, Joining { number, orders });
        self.here(number, LiveQueryTarget::Replica(peer))
    }

    /// Takes what a proxy of another replica answers.
    fn answered_elsewhere(&self, peer: IpAddr, answered: v1::ReplicaAnswered) {
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

    /// Queries this replica's proxies for another replica, and gives the id that the other replica
    /// knows the query by.
    fn passed_on(&self, request: v1::PodsAsk) -> Option<(u64, Answers)> {
        let ask = request.ask?;
        let uids: Vec<Arc<str>> = request.uids.into_iter().map(Arc::from).collect();
        let question = (ask.what?, Duration::from_millis(ask.lasts));
        let answers = self.open(&mut self.inner.state.lock(), question, &uids, false);
        Some((ask.id, answers))
    }

    fn put(&self, open: &Open, uid: &str, what: Option<Answered>, size: usize) {
        let Some(uid) = open.uids.get(uid) else {
            return;
        };
        let bytes = size + size_of::<ProxyAnswer>();
        let put =
            QueuedBytes::take(&open.waiting, &self.inner.waiting, bytes).is_some_and(|taken| {
                let answer = ProxyAnswer::new(Arc::clone(uid), what, taken);
                open.queue.try_send(answer).is_ok()
            });
        if !put {
            open.dropped.fetch_add(1, Ordering::Relaxed);
            self.inner.metrics.answers_dropped.inc();
        }
    }

    /// The stream of a pod's proxy has ended, and with it all of its queries.
    fn away(&self, state: &mut LiveQueryState, uid: &str) {
        let ids: Vec<u64> = state.open.keys().copied().collect();
        for id in ids {
            self.finish(state, id, uid);
        }
    }

    /// The proxy of a pod sends nothing more to a query, which is over with the last.
    fn finish(&self, state: &mut LiveQueryState, id: u64, uid: &str) {
        let Some(open) = state.open.get_mut(&id) else {
            return;
        };
        if !open.uids.contains(uid) {
            return;
        }
        self.put(open, uid, None, 0);
        open.uids.remove(uid);
        if open.uids.is_empty() {
            state.open.remove(&id);
            self.shown(state);
        }
    }

    /// This query has no reader any more.
    fn end(&self, id: u64) {
        let mut state = self.inner.state.lock();
        let Some(open) = state.open.remove(&id) else {
            return;
        };
        for uid in &open.uids {
            if let Some(proxy) = state.proxies.get(uid) {
                self.send(&proxy.orders, Box::new(Order::EndAsk(id)));
            }
        }
        if open.elsewhere {
            for replica in state.replicas.values() {
                let message = Some(Passed::EndAsk(id));
                self.send(&replica.orders, v1::ReplicaAsk { message });
            }
        }
        self.shown(&state);
    }

    /// Other replicas that pass queries on.
    #[cfg(test)]
    pub(crate) fn replicas(&self) -> usize {
        self.inner.state.lock().replicas.len()
    }

    fn shown(&self, state: &LiveQueryState) {
        let open = i64::try_from(state.open.len()).unwrap_or(i64::MAX);
        self.inner.metrics.open.set(open);
    }
}

impl LiveQueryState {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}
