//! Drives FaultExperiments while this replica holds the Lease: a look each second.
//!
//! A look lists the experiments and drives each: reads what it decides by, and persists what is
//! decided. Nothing follows from a decision but its status: `granting` reads that on every replica
//! and grants, or does not. The crate `automation` decides.
//!
//! One list a second, and no watch, as for releases: it is consistent, so that what a write has
//! changed is seen, and it is made only while there are experiments.

mod context;
mod counted;
mod driven;
mod obstacles;
mod stored;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use model::compiled::Compiled;
use model::translate;
use model::world::ObjectKey;
use tokio::time::{Instant, sleep};
use tracing::warn;

pub(crate) use self::context::Experiments;

use self::context::{Around, resource};
use self::driven::Driven;
use super::calls::{list, within};

/// Between two looks: early reports come as often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks until dropped.
pub(crate) async fn drive(parts: Experiments) {
    let mut driver = Driver::new(parts);
    loop {
        sleep(LOOK_EVERY).await;
        driver.look().await;
    }
}

/// All experiments, while this replica leads.
struct Driver {
    parts: Experiments,
    driven: BTreeMap<ObjectKey, Driven>,
    /// The wall clock when this replica began to lead, and the monotonic one.
    began: (Duration, Instant),
}

opaque_debug!(Driver);

impl Driver {
    fn new(parts: Experiments) -> Self {
        let wall = parts.clock.now().duration_since(UNIX_EPOCH);
        Self {
            driven: BTreeMap::new(),
            began: (wall.unwrap_or_default(), Instant::now()),
            parts,
        }
    }

    /// Drives every experiment once.
    async fn look(&mut self) {
        let compiled = self.parts.latest.borrow().clone();
        let Some(compiled) = compiled else { return };
        if compiled.world.experiments.is_empty() {
            return self.drop_gone(&compiled, &BTreeMap::new());
        }
        let objects = match within(list(&self.parts.client, &resource())).await {
            Ok(objects) => objects,
            // Its grants end by themselves where nothing can be written for long.
            Err(error) => return warn!(%error, "experiments not listed"),
        };
        let objects = objects.into_iter();
        let objects: BTreeMap<ObjectKey, DynamicObject> = objects
            .map(|object| (translate::key(&object.metadata), object))
            .collect();
        self.drop_gone(&compiled, &objects);
        let mut under_way = under_way(&objects);
        for (key, object) in &objects {
            let uid = object.metadata.uid.as_deref().unwrap_or_default();
            let driven = self.driven.entry(key.clone());
            let driven = driven.or_insert_with(|| Driven::new(key, uid));
            let taken = under_way.get(&key.namespace).filter(|other| *other != key);
            let around = around(&self.parts, self.began, &compiled, taken);
            let is_under_way = driven.look(&around, object).await;
            let known = under_way.get(&key.namespace);
            if is_under_way && known.is_none() {
                under_way.insert(key.namespace.clone(), key.clone());
            } else if !is_under_way && known == Some(key) {
                under_way.remove(&key.namespace);
            }
        }
    }

    /// Forgets experiments that are not there any more; their runs have ended with them.
    fn drop_gone(&mut self, compiled: &Compiled, objects: &BTreeMap<ObjectKey, DynamicObject>) {
        let around = around(&self.parts, self.began, compiled, None);
        self.driven.retain(|key, driven| {
            let object = objects.get(key);
            let uid = object.and_then(|object| object.metadata.uid.as_deref());
            let is_there = uid.is_some_and(|uid| driven.is_of(uid));
            if !is_there {
                driven.gone(&around);
            }
            is_there
        });
    }
}

/// What a look sees.
fn around<'a>(
    parts: &'a Experiments,
    began: (Duration, Instant),
    compiled: &'a Compiled,
    taken: Option<&'a ObjectKey>,
) -> Around<'a> {
    Around {
        parts,
        compiled,
        now: began.0 + began.1.elapsed(),
        wall: Timestamp::try_from(parts.clock.now()).unwrap_or_default(),
        taken,
    }
}

/// By namespace, the first experiment whose status says that a run is under way.
fn under_way(objects: &BTreeMap<ObjectKey, DynamicObject>) -> BTreeMap<Arc<str>, ObjectKey> {
    let mut under_way = BTreeMap::new();
    for (key, object) in objects {
        if stored::is_under_way(object) {
            under_way
                .entry(key.namespace.clone())
                .or_insert_with(|| key.clone());
        }
    }
    under_way
}

#[cfg(test)]
mod tests;
