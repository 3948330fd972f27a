//! The graph's checkpoint: persists the known edges in ConfigMaps and loads them again.
//!
//! The Lease holder writes when it takes the Lease, every hour and when it ends; every replica
//! loads changes each minute. Loaded edges are merged with known ones, so no order of writes loses
//! anything. When all replicas are killed at once, the last hour is lost.
//!
//! A holder whose container alone restarts has its Lease back at once, and writes what was reported
//! to it of the last minutes; it lacks what was seen since the last write. So a replica that reads
//! a shard written with less knowledge adds its own.
//!
//! The checkpoint belongs to the Role that permits the writes. When the chart takes that away,
//! because the value was switched off or the mesh leaves, the garbage collector removes the
//! checkpoint.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::Role;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use runtime::stop;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::follow::{Graph, seconds};
use super::memory::{SHARDS, Unreadable};
use super::run_blocking;
use crate::apiserver::events::{About, Event, EventRecorder, EventType};
use crate::apiserver::lease::Leadership;

/// What is written changes by the hour.
const WRITE_EVERY: Duration = Duration::from_secs(3600);
/// Between two looks at what others wrote and at what went for want of room, and after a
/// failure.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Between two tries to load the checkpoint when a replica starts: meanwhile the graph serves no
/// response.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);
/// What was seen before that is known to every replica that was there. A replica that starts
/// receives the reports of a longer time again.
const SETTLED: Duration = Duration::from_secs(120);
/// Time for the last write; the Lease is released meanwhile.
const LAST_WITHIN: Duration = Duration::from_secs(2);
/// Tries of one shard that another replica writes too.
const TRIES: usize = 3;
/// Role with the rights that this needs; owner of all that it writes.
const ROLE: &str = "weft-observe";
/// Reason of the Event that edges had no room.
const TRUNCATED: &str = "GraphTruncated";
/// Key of the content.
const KEY: &str = "edges.gz";

/// What was read of each shard.
#[derive(Debug, Default)]
struct Versions {
    /// The version that was read last.
    read: [Option<String>; SHARDS],
    /// Those that a replica with less knowledge than this one wrote meanwhile.
    lacking: [bool; SHARDS],
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Checkpointer {
    /// For what only the Lease holder does.
    pub leading: Client,
    /// For what every replica does.
    pub client: Client,
    /// Of the control plane.
    pub namespace: String,
    /// What is kept.
    pub graph: Graph,
    /// Which replica writes.
    pub leadership: Leadership,
    /// For what cannot be read or had no room.
    pub events: EventRecorder,
}

opaque_debug!(Checkpointer);

impl Checkpointer {
    /// Keeps it until `stop` is true.
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) {
        let mut stop = std::pin::pin!(stop::requested(stop));
        let mut leadership = self.leadership.clone();
        let mut versions = Versions::default();
        let mut next = Instant::now();
        let mut led = false;
        loop {
            let leads = self.leadership.is_held();
            if leads && !led {
                // The one before may have been killed, and its last hour with it. Those that are
                // here now know of that hour, and may be killed before the next one is over.
                next = Instant::now();
            }
            led = leads;
            // The holder too: the one before it writes last when it has let the Lease go.
            let is_read = self.read(&mut versions).await;
            if is_read {
                self.graph.startup().set_loaded();
            }
            if leads && is_read && Instant::now() >= next {
                let written = self.write().await;
                next = Instant::now() + if written { WRITE_EVERY } else { LOOK_EVERY };
            }
            self.complete(&mut versions).await;
            self.report_truncation();
            tokio::select! {
                // The Lease is released at the same moment, and its holder until then writes.
                biased;
                () = &mut stop => {
                    if leads && timeout(LAST_WITHIN, self.write()).await.is_err() {
                        warn!("the service graph was not written down in time");
                    }
                    return;
                }
                () = leadership.acquired(), if !leads => {}
                () = sleep_until(Instant::now() + self.pause()) => {}
            }
        }
    }

    /// Until the next look.
    fn pause(&self) -> Duration {
        if self.graph.startup().awaits_load() {
            LOAD_INTERVAL
        } else {
            LOOK_EVERY
        }
    }

    /// Adds what was written down since `versions`. Returns whether all of it could be fetched.
    async fn read(&self, versions: &mut Versions) -> bool {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let shards = versions.read.iter_mut().zip(&mut versions.lacking);
        for (shard, (last, lacks)) in shards.enumerate() {
            match changed(&api, &name(shard), last.as_deref()).await {
                Ok(None) => {}
                Ok(Some(stored)) => {
                    // What is stored when a replica begins was not written past it.
                    let is_news = last.is_some();
                    last.clone_from(&stored.metadata.resource_version);
                    match self.take(&stored).await {
                        Ok(_) => *lacks = is_news && self.exceeds(shard, &stored).await,
                        Err(error) => {
                            *lacks = false;
                            self.warn_once(
                                shard,
                                "GraphUnreadable",
                                format!("{error}; it is left alone by this replica"),
                            );
                        }
                    }
                }
                Err(error) if self.graph.startup().has_loaded() => {
                    debug!(%error, shard, "what was written of the service graph not fetched");
                    return false;
                }
                Err(error) => {
                    let (role, namespace) = (ROLE, &self.namespace);
                    self.graph
                        .startup()
                        .cannot_load(unread(shard, namespace, &error));
                    warn!(
                        %error, shard, role, namespace,
                        "what was written of the service graph not fetched: the graph answers 503 \
                         for 35 s after a start, and then that it is not complete; this Role lets \
                         ConfigMaps weft-graph-0 to -7 be read"
                    );
                    return false;
                }
            }
        }
        true
    }

    async fn take(&self, stored: &ConfigMap) -> Result<usize, Unreadable> {
        let Some(content) = content_of(stored) else {
            return Ok(0);
        };
        let graph = self.graph.clone();
        run_blocking(move || graph.with_memory(|memory, edges| memory.read(&content, edges))).await
    }

    /// Whether this replica knows more than the writer of this shard, which was taken.
    async fn exceeds(&self, shard: usize, stored: &ConfigMap) -> bool {
        let Some(content) = content_of(stored) else {
            return false;
        };
        let settled = seconds(SystemTime::now()).saturating_sub(SETTLED.as_secs());
        let graph = self.graph.clone();
        let compare =
            move || graph.with_memory(|memory, _| memory.exceeds(shard, &content, settled));
        // What cannot be read was logged when it was taken.
        run_blocking(compare).await.unwrap_or_default()
    }

    /// Adds what this replica knows to what was written without it, with or without the Lease. All
    /// replicas read that one look later; what fails is tried again then.
    async fn complete(&self, versions: &mut Versions) {
        if !versions.lacking.contains(&true) {
            return;
        }
        let Some(owner) = self.owner().await else {
            return;
        };
        let lacking = versions.lacking.iter_mut().enumerate();
        for (shard, lacks) in lacking.filter(|(_, lacks)| **lacks) {
            match self.write_shard(&self.client, shard, &owner).await {
                Ok(()) => *lacks = false,
                Err(error) => warn!(%error, shard, "the service graph is not completed"),
            }
        }
    }

    /// Writes everything down. Returns whether that worked.
    pub(crate) async fn write(&self) -> bool {
        // Without an owner nothing is written: nothing would remove it.
        let Some(owner) = self.owner().await else {
            return false;
        };
        let mut all = true;
        for shard in 0..SHARDS {
            if let Err(error) = self.write_shard(&self.leading, shard, &owner).await {
                warn!(%error, shard, "the service graph is not written down");
                all = false;
            }
        }
        all
    }

    async fn owner(&self) -> Option<OwnerReference> {
        let roles: Api<Role> = Api::namespaced(self.client.clone(), &self.namespace);
        let role = match roles.get_metadata(ROLE).await {
            Ok(role) => role,
            Err(error) => {
                let (role, namespace) = (ROLE, &self.namespace);
                warn!(
                    %error, role, namespace,
                    "the service graph is not written down: it would belong to this Role, which \
                     the chart brings with value observe.enabled"
                );
                return None;
            }
        };
        Some(OwnerReference {
            api_version: "rbac.authorization.k8s.io/v1".to_owned(),
            kind: "Role".to_owned(),
            name: ROLE.to_owned(),
            uid: role.metadata.uid.filter(|uid| !uid.is_empty())?,
            controller: None,
            block_owner_deletion: None,
        })
    }

    async fn write_shard(
        &self,
        client: &Client,
        shard: usize,
        owner: &OwnerReference,
    ) -> anyhow::Result<()> {
        let left_out = self.put_shard(client, shard, owner).await?;
        self.graph.count_unwritten(left_out);
        if left_out > 0 {
            let text = "more edges than have room here: of these the longest unseen are forgotten \
                        once all replicas have ended";
            self.warn_once(shard, TRUNCATED, text.to_owned());
        }
        Ok(())
    }

    /// Returns how many edges had no room in it.
    async fn put_shard(
        &self,
        client: &Client,
        shard: usize,
        owner: &OwnerReference,
    ) -> anyhow::Result<usize> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), &self.namespace);
        for _ in 0..TRIES {
            let stored = api.get_opt(&name(shard)).await?;
            if let Some(stored) = &stored
                && let Err(error) = self.take(stored).await
            {
                self.set_aside(&api, shard, stored, &error, owner).await?;
            }
            let (content, left_out) = self.content(shard).await?;
            let data = BTreeMap::from([(KEY.to_owned(), ByteString(content))]);
            if stored
                .as_ref()
                .is_some_and(|stored| is_as(stored, &data, owner))
            {
                return Ok(left_out);
            }
            let version = stored
                .as_ref()
                .and_then(|stored| stored.metadata.resource_version.clone());
            let new = written_as(&name(shard), version, data, owner);
            let params = PostParams::default();
            let written = match stored {
                Some(_) => api.replace(&name(shard), &params, &new).await,
                None => api.create(&params, &new).await,
            };
            match written {
                // Another replica wrote: what it knew comes in first.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => return Ok(other.map(|_| left_out)?),
            }
        }
        anyhow::bail!("another replica writes it all the time")
    }

    async fn content(&self, shard: usize) -> anyhow::Result<(Vec<u8>, usize)> {
        let graph = self.graph.clone();
        let packed = run_blocking(move || graph.with_memory(|memory, _| memory.shard(shard)));
        Ok(packed.await?)
    }

    /// Keeps what cannot be read under another name, so that a person can look at it.
    async fn set_aside(
        &self,
        api: &Api<ConfigMap>,
        shard: usize,
        stored: &ConfigMap,
        error: &Unreadable,
        owner: &OwnerReference,
    ) -> Result<(), kube::Error> {
        let aside = format!("weft-graph-broken-{shard}");
        let data = stored.binary_data.clone().unwrap_or_default();
        let version = api
            .get_opt(&aside)
            .await?
            .and_then(|old| old.metadata.resource_version);
        let params = PostParams::default();
        let new = written_as(&aside, version.clone(), data, owner);
        match version {
            Some(_) => api.replace(&aside, &params, &new).await?,
            None => api.create(&params, &new).await?,
        };
        self.warn_once(
            shard,
            "GraphUnreadable",
            format!("{error}; moved to ConfigMap {aside}"),
        );
        Ok(())
    }

    fn report_truncation(&self) {
        let gone = self.graph.take_truncated();
        if gone > 0 && self.leadership.is_held() {
            let now = seconds(SystemTime::now());
            debug!(gone, now, "persisted edges removed");
            self.warn_once(
                0,
                TRUNCATED,
                "more edges than can be persisted: those not seen for longest are dropped"
                    .to_owned(),
            );
        }
    }

    fn warn_once(&self, shard: usize, reason: &'static str, text: String) {
        self.events.record(Event {
            about: About {
                api_version: "v1".to_owned(),
                kind: "ConfigMap".to_owned(),
                namespace: self.namespace.clone(),
                name: name(shard),
                uid: String::new(),
            },
            event_type: EventType::Warning,
            reason,
            action: "Remember",
            text,
        });
    }
}

/// What is stored under this name, unless it is of the version that was read last. Most looks find
/// that one, and the whole object may have 1 MiB.
async fn changed(
    api: &Api<ConfigMap>,
    name: &str,
    last: Option<&str>,
) -> Result<Option<ConfigMap>, kube::Error> {
    if last.is_some() {
        let stored = api.get_metadata_opt(name).await?;
        if stored.is_none_or(|stored| stored.metadata.resource_version.as_deref() == last) {
            return Ok(None);
        }
    }
    api.get_opt(name).await
}

/// Why this shard cannot be read, for the reader of a response that needs it. The log has the API
/// server's whole error.
fn unread(shard: usize, namespace: &str, error: &kube::Error) -> String {
    let why = match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.reason),
        _ => "without an answer that can be read".to_owned(),
    };
    let name = name(shard);
    format!(
        "ConfigMap {name} of namespace {namespace}, in which earlier calls are written down, cannot \
         be fetched ({why}): Role {ROLE} there must let the controller get it; it is tried again \
         each minute, and the controller's log says more"
    )
}

fn content_of(stored: &ConfigMap) -> Option<Vec<u8>> {
    let content = stored.binary_data.as_ref().and_then(|data| data.get(KEY));
    content.map(|ByteString(content)| content.clone())
}

/// Whether it is written already. A Role that was made anew is another owner.
fn is_as(stored: &ConfigMap, data: &BTreeMap<String, ByteString>, owner: &OwnerReference) -> bool {
    let owners = stored.metadata.owner_references.as_deref();
    stored.binary_data.as_ref() == Some(data)
        && owners.is_some_and(|owners| owners == std::slice::from_ref(owner))
}

fn name(shard: usize) -> String {
    format!("weft-graph-{shard}")
}

fn written_as(
    name: &str,
    version: Option<String>,
    data: BTreeMap<String, ByteString>,
    owner: &OwnerReference,
) -> ConfigMap {
    let labels = [
        ("app.kubernetes.io/name", "weft"),
        ("app.kubernetes.io/component", "graph"),
    ];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: version,
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        binary_data: Some(data),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests;
