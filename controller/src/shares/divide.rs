//! Divides limits among pods, one number at a time.
//!
//! Invariant: time is an argument, and nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use policy::limit::shares::{Send, Shares};

use super::demand::Demand;
use super::key::{LimitKey, NamedLimit, ShareOf};

/// What a pod is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShareMessage {
    pub(crate) uid: Arc<str>,
    pub(crate) of: ShareOf,
    pub(crate) thousandths: u64,
    pub(crate) number: u64,
}

/// What pods may be using, by what the replicas that serve them say.
pub(crate) type SharesInUse = BTreeMap<(Arc<str>, ShareOf), u64>;

/// By uid of the pod.
type Divided = Shares<Arc<str>>;

/// All limits that one replica divides.
#[derive(Debug, Default)]
pub(crate) struct Divider {
    limits: BTreeMap<LimitKey, Limit>,
    /// Number of the last message to anybody, also about limits that are gone: replicas take
    /// the highest number of a term for the newest share.
    newest: u64,
}

#[derive(Debug)]
struct Limit {
    shares: Divided,
    requests: u32,
    /// Ports of containers, also of pods that have left.
    ports: BTreeMap<Arc<str>, u16>,
}

impl Divider {
    /// Other limits, ready pods, or pods that are connected. `held`: what pods may be using,
    /// of which that counts which was not divided here before.
    pub(super) fn update(
        &mut self,
        now: Instant,
        demands: &BTreeMap<LimitKey, Demand>,
        connected: &BTreeSet<Arc<str>>,
        held: &SharesInUse,
    ) -> Vec<ShareMessage> {
        let Self { limits, newest } = self;
        limits.retain(|key, _| demands.contains_key(key));
        let mut told = Vec::new();
        for (key, demand) in demands {
            let limit = limits.entry(key.clone());
            let limit = limit.or_insert_with(|| Limit::new(demand.requests));
            for uid in limit.moved(key, demands) {
                limit.ports.remove(&uid);
                told.extend(limit.change(key, newest, |shares| shares.gone(&uid)));
            }
            limit.resume(key, demand, held);
            for (uid, port) in &demand.pods {
                limit.ports.insert(Arc::clone(uid), *port);
            }
            if limit.requests != demand.requests {
                limit.requests = demand.requests;
                let sends = |shares: &mut Divided| shares.set_limit(demand.requests);
                told.extend(limit.change(key, newest, sends));
            }
            let ready = demand.pods.keys().filter(|uid| connected.contains(*uid));
            let ready = ready.cloned().collect();
            let sends = |shares: &mut Divided| shares.set_pods(now, &ready);
            told.extend(limit.change(key, newest, sends));
        }
        told
    }

    /// Whether there is nothing to divide.
    pub(super) fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// A pod uses what it was told by this message.
    pub(super) fn taken(&mut self, uid: &Arc<str>, of: &ShareOf, number: u64) -> Vec<ShareMessage> {
        let Self { limits, newest } = self;
        let mut named = limits
            .range_mut(LimitKey::first(&of.of)..)
            .take_while(|(key, _)| key.of == of.of);
        let found = named.find(|(_, limit)| limit.ports.get(uid) == Some(&of.port));
        let Some((key, limit)) = found else {
            return Vec::new();
        };
        limit.change(key, newest, |shares| shares.acknowledged(uid, number))
    }

    /// A pod has had no stream for so long that it uses nothing when it comes back.
    pub(super) fn gone(&mut self, uid: &Arc<str>) -> Vec<ShareMessage> {
        let mut told = Vec::new();
        let Self { limits, newest } = self;
        for (key, limit) in limits {
            if limit.ports.remove(uid).is_some() {
                told.extend(limit.change(key, newest, |shares| shares.gone(uid)));
            }
        }
        told
    }

    /// Goes on to what follows from the time.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<ShareMessage> {
        let mut told = Vec::new();
        let Self { limits, newest } = self;
        for (key, limit) in limits {
            told.extend(limit.change(key, newest, |shares| shares.tick(now)));
        }
        told
    }
}

impl Limit {
    fn new(requests: u32) -> Self {
        Self {
            shares: Shares::new(requests),
            requests,
            ports: BTreeMap::new(),
        }
    }

    /// Goes on from what pods hold of it that somebody else gave them. Who is not ready at
    /// this moment uses it all the same.
    fn resume(&mut self, key: &LimitKey, demand: &Demand, held: &SharesInUse) {
        for (uid, port) in &demand.keepers {
            if self.shares.has(uid) {
                continue;
            }
            let of = share_of(&key.of, *port);
            let held = held.get(&(Arc::clone(uid), of)).copied();
            if let Some(held) = held.filter(|held| *held > 0) {
                self.ports.insert(Arc::clone(uid), *port);
                self.shares.resume(uid, held);
            }
        }
    }

    /// Pods that keep this limit of their policy with those of another Service now: what
    /// they are told of it is said there.
    fn moved(&self, key: &LimitKey, demands: &BTreeMap<LimitKey, Demand>) -> Vec<Arc<str>> {
        let named = demands.range(LimitKey::first(&key.of)..);
        let named = named.take_while(|(other, _)| other.of == key.of);
        let others: Vec<&Demand> = named
            .filter(|(other, _)| *other != key)
            .map(|(_, demand)| demand)
            .collect();
        let Some(own) = demands.get(key).filter(|_| !others.is_empty()) else {
            return Vec::new();
        };
        let left = self
            .ports
            .keys()
            .filter(|uid| !own.keepers.contains_key(*uid));
        let moved = left.filter(|uid| others.iter().any(|one| one.keepers.contains_key(*uid)));
        moved.cloned().collect()
    }

    /// Changes who has what, and says what follows for whom.
    fn change(
        &mut self,
        key: &LimitKey,
        newest: &mut u64,
        change: impl FnOnce(&mut Divided) -> Vec<Send<Arc<str>>>,
    ) -> Vec<ShareMessage> {
        self.shares.number_after(*newest);
        let sends = change(&mut self.shares);
        if let Some(last) = sends.last() {
            *newest = last.number;
        }
        let told = sends.into_iter().filter_map(|send| {
            let port = *self.ports.get(&send.pod)?;
            Some(ShareMessage {
                uid: send.pod,
                of: share_of(&key.of, port),
                thousandths: send.share,
                number: send.number,
            })
        });
        told.collect()
    }
}

fn share_of(of: &NamedLimit, port: u16) -> ShareOf {
    ShareOf {
        port,
        of: of.clone(),
    }
}
