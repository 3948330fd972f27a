//! Keeps ConfigMap `weft-trust-bundle` in every namespace that is not excluded.
//!
//! A pod cannot start its proxy without the bundle, so a new namespace gets its
//! copy as soon as it is seen. Whoever may edit the copy can take the identity
//! of the controller towards that namespace's pods, so an edit by somebody else
//! is undone and named in an Event.
//!
//! The mark `leaving`, which the uninstall hook writes, stays for as long as
//! this installation lasts. A new installation removes it: it knows the old one
//! by the uid of the service account that wrote the copy.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::events::{About, Events, Note, Tone};

/// Name of the ConfigMap in each namespace.
pub const NAME: &str = "weft-trust-bundle";
/// Key of the trusted roots, PEM.
pub const ROOTS_KEY: &str = "ca.crt";
/// Key of the mark that tells proxies that the mesh is being removed.
pub const LEAVING_KEY: &str = "leaving";
/// Uid of the controller's service account that wrote the copy.
const INSTALL: &str = "weft.dev/install";
/// SHA-256 of the roots as written, to tell an old copy from a foreign edit.
const HASH: &str = "weft.dev/bundle-hash";
/// Pause before writes that failed are tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What the keeper needs.
#[derive(Clone)]
pub struct Bundle {
    /// API server.
    pub client: Client,
    /// Namespaces without a copy.
    pub excluded: Arc<BTreeSet<String>>,
    /// Trusted roots, PEM, newest first.
    pub roots: watch::Receiver<Arc<str>>,
    /// Where foreign edits are told.
    pub events: Events,
    /// Copies written.
    pub written: Counter,
}

opaque_debug!(Bundle);

/// A copy as it stands in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Copy {
    uid: String,
    roots: String,
    leaving: bool,
    install: String,
    hash: String,
}

/// What has to be done in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    Create,
    /// `keep_mark`: the mark `leaving` belongs to this installation.
    Write {
        keep_mark: bool,
        foreign: bool,
    },
}

impl Bundle {
    /// Keeps the copies right until dropped. Runs on the Lease holder only.
    pub async fn keep(mut self) {
        let install = loop {
            match installation(&self.client).await {
                Ok(uid) => break uid,
                Err(error) => warn!(%error, "own identity is not known yet"),
            }
            sleep(RETRY).await;
        };
        let namespaces = watcher::Config::default();
        let namespaces =
            kube::runtime::watcher(Api::<Namespace>::all(self.client.clone()), namespaces);
        let mut namespaces = pin!(namespaces.default_backoff());
        let copies = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let copies = kube::runtime::watcher(Api::<ConfigMap>::all(self.client.clone()), copies);
        let mut copies = pin!(copies.default_backoff());
        let mut seen = Seen::default();
        loop {
            tokio::select! {
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
            }
            if seen.ready() {
                self.settle(&install, &mut seen).await;
            }
        }
    }

    /// Does what is needed in every namespace that changed. What fails stays
    /// marked for the next round.
    async fn settle(&self, install: &str, seen: &mut Seen) {
        let roots = self.roots.borrow().clone();
        if roots.is_empty() {
            return;
        }
        for namespace in std::mem::take(&mut seen.dirty) {
            if !seen.namespaces.contains(&namespace) || self.excluded.contains(&namespace) {
                continue;
            }
            let held = seen.copies.get(&namespace);
            let need = need(held, &roots, install);
            match self.act(&namespace, need, &roots, install).await {
                Ok(false) => {}
                Ok(true) => {
                    self.written.inc();
                    info!(namespace, ?need, "trust bundle written");
                    if let Need::Write { foreign: true, .. } = need {
                        self.tell(&namespace, held);
                    }
                }
                Err(kube::Error::Api(status)) if status.is_not_found() || status.is_forbidden() => {
                    // Forbidden is also the answer for a namespace that is ending.
                    warn!(
                        namespace,
                        message = status.message,
                        "trust bundle not written"
                    );
                }
                Err(error) => {
                    warn!(namespace, %error, "trust bundle not written");
                    seen.dirty.insert(namespace);
                }
            }
        }
    }

    async fn act(
        &self,
        namespace: &str,
        need: Need,
        roots: &str,
        install: &str,
    ) -> Result<bool, kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        match need {
            Need::Nothing => Ok(false),
            Need::Create => match api
                .create(&PostParams::default(), &copy(roots, install))
                .await
            {
                Ok(_) => Ok(true),
                // Seen by the watch in a moment, and judged then.
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
                Err(error) => Err(error),
            },
            Need::Write { keep_mark, .. } => {
                let fresh = copy(roots, install);
                let mut patch = json!({"metadata": {
                    "labels": fresh.metadata.labels,
                    "annotations": fresh.metadata.annotations,
                }, "data": fresh.data});
                if !keep_mark {
                    patch["data"][LEAVING_KEY] = serde_json::Value::Null;
                }
                api.patch(NAME, &PatchParams::default(), &Patch::Merge(&patch))
                    .await?;
                Ok(true)
            }
        }
    }

    fn tell(&self, namespace: &str, held: Option<&Copy>) {
        self.events.say(Note {
            about: About {
                api_version: "v1".to_owned(),
                kind: "ConfigMap".to_owned(),
                namespace: namespace.to_owned(),
                name: NAME.to_owned(),
                uid: held.map(|held| held.uid.clone()).unwrap_or_default(),
            },
            tone: Tone::Warning,
            reason: "ForeignEdit",
            action: "Repair",
            text: format!(
                "the trusted roots were changed by somebody else and have been put back; \
                 proxies of namespace {namespace} that started meanwhile trusted what stood there"
            ),
        });
    }
}

/// Both watches' state, and the namespaces that have to be looked at.
#[derive(Debug, Default)]
struct Seen {
    namespaces: BTreeSet<String>,
    copies: BTreeMap<String, Copy>,
    dirty: BTreeSet<String>,
    namespaces_listed: bool,
    copies_listed: bool,
    relisted: BTreeSet<String>,
    recopied: BTreeMap<String, Copy>,
}

impl Seen {
    fn ready(&self) -> bool {
        self.namespaces_listed && self.copies_listed
    }

    fn all_dirty(&mut self) {
        self.dirty = self.namespaces.clone();
    }

    fn namespace(&mut self, event: Event<Namespace>) {
        match event {
            Event::Apply(namespace) => {
                let name = namespace.metadata.name.unwrap_or_default();
                if namespace.metadata.deletion_timestamp.is_some() {
                    self.namespaces.remove(&name);
                } else if self.namespaces.insert(name.clone()) {
                    self.dirty.insert(name);
                }
            }
            Event::Delete(namespace) => {
                self.namespaces
                    .remove(&namespace.metadata.name.unwrap_or_default());
            }
            Event::Init => self.relisted.clear(),
            Event::InitApply(namespace) => {
                if namespace.metadata.deletion_timestamp.is_none() {
                    self.relisted
                        .insert(namespace.metadata.name.unwrap_or_default());
                }
            }
            Event::InitDone => {
                self.namespaces = std::mem::take(&mut self.relisted);
                self.namespaces_listed = true;
                self.all_dirty();
            }
        }
    }

    fn copy(&mut self, event: Event<ConfigMap>) {
        match event {
            Event::Apply(map) => {
                let namespace = map.metadata.namespace.clone().unwrap_or_default();
                self.copies.insert(namespace.clone(), Copy::from(map));
                self.dirty.insert(namespace);
            }
            Event::Delete(map) => {
                let namespace = map.metadata.namespace.unwrap_or_default();
                self.copies.remove(&namespace);
                self.dirty.insert(namespace);
            }
            Event::Init => self.recopied.clear(),
            Event::InitApply(map) => {
                let namespace = map.metadata.namespace.clone().unwrap_or_default();
                self.recopied.insert(namespace, Copy::from(map));
            }
            Event::InitDone => {
                self.copies = std::mem::take(&mut self.recopied);
                self.copies_listed = true;
                self.all_dirty();
            }
        }
    }
}

impl From<ConfigMap> for Copy {
    fn from(map: ConfigMap) -> Self {
        let mut data = map.data.unwrap_or_default();
        let mut annotations = map.metadata.annotations.unwrap_or_default();
        Self {
            uid: map.metadata.uid.unwrap_or_default(),
            roots: data.remove(ROOTS_KEY).unwrap_or_default(),
            leaving: data.contains_key(LEAVING_KEY),
            install: annotations.remove(INSTALL).unwrap_or_default(),
            hash: annotations.remove(HASH).unwrap_or_default(),
        }
    }
}

fn need(held: Option<&Copy>, roots: &str, install: &str) -> Need {
    let Some(held) = held else {
        return Need::Create;
    };
    let same_install = held.install == install;
    if held.roots == roots && same_install {
        return Need::Nothing;
    }
    Need::Write {
        keep_mark: same_install,
        foreign: hash(&held.roots) != held.hash,
    }
}

fn copy(roots: &str, install: &str) -> ConfigMap {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some(BTreeMap::from([
                pair("app.kubernetes.io/managed-by", "weft-controller"),
                pair("app.kubernetes.io/part-of", "weft"),
            ])),
            annotations: Some(BTreeMap::from([
                pair(INSTALL, install),
                pair(HASH, &hash(roots)),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([pair(ROOTS_KEY, roots)])),
        ..ConfigMap::default()
    }
}

fn hash(roots: &str) -> String {
    let digest = Sha256::digest(roots.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
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
#[path = "bundle/tests.rs"]
mod tests;
