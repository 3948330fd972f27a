//! Keeps ConfigMap `weft-trust-bundle` in every namespace that is not excluded.
//!
//! A pod cannot start its proxy without the bundle, so a new namespace gets its copy as soon as it
//! is seen. A client that may edit the copy can take the identity of the controller towards that
//! namespace's pods, or make them relay plaintext with the mark `leaving`, so what another client
//! writes is undone and named in an Event.
//!
//! The writer of a copy is found by what this process wrote and saw before, not by anything in the
//! copy. Only for copies from before its start does it use the field managers, which a careful
//! forger can imitate: such an edit is undone, too, but without an Event.
//!
//! The mark `leaving` stays while this installation is being removed
//! ([`Uninstallation`]) and at no other time. An earlier installation is known by the
//! uid of the service account that wrote the copy.
//!
//! May import `apiserver` and `latest_model`.

pub(crate) mod copy;
pub(crate) mod progress;
pub(crate) mod uninstalling;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crds::item::Item;
use futures::StreamExt as _;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use kube::{Api, Client};
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use self::copy::{BundleCopy, DesiredCopy, LEAVING_KEY, Last, MANAGER, NAME, Need, copy, need};
use self::progress::Progress;
use self::uninstalling::Uninstallation;
use crate::apiserver::client::WATCH_SECONDS;
use crate::apiserver::events::{About, Event, EventRecorder, EventType};

/// Writes of its own that the reconciler recognises per namespace. The watch is
/// rarely more than one behind.
const OWN_WRITES: usize = 4;
/// Pause before writes that failed are tried again.
const RETRY: Duration = Duration::from_secs(2);
/// The same where writing is not allowed: a quota, a policy engine or a missing right is repaired
/// by a person, and pods wait for the copy meanwhile.
const RETRY_FORBIDDEN: Duration = Duration::from_secs(30);

/// What the reconciler needs.
#[derive(Clone)]
pub(crate) struct Bundle {
    /// API server.
    pub client: Client,
    /// Namespaces without a copy.
    pub excluded: Arc<BTreeSet<String>>,
    /// Trusted roots, PEM, newest first.
    pub roots: watch::Receiver<Arc<str>>,
    /// Where foreign edits are reported.
    pub events: EventRecorder,
    /// Whether the mark `leaving` is right.
    pub uninstallation: Uninstallation,
    /// Copies written.
    pub written: Counter,
    /// Where it is said how far the copies are.
    pub progress: watch::Sender<Progress>,
}

opaque_debug!(Bundle);

impl Bundle {
    /// Keeps the copies right until dropped. Runs on the Lease holder only.
    pub(crate) async fn keep(mut self) {
        self.progress.send_replace(Progress::Unknown);
        let install = loop {
            match installation(&self.client).await {
                Ok(uid) => break uid,
                Err(error) => warn!(%error, "own identity is not known yet"),
            }
            sleep(RETRY).await;
        };
        let namespaces = watcher::Config::default().timeout(WATCH_SECONDS);
        let namespaces =
            kube::runtime::watcher(Api::<Item<Namespace>>::all(self.client.clone()), namespaces);
        let mut namespaces = pin!(namespaces.default_backoff());
        let copies = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let copies = copies.timeout(WATCH_SECONDS);
        let copies =
            kube::runtime::watcher(Api::<Item<ConfigMap>>::all(self.client.clone()), copies);
        let mut copies = pin!(copies.default_backoff());
        let mut seen = WatchState::default();
        let mut stages = self.uninstallation.stages();
        loop {
            let again = seen.forbidden.values().min().copied();
            tokio::select! {
                // A mesh that stays after all has no use for the mark.
                Ok(()) = stages.changed() => seen.all_dirty(),
                event = namespaces.next() => match event {
                    Some(Ok(event)) => seen.namespace(event),
                    Some(Err(error)) => warn!(%error, "watching namespaces failed"),
                    None => return,
                },
                event = copies.next() => match event {
                    Some(Ok(event)) => seen.copy(event),
                    Some(Err(error)) => warn!(%error, "watching trust bundles failed"),
                    None => return,
                },
                changed = self.roots.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    seen.all_dirty();
                }
                () = sleep(RETRY), if seen.ready() && !seen.dirty.is_empty() => {}
                // A moment and no pause, which every event would begin anew.
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    seen.retry_forbidden(Instant::now());
                }
            }
            if seen.ready() {
                self.settle(&install, &mut seen).await;
                self.show_progress(&seen);
            }
        }
    }

    /// What the watch has shown counts, and not what was written. A namespace that never had a copy
    /// has shown no pod former roots: one that is new, and one in which no copy may be made.
    fn show_progress(&self, seen: &WatchState) {
        let roots = self.roots.borrow().clone();
        let has_copy = |namespace: &str| {
            let has_newest = match (seen.copies.get(namespace), seen.last.get(namespace)) {
                (Some(copy), _) => copy.roots == *roots,
                (None, Some(last)) => last.roots == *roots,
                (None, None) => true,
            };
            has_newest || self.excluded.contains(namespace)
        };
        let behind = seen.namespaces.iter().filter(|one| !has_copy(one.as_str()));
        let behind: Vec<String> = behind.cloned().collect();
        self.progress
            .send_if_modified(|progress| progress.update(behind, &roots));
    }

    /// Does what is needed in every namespace that changed. What fails stays
    /// marked for the next round.
    async fn settle(&self, install: &str, seen: &mut WatchState) {
        let roots = self.roots.borrow().clone();
        if roots.is_empty() {
            return;
        }
        for namespace in std::mem::take(&mut seen.dirty) {
            if !seen.namespaces.contains(&namespace) || self.excluded.contains(&namespace) {
                continue;
            }
            if let Err(error) = self.settle_one(&namespace, &roots, install, seen).await {
                warn!(namespace, %error, "trust bundle not written");
                seen.dirty.insert(namespace);
            }
        }
    }

    async fn settle_one(
        &self,
        namespace: &str,
        roots: &str,
        install: &str,
        seen: &mut WatchState,
    ) -> Result<(), kube::Error> {
        let existing = seen.copies.get(namespace);
        let leaving = existing.is_some_and(|existing| existing.leaving)
            && self.uninstallation.is_under_way().await?;
        let wanted = DesiredCopy {
            roots,
            install,
            leaving,
        };
        let need = need(existing, &wanted, seen.last.get(namespace));
        let foreign = matches!(
            need,
            Need::Write { foreign: true, .. } | Need::Delete { foreign: true }
        );
        match self.act(namespace, need, &wanted, existing).await {
            Ok(outcome) => {
                if need != Need::Nothing {
                    self.written.inc();
                    info!(namespace, ?need, "trust bundle written");
                }
                if foreign {
                    self.report(namespace, existing, true);
                }
                // A copy that is gone is no proof of what comes after it.
                if matches!(need, Need::Delete { .. }) {
                    return Ok(());
                }
                seen.wrote(namespace, roots, outcome);
                Ok(())
            }
            // Seen by the watch in a moment, and judged then.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() || is_refusal(&status) => {
                // A refusal is also the answer for a namespace that is ending.
                let forbidden = is_refusal(&status);
                let message = status.message;
                warn!(namespace, message, "trust bundle not written");
                if foreign && forbidden {
                    self.report(namespace, existing, false);
                }
                if forbidden && seen.namespaces.contains(namespace) {
                    if need == Need::Create {
                        self.report_forbidden(namespace, &message);
                    }
                    let at = Instant::now() + RETRY_FORBIDDEN;
                    seen.forbidden.insert(namespace.to_owned(), at);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The resource version of what was written, if something was.
    async fn act(
        &self,
        namespace: &str,
        need: Need,
        wanted: &DesiredCopy<'_>,
        existing: Option<&BundleCopy>,
    ) -> Result<Option<String>, kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let fresh = copy(wanted.roots, wanted.install);
        match need {
            Need::Nothing => Ok(None),
            Need::Create => {
                let params = PostParams {
                    field_manager: Some(MANAGER.to_owned()),
                    ..PostParams::default()
                };
                let written = api.create(&params, &fresh).await?;
                Ok(written.metadata.resource_version)
            }
            Need::Write { keep_mark, .. } => {
                let mut patch = json!({"metadata": {
                    "labels": fresh.metadata.labels,
                    "annotations": fresh.metadata.annotations,
                }, "data": fresh.data, "binaryData": null});
                if !keep_mark {
                    patch["data"][LEAVING_KEY] = serde_json::Value::Null;
                }
                let params = PatchParams {
                    field_manager: Some(MANAGER.to_owned()),
                    ..PatchParams::default()
                };
                let written = api.patch(NAME, &params, &Patch::Merge(&patch)).await?;
                Ok(written.metadata.resource_version)
            }
            Need::Delete { .. } => {
                // No other object of that name than the one that was judged.
                let uid = existing.map(|existing| existing.uid.clone());
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: uid.filter(|uid| !uid.is_empty()),
                    resource_version: None,
                });
                api.delete(NAME, &params).await?;
                Ok(None)
            }
        }
    }

    /// Says on the namespace why its pods do not start.
    fn report_forbidden(&self, namespace: &str, why: &str) {
        self.events.record(Event {
            about: About {
                api_version: "v1".to_owned(),
                kind: "Namespace".to_owned(),
                namespace: String::new(),
                name: namespace.to_owned(),
                uid: String::new(),
            },
            event_type: EventType::Warning,
            reason: "TrustBundleForbidden",
            action: "Write",
            text: format!(
                "ConfigMap {NAME}, which pods of the mesh wait for, may not be created here: \
                 {why}; tried again every {} s",
                RETRY_FORBIDDEN.as_secs()
            ),
        });
    }

    fn report(&self, namespace: &str, existing: Option<&BundleCopy>, repaired: bool) {
        let managers = existing.map(BundleCopy::managers).unwrap_or_default();
        let outcome = if repaired {
            format!(
                "has been put back; proxies of namespace {namespace} that started meanwhile \
                 believed what stood there"
            )
        } else {
            format!(
                "cannot be put back: delete ConfigMap {NAME}; proxies of namespace {namespace} \
                 believe what stands there"
            )
        };
        let event = Event {
            about: About {
                api_version: "v1".to_owned(),
                kind: "ConfigMap".to_owned(),
                namespace: namespace.to_owned(),
                name: NAME.to_owned(),
                uid: existing
                    .map(|existing| existing.uid.clone())
                    .unwrap_or_default(),
            },
            event_type: EventType::Warning,
            reason: "ForeignEdit",
            action: "Repair",
            text: format!("the trust bundle was changed by another client{managers} and {outcome}"),
        };
        // A repeated edit is reported again; what stays as it is, is reported once.
        if repaired {
            self.events.record_action(event);
        } else {
            self.events.record(event);
        }
    }
}

/// Both watches' state, and the namespaces that have to be looked at.
#[derive(Debug, Default)]
struct WatchState {
    namespaces: BTreeSet<String>,
    copies: BTreeMap<String, BundleCopy>,
    dirty: BTreeSet<String>,
    /// Where writing is not allowed, and when it is tried again.
    forbidden: BTreeMap<String, Instant>,
    namespaces_listed: bool,
    copies_listed: bool,
    /// By namespace, for as long as that exists.
    last: BTreeMap<String, Last>,
    relisted: BTreeSet<String>,
    recopied: BTreeMap<String, BundleCopy>,
}

impl WatchState {
    /// Keeps what this replica wrote itself, so that its own watch event is no change.
    fn wrote(&mut self, namespace: &str, roots: &str, version: Option<String>) {
        let last = self.last.entry(namespace.to_owned()).or_default();
        roots.clone_into(&mut last.roots);
        last.versions.extend(version);
        while last.versions.len() > OWN_WRITES {
            last.versions.pop_front();
        }
    }

    fn ready(&self) -> bool {
        self.namespaces_listed && self.copies_listed
    }

    fn all_dirty(&mut self) {
        self.dirty = self.namespaces.clone();
    }

    fn retry_forbidden(&mut self, now: Instant) {
        let due = self.forbidden.iter().filter(|(_, at)| **at <= now);
        let due: Vec<String> = due.map(|(namespace, _)| namespace.clone()).collect();
        for namespace in due {
            self.forbidden.remove(&namespace);
            self.dirty.insert(namespace);
        }
    }

    fn forget(&mut self, namespace: &str) {
        self.namespaces.remove(namespace);
        self.forbidden.remove(namespace);
        self.last.remove(namespace);
    }

    fn namespace(&mut self, event: watcher::Event<Item<Namespace>>) {
        match event {
            watcher::Event::Apply(namespace) => {
                let namespace = namespace.or_empty();
                let name = namespace.metadata.name.unwrap_or_default();
                if namespace.metadata.deletion_timestamp.is_some() {
                    self.forget(&name);
                } else if self.namespaces.insert(name.clone()) {
                    self.dirty.insert(name);
                }
            }
            watcher::Event::Delete(namespace) => {
                self.forget(&namespace.or_empty().metadata.name.unwrap_or_default());
            }
            watcher::Event::Init => self.relisted.clear(),
            watcher::Event::InitApply(namespace) => {
                let namespace = namespace.or_empty();
                if namespace.metadata.deletion_timestamp.is_none() {
                    self.relisted
                        .insert(namespace.metadata.name.unwrap_or_default());
                }
            }
            watcher::Event::InitDone => {
                self.namespaces = std::mem::take(&mut self.relisted);
                let namespaces = &self.namespaces;
                self.last.retain(|name, _| namespaces.contains(name));
                self.namespaces_listed = true;
                self.all_dirty();
            }
        }
    }

    fn copy(&mut self, event: watcher::Event<Item<ConfigMap>>) {
        match event {
            watcher::Event::Apply(map) => {
                let map = map.or_empty();
                let namespace = map.metadata.namespace.clone().unwrap_or_default();
                self.copies.insert(namespace.clone(), BundleCopy::from(map));
                self.dirty.insert(namespace);
            }
            watcher::Event::Delete(map) => {
                let namespace = map.or_empty().metadata.namespace.unwrap_or_default();
                self.copies.remove(&namespace);
                self.dirty.insert(namespace);
            }
            watcher::Event::Init => self.recopied.clear(),
            watcher::Event::InitApply(map) => {
                let map = map.or_empty();
                let namespace = map.metadata.namespace.clone().unwrap_or_default();
                self.recopied.insert(namespace, BundleCopy::from(map));
            }
            watcher::Event::InitDone => {
                self.copies = std::mem::take(&mut self.recopied);
                self.copies_listed = true;
                self.all_dirty();
            }
        }
    }
}

/// Whether the write itself is not wanted, which does not change by itself. Quotas and
/// missing rights answer 403, an admission webhook 400 or what it likes, and a
/// ValidatingAdmissionPolicy 422; 429 and 5xx speak of the server's state.
fn is_refusal(status: &Status) -> bool {
    status.is_forbidden() || matches!(status.code, 400 | 422)
}

/// Uid of the service account that this controller runs as. The chart makes a
/// new one at every installation.
async fn installation(client: &Client) -> Result<String, kube::Error> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = review.status.and_then(|status| status.user_info);
    Ok(user.and_then(|user| user.uid).unwrap_or_default())
}

#[cfg(test)]
mod tests;
