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
//! May import `apiserver` and `metrics`.

mod outage;
mod versions;

use std::{sync::Arc, time::Duration};

use crds::{item::Item, smi::validation::Cluster};
use futures::{TryStreamExt, pin_mut};
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicObject},
    runtime::{WatchStreamExt, watcher},
};
use model::{
    translate::{self, Unusable},
    world::{
        Fact, ObjectKey, World,
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
use tracing::{debug, info, warn};

use crate::{
    apiserver::client::WATCH_SECONDS,
    metrics::WorldMetrics,
    watch::{
        outage::{Outage, Outages},
        versions::follow_served,
    },
};

/// At most one World in this time, except for what must not wait.
const PAUSE: Duration = Duration::from_millis(100);
/// Steps that may wait for the collector; a full queue slows the watchers down,
/// which the API server bears.
const STEPS: usize = 1024;
/// How long a kind must be unknown to the API server before it counts as empty
/// at the start: a server that is still loading its CRDs must not open the mesh.
const ABSENT_AT_START: Duration = Duration::from_secs(2);
/// The same for a kind that was served before: its objects are kept that long.
const ABSENT_LATER: Duration = Duration::from_secs(60);

/// Any one step of any one kind.
type AnyStep = Box<dyn FnOnce(&mut Collector) -> News + Send>;

/// Starts watching. The receiver holds `None` until everything has been listed
/// once. Watching ends when the receiver and all its clones are dropped. Objects
/// that cannot be read are counted in `metrics`. Kinds whose lists or watches keep failing
/// are measured there too, and noted beside `ready`, which stays as it is. Without `gateway_api`
/// kinds of the Gateway API are not read, and count as empty.
pub(crate) fn start(
    client: Client,
    cluster: Arc<Cluster>,
    gateway_api: bool,
    metrics: WorldMetrics,
    ready: Ready,
) -> watch::Receiver<Option<Arc<World>>> {
    let (steps, received) = mpsc::channel(STEPS);
    let (publish, worlds) = watch::channel(None);
    let follower = Follower {
        client,
        cluster,
        gateway_api,
        steps,
        outages: Outages::new(metrics, ready),
    };
    follower.follow_all();
    runtime::task::spawn("collect", collect(received, publish));
    worlds
}

/// Starts tasks that follow one kind each.
struct Follower {
    client: Client,
    /// What objects are judged by besides themselves.
    cluster: Arc<Cluster>,
    /// Whether kinds of the Gateway API are read.
    gateway_api: bool,
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
        let (client, gateway_api) = (self.client.clone(), self.gateway_api);
        runtime::task::spawn("watch", async move {
            if gateway_api {
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

/// What is read of one kind, and where it goes.
struct Reading<T, F> {
    /// As logs and metrics name it.
    kind: String,
    steps: mpsc::Sender<AnyStep>,
    outages: Outages,
    pick: fn(&mut Collector) -> &mut KindFacts<T>,
    translate: F,
}

/// Why following a kind has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Nothing collects any more.
    Uncollected,
    /// The API server does not serve it, and another version of it may be.
    NotServed,
}

impl<T, F> Reading<T, F>
where
    T: Fact,
    F: Fn(DynamicObject) -> Result<T, Unusable> + Send + Sync,
{
    /// Hands a step to the collector; false if nothing collects any more.
    async fn take(&self, step: Step<T>) -> bool {
        let pick = self.pick;
        let step: AnyStep = Box::new(move |collector| pick(collector).take(step));
        self.steps.send(step).await.is_ok()
    }

    /// Follows the kind in one version.
    async fn follow(&self, api: Api<Item<DynamicObject>>, followed: &mut Followed<'_>) -> Ended {
        let usable = |object| usable(object, &self.kind, &self.outages.metrics, &self.translate);
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let events = watcher(api, config).default_backoff();
        pin_mut!(events);
        loop {
            let event = tokio::select! {
                event = events.try_next() => event,
                () = followed.outage.end_when_quiet() => continue,
            };
            let step = match event {
                Ok(Some(watcher::Event::Init)) => Step::Restart,
                Ok(Some(event)) => {
                    followed.absent_since = None;
                    match event {
                        watcher::Event::InitApply(object) => {
                            let (key, fact) = usable(object);
                            Step::Listed(key, fact)
                        }
                        watcher::Event::Apply(object) => {
                            followed.outage.over();
                            let (key, fact) = usable(object);
                            Step::Applied(key, fact)
                        }
                        watcher::Event::Delete(object) => {
                            followed.outage.over();
                            Step::Deleted(translate::key(object.meta()))
                        }
                        watcher::Event::Init | watcher::Event::InitDone => {
                            followed.complete();
                            Step::Complete
                        }
                    }
                }
                Ok(None) => return Ended::Uncollected,
                Err(error) if followed.has_versions && is_absent(&error) => {
                    return Ended::NotServed;
                }
                Err(error) => match followed.failed(&error) {
                    Some(step) => step,
                    None => continue,
                },
            };
            if !self.take(step).await {
                return Ended::Uncollected;
            }
        }
    }
}

/// An object's key, and its fact unless it is of no use.
fn usable<T>(
    Item(object): Item<DynamicObject>,
    kind: &str,
    metrics: &WorldMetrics,
    translate: impl Fn(DynamicObject) -> Result<T, Unusable>,
) -> (ObjectKey, Option<T>) {
    let (key, fact) = match object {
        Ok(object) => (translate::key(&object.metadata), translate(object)),
        Err(error) => {
            let why = Unusable::Shape(error.reason);
            (translate::key(&error.metadata), Err(why))
        }
    };
    match fact {
        Ok(fact) => (key, Some(fact)),
        Err(Unusable::NotOurs) => (key, None),
        Err(error) => {
            metrics.left_out(kind);
            warn!(kind, %key, %error, "object skipped");
            (key, None)
        }
    }
}

/// How far one kind has been followed.
struct Followed<'a> {
    kind: &'a str,
    /// Whether the API server may serve another version of it.
    has_versions: bool,
    /// Its list has been whole once, or it has counted as empty.
    listed: bool,
    absent_since: Option<Instant>,
    outage: Outage<'a>,
}

impl<'a> Followed<'a> {
    fn new(kind: &'a str, outages: &'a Outages) -> Self {
        Self {
            kind,
            has_versions: false,
            listed: false,
            absent_since: None,
            outage: outages.of(kind),
        }
    }

    /// A list is whole.
    fn complete(&mut self) {
        if !self.listed {
            info!(kind = self.kind, "listed");
            // Only lists have failed so far.
            self.outage.over();
        }
        self.listed = true;
    }

    /// What follows from an error: mostly nothing, because the watcher tries again and what
    /// is known stays in force.
    fn failed<T>(&mut self, error: &watcher::Error) -> Option<Step<T>> {
        if is_absent(error) {
            return self.absent(ABSENT_AT_START);
        }
        debug!(kind = self.kind, %error, "watch interrupted");
        self.outage.failed(error, self.listed);
        None
    }

    /// What follows from the API server not knowing the kind: it is empty once that has been so
    /// for a while, which at the start is `at_start`.
    fn absent<T>(&mut self, at_start: Duration) -> Option<Step<T>> {
        self.outage.over();
        let since = *self.absent_since.get_or_insert_with(Instant::now);
        let patience = if self.listed { ABSENT_LATER } else { at_start };
        if since.elapsed() < patience {
            return None;
        }
        if !self.listed {
            warn!(
                kind = self.kind,
                "the API server does not know this kind; it counts as empty"
            );
        }
        self.listed = true;
        Some(Step::Absent)
    }
}

/// Whether the API server says that it does not know the kind at all.
fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
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
