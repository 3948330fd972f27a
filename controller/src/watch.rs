//! Watches the cluster and publishes it as one World after another.
//!
//! One task per kind lists, watches and translates, so only trimmed facts are ever kept. One task
//! collects them. The first World appears when every kind has been listed completely, never
//! before: an incomplete one would look like permission.
//!
//! A change is published at once when there was none for a while, else at most one World per
//! `PAUSE`. Urgent changes (an endpoint that left, a policy or a mode that changed) do not wait.
//! Readers see the latest World only, so a slow reader skips and never queues.
//!
//! A kind whose CustomResourceDefinition is missing counts as empty until it
//! appears. Kinds of the Gateway API are another project's: of their versions the newest that is
//! served is read, and in a cluster without them they are empty at once.
//!
//! May import `apiserver`, `metrics` and `settings`.

mod outage;
mod reading;
mod versions;

use std::{sync::Arc, time::Duration};

use crds::smi::validation::Cluster;
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicObject},
};
use model::{
    translate::{self, Unusable},
    world::{
        Fact, World,
        collect::{Collector, KindFacts, News, Step},
        kinds::{Versioned, every_kind, in_versions},
    },
};
use policy::name::Kind;
use runtime::ready::Ready;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{
    metrics::WorldMetrics,
    settings::gateways::GatewayApi,
    watch::{
        outage::Outages,
        reading::{AnyStep, Followed, Reading},
        versions::follow_served,
    },
};

/// At most one World in this time, except for what must not wait.
const PAUSE: Duration = Duration::from_millis(100);
/// Steps that may wait for the collector; a full queue slows the watchers down,
/// which the API server bears.
const STEPS: usize = 1024;

/// Hands the collector facts that come from elsewhere than the API server.
#[derive(Clone)]
pub(crate) struct Feed(mpsc::Sender<AnyStep>);

opaque_debug!(Feed);

impl Feed {
    /// The next World has what this step changes. Nothing happens once nothing is collected any
    /// more.
    pub(crate) async fn take(&self, step: impl FnOnce(&mut Collector) -> News + Send + 'static) {
        let _ = self.0.send(Box::new(step)).await;
    }
}

/// Starts watching. The receiver holds `None` until everything has been listed
/// once. Watching ends when the receiver and all its clones are dropped. Objects
/// that cannot be read are counted in `metrics`. Kinds whose lists or watches keep failing
/// are measured there too, and noted beside `ready`, which stays as it is. Kinds of the Gateway API
/// that `gateway_api` leaves out are not read, and count as empty. Also returns what takes facts
/// from elsewhere.
pub(crate) fn start(
    client: Client,
    cluster: Arc<Cluster>,
    gateway_api: GatewayApi,
    metrics: WorldMetrics,
    ready: Ready,
) -> (watch::Receiver<Option<Arc<World>>>, Feed) {
    let (steps, received) = mpsc::channel(STEPS);
    let (publish, worlds) = watch::channel(None);
    let feed = Feed(steps.clone());
    let follower = Follower {
        client,
        cluster,
        gateway_api,
        steps,
        outages: Outages::new(metrics, ready),
    };
    follower.follow_all();
    runtime::task::spawn("collect", collect(received, publish));
    (worlds, feed)
}

/// Starts tasks that follow one kind each.
struct Follower {
    client: Client,
    /// What objects are judged by besides themselves.
    cluster: Arc<Cluster>,
    /// Which kinds of the Gateway API are read.
    gateway_api: GatewayApi,
    steps: mpsc::Sender<AnyStep>,
    outages: Outages,
}

macro_rules! followers {
    ($($(#[$doc:meta])* $field:ident: $facts:ident = $kind:ty, $how:ident $translate:ident,
        $change:ident, $object:expr, $status:expr;)+) => {
        impl Follower {
            fn follow_all(&self) {
                $(self.$how::<$kind, _>(|collector| &mut collector.$field, translate::$translate);)+
            }
        }
    };
}

every_kind!(followers);

impl Follower {
    /// Follows a kind whose objects are judged when they are read.
    fn validate<K, T>(
        &self,
        pick: fn(&mut Collector) -> &mut KindFacts<T>,
        translate: fn(&DynamicObject, &Cluster) -> T,
    ) where
        K: Resource<DynamicType = ()>,
        T: Fact,
    {
        let cluster = self.cluster.clone();
        self.read::<K, T>(pick, move |object| Ok(translate(&object, &cluster)));
    }

    /// Follows a kind of which the API server may serve one of several versions, or none.
    fn serve<K, T>(
        &self,
        pick: fn(&mut Collector) -> &mut KindFacts<T>,
        translate: fn(&DynamicObject, &Cluster) -> T,
    ) where
        K: Versioned,
        T: Fact,
    {
        let cluster = self.cluster.clone();
        let resource = ApiResource::erase::<K>(&());
        let kind = Kind::of(&resource.group, &resource.kind);
        let reading = Reading {
            // Two kinds have one name, and metrics keep them apart.
            kind: kind.map_or_else(|| resource.kind.clone(), |kind| kind.to_string()),
            steps: self.steps.clone(),
            outages: self.outages.clone(),
            pick,
            translate: move |object: DynamicObject| Ok::<T, Unusable>(translate(&object, &cluster)),
        };
        let versions = in_versions(&resource, K::VERSIONS);
        let (client, is_read) = (self.client.clone(), is_read(self.gateway_api, kind));
        runtime::task::spawn("watch", async move {
            if is_read {
                follow_served(client, &versions, &reading).await;
            } else {
                // There is no right to it.
                reading.take(Step::Absent).await;
            }
        });
    }

    fn read<K, T>(
        &self,
        pick: fn(&mut Collector) -> &mut KindFacts<T>,
        translate: impl Fn(DynamicObject) -> Result<T, Unusable> + Send + Sync + 'static,
    ) where
        K: Resource<DynamicType = ()>,
        T: Fact,
    {
        let resource = ApiResource::erase::<K>(&());
        let api = Api::all_with(self.client.clone(), &resource);
        let reading = Reading {
            kind: resource.kind,
            steps: self.steps.clone(),
            outages: self.outages.clone(),
            pick,
            translate,
        };
        runtime::task::spawn("watch", async move {
            let mut followed = Followed::new(&reading.kind, &reading.outages);
            reading.follow(api, &mut followed).await;
        });
    }
}

/// Whether there is a right to a kind of the Gateway API.
fn is_read(gateway_api: GatewayApi, kind: Option<Kind>) -> bool {
    match gateway_api {
        GatewayApi::Off => false,
        GatewayApi::Routes => !matches!(
            kind,
            Some(Kind::Gateway | Kind::GatewayClass | Kind::TlsRoute)
        ),
        GatewayApi::Gateways => true,
    }
}

/// Applies steps and publishes Worlds, until there is no reader or no writer.
async fn collect(mut steps: mpsc::Receiver<AnyStep>, publish: watch::Sender<Option<Arc<World>>>) {
    let mut collector = Collector::default();
    let mut news = News::None;
    let mut not_before = Instant::now();
    loop {
        let waiting = news != News::None && collector.complete();
        tokio::select! {
            biased;
            step = steps.recv() => {
                let Some(step) = step else { return };
                news = news.max(step(&mut collector));
                // What has arrived together goes out together.
                for _ in 0..STEPS {
                    let Ok(step) = steps.try_recv() else { break };
                    news = news.max(step(&mut collector));
                }
                let due = news == News::Urgent || Instant::now() >= not_before;
                if news == News::None || !due || !collector.complete() {
                    continue;
                }
            }
            () = sleep_until(not_before), if waiting => {}
            () = publish.closed() => return,
        }
        publish.send_replace(Some(Arc::new(collector.world())));
        news = News::None;
        not_before = Instant::now() + PAUSE;
    }
}

#[cfg(test)]
mod tests;
