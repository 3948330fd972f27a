//! Records how long configuration takes: when a generation of an object was first compiled, and
//! when every proxy that needs it had acknowledged it. `GET /acks` shows it. Deleted objects leave
//! the record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use model::compiled::Compiled;
use model::problem::Problems;
use model::world::{PodFacts, Store};
use parking_lot::Mutex;
use policy::name::ObjectRef;
use serde::Serialize;

use super::acknowledged::{Consumer, Observed, Tally};
use crate::latest_model::LatestModel;

/// Generations that are kept; the oldest goes first.
const MAX_ENTRIES: usize = 4096;

/// One generation of one object. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// For example `TrafficSplit`.
    pub kind: &'static str,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Generation of the object.
    pub generation: i64,
    /// When it was first compiled on this replica.
    pub compiled_at: u64,
    /// When all proxies that need it had it, the first time.
    pub complete_at: Option<u64>,
    /// Proxies that need it, when last looked at.
    pub needed: usize,
    /// Those of them that have it.
    pub acknowledged: usize,
}

/// The record. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acks {
    record: Arc<Mutex<Record>>,
}

#[derive(Debug, Default)]
struct Record {
    /// By number; the oldest has the lowest.
    entries: BTreeMap<u64, Entry>,
    /// The generation in force of each object, and the number of its entry.
    current: BTreeMap<ObjectRef, (i64, u64)>,
    /// Number of the next entry.
    next: u64,
}

impl Acks {
    /// Follows models and acknowledgements until the models end.
    pub(crate) async fn follow(self, mut latest: LatestModel, observed: Observed) {
        let mut changes = observed.changes();
        let mut known: Option<Arc<Problems>> = None;
        let mut pods: Store<PodFacts> = Store::default();
        loop {
            tokio::select! {
                biased;
                changed = latest.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let Some(compiled) = latest.borrow_and_update().clone() else {
                        continue;
                    };
                    if !Arc::ptr_eq(&pods, &compiled.world.pods) {
                        pods = compiled.world.pods.clone();
                        observed.forget_gone(&compiled.model);
                    }
                    // The same reports hold the same generations.
                    let same = |known: &Arc<Problems>| Arc::ptr_eq(known, &compiled.problems);
                    if !known.as_ref().is_some_and(same) {
                        let news = self.compiled(&compiled, known.as_deref());
                        // Proxies may need nothing new, and then answer nothing.
                        self.look(news, &observed, &compiled);
                        known = Some(compiled.problems.clone());
                    }
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let Some(compiled) = latest.borrow().clone() else {
                        continue;
                    };
                    match (observed.take_touched(Consumer::Record), &known) {
                        (Some(touched), _) => self.look(touched.iter(), &observed, &compiled),
                        (None, Some(known)) => {
                            self.look(known.reports.keys(), &observed, &compiled);
                        }
                        (None, None) => {}
                    }
                }
            }
        }
    }

    /// The record as JSON, oldest first.
    ///
    /// # Errors
    /// Never in practice: the entries are plain.
    pub(crate) fn json(&self) -> Result<String, serde_json::Error> {
        let record = self.record.lock();
        let entries: Vec<&Entry> = record.entries.values().collect();
        serde_json::to_string(&serde_json::json!({"acks": entries}))
    }

    /// Notes what a model says. Returns the objects about which it says something else
    /// than `before`.
    fn compiled<'a>(
        &self,
        compiled: &'a Compiled,
        before: Option<&'a Problems>,
    ) -> Box<dyn Iterator<Item = &'a ObjectRef> + Send + 'a> {
        let reports = &compiled.problems.reports;
        let mut record = self.record.lock();
        let Some(before) = before else {
            let generations = reports.iter();
            let generations = generations.map(|(object, report)| (object, report.generation));
            record.saw(generations, compiled.at);
            return Box::new(reports.keys());
        };
        let mut gone = BTreeSet::new();
        for object in compiled.problems.news(before) {
            match reports.get(object) {
                Some(report) => record.note(object, report.generation, compiled.at),
                None => {
                    gone.insert(object);
                }
            }
        }
        record.forget(&gone);
        Box::new(compiled.problems.news(before))
    }

    fn look<'a>(
        &self,
        objects: impl Iterator<Item = &'a ObjectRef>,
        observed: &Observed,
        compiled: &Compiled,
    ) {
        let now = SystemTime::now();
        let mut record = self.record.lock();
        for object in objects {
            let Some((generation, _)) = record.current.get(object).copied() else {
                continue;
            };
            let tally = observed.tally(&compiled.model, object, generation);
            record.count(object, &tally, now);
        }
    }
}

impl Record {
    fn saw<'a>(&mut self, objects: impl Iterator<Item = (&'a ObjectRef, i64)>, at: SystemTime) {
        for (object, generation) in objects {
            self.note(object, generation, at);
        }
    }

    fn note(&mut self, object: &ObjectRef, generation: i64, at: SystemTime) {
        let number = match self.current.get(object) {
            Some((known, number)) if *known == generation => *number,
            _ => self.add(object, generation, at),
        };
        self.current.insert(object.clone(), (generation, number));
    }

    fn add(&mut self, object: &ObjectRef, generation: i64, at: SystemTime) -> u64 {
        if self.entries.len() >= MAX_ENTRIES {
            self.entries.pop_first();
        }
        let entry = Entry {
            kind: object.kind.as_str(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
            generation,
            compiled_at: millis(at),
            complete_at: None,
            needed: 0,
            acknowledged: 0,
        };
        let number = self.next;
        self.entries.insert(number, entry);
        self.next += 1;
        number
    }

    /// Drops all generations of objects that are not there any more: the proxies that had them
    /// may be gone as well, and nothing would correct their number.
    fn forget(&mut self, gone: &BTreeSet<&ObjectRef>) {
        if gone.is_empty() {
            return;
        }
        self.current.retain(|object, _| !gone.contains(object));
        let names = gone
            .iter()
            .map(|object| (object.kind.as_str(), &*object.namespace, &*object.name));
        let names: BTreeSet<(&str, &str, &str)> = names.collect();
        self.entries
            .retain(|_, one| !names.contains(&(one.kind, &*one.namespace, &*one.name)));
    }

    fn count(&mut self, object: &ObjectRef, tally: &Tally, now: SystemTime) {
        let Some((_, number)) = self.current.get(object) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(number) else {
            return;
        };
        entry.needed = tally.needed;
        entry.acknowledged = tally.acknowledged;
        if entry.complete_at.is_none() && tally.needed > 0 && tally.needed == tally.acknowledged {
            entry.complete_at = Some(millis(now));
        }
    }
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use policy::name::Kind;
    use serde_json::json;

    use super::*;
    use crate::testing::cluster::{Cluster, group, shop};

    const START: SystemTime = UNIX_EPOCH;

    fn split() -> ObjectRef {
        ObjectRef::new(Kind::TrafficSplit, "shop", "web")
    }

    fn tally(acknowledged: usize, needed: usize) -> Tally {
        Tally {
            needed,
            acknowledged,
            ..Tally::default()
        }
    }

    #[test]
    fn generation_completes_with_last_proxy_and_stays_complete() {
        let mut record = Record::default();
        record.saw([(&split(), 3)].into_iter(), START);
        record.count(&split(), &tally(1, 2), START + Duration::from_millis(5));
        assert_eq!(record.entries[&0].complete_at, None);
        record.count(&split(), &tally(2, 2), START + Duration::from_millis(9));
        record.count(&split(), &tally(2, 3), START + Duration::from_millis(50));
        assert_eq!(record.entries[&0].complete_at, Some(9));
        assert_eq!(
            (record.entries[&0].acknowledged, record.entries[&0].needed),
            (2, 3)
        );
    }

    #[test]
    fn recompiled_generation_reuses_entry_and_new_one_adds() {
        let mut record = Record::default();
        for generation in [1, 1, 2] {
            record.saw([(&split(), generation)].into_iter(), START);
        }
        let generations: Vec<i64> = record
            .entries
            .values()
            .map(|entry| entry.generation)
            .collect();
        assert_eq!(generations, [1, 2]);
    }

    #[test]
    fn deleted_object_leaves_the_record() {
        let acks = Acks::default();
        let compiled = |cluster: &Cluster| {
            let (model, problems) = cluster.compile();
            Compiled::new(Arc::new(cluster.world()), model, problems)
        };
        let group = |name: &str| group(name, json!([{"name": "all", "methods": ["GET"]}]));
        let both = compiled(&shop().with(group("kept")).with(group("gone")));
        drop(acks.compiled(&both, None));
        let one = compiled(&shop().with(group("kept")));
        drop(acks.compiled(&one, Some(&both.problems)));
        let shown = acks.json().unwrap();
        assert!(shown.contains(r#""name":"kept""#), "{shown}");
        assert!(!shown.contains("gone"), "{shown}");
        // One that is made again is another object.
        drop(acks.compiled(&both, Some(&one.problems)));
        let shown = acks.json().unwrap();
        assert_eq!(shown.matches(r#""name":"gone""#).count(), 1, "{shown}");
    }

    #[test]
    fn object_without_proxies_is_not_complete() {
        let mut record = Record::default();
        record.saw([(&split(), 1)].into_iter(), START);
        record.count(&split(), &tally(0, 0), START);
        assert_eq!(record.entries[&0].complete_at, None);
    }

    #[test]
    fn oldest_entries_go_and_the_newest_is_still_counted() {
        let mut record = Record::default();
        for generation in 1..=MAX_ENTRIES as i64 + 10 {
            record.saw([(&split(), generation)].into_iter(), START);
        }
        assert_eq!(record.entries.len(), MAX_ENTRIES);
        record.count(&split(), &tally(1, 1), START);
        let (_, newest) = record.entries.last_key_value().unwrap();
        assert!(newest.complete_at.is_some());
    }
}
