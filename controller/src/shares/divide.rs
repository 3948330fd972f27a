//! Divides each shared rate limit among pods.
//!
//! A pod may share a limit with those of several Services, where one policy applies to all of
//! them. It has one bucket for it, so it is given the least of its parts: then the pods of each
//! Service together let no more pass than the limit allows.
//!
//! Invariant: time is an argument, and nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use policy::limit::offered::Offered;
use policy::limit::shares::{Send, Shares};

use super::demand::Demand;
use super::key::{LimitKey, NamedLimit, ShareOf};

/// What is to be sent to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShareMessage {
    pub(crate) uid: Arc<str>,
    pub(crate) of: ShareOf,
    pub(crate) thousandths: u64,
    pub(crate) number: u64,
}

/// The pods by what the replicas that serve them say.
#[derive(Debug, Default)]
pub(super) struct PodsSeen {
    /// Those that can be given something.
    pub(super) present: BTreeSet<Arc<str>>,
    /// Those without a stream to any replica.
    pub(super) absent: BTreeSet<Arc<str>>,
    pub(super) held: BTreeMap<(Arc<str>, ShareOf), Held>,
    /// What they are offered, as far as they say it.
    pub(super) offered: BTreeMap<(Arc<str>, ShareOf), Offered>,
}

/// What a pod has of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// The most that it may be using.
    pub(super) most: u64,
    /// What it was given last, which it may have received or not.
    pub(super) given: u64,
}

/// By uid of the pod.
type Divided = Shares<Arc<str>>;

/// All limits that one replica divides.
#[derive(Debug, Default)]
pub(crate) struct Divider {
    limits: BTreeMap<LimitKey, Limit>,
    /// Those that each pod keeps, by uid, as of the last update.
    kept_by: BTreeMap<Arc<str>, Vec<LimitKey>>,
    /// Number of the last message to any pod, also about limits that are gone: replicas take the
    /// highest number of a term for the newest share.
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
    /// Other limits, ready pods, or pods that are connected. Of what pods may be using that
    /// counts which was not divided here before.
    pub(super) fn update(
        &mut self,
        now: Instant,
        demands: &BTreeMap<LimitKey, Demand>,
        pods: &PodsSeen,
    ) -> Vec<ShareMessage> {
        let Self { limits, newest, .. } = self;
        let mut messages = Vec::new();
        // What held them to less may be gone.
        let mut freed: Vec<(Arc<str>, ShareOf)> = Vec::new();
        limits.retain(|key, limit| {
            let stays = demands.contains_key(key);
            if !stays {
                let ports = std::mem::take(&mut limit.ports).into_iter();
                freed.extend(ports.map(|(uid, port)| (uid, share_of(&key.of, port))));
            }
            stays
        });
        for (key, demand) in demands {
            let limit = limits.entry(key.clone());
            let limit = limit.or_insert_with(|| Limit::new(demand.requests));
            for uid in limit.moved(key, demands) {
                if let Some(port) = limit.ports.remove(&uid) {
                    freed.push((Arc::clone(&uid), share_of(&key.of, port)));
                }
                messages.extend(limit.change(key, newest, |shares| shares.remove(&uid)));
            }
            limit.resume(key, demand, pods);
            for (uid, port) in &demand.pods {
                limit.ports.insert(Arc::clone(uid), *port);
            }
            if limit.requests != demand.requests {
                limit.requests = demand.requests;
                let sends = |shares: &mut Divided| shares.set_limit(demand.requests);
                messages.extend(limit.change(key, newest, sends));
            }
            limit.offer(key, pods);
            let ready = demand.pods.keys();
            let ready = ready.filter(|uid| pods.present.contains(*uid));
            let ready = ready.cloned().collect();
            let sends = |shares: &mut Divided| shares.set_pods(now, &ready);
            messages.extend(limit.change(key, newest, sends));
            for uid in limit.unused(demand, pods) {
                messages.extend(limit.change(key, newest, |shares| shares.remove(&uid)));
                limit.ports.remove(&uid);
            }
        }
        self.index();
        for (uid, of) in freed {
            if self.kept_with(&uid, &of).next().is_some() {
                self.newest += 1;
                messages.push(ShareMessage {
                    uid,
                    of,
                    thousandths: 0,
                    number: self.newest,
                });
            }
        }
        self.least(messages)
    }

    fn index(&mut self) {
        self.kept_by.clear();
        for (key, limit) in &self.limits {
            for uid in limit.ports.keys() {
                let kept = self.kept_by.entry(Arc::clone(uid)).or_default();
                kept.push(key.clone());
            }
        }
    }

    /// The limits of which a pod has a part that it knows by this.
    fn kept_with<'a>(
        &'a self,
        uid: &'a Arc<str>,
        of: &'a ShareOf,
    ) -> impl Iterator<Item = (&'a LimitKey, &'a Limit)> {
        let kept = self.kept_by.get(uid).into_iter().flatten();
        let kept = kept.filter(move |key| key.of == of.of);
        let kept = kept.filter_map(move |key| Some((key, self.limits.get(key)?)));
        kept.filter(move |(_, limit)| limit.ports.get(uid) == Some(&of.port))
    }

    /// The same messages, each with the least of the parts that its pod has by now.
    fn least(&self, mut messages: Vec<ShareMessage>) -> Vec<ShareMessage> {
        for message in &mut messages {
            let kept = self.kept_with(&message.uid, &message.of);
            let bounds = kept.filter_map(|(_, limit)| limit.shares.bound(&message.uid));
            message.thousandths = bounds.min().unwrap_or(0);
        }
        messages
    }

    /// Whether there is nothing to divide.
    pub(super) fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// A pod uses what this message gave it, which was the least of all parts that it had been sent
    /// by then.
    pub(super) fn taken(&mut self, uid: &Arc<str>, of: &ShareOf, number: u64) -> Vec<ShareMessage> {
        let kept = self.kept_with(uid, of);
        let sent =
            kept.filter_map(|(key, limit)| Some((key.clone(), limit.shares.number_of(uid)?)));
        let sent: Vec<(LimitKey, u64)> = sent.filter(|(_, sent)| *sent <= number).collect();
        let mut messages = Vec::new();
        let Self { limits, newest, .. } = self;
        for (key, sent) in sent {
            if let Some(limit) = limits.get_mut(&key) {
                let sends = |shares: &mut Divided| shares.acknowledged(uid, sent);
                messages.extend(limit.change(&key, newest, sends));
            }
        }
        self.least(messages)
    }

    /// A pod has had no stream for so long that it uses nothing when it comes back.
    pub(super) fn remove_pod(&mut self, uid: &Arc<str>) -> Vec<ShareMessage> {
        let mut messages = Vec::new();
        let Self { limits, newest, .. } = self;
        for (key, limit) in limits {
            if limit.ports.remove(uid).is_some() {
                messages.extend(limit.change(key, newest, |shares| shares.remove(uid)));
            }
        }
        self.least(messages)
    }

    /// Goes on to what follows from the time.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<ShareMessage> {
        let mut messages = Vec::new();
        let Self { limits, newest, .. } = self;
        for (key, limit) in limits {
            messages.extend(limit.change(key, newest, |shares| shares.tick(now)));
        }
        self.least(messages)
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

    /// Goes on from what pods hold of it that another divider gave them. A pod that is not ready at
    /// this moment uses it all the same, unless it has no stream either.
    fn resume(&mut self, key: &LimitKey, demand: &Demand, pods: &PodsSeen) {
        for (uid, port) in &demand.keepers {
            let is_unused = pods.absent.contains(uid) && !demand.pods.contains_key(uid);
            if is_unused || self.shares.has(uid) {
                continue;
            }
            let of = share_of(&key.of, *port);
            let held = pods.held.get(&(Arc::clone(uid), of)).copied();
            if let Some(held) = held.filter(|held| held.most > 0) {
                self.ports.insert(Arc::clone(uid), *port);
                let most = held.most.max(held.given);
                self.shares.resume(uid, most, held.given);
            }
        }
    }

    /// What the pods are offered.
    fn offer(&mut self, key: &LimitKey, pods: &PodsSeen) {
        for (uid, port) in &self.ports {
            let of = share_of(&key.of, *port);
            let offered = pods.offered.get(&(Arc::clone(uid), of)).copied();
            self.shares.offer(uid, offered);
        }
    }

    /// Pods that have left and would never report that they use nothing any more: of those that the
    /// Service no longer selects the proxy has no such limit, and gets nothing of it; others are
    /// neither ready nor is there a stream to them.
    fn unused(&self, demand: &Demand, pods: &PodsSeen) -> Vec<Arc<str>> {
        let left = self.ports.keys().filter(|uid| self.shares.has_left(uid));
        let unused =
            left.filter(|uid| !demand.keepers.contains_key(*uid) || pods.absent.contains(*uid));
        unused.cloned().collect()
    }

    /// Pods that keep this limit of their policy with those of another Service and not with those
    /// of this one any more: what they get of it comes from there.
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

    /// Changes which pod has what, and returns the messages that follow.
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
        let messages = sends.into_iter().filter_map(|send| {
            let port = *self.ports.get(&send.pod)?;
            Some(ShareMessage {
                uid: send.pod,
                of: share_of(&key.of, port),
                thousandths: send.share,
                number: send.number,
            })
        });
        messages.collect()
    }
}

fn share_of(of: &NamedLimit, port: u16) -> ShareOf {
    ShareOf {
        port,
        of: of.clone(),
    }
}
