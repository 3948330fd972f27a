//! The current pods, accounts, modes and Services of each graph node, which complete what reports
//! lack about pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::labels;
use model::world::{ObjectKey, PodFacts};
use model::{Model, PodEntry, modes};
use policy::mode::{AccessMode, MtlsMode};
use tokio::time::Instant;

use super::key::NodeKey;
use crate::inventory::Inventory;
use crate::observe::reports::Reporter;

/// How long they are held.
const CACHED_FOR: Duration = Duration::from_secs(5);
/// Intervals for which one that has gone may still be shown: by another replica, which made its own
/// [`CACHED_FOR`] ago and a response of them two seconds ago.
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
    /// Those that request a proxy and have none.
    pub without_proxy: u32,
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
            workload.without_proxy += u32::from(requests_proxy(model, pod, facts));
            continue;
        }
        workload.meshed += 1;
        workload.identities.insert(index.identity(pod, facts));
        let namespace = index.world.namespace(&pod.namespace);
        let access = modes::access(&index.defaults, namespace, &facts.annotations);
        let mtls = modes::mtls(&index.defaults, namespace, &facts.annotations);
        workload.access = Some(workload.access.map_or(access, |cached| cached.min(access)));
        workload.mtls = Some(workload.mtls.map_or(mtls, |cached| cached.min(mtls)));
    }
    all
}

/// Whether a pod requests a proxy, by its own label or its namespace's, where one can be given. One
/// that ends will not be given any more.
fn requests_proxy(model: &Model, pod: &ObjectKey, facts: &PodFacts) -> bool {
    let index = &model.index;
    let excluded = &index.defaults.excluded_namespaces;
    if facts.terminating || facts.host_network || excluded.contains(&*pod.namespace) {
        return false;
    }
    let own = facts.labels.get(labels::INJECT);
    let namespace = index.world.namespace(&pod.namespace);
    let asked = own.or_else(|| namespace?.labels.get(labels::INJECT));
    asked.is_some_and(|asked| **asked == *labels::ENABLED)
}

/// Those of the last seconds: they are made by the first query.
#[derive(Debug, Default)]
pub(crate) struct CachedWorkloads {
    made: Option<(Instant, Arc<Workloads>)>,
    known_from: u64,
}

impl CachedWorkloads {
    /// What is there in this interval.
    pub(crate) fn get(
        &mut self,
        interval: u64,
        make: impl FnOnce() -> Workloads,
    ) -> Arc<Workloads> {
        if let Some((made, cached)) = &self.made
            && made.elapsed() < CACHED_FOR
        {
            return Arc::clone(cached);
        }
        let new = Arc::new(make());
        match &self.made {
            None => self.known_from = interval,
            Some((_, old)) if old.keys().any(|node| !new.contains_key(node)) => {
                self.known_from = interval + STILL_SHOWN;
            }
            Some(_) => {}
        }
        self.made = Some((Instant::now(), Arc::clone(&new)));
        new
    }

    /// The interval since which none has gone, as far as is known here. A reader that was shown what
    /// was there before may have been shown more than there is now.
    pub(crate) fn known_from(&self) -> u64 {
        self.known_from
    }
}

/// Which workload owns which pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owners<'a> {
    /// Owners of pods.
    pub inventory: &'a Inventory,
    /// Which ports of pods Services lead to; `None` until there is one.
    pub model: Option<&'a Model>,
}

impl Owners<'_> {
    /// The account by whose certificate a pod reports. Where a replica does not send it, the one
    /// that the pod has: it keeps it as long as its uid.
    pub(super) fn account(&self, reporter: &Reporter) -> Option<ObjectKey> {
        let account = reporter.account.clone();
        account.or_else(|| self.account_of(&reporter.pod, &reporter.uid))
    }

    /// The account of the pod that has this name and uid now.
    pub(super) fn account_of(&self, pod: &ObjectKey, uid: &str) -> Option<ObjectKey> {
        let facts = self.model?.index.world.pods.get(pod)?;
        (*facts.uid == *uid).then(|| ObjectKey {
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&facts.service_account),
        })
    }

    /// The port of a pod that a Service's port leads to; 0 if that is not known.
    pub(super) fn own_port(&self, pod: &ObjectKey, backend: &ObjectKey, port: u16) -> u16 {
        let service = &*backend.service();
        let led_to_by = self.entry(pod).into_iter().flat_map(PodEntry::led_to_by);
        let mut found = led_to_by.filter(|(at, there, _)| at == service && *there == port);
        found.next().map_or(0, |(_, _, own)| *own)
    }

    /// The Service port behind which a pod's own port stands, if there is one only.
    pub(super) fn only_service(&self, pod: &ObjectKey, own_port: u16) -> Option<(ObjectKey, u16)> {
        let serves = self.entry(pod).into_iter().flat_map(|entry| &entry.serves);
        let mut serves = serves.filter(|(_, _, own)| *own == own_port);
        let (service, port, _) = serves.next()?;
        serves.next().is_none().then(|| (service.clone(), *port))
    }

    fn entry(&self, pod: &ObjectKey) -> Option<&PodEntry> {
        let index = self.model.map(|model| &model.index)?;
        index.pods.get(pod).map(|entry| &**entry)
    }
}

#[cfg(test)]
mod tests {
    use model::Defaults;
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::cluster::{self, Cluster};

    #[test]
    fn pod_that_asked_for_no_proxy_lacks_none() {
        let labelled = |object: Value, value: &str| {
            cluster::set(object, "/metadata/labels/weft.dev~1inject", json!(value))
        };
        let pod = |namespace: &str, name: &str, ip: &str| {
            cluster::in_namespace(cluster::plain_pod(name, ip, "web"), namespace)
        };
        let host = pod("shop", "host", "10.0.1.3");
        let world = Cluster::default()
            .with(labelled(cluster::namespace("shop"), "enabled"))
            .with(cluster::namespace("bank"))
            .with(labelled(cluster::namespace("kube-system"), "enabled"))
            .with(pod("shop", "asks-by-namespace", "10.0.1.1"))
            .with(labelled(pod("shop", "declines", "10.0.1.2"), "disabled"))
            .with(cluster::set(host, "/spec/hostNetwork", json!(true)))
            .with(cluster::pod("meshed", "10.0.1.4", "web"))
            .with(pod("bank", "asks-nothing", "10.0.1.5"))
            .with(labelled(pod("bank", "asks-itself", "10.0.1.6"), "enabled"))
            .with(pod("kube-system", "dns", "10.0.1.7"));
        let defaults = Defaults {
            excluded_namespaces: Arc::new(["kube-system".to_owned()].into()),
            ..Defaults::default()
        };
        let (model, _) = Model::compile(&Arc::new(world.world()), &defaults);
        let all = workloads(&model, &Inventory::default());
        let lacking = all.iter().filter(|(_, one)| one.without_proxy > 0);
        let lacking: Vec<&str> = lacking.map(|(node, _)| &*node.object.name).collect();
        assert_eq!(lacking, ["asks-itself", "asks-by-namespace"]);
        assert_eq!(all.len(), 7);
    }

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
        assert_eq!(cached.known_from(), 100, "no look before");
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
