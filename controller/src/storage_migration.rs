//! Rewrites every stored SMI object in the storage version, so that it can be read without
//! conversion.
//!
//! The API server converts an object when it is read and stores it anew only when it is written.
//! After the definitions were taken over from another product, objects are stored in that
//! product's versions until a client writes them; `status.storedVersions` of the definition lists
//! these. As long as that names an older version, the Lease holder writes every object once,
//! without a change, and then sets the list to the storage version.
//!
//! Only definitions that call this mesh's injector for conversion are looked at: others belong to
//! other owners.
//!
//! May import `metrics`.

mod definition;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use crds::convert::SmiKind;
use crds::item::Item;
use crds::smi::STORAGE_VERSION;
use futures::{StreamExt, stream};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{GroupVersionKind, PartialObjectMeta};
use kube::{Api, Client, Resource as _};
use runtime::backoff::Backoff;
use serde_json::json;
use tokio::time::sleep;
use tracing::{info, warn};

pub(crate) use definition::{Definition, DefinitionError};

use crate::metrics::StorageMetrics;

/// Time between two looks at the definitions. A take-over is rare and nothing waits
/// for it but an uninstall.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// First pause after a failure; the longest is [`LOOK_EVERY`].
const RETRY: Duration = Duration::from_secs(1);
/// Between a look that finds older versions and the first write: every API server of the cluster
/// must know the new storage version, or one would go on storing the old one.
const SETTLED: Duration = Duration::from_secs(10);
/// Objects listed in one call.
const PAGE: u32 = 500;
/// Writes at one time.
const AT_ONCE: usize = 4;
/// Failures that one warning names.
const NAMED: usize = 5;

/// What the Lease holder runs.
#[derive(Clone)]
pub(crate) struct Storage {
    /// To the API server.
    pub client: Client,
    /// The mesh's own, where the injector answers.
    pub namespace: String,
    /// What it counts.
    pub metrics: StorageMetrics,
}

opaque_debug!(Storage);

/// Why a kind still has objects in an older version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// The definition could not be read or written.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// The objects could not be listed.
    #[error("{kind} could not be listed: {source}")]
    List {
        /// `TrafficTarget` and the like.
        kind: &'static str,
        /// What the API server said.
        source: Box<kube::Error>,
    },
    /// Some objects were not written.
    #[error("{} objects could not be written, the first: {}", .0.len(), .0.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; "))]
    Objects(Vec<String>),
}

impl Storage {
    /// Looks again and again.
    pub(crate) async fn keep(self) {
        let mut backoff = Backoff::new(RETRY, LOOK_EVERY);
        loop {
            let mut failed = false;
            for kind in SmiKind::ALL {
                if let Err(error) = self.settle(kind).await {
                    warn!(kind = kind.name(), %error, "objects of older versions are left");
                    failed = true;
                }
            }
            if failed {
                backoff.wait().await;
            } else {
                backoff.reset();
                sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Rewrites the objects of one kind if some may be stored in an older version.
    async fn settle(&self, kind: SmiKind) -> Result<(), StorageError> {
        let unsettled =
            |found: &Definition| found.converts_here(&self.namespace) && !found.settled();
        let found = Definition::read(&self.client, kind).await?;
        if !found.as_ref().is_some_and(unsettled) {
            return Ok(());
        }
        sleep(SETTLED).await;
        let written = self.rewrite(kind).await?;
        // Read again: only what was there all the time may be struck off the list.
        let now = Definition::read(&self.client, kind).await?;
        let (Some(before), Some(now)) = (found, now) else {
            return Ok(());
        };
        if unsettled(&now) && now.stored_versions() == before.stored_versions() {
            now.set_stored_versions(&self.client).await?;
            info!(
                kind = kind.name(),
                objects = written,
                before = before.stored_versions().join(" "),
                "every object is stored in {STORAGE_VERSION} now"
            );
        }
        Ok(())
    }

    /// Writes every object of a kind without changing it. Returns how many.
    async fn rewrite(&self, kind: SmiKind) -> Result<usize, StorageError> {
        let gvk = GroupVersionKind::gvk(kind.group(), STORAGE_VERSION, kind.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        let all: Api<Item<PartialObjectMeta<DynamicObject>>> =
            Api::all_with(self.client.clone(), &resource);
        let mut params = ListParams::default().limit(PAGE);
        let mut written = 0;
        let mut failures = Vec::new();
        loop {
            let page = all
                .list(&params)
                .await
                .map_err(|source| StorageError::List {
                    kind: kind.name(),
                    source: Box::new(source),
                })?;
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            let writes = page.items.into_iter().map(|object| {
                let meta = object.meta().clone();
                let namespace = meta.namespace.unwrap_or_default();
                let name = meta.name.unwrap_or_default();
                self.write(&resource, namespace, name, meta.uid)
            });
            let outcomes: Vec<Result<(), String>> = stream::iter(writes)
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            for outcome in outcomes {
                match outcome {
                    Ok(()) => written += 1,
                    Err(failure) => failures.push(failure),
                }
            }
            match next {
                Some(token) => params = params.continue_token(&token),
                None if failures.is_empty() => return Ok(written),
                None => return Err(StorageError::Objects(failures)),
            }
        }
    }

    /// A patch that says nothing new: the API server still encodes the object anew, and
    /// stores it when that is not what it has.
    async fn write(
        &self,
        resource: &ApiResource,
        namespace: String,
        name: String,
        uid: Option<String>,
    ) -> Result<(), String> {
        let api: Api<Item<PartialObjectMeta<DynamicObject>>> =
            Api::namespaced_with(self.client.clone(), &namespace, resource);
        // With the uid, an object of the same name made meanwhile is a conflict: it is
        // stored in the new version already.
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}}));
        match api.patch(&name, &PatchParams::default(), &patch).await {
            Ok(_) => {
                self.metrics.rewritten.inc();
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(())
            }
            Err(error) => {
                self.metrics.failed.inc();
                Err(format!("{} {namespace}/{name}: {error}", resource.kind))
            }
        }
    }
}
