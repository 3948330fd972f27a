//! Drives CanaryReleases while this replica holds the Lease: a look each second.
//!
//! A look lists the releases and drives each: reads what it decides by, persists what is decided,
//! and then acts. Gates come last: of a pod that no release in force holds, the gate opens at once,
//! whatever was planned for it. While the releases cannot be listed, or one of them is newer than
//! the model, its pods keep their gates as they are.
//!
//! One list a second, and no watch: it is consistent, so that what a write has changed is seen, and
//! it is made only while there are releases or gates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use model::compiled::Compiled;
use model::world::ObjectKey;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::calls::list;
use super::context::{Around, Releases, resource};
use super::driven::{Driven, Held};
use super::gates::{self, GatedPod, Gates};

/// Between two looks: early reports come as often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Releases that are driven at one time: each waits for calls of the API server.
const AT_ONCE: usize = 8;

/// Looks until dropped.
pub(crate) async fn drive(parts: Releases) {
    let mut driver = Driver::new(parts);
    loop {
        sleep(LOOK_EVERY).await;
        driver.look().await;
    }
}

/// All releases, while this replica leads.
pub(super) struct Driver {
    parts: Releases,
    gates: Gates,
    driven: BTreeMap<ObjectKey, Driven>,
    /// The wall clock when this replica began to lead, and the monotonic one.
    began: (Duration, Instant),
}

opaque_debug!(Driver);

impl Driver {
    pub(super) fn new(parts: Releases) -> Self {
        let wall = parts.clock.now().duration_since(UNIX_EPOCH);
        Self {
            gates: Gates::new(parts.client.clone(), parts.metrics.failures.clone()),
            driven: BTreeMap::new(),
            began: (wall.unwrap_or_default(), Instant::now()),
            parts,
        }
    }

    /// Drives every release once, and opens what gates are to be opened.
    pub(super) async fn look(&mut self) {
        let compiled = self.parts.latest.borrow().clone();
        let Some(compiled) = compiled else { return };
        let shut: Vec<GatedPod> = gates::shut(&compiled.world).collect();
        self.gates.retain(&shut);
        if shut.is_empty() && compiled.world.releases.is_empty() {
            self.driven.clear();
            return;
        }
        // It has the time of any call, so that a replica without answers notices and lets the
        // Lease go.
        let objects = match list(&self.parts.client, &resource()).await {
            Ok(objects) => objects,
            Err(error) => {
                self.parts.metrics.failures.inc();
                warn!(%error, "releases not listed");
                return;
            }
        };
        let held = self.drive(&compiled, objects).await;
        self.gates.open(due(shut, &held)).await;
    }

    /// By Deployment, the pods whose gates open; those of its other pods stay as they are.
    async fn drive(
        &mut self,
        compiled: &Arc<Compiled>,
        objects: Vec<DynamicObject>,
    ) -> BTreeMap<ObjectKey, BTreeSet<String>> {
        let around = Around {
            parts: &self.parts,
            compiled,
            now: self.began.0 + self.began.1.elapsed(),
            wall: timestamp(self.parts.clock.now()),
        };
        let mut before = std::mem::take(&mut self.driven);
        let mut work: Vec<(ObjectKey, DynamicObject, Driven)> = Vec::new();
        for object in objects {
            let meta = &object.metadata;
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            let key = ObjectKey::new(namespace, meta.name.as_deref().unwrap_or_default());
            let uid = meta.uid.as_deref().unwrap_or_default();
            let driven = match before.remove(&key) {
                Some(same) if same.is_of(uid) => same,
                other => {
                    let mut driven = Driven::new(&key, uid);
                    if let Some(other) = other {
                        other.gone(around, Some(&mut driven));
                    }
                    driven
                }
            };
            work.push((key, object, driven));
        }
        for gone in before.into_values() {
            gone.gone(around, None);
        }
        let mut held: BTreeMap<ObjectKey, BTreeSet<String>> = BTreeMap::new();
        for batch in work.chunks_mut(AT_ONCE) {
            let looks = batch
                .iter_mut()
                .map(|(_, object, driven)| driven.look(around, object));
            for Held { deployment, opens } in join_all(looks).await.into_iter().flatten() {
                held.entry(deployment).or_default().extend(opens);
            }
        }
        self.driven = work
            .into_iter()
            .map(|(key, _, driven)| (key, driven))
            .collect();
        held
    }
}

/// Which gates open now, and why.
fn due(
    shut: Vec<GatedPod>,
    held: &BTreeMap<ObjectKey, BTreeSet<String>>,
) -> Vec<(GatedPod, &'static str)> {
    let due = shut.into_iter().filter_map(|pod| {
        let deployment = pod.deployment.as_ref();
        match deployment.and_then(|deployment| held.get(deployment)) {
            // Deleted, suspended or not accepted: an ordinary rolling update.
            None => Some((pod, "NotHeld")),
            Some(opens) => opens.contains(&*pod.key.name).then_some((pod, "Released")),
        }
    });
    due.collect()
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}
