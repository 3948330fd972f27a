//! The gates of pods: the condition `weft.dev/released`, which the injector requires of pods of a
//! new revision.
//!
//! A gate opens and never closes again. One patch writes this condition and no other: the list of
//! conditions is merged by type, and the pod is named by its uid, so a pod that took the name
//! meanwhile keeps its own. A patch whose answer was lost is written again and changes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crds::item::Item;
use crds::labels::{POD_TEMPLATE_HASH, RELEASED_CONDITION};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use model::world::{ObjectKey, PodFacts, World};
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{info, warn};

use super::calls::{CallFailed, within};

/// Patches under way at one time.
const AT_ONCE: usize = 8;
/// Gates opened in one look; others follow in the next.
const MOST: usize = 256;
/// Pause after a failed patch; doubled up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_secs(1);
/// What an unreachable API server or a refusing policy costs at most: a call a pod in this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// A gated pod that is still to be released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GatedPod {
    pub(super) key: ObjectKey,
    pub(super) uid: Arc<str>,
    /// The Deployment that it belongs to, if it is one's.
    pub(super) deployment: Option<ObjectKey>,
}

/// Pods whose gate is shut.
pub(super) fn shut(world: &World) -> impl Iterator<Item = GatedPod> {
    let pods = world.pods.iter().filter(|(_, facts)| {
        let shut = facts.gate.is_some_and(|gate| !gate.released);
        shut && !facts.ended && !facts.terminating
    });
    pods.map(|(key, facts)| GatedPod {
        key: key.clone(),
        uid: Arc::clone(&facts.uid),
        deployment: deployment(facts).map(|name| ObjectKey::new(&key.namespace, name)),
    })
}

/// The `pod-template-hash` of a pod; empty without one.
pub(super) fn revision(facts: &PodFacts) -> Arc<str> {
    let hash = facts.labels.get(POD_TEMPLATE_HASH);
    hash.map_or_else(|| "".into(), Arc::clone)
}

/// The name of the Deployment that a pod is of.
pub(super) fn deployment(facts: &PodFacts) -> Option<&str> {
    match model::owner_above(facts)? {
        ("Deployment", name) => Some(name),
        _ => None,
    }
}

/// Opens gates, each until it is written.
pub(super) struct Gates {
    client: Client,
    failures: Counter,
    /// Pods whose patch was taken and whose World does not show it yet, or that failed: when the
    /// next try is due, and the pause after it. By uid.
    tried: HashMap<Arc<str>, (Instant, Duration)>,
}

opaque_debug!(Gates);

impl Gates {
    pub(super) fn new(client: Client, failures: Counter) -> Self {
        Self {
            client,
            failures,
            tried: HashMap::new(),
        }
    }

    /// Opens the gates of these pods, as far as they are due. `why` is the condition's reason.
    pub(super) async fn open(&mut self, pods: Vec<(GatedPod, &'static str)>) {
        let now = Instant::now();
        let mut due = pods;
        due.retain(|(pod, _)| self.tried.get(&pod.uid).is_none_or(|(at, _)| *at <= now));
        due.truncate(MOST);
        for batch in due.chunks(AT_ONCE) {
            let writes = batch.iter().map(|(pod, why)| self.write(pod, why));
            let outcomes = join_all(writes).await;
            for ((pod, why), outcome) in batch.iter().zip(outcomes) {
                let pause = self.tried.get(&pod.uid).map_or(PAUSE, |(_, pause)| *pause);
                let longer = (pause * 2).min(LONGEST_PAUSE);
                self.tried
                    .insert(Arc::clone(&pod.uid), (now + pause, longer));
                match outcome {
                    Ok(true) => info!(pod = %pod.key, reason = why, "gate opened"),
                    Ok(false) => {}
                    Err(error) => {
                        self.failures.inc();
                        warn!(pod = %pod.key, %error, "gate not opened");
                    }
                }
            }
        }
    }

    /// False when the pod is gone.
    async fn write(&self, pod: &GatedPod, why: &str) -> Result<bool, CallFailed> {
        let api: Api<Item<PartialObjectMeta<Pod>>> =
            Api::namespaced(self.client.clone(), &pod.key.namespace);
        let params = PatchParams::default();
        let patch = Patch::Strategic(released(&pod.uid, why, Timestamp::now()));
        match within(api.patch_status(&pod.key.name, &params, &patch)).await {
            Ok(_) => Ok(true),
            // Of another pod, which took the name, a uid is a conflict.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets pods whose gate is not shut any more.
    pub(super) fn retain(&mut self, shut: &[GatedPod]) {
        let shut: HashSet<&str> = shut.iter().map(|pod| &*pod.uid).collect();
        self.tried.retain(|uid, _| shut.contains(&**uid));
    }
}

fn released(uid: &str, why: &str, now: Timestamp) -> Value {
    json!({
        "metadata": {"uid": uid},
        "status": {"conditions": [{
            "type": RELEASED_CONDITION,
            "status": "True",
            "reason": why,
            "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]},
    })
}
