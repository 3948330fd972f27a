//! The inventory of objects: their labels, and which owner each pod belongs to.
//!
//! A deleted object is kept for a while, though no longer listed: its traffic of the last minutes
//! still belongs to its owners. Pods that ended before this replica began come from the others.
//!
//! May import `latest_model`.

pub(crate) mod follow;
pub(crate) mod kind;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use model::world::ObjectKey;
use tokio::time::Instant;

use self::kind::MetricsKind;

/// How long an object is kept after its end: longer than any window.
const RETAINED_FOR: Duration = Duration::from_secs(600);
/// Objects that are kept after their end. A cluster that ends more in ten minutes loses the owners
/// of the first of them. With names of 60 bytes and their owners 20 000 pods are 10 MB.
const MAX_ENDED: usize = 20_000;
/// Owners of a pod. A Deployment owns ReplicaSets own pods, a CronJob Jobs; nothing known goes
/// deeper.
pub(crate) const DEEPEST: usize = 4;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// What is kept of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InventoryObject {
    /// Unique id.
    pub uid: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its controlling owner, in its own namespace.
    pub owner: Option<(MetricsKind, Arc<str>)>,
    /// Node of a pod.
    pub node: Arc<str>,
}

/// One other end, or one object: kind, namespace (empty for cluster-wide ones)
/// and name.
pub(crate) type ObjectId = (MetricsKind, ObjectKey);

/// A pod that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndedPod {
    /// Its name.
    pub key: ObjectKey,
    /// What it was.
    pub thing: Arc<InventoryObject>,
    /// Its owners then, from the nearest to the topmost.
    pub owners: Vec<ObjectId>,
    /// When it ended.
    pub at: Instant,
}

#[derive(Debug)]
struct InventoryEntry {
    thing: Arc<InventoryObject>,
    end: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    objects: HashMap<MetricsKind, BTreeMap<ObjectKey, InventoryEntry>>,
    /// Pods by uid, those that are gone included: a StatefulSet gives the name
    /// to another one.
    pods: HashMap<Arc<str>, (ObjectKey, Arc<InventoryObject>)>,
    ended_count: usize,
    /// Pods that are gone, numbered as that became known here.
    ended: BTreeMap<u64, EndedPod>,
    last_ended: u64,
    peer_revision: u64,
}

impl Inventory {
    /// An object is there.
    pub(crate) fn put(&mut self, kind: MetricsKind, key: ObjectKey, thing: Arc<InventoryObject>) {
        if kind == MetricsKind::Pod {
            let known = (key.clone(), Arc::clone(&thing));
            self.pods.insert(thing.uid.clone(), known);
        }
        let entry = InventoryEntry { thing, end: None };
        let before = self.objects.entry(kind).or_default().insert(key, entry);
        if before.is_some_and(|before| before.end.is_some()) {
            self.ended_count -= 1;
        }
    }

    /// An object is gone.
    pub(crate) fn end(&mut self, kind: MetricsKind, key: &ObjectKey, now: Instant) {
        let objects = self.objects.entry(kind).or_default();
        let entry = objects.get_mut(key).filter(|entry| entry.end.is_none());
        let Some(entry) = entry else { return };
        entry.end = Some(now);
        self.ended_count += 1;
        if kind == MetricsKind::Pod {
            let thing = Arc::clone(&entry.thing);
            let owners = self.owners(key, &thing);
            self.note_ended(EndedPod {
                key: key.clone(),
                thing,
                owners,
                at: now,
            });
        }
        self.make_room(now);
    }

    /// Another replica knows of the end of a pod, which may have been before this one began.
    pub(crate) fn add_ended(&mut self, pod: EndedPod, now: Instant) {
        let uid = Arc::clone(&pod.thing.uid);
        let is_old = now.duration_since(pod.at) >= RETAINED_FOR;
        if is_old || self.pods.contains_key(&uid) {
            return;
        }
        let above = pod.owners.iter().skip(1);
        for ((kind, key), (above, owner)) in pod.owners.iter().zip(above) {
            // One that exists knows its own owner.
            let thing = InventoryObject {
                owner: Some((*above, Arc::clone(&owner.name))),
                ..InventoryObject::default()
            };
            self.put_ended(*kind, key, Arc::new(thing), pod.at);
        }
        self.put_ended(MetricsKind::Pod, &pod.key, Arc::clone(&pod.thing), pod.at);
        let known = (pod.key.clone(), Arc::clone(&pod.thing));
        self.pods.insert(uid, known);
        self.note_ended(pod);
        self.peer_revision += 1;
        self.make_room(now);
    }

    /// An object is gone, unless one of its name exists or went later.
    fn put_ended(
        &mut self,
        kind: MetricsKind,
        key: &ObjectKey,
        thing: Arc<InventoryObject>,
        at: Instant,
    ) {
        let objects = self.objects.entry(kind).or_default();
        let before = objects.get(key).map(|entry| entry.end);
        let is_later = |end: Option<Instant>| end.is_none_or(|end| end >= at);
        if before.is_some_and(is_later) {
            return;
        }
        let end = Some(at);
        objects.insert(key.clone(), InventoryEntry { thing, end });
        if before.is_none() {
            self.ended_count += 1;
        }
    }

    fn note_ended(&mut self, pod: EndedPod) {
        self.last_ended += 1;
        self.ended.insert(self.last_ended, pod);
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_first();
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.ended_count > MAX_ENDED {
            self.forget(now, MAX_ENDED / 2);
        }
    }

    /// Pods that are gone, after the one with this number, each with its own.
    pub(crate) fn ended_since(&self, since: u64) -> impl Iterator<Item = (u64, &EndedPod)> {
        let ended = self.ended.range(since.saturating_add(1)..);
        ended.map(|(number, pod)| (*number, pod))
    }

    /// Changes when other replicas tell of pods that were not known here.
    pub(crate) fn peer_revision(&self) -> u64 {
        self.peer_revision
    }

    /// Whatever `keep` does not hold is gone.
    pub(crate) fn keep_only(
        &mut self,
        kind: MetricsKind,
        keep: impl Fn(&ObjectKey) -> bool,
        now: Instant,
    ) {
        let objects = self.objects.entry(kind).or_default().iter();
        let ended: Vec<ObjectKey> = objects
            .filter(|(key, entry)| entry.end.is_none() && !keep(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in ended {
            self.end(kind, &key, now);
        }
    }

    /// Forgets what ended long ago.
    pub(crate) fn tidy(&mut self, now: Instant) {
        self.forget(now, MAX_ENDED);
    }

    fn forget(&mut self, now: Instant, most: usize) {
        let mut ends: Vec<Instant> = self
            .objects
            .values()
            .flat_map(BTreeMap::values)
            .filter_map(|entry| entry.end)
            .collect();
        ends.sort_unstable();
        let cutoff = ends.len().checked_sub(most).and_then(|over| ends.get(over));
        let cutoff = cutoff.copied();
        let keeps = |entry: &InventoryEntry| {
            entry.end.is_none_or(|end| {
                now.duration_since(end) < RETAINED_FOR && cutoff.is_none_or(|limit| end >= limit)
            })
        };
        for objects in self.objects.values_mut() {
            objects.retain(|_, entry| keeps(entry));
        }
        let entry = self.objects.values().flat_map(BTreeMap::values);
        self.ended_count = entry.filter(|entry| entry.end.is_some()).count();
        self.ended.retain(|_, pod| {
            now.duration_since(pod.at) < RETAINED_FOR && cutoff.is_none_or(|limit| pod.at >= limit)
        });
        // A uid stays as long as the pod has its name or its end is kept, even though another one
        // has followed; its own entry is the last.
        self.pods
            .retain(|_, (_, thing)| Arc::strong_count(thing) > 1);
    }

    /// An object that exists.
    pub(crate) fn get(&self, kind: MetricsKind, key: &ObjectKey) -> Option<&Arc<InventoryObject>> {
        let entry = self.objects.get(&kind)?.get(key)?;
        entry.end.is_none().then_some(&entry.thing)
    }

    /// Whether an object exists. Of kinds that are not watched one does that owns something.
    pub(crate) fn exists(&self, kind: MetricsKind, key: &ObjectKey) -> bool {
        let Some(owned) = kind.known_by() else {
            return self.get(kind, key).is_some();
        };
        let Some(objects) = self.objects.get(&owned) else {
            return false;
        };
        let first = ObjectKey {
            namespace: Arc::clone(&key.namespace),
            name: "".into(),
        };
        let near = objects.range(first..);
        let mut near = near.take_while(|(other, _)| other.namespace == key.namespace);
        near.any(|(_, entry)| {
            let owner = entry.thing.owner.as_ref();
            entry.end.is_none() && owner.is_some_and(|(of, name)| *of == kind && *name == key.name)
        })
    }

    /// The objects of a kind that exist, in order, in one namespace or in all.
    pub(crate) fn list<'a>(
        &'a self,
        kind: MetricsKind,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a InventoryObject)> {
        let objects = self.objects.get(&kind).into_iter().flatten();
        objects
            .filter(move |(key, entry)| {
                entry.end.is_none()
                    && namespace.is_none_or(|namespace| *key.namespace == *namespace)
            })
            .map(|(key, entry)| (key, &*entry.thing))
    }

    /// The pod with this uid, gone or not.
    pub(crate) fn pod_by_uid(&self, uid: &str) -> Option<&ObjectKey> {
        self.pods.get(uid).map(|(key, _)| key)
    }

    /// The object of `kind` that a pod belongs to. `uid` distinguishes pods of one name; empty
    /// takes the latest.
    pub(crate) fn of(&self, kind: MetricsKind, pod: &ObjectKey, uid: &str) -> Option<ObjectKey> {
        match kind {
            MetricsKind::Pod => return Some(pod.clone()),
            MetricsKind::Namespace => return Some(ObjectKey::new("", &pod.namespace)),
            MetricsKind::Service | MetricsKind::TrafficSplit => return None,
            _ => {}
        }
        let thing = self.thing(pod, uid)?;
        if kind == MetricsKind::Node {
            return (!thing.node.is_empty()).then(|| ObjectKey::new("", &thing.node));
        }
        let chain = self.owners(pod, thing);
        chain
            .into_iter()
            .find(|(owner, _)| *owner == kind)
            .map(|(_, key)| key)
    }

    /// What a pod is shown as where it does not belong to the kind requested: its topmost owner, or
    /// itself.
    pub(crate) fn topmost(&self, pod: &ObjectKey, uid: &str) -> ObjectId {
        let top = self
            .thing(pod, uid)
            .and_then(|thing| self.owners(pod, thing).pop());
        top.unwrap_or_else(|| (MetricsKind::Pod, pod.clone()))
    }

    /// Whether it is known what a pod is, or was.
    pub(crate) fn knows(&self, pod: &ObjectKey, uid: &str) -> bool {
        self.thing(pod, uid).is_some()
    }

    fn thing(&self, pod: &ObjectKey, uid: &str) -> Option<&InventoryObject> {
        if let Some((_, thing)) = self.pods.get(uid) {
            return Some(thing);
        }
        let entry = self.objects.get(&MetricsKind::Pod)?.get(pod)?;
        Some(&entry.thing)
    }

    /// Owners from the nearest to the topmost.
    fn owners(&self, pod: &ObjectKey, thing: &InventoryObject) -> Vec<ObjectId> {
        let mut chain = Vec::new();
        let mut next = thing.owner.clone();
        while let Some((kind, name)) = next
            && chain.len() < DEEPEST
        {
            let key = ObjectKey {
                namespace: pod.namespace.clone(),
                name,
            };
            let entry = self
                .objects
                .get(&kind)
                .and_then(|objects| objects.get(&key));
            next = entry.and_then(|entry| entry.thing.owner.clone());
            chain.push((kind, key));
        }
        chain
    }
}

#[cfg(test)]
mod tests;
