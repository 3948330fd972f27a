//! The registry of quota shares: what each pod was given, and what it may still be using. It is
//! the same on every replica.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use policy::limit::offered::Offered;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use wire::v1;

use super::demand::named;
use super::divide::{Held, PodsSeen, ShareMessage};
use super::key::{Given, NamedLimit, ShareOf, loads, message, pod_shares, read, read_offered};
use crate::latest_model::LatestModel;

/// A pod without a stream keeps what it held for so long: it most likely comes back, and until then
/// uses it. Afterwards it may be given to others, and a pod that comes back gets a message to
/// forget it. One that exists no more does not come back, and is not waited for.
pub(super) const ABSENT_AFTER: Duration = Duration::from_secs(15);
/// A replica that does not divide keeps them longer, as it learns later which pods are connected.
pub(super) const KEPT: Duration = Duration::from_secs(60);
/// Pods in one message to another replica, and its bytes.
const TOGETHER: usize = 1000;
pub(super) const TOGETHER_BYTES: usize = 1024 * 1024;
/// Bytes that stand before the part of a pod in it, at most.
const FRAME: usize = 8;

/// Shared by streams, peers and the divider. Clones are the same state.
#[derive(Clone, Debug)]
pub(crate) struct ShareRegistry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    began: Instant,
    state: Mutex<ShareRegistryState>,
    /// Counts changes of what pods are given.
    given: watch::Sender<u64>,
    /// Counts changes of which pods are connected and of what they hold.
    in_use: watch::Sender<u64>,
    /// Counts what other replicas are to receive.
    own: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct ShareRegistryState {
    pods: BTreeMap<Arc<str>, Pod>,
    revision: u64,
}

#[derive(Debug, Default)]
struct Pod {
    /// Number of this replica's stream to it.
    own: Option<u64>,
    /// Replicas that have a stream to it.
    peers: BTreeSet<IpAddr>,
    /// Since when no replica has one.
    absent_since: Option<Instant>,
    given: BTreeMap<ShareOf, Given>,
    /// Sent by this replica last.
    sent: BTreeMap<ShareOf, Given>,
    /// The most that it may be using, as of what it took last.
    most: BTreeMap<ShareOf, Given>,
    /// What its newest stream said that it is offered.
    offered: BTreeMap<ShareOf, Offered>,
    /// When others have to receive what it is given by this replica, what it holds, and what it is
    /// offered.
    divided_at: u64,
    in_use_at: u64,
    offered_at: u64,
}

impl Pod {
    fn is_connected(&self) -> bool {
        self.own.is_some() || !self.peers.is_empty()
    }

    /// When others had something new to receive of it last.
    fn changed_at(&self) -> u64 {
        self.divided_at.max(self.in_use_at).max(self.offered_at)
    }

    fn left(&mut self, now: Instant) {
        if self.is_connected() {
            self.absent_since = None;
        } else {
            self.absent_since.get_or_insert(now);
            self.offered.clear();
        }
    }
}

impl Default for ShareRegistry {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                began: Instant::now(),
                state: Mutex::default(),
                given: watch::Sender::new(0),
                in_use: watch::Sender::new(0),
                own: watch::Sender::new(0),
            }),
        }
    }
}

impl ShareRegistry {
    /// Forgets pods that are gone and limits that no policy says any more, until dropped.
    pub(crate) async fn keep(self, latest: LatestModel) {
        let mut before: Option<BTreeSet<NamedLimit>> = None;
        loop {
            sleep(KEPT / 2).await;
            let now = Instant::now();
            self.forget_where(|_, since| now.duration_since(since) >= KEPT);
            let Some(compiled) = latest.borrow().clone() else {
                continue;
            };
            let said = named(&compiled.model.index);
            // At two looks: the dividing replica may have seen a new limit earlier than this one,
            // and sends only once what it gives.
            if let Some(before) = before.replace(said.clone()) {
                self.keep_limits(|limit| said.contains(limit) || before.contains(limit));
            }
        }
    }

    /// Forgets the shares of all other limits.
    pub(super) fn keep_limits(&self, in_force: impl Fn(&NamedLimit) -> bool) {
        for pod in self.inner.state.lock().pods.values_mut() {
            for shares in [&mut pod.given, &mut pod.sent, &mut pod.most] {
                shares.retain(|of, _| in_force(&of.of));
            }
            pod.offered.retain(|of, _| in_force(&of.of));
        }
    }

    /// A pod that can keep shares streams from here. Says whether others may have been given
    /// what it held.
    pub(crate) fn connected(&self, uid: &Arc<str>, stream: u64, now: Instant) -> bool {
        let known = self
            .inner
            .state
            .lock()
            .pods
            .get(uid)
            .map(|pod| pod.absent_since);
        let lost = match known {
            Some(absent_since) => {
                absent_since.is_some_and(|since| now.duration_since(since) >= ABSENT_AFTER)
            }
            // A replica that is new has few pods yet, and while there was none nothing was divided.
            None => now.duration_since(self.inner.began) >= KEPT,
        };
        self.change(uid, |pod, revision| {
            if lost {
                pod.given.clear();
                pod.most.clear();
            }
            pod.own = Some(stream);
            pod.sent.clear();
            pod.offered.clear();
            pod.left(now);
            pod.in_use_at = revision;
        });
        lost
    }

    /// The pod was sent other limits, and may have forgotten shares of those that it had.
    pub(crate) fn resend(&self, uid: &Arc<str>) {
        self.change(uid, |pod, _| pod.sent.clear());
    }

    /// Its stream has ended, unless a newer one has taken over.
    pub(crate) fn ended(&self, uid: &Arc<str>, stream: u64, now: Instant) {
        self.change(uid, |pod, revision| {
            if pod.own == Some(stream) {
                pod.own = None;
                pod.left(now);
                pod.in_use_at = revision;
            }
        });
    }

    /// What the pod was given and was not sent by this stream, which counts as sent from now
    /// on.
    pub(crate) fn send(&self, uid: &Arc<str>) -> Vec<v1::Share> {
        let mut shares = Vec::new();
        self.change(uid, |pod, revision| {
            for (of, given) in &pod.given {
                if pod.sent.get(of) == Some(given) {
                    continue;
                }
                shares.push(message(of, *given));
                pod.sent.insert(of.clone(), *given);
                let most = pod.most.entry(of.clone()).or_insert(*given);
                // Until it says that it has taken it, it may be using what it had.
                most.thousandths = most.thousandths.max(given.thousandths);
                pod.in_use_at = revision;
            }
        });
        shares
    }

    /// The pod uses what it was sent.
    pub(crate) fn taken(&self, uid: &Arc<str>, taken: &v1::SharesTaken) {
        self.change(uid, |pod, revision| {
            for one in &taken.taken {
                let Some(of) = one.of.as_ref().and_then(ShareOf::read) else {
                    continue;
                };
                // Unless that was the last one to it, a larger share may be on the way.
                let last = pod.sent.get(&of).copied();
                let last = last.filter(|sent| (sent.term, sent.number) == (one.term, one.number));
                if let Some(sent) = last {
                    pod.most.insert(of, sent);
                    pod.in_use_at = revision;
                }
            }
        });
    }

    /// The pod is offered this, of limits of which it was given something.
    pub(crate) fn offered(&self, uid: &Arc<str>, offered: &v1::OfferedLoads) {
        self.change(uid, |pod, revision| {
            for (of, load) in read_offered(&offered.loads) {
                if pod.given.contains_key(&of) {
                    pod.offered.insert(of, load);
                    pod.offered_at = revision;
                }
            }
        });
    }

    /// The dividing replica gives this.
    pub(super) fn give(&self, term: u64, messages: Vec<ShareMessage>) {
        for one in messages {
            let given = Given {
                term,
                number: one.number,
                thousandths: one.thousandths,
            };
            self.change(&one.uid, |pod, revision| {
                pod.given.insert(one.of, given);
                pod.divided_at = revision;
            });
        }
        self.inner.given.send_modify(|count| *count += 1);
    }

    fn change(&self, uid: &Arc<str>, change: impl FnOnce(&mut Pod, u64)) {
        let mut state = self.inner.state.lock();
        state.revision += 1;
        let revision = state.revision;
        let pod = state.pods.entry(Arc::clone(uid)).or_default();
        let before = (pod.in_use_at, pod.changed_at());
        change(pod, revision);
        let (in_use, changed) = (pod.in_use_at != before.0, pod.changed_at() != before.1);
        drop(state);
        if in_use {
            self.inner.in_use.send_modify(|count| *count += 1);
        }
        // The dividing replica looks at what pods are offered every second, and is not woken for
        // it.
        if changed {
            self.inner.own.send_modify(|count| *count += 1);
        }
    }

    /// The newest term that anything was given in.
    pub(super) fn term(&self) -> u64 {
        let state = self.inner.state.lock();
        let given = state.pods.values().flat_map(|pod| pod.given.values());
        given.map(|given| given.term).max().unwrap_or(0)
    }

    /// The pods, what they may be using, and what they are offered.
    pub(super) fn pods(&self) -> PodsSeen {
        let mut seen = PodsSeen::default();
        let state = self.inner.state.lock();
        for (uid, pod) in &state.pods {
            // One that has left a moment ago is about to come back.
            if pod.is_connected() || pod.absent_since.is_some() {
                seen.present.insert(Arc::clone(uid));
            }
            if !pod.is_connected() {
                seen.absent.insert(Arc::clone(uid));
            }
            for (of, in_use) in &pod.most {
                let given = pod.given.get(of).unwrap_or(in_use).thousandths;
                let held = Held {
                    most: in_use.thousandths,
                    given,
                };
                seen.held.insert((Arc::clone(uid), of.clone()), held);
            }
            for (of, offered) in &pod.offered {
                let key = (Arc::clone(uid), of.clone());
                seen.offered.insert(key, *offered);
            }
        }
        seen
    }

    /// What pods took last of what was given in this term.
    pub(super) fn taken_of(&self, term: u64) -> Vec<(Arc<str>, ShareOf, u64)> {
        let state = self.inner.state.lock();
        let mut taken = Vec::new();
        for (uid, pod) in &state.pods {
            for (of, in_use) in pod.most.iter().filter(|(_, in_use)| in_use.term == term) {
                taken.push((Arc::clone(uid), of.clone(), in_use.number));
            }
        }
        taken
    }

    /// Forgets the pods without a stream to any replica for long, and at once those of them that
    /// exist no more, and returns them.
    pub(super) fn forget(&self, now: Instant, exists: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        self.forget_where(|uid, since| now.duration_since(since) >= ABSENT_AFTER || !exists(uid))
    }

    /// Of pods without a stream: by uid, and since when no replica has had one.
    fn forget_where(&self, is_over: impl Fn(&str, Instant) -> bool) -> Vec<Arc<str>> {
        let mut gone = Vec::new();
        self.inner.state.lock().pods.retain(|uid, pod| {
            let stays = pod.absent_since.is_none_or(|since| !is_over(uid, since));
            if !stays {
                gone.push(Arc::clone(uid));
            }
            stays
        });
        gone
    }

    /// Notifies when pods are given something.
    pub(crate) fn given_changes(&self) -> watch::Receiver<u64> {
        self.inner.given.subscribe()
    }

    /// Notifies when pods come, go, or hold something else.
    pub(super) fn in_use_changes(&self) -> watch::Receiver<u64> {
        self.inner.in_use.subscribe()
    }

    /// Notifies when there is something to send to other replicas.
    pub(crate) fn own_changes(&self) -> watch::Receiver<u64> {
        self.inner.own.subscribe()
    }

    /// What is to be sent after revision `since`, as much as fits into one message, and the
    /// revision that this leads to.
    pub(crate) fn own_since(&self, since: u64) -> (u64, Option<v1::Reports>) {
        let state = self.inner.state.lock();
        let mut news: Vec<(u64, &Arc<str>, &Pod)> = Vec::new();
        for (uid, pod) in &state.pods {
            let at = pod.changed_at();
            if at > since {
                news.push((at, uid, pod));
            }
        }
        news.sort_unstable_by_key(|(at, ..)| *at);
        let (mut reported, mut bytes) = (None, 0);
        let mut message = v1::Reports::default();
        for (at, uid, pod) in news.into_iter().take(TOGETHER) {
            // All that is known of it: the half that is older was not sent yet if the place of the
            // pod was among later ones then.
            let divided = (pod.divided_at > 0).then(|| pod_shares(uid, &pod.given));
            let gone = pod.own.is_none();
            let in_use = (pod.in_use_at > since || !gone).then(|| v1::PodShares {
                gone,
                offered: loads(&pod.offered),
                ..pod_shares(uid, &pod.most)
            });
            let parts = divided.iter().chain(&in_use);
            bytes += parts.map(|part| FRAME + part.encoded_len()).sum::<usize>();
            if bytes > TOGETHER_BYTES && reported.is_some() {
                break;
            }
            reported = Some(at);
            message.divided.extend(divided);
            message.held.extend(in_use);
        }
        let is_news = !message.divided.is_empty() || !message.held.is_empty();
        let reported = reported.unwrap_or(state.revision);
        (reported, is_news.then_some(message))
    }

    /// Takes what another replica sends.
    pub(crate) fn receive(&self, peer: IpAddr, news: &v1::Reports, now: Instant) {
        if news.divided.is_empty() && news.held.is_empty() {
            return;
        }
        let (mut is_given, mut is_in_use) = (false, false);
        let mut state = self.inner.state.lock();
        for reported in &news.divided {
            let pod = state.pods.entry(reported.uid.as_str().into()).or_default();
            for (of, given) in read(reported) {
                let before = pod.given.get(&of).copied();
                let newest = before.map_or(given, |before| before.max(given));
                is_given |= before != Some(newest);
                pod.given.insert(of, newest);
            }
            pod.left(now);
        }
        for reported in &news.held {
            let pod = state.pods.entry(reported.uid.as_str().into()).or_default();
            if reported.gone {
                is_in_use |= pod.peers.remove(&peer);
            } else {
                is_in_use |= pod.peers.insert(peer);
                if pod.own.is_none() {
                    pod.offered = read_offered(&reported.offered).collect();
                }
            }
            pod.left(now);
            for (of, most) in read(reported) {
                let before = pod.most.get(&of).copied();
                let mut newest = before.unwrap_or(most);
                if (most.term, most.number) >= (newest.term, newest.number) {
                    newest = most;
                } else {
                    newest.thousandths = newest.thousandths.max(most.thousandths);
                }
                is_in_use |= before != Some(newest);
                pod.most.insert(of, newest);
            }
        }
        drop(state);
        // An offered load alone wakes no stream: the divider reads it once a second.
        if is_given {
            self.inner.given.send_modify(|count| *count += 1);
        }
        if is_given || is_in_use {
            self.inner.in_use.send_modify(|count| *count += 1);
        }
    }

    /// Another replica has ended, and its streams with it.
    pub(crate) fn lost(&self, peer: IpAddr, now: Instant) {
        for pod in self.inner.state.lock().pods.values_mut() {
            if pod.peers.remove(&peer) {
                pod.left(now);
            }
        }
        self.inner.in_use.send_modify(|count| *count += 1);
    }
}
