//! Indexes acknowledged versions by object, pod and destination, and the destinations that a
//! workload uses.
//!
//! A data structure without a lock and without a clock: `acknowledged` decides what to write into
//! it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use model::{Model, PodId};
use policy::name::ObjectRef;
use tokio::time::Instant;
use wire::v1;

use crate::metrics::ObservedMetrics;

/// Destinations that are remembered per workload; the longest unused goes first.
pub(crate) const MAX_RETAINED: usize = 512;
/// Workloads with remembered destinations.
const MAX_WORKLOADS: usize = 10_000;
/// Proxies without a stream whose last state is kept until their pods are gone: as many
/// as two replicas of the largest size serve. Of one that does not fit, nothing is known
/// but its pod, so that it lacks everything.
const MAX_AWAY: usize = 16_384;
/// The consumers of touched objects, each for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Consumer {
    /// The record of acknowledgements.
    Record,
    /// The writer of statuses.
    Status,
}

/// How many [`Consumer`]s there are.
const CONSUMERS: usize = 2;
/// Touched objects that wait for a consumer, such as one that does not hold the Lease. Above this
/// its next look is at everything.
const MAX_TOUCHED: usize = 20_000;

/// Objects by name, unless there are too many.
#[derive(Debug)]
pub(super) struct Touched(pub(super) Option<BTreeSet<ObjectRef>>);

impl Default for Touched {
    fn default() -> Self {
        Self(Some(BTreeSet::new()))
    }
}

#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    pub(super) revision: u64,
    /// Streams of this replica by `namespace/pod`.
    pub(super) own: BTreeMap<String, OwnStream>,
    /// Pods whose stream ended, by the revision at which it did.
    pub(super) ended: BTreeMap<u64, String>,
    /// Oldest revision from which a difference can still be computed.
    pub(super) floor: u64,
    pub(super) peers: HashMap<IpAddr, BTreeMap<String, v1::ProxyState>>,
    /// What this replica serves of the certificate authority, and the revision of that.
    pub(super) serves: Option<(u64, v1::AuthorityStep)>,
    /// The same of the others, once it is known which there are.
    pub(super) replicas: Option<BTreeMap<IpAddr, ReplicaStep>>,
    /// Last states of proxies without a stream.
    pub(super) away: HashMap<String, v1::ProxyState>,
    /// Which pods report what about an object, merged: object to pod to state.
    pub(super) objects: HashMap<ObjectRef, BTreeMap<Arc<str>, ObjectProgress>>,
    /// What was last believed of a pod.
    pub(super) of_pod: HashMap<String, Believed>,
    /// The pods that have a destination.
    pub(super) callers: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// The same of hosts outside the mesh alone, which have to be resolved.
    pub(super) external: ExternalNames,
    /// Whether that is not what it was when it was last taken.
    pub(super) external_changed: bool,
    /// The workloads that remember a destination.
    pub(super) users: HashMap<Arc<str>, BTreeSet<Workload>>,
    /// Objects whose tally may have changed since they were last taken, by consumer; `None` once
    /// there are more than [`MAX_TOUCHED`].
    pub(super) touched: [Touched; CONSUMERS],
    pub(super) retained: HashMap<Workload, RetainedDestinations>,
    /// Destinations in `retained`, and how many there may be.
    pub(super) destinations: usize,
    pub(super) max_retained: usize,
}

/// The destinations of one workload, each with the revision at which it was last used.
#[derive(Debug, Default)]
pub(super) struct RetainedDestinations {
    pub(super) used: u64,
    pub(super) names: BTreeMap<Arc<str>, u64>,
}

/// What is believed of a pod's proxy.
#[derive(Debug, Default)]
pub(super) struct Believed {
    /// Some replica serves it.
    pub(super) live: bool,
    /// Of the pod; empty if it came from a replica of an older version.
    pub(super) uid: Arc<str>,
    /// The objects under which it stands.
    pub(super) objects: Vec<ObjectRef>,
    /// The destinations under which it stands.
    pub(super) destinations: Vec<Arc<str>>,
}

/// What another replica serves of the certificate authority.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ReplicaStep {
    /// It has not been reached.
    Unheard,
    /// Its version does not report it.
    Former,
    Serves {
        step: v1::AuthorityStep,
        /// When it was reported first.
        since: Instant,
    },
}

pub(super) type Workload = (String, String);

/// Names of endpoints resources of hosts outside the mesh, `external/HOST:PORT`, each with the pods
/// whose proxies have subscribed to it.
pub(crate) type ExternalNames = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

#[derive(Debug)]
pub(super) struct OwnStream {
    pub(super) revision: u64,
    /// The stream that wrote it: a newer stream of the same pod takes over.
    pub(super) stream: u64,
    pub(super) state: v1::ProxyState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectProgress {
    pub(super) generation: i64,
    pub(super) acknowledged: bool,
    pub(super) nack: String,
    pub(super) too_old: bool,
    /// Fields that the proxy does not carry out.
    pub(super) lacks: Vec<String>,
    /// Since when a proxy with a stream has lacked it, whichever generation: one that is
    /// always behind a growing generation is behind.
    pub(super) since: Option<Instant>,
}

impl Acknowledgements {
    /// Notes what a replica serves. True if that is news.
    pub(super) fn note_step(&mut self, peer: IpAddr, news: &v1::Observed, at: Instant) -> bool {
        let replicas = self.replicas.as_mut();
        let Some(known) = replicas.and_then(|replicas| replicas.get_mut(&peer)) else {
            return false;
        };
        let reported = match (&news.authority, news.full) {
            (Some(step), _) => {
                let since = match known {
                    ReplicaStep::Serves {
                        step: before,
                        since,
                    } if before.step == step.step => *since,
                    _ => at,
                };
                ReplicaStep::Serves {
                    step: step.clone(),
                    since,
                }
            }
            (None, true) => ReplicaStep::Former,
            (None, false) => return false,
        };
        let is_news = *known != reported;
        *known = reported;
        is_news
    }

    /// Puts what is believed about a pod at this moment into the indices. `last`: what was,
    /// if its stream has just ended somewhere.
    pub(super) fn merge(
        &mut self,
        key: &str,
        last: Option<v1::ProxyState>,
        at: Instant,
        metrics: &ObservedMetrics,
    ) {
        let own = self.own.get(key).map(|own| &own.state);
        let peers = || self.peers.values().find_map(|states| states.get(key));
        let live = own.or_else(peers);
        let is_live = live.is_some();
        self.note_away(key, is_live, last, metrics);
        let own = self.own.get(key).map(|own| &own.state);
        let peers = || self.peers.values().find_map(|states| states.get(key));
        let believed = own.or_else(peers).or_else(|| self.away.get(key));

        let now = believed.map(needs).unwrap_or_default();
        let fresh = believed.map(|state| {
            let all = state.destinations.iter().chain(&state.given);
            let all: BTreeSet<&str> = all.map(String::as_str).collect();
            let shared = |name: &str| match self.callers.get_key_value(name) {
                Some((entry, _)) => Arc::clone(entry),
                None => Arc::from(name),
            };
            Believed {
                live: is_live,
                uid: state.uid.as_str().into(),
                objects: now.keys().cloned().collect(),
                destinations: all.into_iter().map(shared).collect(),
            }
        });

        let before = self.of_pod.remove(key).unwrap_or_default();
        let moved = before.live != is_live;
        for object in &before.objects {
            if !now.contains_key(object) {
                self.needs_no_more(key, object);
            }
        }
        let pod: Arc<str> = key.into();
        let destinations = fresh.as_ref().map_or(&[][..], |fresh| &fresh.destinations);
        self.index_destinations(&pod, &before.destinations, destinations);
        if let Some(fresh) = fresh {
            self.of_pod.insert(key.to_owned(), fresh);
        }
        for (object, mut needs) in now {
            let pods = self.objects.entry(object.clone()).or_default();
            let entry = pods.get(key);
            if is_live && !needs.acknowledged {
                needs.since = entry.and_then(|entry| entry.since).or(Some(at));
            }
            if moved || entry != Some(&needs) {
                pods.insert(Arc::clone(&pod), needs);
                self.touch(&object);
            }
        }
    }

    /// Keeps what was last said of a pod whose stream has ended, as long as there is room.
    fn note_away(
        &mut self,
        key: &str,
        is_live: bool,
        last: Option<v1::ProxyState>,
        metrics: &ObservedMetrics,
    ) {
        if is_live {
            self.away.remove(key);
        } else if let Some(last) = last {
            if self.away.len() < MAX_AWAY || self.away.contains_key(key) {
                self.away.insert(key.to_owned(), last);
            } else {
                metrics.away_forgotten.inc();
            }
        }
        let away = i64::try_from(self.away.len()).unwrap_or(i64::MAX);
        metrics.away.set(away);
    }

    fn needs_no_more(&mut self, key: &str, object: &ObjectRef) {
        if let Some(pods) = self.objects.get_mut(object) {
            pods.remove(key);
            if pods.is_empty() {
                self.objects.remove(object);
            }
        }
        self.touch(object);
    }

    /// Puts a pod under its destinations, both sorted, in the place of those `before`.
    fn index_destinations(&mut self, pod: &Arc<str>, before: &[Arc<str>], now: &[Arc<str>]) {
        for name in before {
            if now.binary_search(name).is_ok() {
                continue;
            }
            if let Some(pods) = self.callers.get_mut(name) {
                pods.remove(pod);
                if pods.is_empty() {
                    self.callers.remove(name);
                }
            }
            self.index_external(name);
        }
        for name in now {
            if before.binary_search(name).is_err() {
                let pods = self.callers.entry(Arc::clone(name)).or_default();
                pods.insert(Arc::clone(pod));
                self.index_external(name);
            }
        }
    }

    /// Takes over which pods have a destination, if that is a host outside the mesh.
    fn index_external(&mut self, name: &Arc<str>) {
        if !name.starts_with(wire::names::EXTERNAL) {
            return;
        }
        match self.callers.get(name) {
            Some(pods) => self.external.insert(Arc::clone(name), pods.clone()),
            None => self.external.remove(name),
        };
        self.external_changed = true;
    }

    /// What is believed of the proxy of a pod, and not of another one that had its name.
    pub(super) fn known(&self, pod: &PodId, model: &Model) -> Option<&Believed> {
        let known = self.of_pod.get(pod.to_string().as_str())?;
        let uid = model.running_uid(pod)?;
        (known.live || known.uid.is_empty() || known.uid == *uid).then_some(known)
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

    pub(super) fn retain_used(&mut self, state: &v1::ProxyState, metrics: &ObservedMetrics) {
        if state.destinations.is_empty() {
            return;
        }
        let workload = (state.namespace.clone(), state.service_account.clone());
        let now = self.revision;
        let entry = self.retained.entry(workload.clone()).or_default();
        entry.used = now;
        for name in &state.destinations {
            if let Some(used) = entry.names.get_mut(name.as_str()) {
                *used = now;
                continue;
            }
            let name = match self.users.get_key_value(name.as_str()) {
                Some((entry, _)) => Arc::clone(entry),
                None => Arc::from(name.as_str()),
            };
            entry.names.insert(Arc::clone(&name), now);
            self.destinations += 1;
            self.users.entry(name).or_default().insert(workload.clone());
        }
        let over = entry.names.len().saturating_sub(MAX_RETAINED);
        if over > 0 {
            // One look at all of them, however many are over: a pod may bring thousands
            // with every message.
            let mut by_use: Vec<(u64, Arc<str>)> = entry
                .names
                .iter()
                .map(|(name, used)| (*used, Arc::clone(name)))
                .collect();
            by_use.select_nth_unstable(over - 1);
            for (_, name) in by_use.into_iter().take(over) {
                entry.names.remove(&name);
                self.destinations -= 1;
                forget_user(&mut self.users, &name, &workload);
            }
            metrics.destinations_forgotten.inc_by(over as u64);
        }
        while self.retained.len() > MAX_WORKLOADS
            || (self.destinations > self.max_retained && self.retained.len() > 1)
        {
            let others = self.retained.iter().filter(|(one, _)| **one != workload);
            let idle = others.min_by_key(|(_, entry)| entry.used);
            let Some(idle) = idle.map(|(one, _)| one.clone()) else {
                break;
            };
            let entry = self.retained.remove(&idle).unwrap_or_default();
            self.destinations -= entry.names.len();
            metrics
                .destinations_forgotten
                .inc_by(entry.names.len() as u64);
            for name in entry.names.keys() {
                forget_user(&mut self.users, name, &idle);
            }
        }
        let count = i64::try_from(self.destinations).unwrap_or(i64::MAX);
        metrics.destinations.set(count);
    }
}

/// What a proxy says about objects, by object. One of a kind that this version does not
/// know is nothing that it could say something about.
fn needs(state: &v1::ProxyState) -> BTreeMap<ObjectRef, ObjectProgress> {
    let known = state.objects.iter().filter_map(|object| {
        let name = ObjectRef::try_from(object.object.as_ref()?).ok()?;
        let needs = ObjectProgress {
            generation: object.needed,
            acknowledged: object.acknowledged,
            nack: object.nack.clone(),
            too_old: object.too_old,
            lacks: object.lacks.clone(),
            since: None,
        };
        Some((name, needs))
    });
    known.collect()
}

fn forget_user(
    users: &mut HashMap<Arc<str>, BTreeSet<Workload>>,
    name: &Arc<str>,
    workload: &Workload,
) {
    if let Some(entry) = users.get_mut(name) {
        entry.remove(workload);
        if entry.is_empty() {
            users.remove(name);
        }
    }
}
