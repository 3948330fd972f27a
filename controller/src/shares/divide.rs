//! Divides limits among pods, one number at a time.
//!
//! Invariant: time is an argument, and nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use policy::limit::shares::{Send, Shares};

use super::demand::Demand;
use super::key::{LimitKey, Named, ShareOf};
use crate::world::ObjectKey;

/// What a pod is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) uid: Arc<str>,
    pub(crate) of: ShareOf,
    pub(crate) thousandths: u64,
    pub(crate) number: u64,
}

/// What pods may be using, by what the replicas that serve them say.
pub(crate) type Held = BTreeMap<(Arc<str>, ShareOf), u64>;

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
    /// Other limits, ready pods, or pods that are connected. `held`: what pods may be using
    /// of limits that were not divided here before.
    pub(super) fn update(
        &mut self,
        now: Instant,
        demands: &BTreeMap<LimitKey, Demand>,
        connected: &BTreeSet<Arc<str>>,
        held: &Held,
    ) -> Vec<Told> {
        let Self { limits, newest } = self;
        limits.retain(|key, _| demands.contains_key(key));
        let mut told = Vec::new();
        for (key, demand) in demands {
            let limit = limits.entry(key.clone());
            let limit = limit.or_insert_with(|| Limit::resumed(key, demand, held));
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
    pub(super) fn taken(&mut self, uid: &Arc<str>, of: &ShareOf, number: u64) -> Vec<Told> {
        let Self { limits, newest } = self;
        // The least of all keys with this name.
        let first = LimitKey {
            of: of.of.clone(),
            service: ObjectKey::new("", ""),
            port: 0,
        };
        let mut named = limits
            .range_mut(first..)
            .take_while(|(key, _)| key.of == of.of);
        let found = named.find(|(_, limit)| limit.ports.get(uid) == Some(&of.port));
        let Some((key, limit)) = found else {
            return Vec::new();
        };
        limit.change(key, newest, |shares| shares.acknowledged(uid, number))
    }

    /// A pod has had no stream for so long that it uses nothing when it comes back.
    pub(super) fn gone(&mut self, uid: &Arc<str>) -> Vec<Told> {
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
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Told> {
        let mut told = Vec::new();
        let Self { limits, newest } = self;
        for (key, limit) in limits {
            told.extend(limit.change(key, newest, |shares| shares.tick(now)));
        }
        told
    }
}

impl Limit {
    fn resumed(key: &LimitKey, demand: &Demand, held: &Held) -> Self {
        let mut limit = Self {
            shares: Shares::new(demand.requests),
            requests: demand.requests,
            ports: BTreeMap::new(),
        };
        // Who is not ready at this moment uses what it holds all the same.
        for (uid, port) in &demand.keepers {
            let of = share_of(&key.of, *port);
            if let Some(held) = held.get(&(Arc::clone(uid), of)) {
                limit.ports.insert(Arc::clone(uid), *port);
                limit.shares.resume(uid, *held);
            }
        }
        limit
    }

    /// Changes who has what, and says what follows for whom.
    fn change(
        &mut self,
        key: &LimitKey,
        newest: &mut u64,
        change: impl FnOnce(&mut Divided) -> Vec<Send<Arc<str>>>,
    ) -> Vec<Told> {
        self.shares.number_after(*newest);
        let sends = change(&mut self.shares);
        if let Some(last) = sends.last() {
            *newest = last.number;
        }
        let told = sends.into_iter().filter_map(|send| {
            let port = *self.ports.get(&send.pod)?;
            Some(Told {
                uid: send.pod,
                of: share_of(&key.of, port),
                thousandths: send.share,
                number: send.number,
            })
        });
        told.collect()
    }
}

fn share_of(of: &Named, port: u16) -> ShareOf {
    ShareOf {
        port,
        of: of.clone(),
    }
}
