//! Follows all FaultExperiments by a watch, on every replica.
//!
//! Beside the World, which has no counts, for two reasons: the driver of experiments reads their
//! statuses and commands, and a replica that grants a run must see that it is driven. The holder of
//! the Lease writes the status of a run that is under way each few seconds with a mark that never
//! repeats; a replica that sees no new mark grants nothing: the holder is gone, or this replica is
//! cut off.
//!
//! What is there when a replica starts to look is no write: it may be of a holder that has died.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use automation::experiment::Saved;
use crds::item::Item;
use crds::weft::FaultExperiment;
use futures::StreamExt as _;
use kube::core::DynamicObject;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource as _};
use model::translate;
use model::world::ObjectKey;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use crate::apiserver::client::WATCH_SECONDS;

/// All of them.
pub(crate) type FollowedObjects = BTreeMap<ObjectKey, Arc<FollowedExperiment>>;

/// One of them.
#[derive(Debug)]
pub(crate) struct FollowedExperiment {
    pub(crate) object: DynamicObject,
    /// When a write of its run was last seen.
    pub(crate) written: Option<Instant>,
}

impl FollowedExperiment {
    /// Whether its run may harm by this generation of its spec: by the one that it was started
    /// with, and until it is deleted, also where a finalizer keeps the object.
    pub(crate) fn runs_by(&self, generation: i64) -> bool {
        let state = self.object.data.pointer("/status/run/state");
        let state = state.and_then(Value::as_str).unwrap_or_default();
        let is_deleted = self.object.metadata.deletion_timestamp.is_some();
        !is_deleted && Saved::of_text(state).generation() == generation
    }
}

/// The newest of all. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Followed(watch::Receiver<Arc<FollowedObjects>>);

impl Followed {
    /// Follows them until all clones are dropped.
    pub(crate) fn start(client: Client) -> Self {
        let (sender, receiver) = watch::channel(Arc::default());
        runtime::task::spawn("experiments", follow(client, sender));
        Self(receiver)
    }

    /// As they are now.
    pub(crate) fn now(&self) -> Arc<FollowedObjects> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits for a change; for ever when there will be none any more.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn follow(client: Client, sender: watch::Sender<Arc<FollowedObjects>>) {
    let resource = kube::core::ApiResource::erase::<FaultExperiment>(&());
    let api: Api<Item<DynamicObject>> = Api::all_with(client, &resource);
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut seen = Seen::default();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = sender.closed() => return,
        };
        match event {
            Some(Ok(event)) => {
                if seen.take(event, Instant::now()) {
                    sender.send_replace(Arc::new(seen.objects.clone()));
                }
            }
            // A kind that is not there yet is reported by the World's watch, too.
            Some(Err(error)) => warn!(%error, "experiments cannot be followed"),
            None => return,
        }
    }
}

/// What the watch has shown.
#[derive(Debug, Default)]
struct Seen {
    objects: FollowedObjects,
    /// A list that has not ended yet.
    listing: FollowedObjects,
    listed: bool,
}

impl Seen {
    /// True if the objects are not what they were.
    fn take(&mut self, event: watcher::Event<Item<DynamicObject>>, now: Instant) -> bool {
        match event {
            watcher::Event::Init => {
                self.listing.clear();
                false
            }
            watcher::Event::InitApply(object) => {
                let (key, one) = self.followed(object, now);
                self.listing.insert(key, one);
                false
            }
            watcher::Event::InitDone => {
                self.objects = std::mem::take(&mut self.listing);
                self.listed = true;
                true
            }
            watcher::Event::Apply(object) => {
                let (key, one) = self.followed(object, now);
                self.objects.insert(key, one);
                true
            }
            watcher::Event::Delete(object) => {
                let Item(object) = object;
                let gone = match object {
                    Ok(object) => translate::key(&object.metadata),
                    Err(unreadable) => translate::key(&unreadable.metadata),
                };
                self.objects.remove(&gone).is_some()
            }
        }
    }

    fn followed(
        &self,
        object: Item<DynamicObject>,
        now: Instant,
    ) -> (ObjectKey, Arc<FollowedExperiment>) {
        let Item(object) = object;
        let object = object.unwrap_or_else(|unreadable| {
            let resource = kube::core::ApiResource::erase::<FaultExperiment>(&());
            let mut empty = DynamicObject::new("", &resource);
            *empty.meta_mut() = *unreadable.metadata;
            empty
        });
        let key = translate::key(&object.metadata);
        let before = self.objects.get(&key);
        let written = match before {
            Some(before) if mark(&before.object) == mark(&object) => before.written,
            // One that was made while this replica looks has no run yet.
            _ if self.listed => mark(&object).map(|_| now),
            _ => None,
        };
        (key, Arc::new(FollowedExperiment { object, written }))
    }
}

/// What each write of a run changes, with what makes it this object's.
fn mark(object: &DynamicObject) -> Option<(Option<&str>, &str)> {
    let state = object.data.pointer("/status/run/state")?.as_str()?;
    Some((object.metadata.uid.as_deref(), state))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn event(state: &str) -> Item<DynamicObject> {
        let object = json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "FaultExperiment",
            "metadata": {"name": "slow", "namespace": "shop", "uid": "u"},
            "status": {"phase": "Running", "run": {"number": 1, "state": state}},
        });
        Item(Ok(serde_json::from_value(object).unwrap()))
    }

    fn written(seen: &Seen) -> Option<Instant> {
        seen.objects[&ObjectKey::new("shop", "slow")].written
    }

    #[tokio::test(start_paused = true)]
    async fn status_that_was_there_before_is_no_write() {
        let mut seen = Seen::default();
        let start = Instant::now();
        seen.take(watcher::Event::Init, start);
        seen.take(watcher::Event::InitApply(event("1")), start);
        assert!(seen.take(watcher::Event::InitDone, start));
        assert_eq!(written(&seen), None, "its writer may be dead");

        let later = start + Duration::from_secs(1);
        seen.take(watcher::Event::Apply(event("1")), later);
        assert_eq!(written(&seen), None, "a label was changed");
        seen.take(watcher::Event::Apply(event("2")), later);
        assert_eq!(written(&seen), Some(later));

        // A watch that begins anew brings what it missed, and no more.
        let again = later + Duration::from_secs(1);
        seen.take(watcher::Event::Init, again);
        seen.take(watcher::Event::InitApply(event("2")), again);
        seen.take(watcher::Event::InitDone, again);
        assert_eq!(written(&seen), Some(later));
    }
}
