//! Reads the rollout of a Deployment: its strategy, and the revisions that its ReplicaSets stand
//! for.
//!
//! Read, not watched: only Deployments of releases matter, and a watch of all ReplicaSets would
//! hold every template of the cluster. A new pod, or one that goes, is a reason to read; else it is
//! read at leisure. Two calls for one read, as a rule, and of the templates only digests are kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::item::Item;
use crds::labels::{POD_TEMPLATE_HASH, short_hash};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client};
use model::world::ObjectKey;
use serde_json::Value;
use tokio::time::Instant;

use super::calls::{CallFailed, pages, within};

/// The number that Kubernetes gives to a revision, on the Deployment and on its ReplicaSets.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// What `kubectl rollout restart` changes of a template.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// What Kubernetes takes where a Deployment has none.
const PROGRESS_DEADLINE: u64 = 600;
/// Between two reads in a run: that a Deployment is paused or undone shows so late.
const READ_EVERY: Duration = Duration::from_secs(2);
/// The same without one.
const READ_IDLE: Duration = Duration::from_secs(30);
/// ReplicaSets of one page: `revisionHistoryLimit` is 10 unless a user wants more.
const PAGE: u32 = 100;

/// A Deployment and its revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rollout {
    pub(super) uid: String,
    /// Its strategy is RollingUpdate.
    pub(super) is_rolling: bool,
    /// `maxUnavailable` of the strategy is not 0.
    pub(super) may_lack_pods: bool,
    pub(super) paused: bool,
    pub(super) progress_deadline: Duration,
    /// The `pod-template-hash` of its present template; `None` until Kubernetes has made the
    /// ReplicaSet.
    pub(super) newest: Option<String>,
    /// Kubernetes has not made the ReplicaSet of the present template yet, or not written so.
    is_behind: bool,
    /// Digests of the templates by `pod-template-hash`, without what a restart changes.
    templates: BTreeMap<String, String>,
}

impl Rollout {
    /// Whether the templates of two revisions differ in nothing but a restart.
    pub(super) fn equal(&self, one: &str, other: &str) -> bool {
        let template = |revision: &str| self.templates.get(revision);
        one == other || (template(one).is_some() && template(one) == template(other))
    }

    fn of(deployment: &DynamicObject, sets: &[DynamicObject]) -> Self {
        let spec = &deployment.data["spec"];
        let strategy = &spec["strategy"];
        let kind = strategy["type"].as_str().unwrap_or("RollingUpdate");
        let deadline = spec["progressDeadlineSeconds"].as_u64();
        let uid = deployment.metadata.uid.clone().unwrap_or_default();
        let mut rollout = Self {
            is_rolling: kind == "RollingUpdate",
            may_lack_pods: !is_zero(&strategy["rollingUpdate"]["maxUnavailable"]),
            paused: spec["paused"].as_bool().unwrap_or(false),
            progress_deadline: Duration::from_secs(deadline.unwrap_or(PROGRESS_DEADLINE)),
            uid,
            ..Self::default()
        };
        // Else its number is still that of the template before.
        let observed = deployment.data["status"]["observedGeneration"].as_i64();
        let number = number(deployment).filter(|_| observed == deployment.metadata.generation);
        for set in sets.iter().filter(|set| is_owned(set, &rollout.uid)) {
            let labels = set.metadata.labels.as_ref();
            let Some(revision) = labels.and_then(|labels| labels.get(POD_TEMPLATE_HASH)) else {
                continue;
            };
            if number.is_some() && self::number(set) == number {
                rollout.newest = Some(revision.clone());
            }
            let template = digest(&set.data["spec"]["template"]);
            rollout.templates.insert(revision.clone(), template);
        }
        rollout.is_behind = rollout.newest.is_none();
        rollout
    }

    /// While Kubernetes is behind, its newest revision is the one that was read before: a run goes
    /// on to be judged meanwhile.
    fn after(mut self, before: Option<&Self>) -> Self {
        let before = before.filter(|before| self.is_behind && before.uid == self.uid);
        let newest = before.and_then(|before| before.newest.clone());
        self.newest = self.newest.or(newest);
        self
    }
}

fn number(object: &DynamicObject) -> Option<u64> {
    let annotations = object.metadata.annotations.as_ref()?;
    annotations.get(REVISION)?.parse().ok()
}

fn is_owned(set: &DynamicObject, uid: &str) -> bool {
    let owners = set.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    controllers.any(|owner| owner.uid == uid)
}

/// A number or percentage of pods. Kubernetes takes 25% where none is given.
fn is_zero(pods: &Value) -> bool {
    pods.as_u64() == Some(0) || matches!(pods.as_str(), Some("0" | "0%"))
}

/// Of a template without its hash and without the time of a restart.
fn digest(template: &Value) -> String {
    let mut template = template.clone();
    let mut drop_from = |field: &str, name: &str| {
        let metadata = template.get_mut("metadata").and_then(Value::as_object_mut);
        let Some(metadata) = metadata else { return };
        let Some(names) = metadata.get_mut(field).and_then(Value::as_object_mut) else {
            return;
        };
        names.remove(name);
        if names.is_empty() {
            metadata.remove(field);
        }
    };
    drop_from("labels", POD_TEMPLATE_HASH);
    drop_from("annotations", RESTARTED_AT);
    short_hash(&template.to_string())
}

/// The rollout of one release's Deployment, as it was read last.
#[derive(Debug, Default)]
pub(super) struct Rollouts {
    /// The Deployment, when it was read, and what there was; `None`: no such Deployment.
    last: Option<(ObjectKey, Instant, Option<Rollout>)>,
    /// Uids of its pods then.
    pods: Vec<Arc<str>>,
}

impl Rollouts {
    /// The rollout, read anew where that is due. `pods` are those of the Deployment.
    pub(super) async fn look(
        &mut self,
        client: &Client,
        deployment: &ObjectKey,
        pods: Vec<Arc<str>>,
        runs: bool,
    ) -> Result<Option<&Rollout>, CallFailed> {
        let now = Instant::now();
        let is_new = |(of, at, read): &(ObjectKey, Instant, Option<Rollout>)| {
            // Kubernetes makes the ReplicaSet first, and writes the Deployment's status later.
            let unmade = read.as_ref().is_some_and(|read| read.is_behind);
            let every = if runs || unmade {
                READ_EVERY
            } else {
                READ_IDLE
            };
            of == deployment && now.duration_since(*at) < every
        };
        if !self.last.as_ref().is_some_and(is_new) || self.pods != pods {
            let read = read(client, deployment).await?;
            let before = self.last.as_ref().and_then(|(_, _, read)| read.as_ref());
            let read = read.map(|read| read.after(before));
            self.last = Some((deployment.clone(), now, read));
            self.pods = pods;
        }
        Ok(self.last.as_ref().and_then(|(_, _, read)| read.as_ref()))
    }

    /// The Deployment that was read last.
    pub(super) fn deployment(&self) -> Option<(&ObjectKey, &Rollout)> {
        let (key, _, read) = self.last.as_ref()?;
        Some((key, read.as_ref()?))
    }
}

async fn read(client: &Client, key: &ObjectKey) -> Result<Option<Rollout>, CallFailed> {
    let objects = |resource: &ApiResource| -> Api<Item<DynamicObject>> {
        Api::namespaced_with(client.clone(), &key.namespace, resource)
    };
    let deployments = objects(&ApiResource::erase::<Deployment>(&()));
    let found = within(deployments.get_opt(&key.name)).await?;
    let Some(Ok(deployment)) = found.map(|Item(object)| object) else {
        return Ok(None);
    };
    let sets = objects(&ApiResource::erase::<ReplicaSet>(&()));
    let params = ListParams::default()
        .labels(&selector(&deployment.data["spec"]["selector"]))
        .limit(PAGE);
    // All pages: the newest revision may be on any of them, and without it no gate opens.
    let sets = within(pages(&sets, params)).await?;
    Ok(Some(Rollout::of(&deployment, &sets)))
}

/// The labels that a selector requires; its expressions are left out, since the owner decides.
fn selector(selector: &Value) -> String {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let pairs = labels.filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)));
    pairs.collect::<Vec<String>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn deployment(number: &str, observed: i64, strategy: &Value) -> DynamicObject {
        object(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "uid": "d", "generation": 7,
                "annotations": {REVISION: number}},
            "spec": {"strategy": strategy},
            "status": {"observedGeneration": observed},
        }))
    }

    fn set(hash: &str, number: &str, image: &str, restarted: Option<&str>) -> DynamicObject {
        let mut template = json!({
            "metadata": {"labels": {"app": "web", POD_TEMPLATE_HASH: hash}},
            "spec": {"containers": [{"name": "app", "image": image}]},
        });
        if let Some(at) = restarted {
            template["metadata"]["annotations"] = json!({RESTARTED_AT: at});
        }
        object(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": format!("web-{hash}"), "namespace": "shop",
                "labels": {"app": "web", POD_TEMPLATE_HASH: hash},
                "annotations": {REVISION: number},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment",
                    "name": "web", "uid": "d", "controller": true}]},
            "spec": {"template": template},
        }))
    }

    #[test]
    fn newest_revision_is_that_of_present_template() {
        let sets = [set("a", "3", "v1", None), set("b", "2", "v2", None)];
        // After `rollout undo` the older ReplicaSet has the higher number.
        let undone = Rollout::of(&deployment("3", 7, &Value::Null), &sets);
        assert_eq!(undone.newest.as_deref(), Some("a"));
        let behind = Rollout::of(&deployment("3", 6, &Value::Null), &sets);
        assert_eq!(behind.newest, None, "the template is newer than its number");
        let unmade = Rollout::of(&deployment("4", 7, &Value::Null), &sets);
        assert_eq!(unmade.newest, None, "its ReplicaSet is not made yet");
        let followed = behind.after(Some(&undone));
        assert_eq!(followed.newest.as_deref(), Some("a"), "as read before");
        let another = Rollout {
            uid: "another".to_owned(),
            ..undone
        };
        assert_eq!(unmade.after(Some(&another)).newest, None);
    }

    #[test]
    fn foreign_replica_set_is_no_revision() {
        let mut foreign = set("c", "3", "v3", None);
        foreign.metadata.owner_references = None;
        let rollout = Rollout::of(&deployment("3", 7, &Value::Null), &[foreign]);
        assert_eq!(rollout.newest, None);
    }

    #[test]
    fn restart_changes_no_template() {
        let sets = [
            set("a", "1", "v1", None),
            set("b", "2", "v1", Some("2026-11-29T14:00:00Z")),
            set("c", "3", "v2", Some("2026-11-29T14:00:00Z")),
        ];
        let rollout = Rollout::of(&deployment("3", 7, &Value::Null), &sets);
        assert!(rollout.equal("a", "b") && rollout.equal("a", "a"));
        assert!(!rollout.equal("b", "c"), "another image");
        assert!(!rollout.equal("a", "gone"), "an unknown one equals none");
    }

    #[test]
    fn strategy_is_read_with_kubernetes_defaults() {
        let of = |strategy: Value| Rollout::of(&deployment("1", 7, &strategy), &[]);
        let default = of(Value::Null);
        assert!(default.is_rolling && default.may_lack_pods);
        assert_eq!(default.progress_deadline, Duration::from_secs(600));
        assert!(!of(json!({"type": "Recreate"})).is_rolling);
        for none in [json!(0), json!("0%")] {
            let strategy = json!({"rollingUpdate": {"maxUnavailable": none}});
            assert!(!of(strategy).may_lack_pods);
        }
    }
}
