//! What the proxies have acknowledged, as this replica and the others saw it.
//!
//! Each replica knows the proxies that stream from it and hears about the rest
//! from its peers, so that each can answer for the whole mesh. The same facts
//! tell which destinations a workload uses, so that its new pods get them
//! before they ask.
//!
//! A pod that moves from one replica to another is known to both for a moment:
//! the replica that holds its stream is right, and among peers the one that
//! spoke last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::name::ObjectRef;
use prost::Message as _;
use tokio::sync::watch;
use wire::v1;

/// Destinations that are remembered per workload; the longest unused goes first.
pub const MAX_REMEMBERED: usize = 512;
/// Workloads with remembered destinations.
const MAX_WORKLOADS: usize = 10_000;
/// Ended streams that a peer may still have to hear of; a peer that is further
/// behind gets everything anew.
const MAX_GONE: usize = 4096;
/// Proxies in one message to a peer.
const CHUNK: usize = 200;
/// Encoded bytes of one, unless a single proxy has more. A peer takes 64 MiB.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Who takes notice of touched objects, each for itself.
#[derive(Clone, Copy, Debug)]
pub enum Reader {
    /// The record of acknowledgements.
    Record,
    /// The writer of statuses.
    Status,
}

/// How many [`Reader`]s there are.
const READERS: usize = 2;
/// Touched objects that wait for a reader, such as one that does not hold the Lease.
/// Above this it is told to look at everything.
const MAX_TOUCHED: usize = 20_000;

/// Objects by name, unless there are too many.
#[derive(Debug)]
struct Touched(Option<BTreeSet<ObjectRef>>);

impl Default for Touched {
    fn default() -> Self {
        Self(Some(BTreeSet::new()))
    }
}

/// Shared by streams, peers, status and `/acks`. Clones are the same state.
#[derive(Clone, Debug)]
pub struct Observed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Counts changes of this replica's own streams.
    own: watch::Sender<u64>,
    /// Counts all changes.
    all: watch::Sender<u64>,
}

/// How many of the proxies that need an object have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Proxies that need the object.
    pub needed: usize,
    /// Proxies that acknowledged everything made of it.
    pub acknowledged: usize,
    /// Pod and reason of one proxy that could not use it.
    pub nack: Option<(String, String)>,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    /// Streams of this replica by `namespace/pod`.
    own: BTreeMap<String, Own>,
    /// Pods whose stream ended, by the revision at which it did.
    gone: BTreeMap<u64, String>,
    /// Oldest revision from which a difference can still be told.
    floor: u64,
    peers: HashMap<IpAddr, BTreeMap<String, v1::ProxyState>>,
    /// Who says what about an object, merged: object to pod to state.
    objects: HashMap<ObjectRef, BTreeMap<String, Needs>>,
    /// The objects under which a pod stands there.
    of_pod: HashMap<String, Vec<ObjectRef>>,
    /// Objects whose tally may have changed since they were last taken, by who takes
    /// them; `None` once there are more than [`MAX_TOUCHED`].
    touched: [Touched; READERS],
    remembered: HashMap<Workload, BTreeMap<String, u64>>,
}

type Workload = (String, String);

#[derive(Debug)]
struct Own {
    revision: u64,
    /// The stream that wrote it: a newer stream of the same pod takes over.
    stream: u64,
    state: v1::ProxyState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Needs {
    generation: i64,
    acknowledged: bool,
    nack: String,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                // 0 asks for everything, so the first revision is 1.
                state: Mutex::new(State {
                    revision: 1,
                    ..State::default()
                }),
                own: watch::Sender::new(0),
                all: watch::Sender::new(0),
            }),
        }
    }
}

/// `namespace/pod`, the key of everything here.
pub fn pod_key(state: &v1::ProxyState) -> String {
    format!("{}/{}", state.namespace, state.pod)
}

impl Observed {
    /// Changes of this replica's own streams; for peers.
    pub fn own_changes(&self) -> watch::Receiver<u64> {
        self.inner.own.subscribe()
    }

    /// All changes; for status and `/acks`.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.all.subscribe()
    }

    /// Notes what a proxy on this replica has. `stream` grows with time.
    pub fn note(&self, stream: u64, state: v1::ProxyState) {
        let key = pod_key(&state);
        self.change(true, |inner| {
            if let Some(held) = inner.own.get(&key)
                && (held.stream > stream || held.state == state)
            {
                return false;
            }
            inner.revision += 1;
            inner.remember(&state);
            let revision = inner.revision;
            inner.own.insert(
                key.clone(),
                Own {
                    revision,
                    stream,
                    state,
                },
            );
            inner.merge(&key);
            true
        });
    }

    /// Notes that a stream ended. A newer stream of the same pod stays.
    pub fn ended(&self, stream: u64, key: &str) {
        self.change(true, |inner| {
            if inner.own.get(key).is_none_or(|held| held.stream != stream) {
                return false;
            }
            inner.own.remove(key);
            inner.revision += 1;
            inner.gone.insert(inner.revision, key.to_owned());
            while inner.gone.len() > MAX_GONE {
                if let Some((revision, _)) = inner.gone.pop_first() {
                    inner.floor = revision;
                }
            }
            inner.merge(key);
            true
        });
    }

    /// Takes in what a peer says.
    pub fn heard(&self, peer: IpAddr, news: v1::Observed) {
        self.change(false, |inner| {
            let mut touched: BTreeSet<String> = BTreeSet::new();
            let held = inner.peers.entry(peer).or_default();
            if news.full {
                touched.extend(std::mem::take(held).into_keys());
            }
            for key in news.gone {
                held.remove(&key);
                touched.insert(key);
            }
            for state in &news.proxies {
                touched.insert(pod_key(state));
                held.insert(pod_key(state), state.clone());
            }
            for state in &news.proxies {
                inner.remember(state);
                // The peer that spoke last holds the stream.
                let key = pod_key(state);
                for (other, states) in &mut inner.peers {
                    if *other != peer {
                        states.remove(&key);
                    }
                }
            }
            for key in &touched {
                inner.merge(key);
            }
            !touched.is_empty()
        });
    }

    /// Forgets a peer that is gone.
    pub fn lost(&self, peer: IpAddr) {
        self.change(false, |inner| {
            let Some(held) = inner.peers.remove(&peer) else {
                return false;
            };
            held.keys().for_each(|key| inner.merge(key));
            true
        });
    }

    /// What changed among this replica's own streams after `since`, in messages
    /// of bounded size, and the revision that they lead to. `since` 0 and one
    /// too old to tell the difference give everything.
    pub fn own_since(&self, since: u64) -> (u64, Vec<v1::Observed>) {
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
            .gone
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
        if messages.is_empty() && (full || !gone.is_empty()) {
            messages.push(v1::Observed::default());
        }
        if let Some(first) = messages.first_mut() {
            first.full = full;
            first.gone = gone;
        }
        (state.revision, messages)
    }

    /// How far an object's `generation` has come.
    pub fn tally(&self, object: &ObjectRef, generation: i64) -> Tally {
        let state = self.inner.state.lock();
        let mut tally = Tally::default();
        for (pod, needs) in state.objects.get(object).into_iter().flatten() {
            tally.needed += 1;
            if needs.generation < generation {
                continue;
            }
            tally.acknowledged += usize::from(needs.acknowledged);
            if tally.nack.is_none() && !needs.nack.is_empty() {
                tally.nack = Some((pod.clone(), needs.nack.clone()));
            }
        }
        tally
    }

    /// Objects that some proxy's answer touched since this reader's last call; `None`
    /// when they were too many to remember.
    pub fn take_touched(&self, reader: Reader) -> Option<BTreeSet<ObjectRef>> {
        let [record, status] = &mut self.inner.state.lock().touched;
        std::mem::take(match reader {
            Reader::Record => record,
            Reader::Status => status,
        })
        .0
    }

    /// Destinations that pods of a workload have asked for.
    pub fn remembered(&self, namespace: &str, service_account: &str) -> Vec<String> {
        let workload = (namespace.to_owned(), service_account.to_owned());
        let state = self.inner.state.lock();
        let names = state.remembered.get(&workload).into_iter().flatten();
        names.map(|(name, _)| name.clone()).collect()
    }

    /// Streams of this replica, and proxies known through peers.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.inner.state.lock();
        (
            state.own.len(),
            state.peers.values().map(BTreeMap::len).sum(),
        )
    }

    fn change(&self, own: bool, change: impl FnOnce(&mut State) -> bool) {
        let changed = change(&mut self.inner.state.lock());
        if changed {
            self.inner.all.send_modify(|count| *count += 1);
            if own {
                self.inner.own.send_modify(|count| *count += 1);
            }
        }
    }
}

impl State {
    /// Puts what is now believed about a pod into the index by object.
    fn merge(&mut self, key: &str) {
        let believed = match self.own.get(key) {
            Some(own) => Some(&own.state),
            None => self.peers.values().find_map(|states| states.get(key)),
        };
        let mut now: BTreeMap<ObjectRef, Needs> = BTreeMap::new();
        for object in believed.into_iter().flat_map(|state| &state.objects) {
            let Some(name) = object
                .object
                .as_ref()
                .and_then(|name| ObjectRef::try_from(name).ok())
            else {
                continue;
            };
            let needs = Needs {
                generation: object.needed,
                acknowledged: object.acknowledged,
                nack: object.nack.clone(),
            };
            now.insert(name, needs);
        }
        for object in self.of_pod.remove(key).into_iter().flatten() {
            if now.contains_key(&object) {
                continue;
            }
            if let Some(pods) = self.objects.get_mut(&object) {
                pods.remove(key);
                if pods.is_empty() {
                    self.objects.remove(&object);
                }
            }
            self.touch(&object);
        }
        if !now.is_empty() {
            let objects = now.keys().cloned().collect();
            self.of_pod.insert(key.to_owned(), objects);
        }
        for (object, needs) in now {
            let pods = self.objects.entry(object.clone()).or_default();
            if pods.get(key) != Some(&needs) {
                pods.insert(key.to_owned(), needs);
                self.touch(&object);
            }
        }
    }

    fn touch(&mut self, object: &ObjectRef) {
        for Touched(touched) in &mut self.touched {
            if let Some(objects) = touched {
                objects.insert(object.clone());
                if objects.len() > MAX_TOUCHED {
                    *touched = None;
                }
            }
        }
    }

    fn remember(&mut self, state: &v1::ProxyState) {
        if state.destinations.is_empty() {
            return;
        }
        let workload = (state.namespace.clone(), state.service_account.clone());
        if !self.remembered.contains_key(&workload) && self.remembered.len() >= MAX_WORKLOADS {
            return;
        }
        let now = self.revision;
        let names = self.remembered.entry(workload).or_default();
        for name in &state.destinations {
            names.insert(name.clone(), now);
        }
        while names.len() > MAX_REMEMBERED {
            let oldest = names
                .iter()
                .min_by_key(|(_, used)| **used)
                .map(|(name, _)| name.clone());
            match oldest {
                Some(name) => names.remove(&name),
                None => break,
            };
        }
    }
}

#[cfg(test)]
#[path = "observed/tests.rs"]
mod tests;
