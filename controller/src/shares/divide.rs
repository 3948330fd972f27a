//! Divides limits among pods, one number at a time.
//!
//! Invariant: time is an argument, and nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use policy::limit::shares::{Send, Shares};

use super::demand::Demand;
use super::key::{LimitKey, Named, ShareOf};

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

/// All limits that one replica divides.
#[derive(Debug, Default)]
pub(crate) struct Divider {
    limits: BTreeMap<LimitKey, Limit>,
}

#[derive(Debug)]
struct Limit {
    shares: Shares<Arc<str>>,
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
        self.limits.retain(|key, _| demands.contains_key(key));
        let mut told = Vec::new();
        for (key, demand) in demands {
            let limit = self.limits.entry(key.clone());
            let limit = limit.or_insert_with(|| Limit::resumed(key, demand, held));
            for (uid, port) in &demand.pods {
                limit.ports.insert(Arc::clone(uid), *port);
            }
            if limit.requests != demand.requests {
                limit.requests = demand.requests;
                let sends = limit.shares.set_limit(demand.requests);
                told.extend(limit.told(key, sends));
            }
            let ready = demand.pods.keys().filter(|uid| connected.contains(*uid));
            let sends = limit.shares.set_pods(now, &ready.cloned().collect());
            told.extend(limit.told(key, sends));
        }
        told
    }

    /// Whether there is nothing to divide.
    pub(super) fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// A pod uses what it was told by this message.
    pub(super) fn taken(&mut self, uid: &Arc<str>, of: &ShareOf, number: u64) -> Vec<Told> {
        self.change(of, uid, |shares| shares.acknowledged(uid, number))
    }

    /// A pod has had no stream for so long that it uses nothing when it comes back.
    pub(super) fn gone(&mut self, uid: &Arc<str>) -> Vec<Told> {
        let mut told = Vec::new();
        for (key, limit) in &mut self.limits {
            if limit.ports.remove(uid).is_some() {
                let sends = limit.shares.gone(uid);
                told.extend(limit.told(key, sends));
            }
        }
        told
    }

    /// Goes on to what follows from the time.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Told> {
        let mut told = Vec::new();
        for (key, limit) in &mut self.limits {
            let sends = limit.shares.tick(now);
            told.extend(limit.told(key, sends));
        }
        told
    }

    fn change(
        &mut self,
        of: &ShareOf,
        uid: &Arc<str>,
        change: impl FnOnce(&mut Shares<Arc<str>>) -> Vec<Send<Arc<str>>>,
    ) -> Vec<Told> {
        let named = |key: &LimitKey| key.of == of.of;
        let mut limits = self.limits.iter_mut();
        let found =
            limits.find(|(key, limit)| named(key) && limit.ports.get(uid) == Some(&of.port));
        let Some((key, limit)) = found else {
            return Vec::new();
        };
        let sends = change(&mut limit.shares);
        limit.told(key, sends)
    }
}

impl Limit {
    fn resumed(key: &LimitKey, demand: &Demand, held: &Held) -> Self {
        let mut limit = Self {
            shares: Shares::new(demand.requests),
            requests: demand.requests,
            ports: BTreeMap::new(),
        };
        for (uid, port) in &demand.pods {
            let of = share_of(&key.of, *port);
            if let Some(held) = held.get(&(Arc::clone(uid), of)) {
                limit.shares.resume(uid, *held);
            }
        }
        limit
    }

    fn told(&self, key: &LimitKey, sends: Vec<Send<Arc<str>>>) -> Vec<Told> {
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
