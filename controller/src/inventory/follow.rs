//! Updates the inventory by watches of the API server.
//!
//! Of most kinds only metadata is watched, and of that only names, labels and
//! owners are kept. Pods come from the World, which has them anyway.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crds::item::Item;
use crds::smi::TrafficSplit;
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, ReplicationController, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, Resource};
use model::translate;
use model::world::{ObjectKey, Owner, PodFacts, Store};
use parking_lot::RwLock;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Inventory, InventoryObject, Labels, kind::MetricsKind};
use crate::latest_model::LatestModel;

/// How often objects that ended long ago are forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// The inventory, and whether it is whole. Clones share both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followed {
    /// Which objects there are.
    pub inventory: Arc<RwLock<Inventory>>,
    /// Kinds whose first list is not there yet.
    waiting: Arc<AtomicUsize>,
    gauge: Gauge,
}

impl Followed {
    /// Starts to follow every kind, on tasks of their own. `unlisted` shows how
    /// many kinds are waited for.
    pub(crate) fn start(
        client: &Client,
        latest: LatestModel,
        inventory: Arc<RwLock<Inventory>>,
        unlisted: Gauge,
    ) -> Self {
        let followed = Self {
            inventory,
            waiting: Arc::default(),
            gauge: unlisted,
        };
        followed.follow::<Namespace>(client, MetricsKind::Namespace);
        followed.follow::<Node>(client, MetricsKind::Node);
        followed.follow::<ReplicationController>(client, MetricsKind::ReplicationController);
        followed.follow::<Service>(client, MetricsKind::Service);
        followed.follow::<DaemonSet>(client, MetricsKind::DaemonSet);
        followed.follow::<Deployment>(client, MetricsKind::Deployment);
        followed.follow::<ReplicaSet>(client, MetricsKind::ReplicaSet);
        followed.follow::<StatefulSet>(client, MetricsKind::StatefulSet);
        followed.follow::<Job>(client, MetricsKind::Job);
        followed.follow::<TrafficSplit>(client, MetricsKind::TrafficSplit);
        followed.wait_for_one_more();
        let pods = followed.clone();
        runtime::task::spawn(
            "metrics pods",
            async move { pods.follow_pods(latest).await },
        );
        let tidied = Arc::clone(&followed.inventory);
        runtime::task::spawn("metrics inventory", async move {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                tidied.write().tidy(Instant::now());
            }
        });
        followed
    }

    /// Whether every kind has been listed.
    pub(crate) fn is_whole(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    fn wait_for_one_more(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.gauge.inc();
    }

    fn listed(&self) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        self.gauge.dec();
    }

    fn follow<K>(&self, client: &Client, kind: MetricsKind)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    {
        self.wait_for_one_more();
        let api: Api<Item<PartialObjectMeta<K>>> = Api::all(client.clone());
        let followed = self.clone();
        runtime::task::spawn("metrics watch", async move {
            followed.follow_kind(api, kind).await;
        });
    }

    async fn follow_kind<K>(&self, api: Api<Item<PartialObjectMeta<K>>>, kind: MetricsKind)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    {
        let mut events = pin!(watch(api, watcher::Config::default()).default_backoff());
        let mut listing: BTreeSet<ObjectKey> = BTreeSet::new();
        let mut waiting = true;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(object)) => {
                    let key = key(object.meta());
                    listing.insert(key.clone());
                    let thing = thing(object.meta());
                    self.inventory.write().put(kind, key, Arc::new(thing));
                }
                Ok(Event::InitDone) => {
                    let listed = std::mem::take(&mut listing);
                    let mut inventory = self.inventory.write();
                    inventory.keep_only(kind, |key| listed.contains(key), Instant::now());
                    drop(inventory);
                    if std::mem::take(&mut waiting) {
                        self.listed();
                    }
                }
                Ok(Event::Apply(object)) => {
                    let thing = thing(object.meta());
                    let key = key(object.meta());
                    self.inventory.write().put(kind, key, Arc::new(thing));
                }
                Ok(Event::Delete(object)) => {
                    let key = key(object.meta());
                    self.inventory.write().end(kind, &key, Instant::now());
                }
                // Without its definition nothing of that kind exists.
                Err(error) if waiting && is_absent(&error) => {
                    waiting = false;
                    self.listed();
                }
                Err(error) if waiting => {
                    warn!(kind = kind.name(), %error, "metrics wait for a list");
                }
                Err(error) => debug!(kind = kind.name(), %error, "watch interrupted"),
            }
        }
    }

    async fn follow_pods(&self, mut latest: LatestModel) {
        let mut before: Store<PodFacts> = Store::default();
        let mut waiting = true;
        loop {
            let world = latest.borrow_and_update().clone();
            if let Some(compiled) = world {
                let pods = Arc::clone(&compiled.world.pods);
                if !Arc::ptr_eq(&pods, &before) {
                    self.take_pods(&pods, &before);
                    before = pods;
                }
                if std::mem::take(&mut waiting) {
                    self.listed();
                }
            }
            if latest.changed().await.is_err() {
                return;
            }
        }
    }

    fn take_pods(&self, pods: &Store<PodFacts>, before: &Store<PodFacts>) {
        let mut inventory = self.inventory.write();
        for (key, facts) in pods.iter() {
            let previous = before.get(key);
            if previous.is_some_and(|previous| Arc::ptr_eq(previous, facts)) {
                continue;
            }
            if previous.is_some_and(|previous| previous.uid != facts.uid) {
                // No World between the two of one name was seen.
                inventory.end(MetricsKind::Pod, key, Instant::now());
            }
            let text =
                |(name, value): (&Arc<str>, &Arc<str>)| (name.to_string(), value.to_string());
            let thing = InventoryObject {
                uid: facts.uid.clone(),
                labels: facts.labels.iter().map(text).collect(),
                owner: facts.owner.as_ref().and_then(owner_of),
                node: facts.node.clone(),
            };
            inventory.put(MetricsKind::Pod, key.clone(), Arc::new(thing));
        }
        for key in before.keys().filter(|key| !pods.contains_key(*key)) {
            inventory.end(MetricsKind::Pod, key, Instant::now());
        }
    }
}

fn owner_of(owner: &Owner) -> Option<(MetricsKind, Arc<str>)> {
    let kind = MetricsKind::of_owner(owner)?;
    Some((kind, owner.name.clone()))
}

fn key(meta: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

fn thing(meta: &ObjectMeta) -> InventoryObject {
    let labels: Labels = meta.labels.clone().unwrap_or_default();
    InventoryObject {
        uid: meta.uid.as_deref().unwrap_or_default().into(),
        labels,
        owner: translate::owner(meta).as_ref().and_then(owner_of),
        node: "".into(),
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}
