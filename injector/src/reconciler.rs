//! Reconciles what the API server needs to call this replica: authority, serving certificate,
//! `caBundle`, in this order.
//!
//! One pass checks everything and repairs what is missing; it may run twice or be cancelled
//! between any two lines. It runs every half minute and whenever a webhook configuration changes.
//! It uses wall-clock time, so after a machine was suspended one pass repairs all.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use identity::tls::{BadLeaf, ServingHandle};
use identity::{authority::IssueError, rotate};
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use policy::well_known::INJECTOR;
use runtime::backoff::Backoff;
use runtime::ready::Hold;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::authority::{Authority, AuthorityError, Store};
use crate::bundle::{BundleError, Configuration, configurations};
use crate::metrics::Metrics;

/// How long a serving certificate lasts.
pub(crate) const LEAF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest time between two passes.
const PASS_EVERY: Duration = Duration::from_secs(30);
/// Time for one pass.
const PASS_TIMEOUT: Duration = Duration::from_secs(20);
/// Least time between two passes: a configuration that another client keeps changing must not make
/// us hammer the API server.
const PASS_PAUSE: Duration = Duration::from_millis(200);

/// Why a pass did not end well. The next one tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("a serving certificate could not be signed")]
    Issue(#[from] IssueError),
    #[error("the serving certificate could not be taken into use")]
    Leaf(#[from] BadLeaf),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the API server did not answer in time")]
    Timeout,
}

/// See the module.
pub(crate) struct Reconciler {
    store: Store,
    configurations: Vec<Configuration>,
    dns_names: [String; 1],
    serving: ServingHandle,
    metrics: Metrics,
    leaf: Option<Leaf>,
}

/// What is known about the serving certificate in use.
struct Leaf {
    signed_by: String,
    /// Before this it is not valid: the clock was ahead when it was made.
    since: SystemTime,
    renew_at: SystemTime,
}

impl Reconciler {
    pub(crate) fn new(
        client: &Client,
        namespace: &str,
        serving: ServingHandle,
        metrics: Metrics,
    ) -> Self {
        Self {
            store: Store::new(client.clone(), namespace),
            configurations: configurations(client, namespace),
            // The API server calls a Service by this name, whatever the cluster's domain.
            dns_names: [format!("{INJECTOR}.{namespace}.svc")],
            serving,
            metrics,
            leaf: None,
        }
    }

    /// Runs for ever. Releases `hold` after the first pass that ends well.
    pub(crate) async fn run(mut self, hold: Hold) {
        let changed = Arc::new(Notify::new());
        for configuration in &self.configurations {
            runtime::task::spawn(
                "webhook configuration watch",
                watch(configuration.clone(), Arc::clone(&changed)),
            );
        }
        let mut hold = Some(hold);
        let mut backoff = Backoff::new(Duration::from_millis(500), PASS_EVERY);
        loop {
            let pass = tokio::time::timeout(PASS_TIMEOUT, self.pass(SystemTime::now()));
            match pass.await.unwrap_or(Err(KeepError::Timeout)) {
                Ok(()) => {
                    backoff.reset();
                    if let Some(hold) = hold.take() {
                        info!("the API server can call the webhooks");
                        hold.release();
                    }
                    let _ = tokio::time::timeout(PASS_EVERY, changed.notified()).await;
                    tokio::time::sleep(PASS_PAUSE).await;
                }
                Err(error) => {
                    warn!(error = %Chain(&error), "webhooks are not in order yet");
                    // A change may be just what was missing.
                    let _ = tokio::time::timeout(backoff.next_delay(), changed.notified()).await;
                    tokio::time::sleep(PASS_PAUSE).await;
                }
            }
        }
    }

    /// One look at everything.
    pub(crate) async fn pass(&mut self, now: SystemTime) -> Result<(), KeepError> {
        let found = self.store.authority(now).await?;
        if found.changed {
            self.metrics.authority_rotated();
        }
        self.metrics
            .authority_expires(found.authority.current.not_after());
        self.keep_leaf(&found.authority, now)?;
        let bundle = found.authority.bundle();
        let mut missing = None;
        for configuration in &self.configurations {
            match configuration.repair(&bundle).await {
                Ok(false) => {}
                Ok(true) => {
                    self.metrics.bundle_patched();
                    info!(name = configuration.name, "caBundle written");
                }
                // One configuration must not wait for another.
                Err(error) => missing = Some(error),
            }
        }
        missing.map_or(Ok(()), |error| Err(error.into()))
    }

    fn keep_leaf(&mut self, authority: &Authority, now: SystemTime) -> Result<(), KeepError> {
        let root = authority.current.cert_pem();
        let in_time = |leaf: &Leaf| now >= leaf.since && now < leaf.renew_at;
        let good = |leaf: &Leaf| leaf.signed_by == root && in_time(leaf);
        if self.leaf.as_ref().is_some_and(good) {
            return Ok(());
        }
        let serving = authority.current.serving(&self.dns_names, now, LEAF_LIFE)?;
        self.serving.store(&serving)?;
        self.metrics.leaf_expires(serving.not_after);
        self.leaf = Some(Leaf {
            signed_by: root.to_owned(),
            since: serving.not_before,
            renew_at: rotate::renew_at(now, serving.not_after, rand::random()),
        });
        debug!("serving certificate signed");
        Ok(())
    }
}

/// Notifies `changed` about every change of one configuration.
async fn watch(configuration: Configuration, changed: Arc<Notify>) {
    let only_this = format!("metadata.name={}", configuration.name);
    let config = watcher::Config::default().fields(&only_this);
    // Metadata is enough to see that something changed, and definitions are large.
    let metadata: Api<PartialObjectMeta<DynamicObject>> =
        Api::all_with(configuration.api.into_client(), &configuration.resource);
    let events = kube::runtime::watcher(metadata, config).default_backoff();
    let mut events = std::pin::pin!(events);
    // The stream ends only with the process.
    while let Some(event) = events.next().await {
        match event {
            Ok(_) => changed.notify_one(),
            Err(error) => debug!(%error, "webhook configuration could not be watched"),
        }
    }
}

/// An error with its causes, in one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
