//! What is there now of each node: its pods, accounts, modes and Services.

use std::collections::{BTreeMap, BTreeSet};

use policy::mode::{AccessMode, MtlsMode};

use super::key::NodeKey;
use crate::inventory::Inventory;
use crate::model::{Model, modes};
use crate::world::ObjectKey;

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
        workload.access = Some(workload.access.map_or(access, |held| held.min(access)));
        workload.mtls = Some(workload.mtls.map_or(mtls, |held| held.min(mtls)));
    }
    all
}
