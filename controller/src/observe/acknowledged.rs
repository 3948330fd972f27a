//! The acknowledgements of all proxies, those of this replica and those that the others send.
//!
//! Each replica has the proxies whose streams it serves and gets the rest from its peers, so that
//! each can report for the whole mesh. The same facts show which destinations a workload uses, so
//! that its new pods get them before they subscribe.
//!
//! A pod that moves from one replica to another is known to both for a moment: the replica that
//! holds its stream is right, and among peers the one that reported last.
//!
//! A proxy whose stream ended keeps its configuration. So what it had acknowledged still counts
//! until its pod is gone, and it lacks later changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::{Model, PodId};
use parking_lot::Mutex;
use policy::name::ObjectRef;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::Instant;
use wire::v1;

use super::acknowledgements::{Acknowledgements, OwnStream};
pub(crate) use super::acknowledgements::{Consumer, ExternalNames, ReplicaStep};
use crate::metrics::ObservedMetrics;
use crate::settings::caps::Caps;

mod authority;

/// Ended streams that a peer may still have to receive; a peer that is further behind gets
/// everything anew.
const MAX_ENDED: usize = 4096;
/// Proxies in one message to a peer.
const CHUNK: usize = 200;
/// Proxies come back to a controller that has just started within this time. Until all have, or it
/// has passed, it is not known whether a Service has callers.
const RETURN: Duration = Duration::from_secs(60);
/// Encoded bytes of one, unless a single proxy has more. A peer takes 64 MiB.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Shared by streams, peers, status and `/acks`. Clones are the same state.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<Acknowledgements>,
    /// Counts changes of this replica's own streams.
    own: watch::Sender<u64>,
    /// Counts all changes.
    all: watch::Sender<u64>,
    /// Hosts outside the mesh that proxies have subscribed to.
    external: watch::Sender<Arc<ExternalNames>>,
    /// When all proxies must have come back to this replica.
    returned: Instant,
    /// Pods whose proxies ran when it first looked: those that have to come back.
    returning: OnceLock<Vec<PodId>>,
    metrics: ObservedMetrics,
}

/// How many of the proxies that need an object have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Proxies that need the object.
    pub needed: usize,
    /// Proxies that acknowledged everything made of it.
    pub acknowledged: usize,
    /// Pod and reason of one proxy that could not use it.
    pub nack: Option<(String, String)>,
    /// Pods whose proxies are too old for something made of it.
    pub too_old: Vec<String>,
    /// Fields of the object that some of those do not carry out.
    pub lacks: BTreeSet<String>,
    /// Pods whose proxies need it, lack it, and are not connected.
    pub away: Vec<String>,
    /// Proxies that ran before this controller started and have not connected since, where they may
    /// need the object as callers. What they call is not known.
    pub unheard: usize,
    /// Accounts are known to have called it, whether or not a pod of theirs runs now.
    pub was_called: bool,
}

impl Default for Observed {
    fn default() -> Self {
        Self::new(ObservedMetrics::default(), Caps::default().destinations)
    }
}

/// `namespace/pod`, the key of everything here.
pub(crate) fn pod_key(state: &v1::ProxyState) -> String {
    format!("{}/{}", state.namespace, state.pod)
}

impl Observed {
    /// Knows no proxy yet, and will keep at most this many destinations of workloads.
    pub(crate) fn new(metrics: ObservedMetrics, destinations: usize) -> Self {
        // 0 requests everything, so the first revision is 1.
        let state = Acknowledgements {
            revision: 1,
            max_retained: destinations,
            ..Acknowledgements::default()
        };
        Self {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                own: watch::Sender::new(0),
                all: watch::Sender::new(0),
                external: watch::Sender::new(Arc::default()),
                returned: Instant::now() + RETURN,
                returning: OnceLock::new(),
                metrics,
            }),
        }
    }

    /// One whose controller has run for long.
    #[cfg(test)]
    pub(crate) fn settled() -> Self {
        let mut observed = Self::default();
        let inner = Arc::get_mut(&mut observed.inner).unwrap();
        inner.returned = Instant::now();
        observed
    }

    /// What is known of a pod's proxy, and whether some replica serves it.
    pub(crate) fn proxy(&self, pod: &PodId) -> Option<(bool, v1::ProxyState)> {
        let key = pod.to_string();
        let state = self.inner.state.lock();
        let peers = || state.peers.values().find_map(|current| current.get(&key));
        let live = state.own.get(&key).map(|own| &own.state).or_else(peers);
        if let Some(live) = live {
            return Some((true, live.clone()));
        }
        state.away.get(&key).map(|last| (false, last.clone()))
    }

    /// Whether some replica serves a pod's proxy. Until all proxies have come back to a replica that
    /// has just started, none counts as lost.
    pub(crate) fn is_connected(&self, pod: &PodId) -> bool {
        if Instant::now() < self.inner.returned {
            return true;
        }
        let state = self.inner.state.lock();
        let known = state.of_pod.get(&pod.to_string());
        known.is_some_and(|known| known.live)
    }

    /// For how long a proxy that is served has lacked something that it needs.
    pub(crate) fn behind(&self, pod: &PodId) -> Option<Duration> {
        let key = pod.to_string();
        let state = self.inner.state.lock();
        let objects = state.of_pod.get(&key)?.objects.iter();
        let needs = objects.filter_map(|object| state.objects.get(object)?.get(key.as_str()));
        let since = needs.filter_map(|needs| needs.since).min()?;
        Some(since.elapsed())
    }

    /// Changes of this replica's own streams; for peers.
    pub(crate) fn own_changes(&self) -> watch::Receiver<u64> {
        self.inner.own.subscribe()
    }

    /// All changes; for status and `/acks`.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.all.subscribe()
    }

    /// Hosts outside the mesh that proxies of all replicas have subscribed to.
    pub(crate) fn external_names(&self) -> watch::Receiver<Arc<ExternalNames>> {
        self.inner.external.subscribe()
    }

    /// Notes what a proxy on this replica has. `stream` grows with time.
    pub(crate) fn note(&self, stream: u64, state: v1::ProxyState) {
        let key = pod_key(&state);
        self.change(true, |inner| {
            if let Some(current) = inner.own.get(&key)
                && (current.stream > stream || current.state == state)
            {
                return false;
            }
            inner.revision += 1;
            inner.retain_used(&state, &self.inner.metrics);
            let revision = inner.revision;
            let own = OwnStream {
                revision,
                stream,
                state,
            };
            inner.own.insert(key.clone(), own);
            inner.merge(&key, None, Instant::now(), &self.inner.metrics);
            true
        });
    }

    /// Notes that a stream ended. A newer stream of the same pod stays.
    pub(crate) fn ended(&self, stream: u64, key: &str) {
        self.change(true, |inner| {
            let current = inner.own.get(key);
            if current.is_none_or(|current| current.stream != stream) {
                return false;
            }
            let last = inner.own.remove(key).map(|own| own.state);
            inner.revision += 1;
            inner.ended.insert(inner.revision, key.to_owned());
            while inner.ended.len() > MAX_ENDED {
                if let Some((revision, _)) = inner.ended.pop_first() {
                    inner.floor = revision;
                }
            }
            inner.merge(key, last, Instant::now(), &self.inner.metrics);
            true
        });
    }

    /// Takes in what a peer says.
    pub(crate) fn receive(&self, peer: IpAddr, news: v1::Observed) {
        self.change(false, |inner| {
            let has_stepped = inner.note_step(peer, &news, Instant::now());
            // Each with its state so far, if that is not what the peer says now.
            let mut touched: BTreeMap<String, Option<v1::ProxyState>> = BTreeMap::new();
            let current = inner.peers.entry(peer).or_default();
            if news.full {
                let current = std::mem::take(current).into_iter();
                touched.extend(current.map(|(key, state)| (key, Some(state))));
            }
            for key in news.gone {
                if let Some(last) = current.remove(&key) {
                    touched.insert(key, Some(last));
                }
            }
            for state in &news.proxies {
                touched.insert(pod_key(state), None);
                current.insert(pod_key(state), state.clone());
            }
            for state in &news.proxies {
                inner.retain_used(state, &self.inner.metrics);
                // The peer that spoke last holds the stream.
                let key = pod_key(state);
                for (other, states) in &mut inner.peers {
                    if *other != peer {
                        states.remove(&key);
                    }
                }
            }
            let changed = !touched.is_empty() || has_stepped;
            for (key, last) in touched {
                inner.merge(&key, last, Instant::now(), &self.inner.metrics);
            }
            changed
        });
    }

    /// Forgets a peer that is gone.
    pub(crate) fn lost(&self, peer: IpAddr) {
        self.change(false, |inner| {
            if let Some(step) = inner.replicas.as_mut().and_then(|all| all.get_mut(&peer)) {
                *step = ReplicaStep::Unheard;
            }
            let Some(current) = inner.peers.remove(&peer) else {
                return false;
            };
            for (key, last) in current {
                inner.merge(&key, Some(last), Instant::now(), &self.inner.metrics);
            }
            true
        });
    }

    /// Forgets the proxies without a stream whose pods are gone.
    pub(crate) fn forget_gone(&self, model: &Model) {
        self.change(false, |inner| {
            let gone = |(key, state): (&String, &v1::ProxyState)| {
                let uid = pod_id(key).and_then(|pod| model.running_uid(&pod).cloned());
                let same = uid.is_some_and(|uid| state.uid.is_empty() || *uid == *state.uid);
                (!same).then(|| key.clone())
            };
            let gone: Vec<String> = inner.away.iter().filter_map(gone).collect();
            for key in &gone {
                inner.away.remove(key);
                inner.merge(key, None, Instant::now(), &self.inner.metrics);
            }
            !gone.is_empty()
        });
    }

    /// What changed among this replica's own streams after `since`, in messages
    /// of bounded size, and the revision that they lead to. `since` 0 and one
    /// too old to tell the difference give everything.
    pub(crate) fn own_since(&self, since: u64) -> (u64, Vec<v1::Observed>) {
        let state = self.inner.state.lock();
        let full = since == 0 || since < state.floor;
        let from = if full { 0 } else { since };
        let fresh: Vec<v1::ProxyState> = state
            .own
            .values()
            .filter(|own| full || own.revision > from)
            .map(|own| own.state.clone())
            .collect();
        let gone: Vec<String> = state
            .ended
            .range(from + 1..)
            .map(|(_, key)| key)
            .filter(|key| !full && !state.own.contains_key(*key))
            .cloned()
            .collect();
        let mut messages: Vec<v1::Observed> = Vec::new();
        let mut bytes = 0;
        for proxy in fresh {
            let more = proxy.encoded_len();
            match messages.last_mut() {
                Some(last) if last.proxies.len() < CHUNK && bytes + more <= CHUNK_BYTES => {
                    bytes += more;
                    last.proxies.push(proxy);
                }
                _ => {
                    bytes = more;
                    messages.push(v1::Observed {
                        proxies: vec![proxy],
                        ..v1::Observed::default()
                    });
                }
            }
        }
        let serves = state.serves.as_ref();
        let serves = serves.filter(|(revision, _)| full || *revision > from);
        if messages.is_empty() && (full || !gone.is_empty() || serves.is_some()) {
            messages.push(v1::Observed::default());
        }
        if let Some(first) = messages.first_mut() {
            first.full = full;
            first.gone = gone;
            // That it reports steps at all.
            first.authority = serves.map(|_| v1::AuthorityStep::default());
        }
        // The proxies that had connected before the step are received before it.
        if let Some(last) = messages.last_mut() {
            last.authority = serves.map(|(_, step)| step.clone());
        }
        (state.revision, messages)
    }

    /// How far an object's `generation` has come. It is needed by the pods that it protects, those
    /// that have a destination which leads to it, those of workloads with such a persisted
    /// destination that have not connected yet, and those that name it themselves.
    pub(crate) fn tally(&self, model: &Model, object: &ObjectRef, generation: i64) -> Tally {
        let protected = model.protected_by(object);
        let through = model.called_through(object);
        let state = self.inner.state.lock();
        let states = state.objects.get(object);
        let live = |pod: &str| state.of_pod.get(pod).is_some_and(|known| known.live);

        let mut needed: BTreeSet<Arc<str>> = BTreeSet::new();
        let speakers = states.into_iter().flat_map(BTreeMap::keys);
        needed.extend(speakers.filter(|pod| live(pod)).cloned());
        let unheard = |pod: &PodId| state.known(pod, model).is_none();
        needed.extend(protected.iter().map(|pod| pod.to_string().into()));
        for name in &through {
            let callers = state.callers.get(name.as_str()).into_iter().flatten();
            let here = |pod: &str| live(pod) || runs(model, pod);
            let gets = |namespace: &str| model.reaches(object, namespace, name);
            let of_pod = |pod: &str| pod_id(pod).is_some_and(|pod| gets(&pod.namespace));
            let callers = callers.filter(|pod| here(pod) && of_pod(pod));
            needed.extend(callers.cloned());
            let users = state.users.get(name.as_str()).into_iter().flatten();
            for (namespace, account) in users.filter(|(namespace, _)| gets(namespace)) {
                let pods = model.running_pods_of(namespace, account).iter();
                needed.extend(
                    pods.filter(|pod| unheard(pod))
                        .map(|pod| pod.to_string().into()),
                );
            }
        }

        let was_called = |name: &String| state.users.contains_key(name.as_str());
        let mut tally = Tally {
            needed: needed.len(),
            was_called: through.iter().any(was_called),
            ..Tally::default()
        };
        for pod in needed {
            let live = live(&pod);
            let known = live || pod_id(&pod).is_some_and(|pod| !unheard(&pod));
            let needs = states.and_then(|states| states.get(&pod)).filter(|_| known);
            match needs.filter(|needs| needs.generation >= generation) {
                Some(needs) => {
                    tally.acknowledged += usize::from(needs.acknowledged);
                    if tally.nack.is_none() && !needs.nack.is_empty() {
                        tally.nack = Some((pod.to_string(), needs.nack.clone()));
                    }
                    if !live && !needs.acknowledged {
                        tally.away.push(pod.to_string());
                    } else if needs.too_old {
                        tally.too_old.push(pod.to_string());
                        tally.lacks.extend(needs.lacks.iter().cloned());
                    }
                }
                None if !live => tally.away.push(pod.to_string()),
                None => {}
            }
        }
        if Instant::now() < self.inner.returned {
            let all = || model.running_pods().cloned().collect();
            let returning = self.inner.returning.get_or_init(all).iter();
            let there = |pod: &&PodId| model.running_uid(pod).is_some() && unheard(pod);
            if !through.is_empty() {
                tally.unheard = returning.filter(there).count();
            }
        }
        tally
    }

    /// When all proxies must have come back to this controller.
    pub(crate) fn complete_at(&self) -> Instant {
        self.inner.returned
    }

    /// Objects that some proxy's answer touched since this reader's last call; `None`
    /// when they were too many to remember.
    pub(crate) fn take_touched(&self, consumer: Consumer) -> Option<BTreeSet<ObjectRef>> {
        let [record, status] = &mut self.inner.state.lock().touched;
        std::mem::take(match consumer {
            Consumer::Record => record,
            Consumer::Status => status,
        })
        .0
    }

    /// Destinations that pods of a workload have requested.
    pub(crate) fn retained(&self, namespace: &str, service_account: &str) -> Vec<String> {
        let workload = (namespace.to_owned(), service_account.to_owned());
        let state = self.inner.state.lock();
        let workload = state.retained.get(&workload).into_iter();
        let names = workload.flat_map(|current| current.names.keys());
        names.map(|name| name.to_string()).collect()
    }

    /// Streams of this replica, and proxies known through peers.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.inner.state.lock();
        let of_peers = state.peers.values().map(BTreeMap::len).sum();
        (state.own.len(), of_peers)
    }

    fn change(&self, own: bool, change: impl FnOnce(&mut Acknowledgements) -> bool) {
        let mut state = self.inner.state.lock();
        let changed = change(&mut state);
        if std::mem::take(&mut state.external_changed) {
            // Before the lock is given back, so that the newest comes last.
            let names = Arc::new(state.external.clone());
            self.inner.external.send_replace(names);
        }
        drop(state);
        if changed {
            self.inner.all.send_modify(|count| *count += 1);
            if own {
                self.inner.own.send_modify(|count| *count += 1);
            }
        }
    }
}

/// The pod of a key.
fn pod_id(key: &str) -> Option<PodId> {
    let (namespace, name) = key.split_once('/')?;
    Some(PodId::new(namespace, name))
}

fn runs(model: &Model, key: &str) -> bool {
    pod_id(key).is_some_and(|pod| model.running_uid(&pod).is_some())
}

#[cfg(test)]
mod tests;
