//! What is there now of each node: its pods, accounts, modes and Services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use policy::mode::{AccessMode, MtlsMode};
use tokio::time::Instant;

use super::key::NodeKey;
use crate::inventory::Inventory;
use crate::model::{Model, modes};
use crate::world::ObjectKey;

/// How long they are held.
const CACHED_FOR: Duration = Duration::from_secs(5);
/// Slots for which one that has gone may still be shown: by another replica, which made its own
/// [`CACHED_FOR`] ago and an answer of them two seconds ago.
const STILL_SHOWN: u64 = 3;

/// The pods of one node, taken together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workload {
    /// SPIFFE ids of those with a proxy.
    pub identities: BTreeSet<String>,
    /// Pods that there are.
    pub pods: u32,
    /// Those with a proxy.
    pub meshed: u32,
    /// The loosest mode of those with a proxy.
    pub access: Option<AccessMode>,
    /// The same.
    pub mtls: Option<MtlsMode>,
    /// Services that they serve.
    pub services: BTreeSet<ObjectKey>,
}

/// All of them.
pub(crate) type Workloads = BTreeMap<NodeKey, Workload>;

/// Every pod that runs, by its topmost owner.
pub(crate) fn workloads(model: &Model, inventory: &Inventory) -> Workloads {
    let index = &model.index;
    let mut all = Workloads::new();
    for (pod, facts) in index.world.pods.iter().filter(|(_, facts)| !facts.ended) {
        let node = NodeKey::of_workload(inventory.topmost(pod, &facts.uid));
        let workload = all.entry(node).or_default();
        workload.pods += 1;
        let serves = index.pods.get(pod).map_or(&[][..], |entry| &entry.serves);
        let services = serves.iter().map(|(service, ..)| service.clone());
        workload.services.extend(services);
        if facts.proxy.is_none() {
            continue;
        }
        workload.meshed += 1;
        workload.identities.insert(index.identity(pod, facts));
        let namespace = index.world.namespace(&pod.namespace);
        let access = modes::access(&index.defaults, namespace, &facts.appearance);
        let mtls = modes::mtls(&index.defaults, namespace, &facts.appearance);
        workload.access = Some(workload.access.map_or(access, |cached| cached.min(access)));
        workload.mtls = Some(workload.mtls.map_or(mtls, |cached| cached.min(mtls)));
    }
    all
}

/// Those of the last seconds: they are made when somebody asks.
#[derive(Debug, Default)]
pub(crate) struct CachedWorkloads {
    made: Option<(Instant, Arc<Workloads>)>,
    known_from: u64,
}

impl CachedWorkloads {
    /// What is there in this slot.
    pub(crate) fn get(&mut self, slot: u64, make: impl FnOnce() -> Workloads) -> Arc<Workloads> {
        if let Some((made, cached)) = &self.made
            && made.elapsed() < CACHED_FOR
        {
            return Arc::clone(cached);
        }
        let new = Arc::new(make());
        match &self.made {
            None => self.known_from = slot,
            Some((_, old)) if old.keys().any(|node| !new.contains_key(node)) => {
                self.known_from = slot + STILL_SHOWN;
            }
            Some(_) => {}
        }
        self.made = Some((Instant::now(), Arc::clone(&new)));
        new
    }

    /// The slot since which none has gone, as far as is known here. Who was shown what was
    /// there before may have been shown more than there is now.
    pub(crate) fn known_from(&self) -> u64 {
        self.known_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Workloads {
        let nodes = names.iter().map(|name| {
            let node = NodeKey::parse(&format!("shop/Deployment/{name}"));
            (node.unwrap(), Workload::default())
        });
        nodes.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_known_since_when_no_workload_has_gone() {
        let mut cached = CachedWorkloads::default();
        let later = || tokio::time::advance(CACHED_FOR);
        cached.get(100, || of(&["api", "web"]));
        assert_eq!(cached.known_from(), 100, "nobody looked before");
        cached.get(101, || of(&[]));
        assert_eq!(cached.known_from(), 100, "made a moment ago");
        later().await;
        cached.get(102, || of(&["api", "cart", "web"]));
        assert_eq!(cached.known_from(), 100, "one more");
        later().await;
        cached.get(103, || of(&["api", "web"]));
        assert_eq!(cached.known_from(), 103 + STILL_SHOWN);
    }
}
