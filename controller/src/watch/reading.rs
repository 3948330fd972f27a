//! Follows one kind in one version: lists and watches it, and turns each object into a fact, until
//! nothing collects facts any more.

use std::time::Duration;

use crds::item::Item;
use futures::{TryStreamExt, pin_mut};
use kube::{
    Api, Resource,
    core::DynamicObject,
    runtime::{WatchStreamExt, watcher},
};
use model::{
    translate::{self, Unusable},
    world::{
        Fact, ObjectKey,
        collect::{Collector, KindFacts, News, Step},
    },
};
use tokio::{sync::mpsc, time::Instant};
use tracing::{debug, info, warn};

use super::outage::{Outage, Outages};
use crate::{apiserver::client::WATCH_SECONDS, metrics::WorldMetrics};

/// How long a kind must be unknown to the API server before it counts as empty
/// at the start: a server that is still loading its CRDs must not open the mesh.
pub(super) const ABSENT_AT_START: Duration = Duration::from_secs(2);
/// The same for a kind that was served before: its objects are kept that long.
pub(super) const ABSENT_LATER: Duration = Duration::from_secs(60);

/// The log line of such a kind.
const UNKNOWN: &str = "the API server does not know this kind; it counts as empty";

/// Any one step of any one kind.
pub(super) type AnyStep = Box<dyn FnOnce(&mut Collector) -> News + Send>;

/// What is read of one kind, and where it goes.
pub(super) struct Reading<T, F> {
    /// As logs and metrics name it.
    pub(super) kind: String,
    pub(super) steps: mpsc::Sender<AnyStep>,
    pub(super) outages: Outages,
    pub(super) pick: fn(&mut Collector) -> &mut KindFacts<T>,
    pub(super) translate: F,
}

/// Why following a kind has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
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
    pub(super) async fn take(&self, step: Step<T>) -> bool {
        let pick = self.pick;
        let step: AnyStep = Box::new(move |collector| pick(collector).take(step));
        self.steps.send(step).await.is_ok()
    }

    /// Follows the kind in one version.
    pub(super) async fn follow(
        &self,
        api: Api<Item<DynamicObject>>,
        followed: &mut Followed<'_>,
    ) -> Ended {
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
pub(super) struct Followed<'a> {
    kind: &'a str,
    /// Whether the API server may serve another version of it.
    pub(super) has_versions: bool,
    /// Its list has been whole once, or it has counted as empty.
    listed: bool,
    pub(super) absent_since: Option<Instant>,
    outage: Outage<'a>,
}

impl<'a> Followed<'a> {
    pub(super) fn new(kind: &'a str, outages: &'a Outages) -> Self {
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
    pub(super) fn absent<T>(&mut self, at_start: Duration) -> Option<Step<T>> {
        self.outage.over();
        let since = *self.absent_since.get_or_insert_with(Instant::now);
        let patience = if self.listed { ABSENT_LATER } else { at_start };
        if since.elapsed() < patience {
            return None;
        }
        if !self.listed {
            let kind = self.kind;
            match self.has_versions {
                // It is another project's, and need not be there.
                true => info!(kind, "{UNKNOWN}"),
                false => warn!(kind, "{UNKNOWN}"),
            }
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
