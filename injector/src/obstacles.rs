//! Records Events about namespaces that refuse pods because of their proxy.
//!
//! Kubernetes refuses such a pod after the webhook gave it its proxy, and reports that to the
//! controller that creates the pod. Here the Namespace gets an Event with the way out. A namespace
//! is checked when one of its pods gets a proxy, with the amounts of that pod, and no call waits
//! for that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crds::inject::{self, PodDemand};
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ObjectReference, ResourceQuota};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use runtime::task;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::debug;

/// A namespace is not looked at again for so long for pods of the same amounts: its Event is still
/// there.
const AGAIN: Duration = Duration::from_secs(10 * 60);
/// So many kinds of pods, by their amounts, are looked at in that time in a namespace.
const KINDS: usize = 8;
/// Namespaces that are kept; more are looked at later.
const MOST: usize = 1024;
/// Namespaces that are looked at at one time.
const AT_ONCE: usize = 4;
/// Time for one of them.
const PATIENCE: Duration = Duration::from_secs(10);
/// LimitRanges and ResourceQuotas of a namespace that are read.
const OBJECTS: u32 = 50;
/// Bytes of an Event's note; the API server takes 1024.
const NOTE: usize = 1000;

/// See the module header.
pub(crate) struct Obstacles {
    client: Client,
    /// Name of this pod.
    me: String,
    /// By namespace.
    looked: Mutex<HashMap<String, Vec<(PodDemand, Instant)>>>,
    permits: Semaphore,
}

impl Obstacles {
    pub(crate) fn new(client: Client, me: String) -> Self {
        Self {
            client,
            me,
            looked: Mutex::default(),
            permits: Semaphore::new(AT_ONCE),
        }
    }

    /// Looks whether a namespace admits such a pod, unless that was looked at not long ago.
    pub(crate) fn look(self: &Arc<Self>, namespace: &str, demand: PodDemand) {
        if !self.is_due(namespace, &demand) {
            return;
        }
        let (obstacles, namespace) = (Arc::clone(self), namespace.to_owned());
        task::spawn("obstacles", async move {
            let Ok(_permit) = obstacles.permits.acquire().await else {
                return;
            };
            match timeout(PATIENCE, obstacles.report(&namespace, &demand)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(namespace, %error, "obstacles not reported"),
                Err(_) => debug!(namespace, "obstacles not reported in time"),
            }
        });
    }

    fn is_due(&self, namespace: &str, demand: &PodDemand) -> bool {
        let now = Instant::now();
        let mut looked = self.looked.lock();
        looked.retain(|_, demands| {
            demands.retain(|(_, at)| now.duration_since(*at) < AGAIN);
            !demands.is_empty()
        });
        if looked.len() >= MOST && !looked.contains_key(namespace) {
            return false;
        }
        let demands = looked.entry(namespace.to_owned()).or_default();
        if demands.len() >= KINDS || demands.iter().any(|(known, _)| known == demand) {
            return false;
        }
        demands.push((demand.clone(), now));
        true
    }

    /// Writes the Event, if there is something to report.
    async fn report(&self, name: &str, demand: &PodDemand) -> Result<(), kube::Error> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let metadata = namespaces.get_metadata(name).await?.metadata;
        let few = ListParams::default().limit(OBJECTS);
        let ranges: Api<LimitRange> = Api::namespaced(self.client.clone(), name);
        let quotas: Api<ResourceQuota> = Api::namespaced(self.client.clone(), name);
        let (ranges, quotas) = futures::try_join!(ranges.list(&few), quotas.list(&few))?;
        let namespace = inject::Namespace {
            name: name.to_owned(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            ..inject::Namespace::default()
        };
        let (ranges, quotas) = (values(&ranges.items), values(&quotas.items));
        let found = inject::obstacles_of(demand, &namespace, &ranges, &quotas);
        if found.is_empty() {
            return Ok(());
        }
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(name.to_owned()),
            namespace: Some(name.to_owned()),
            uid: metadata.uid,
            ..ObjectReference::default()
        };
        let note = format!(
            "a pod that was made just now is not admitted because of its proxy: {}",
            found.join("; ")
        );
        let event = self.event(name, about, note);
        let events: Api<Event> = Api::namespaced(self.client.clone(), name);
        events.create(&PostParams::default(), &event).await?;
        Ok(())
    }

    fn event(&self, namespace: &str, about: ObjectReference, mut note: String) -> Event {
        note.truncate(note.floor_char_boundary(NOTE));
        Event {
            metadata: ObjectMeta {
                name: Some(format!("weft-{:016x}", rand::random::<u64>())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some("Inject".to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(note),
            reason: Some("PodsNotAdmitted".to_owned()),
            regarding: Some(about),
            reporting_controller: Some("weft.dev/injector".to_owned()),
            reporting_instance: Some(self.me.clone()),
            type_: Some("Warning".to_owned()),
            ..Event::default()
        }
    }
}

/// As the API server writes them.
fn values(objects: &[impl Serialize]) -> Vec<Value> {
    let values = objects.iter().map(serde_json::to_value);
    values.filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use fake_api::FakeApi;
    use serde_json::json;

    use super::*;

    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events";

    fn api(quota: &Value) -> FakeApi {
        let api = FakeApi::default();
        let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
        api.put(
            "/api/v1/namespaces/shop",
            json!({"metadata": {"name": "shop", "uid": "uid-shop", "labels": labels}}),
        );
        api.put("/api/v1/namespaces/shop/resourcequotas/q", quota.clone());
        api
    }

    fn quota(hard: &Value) -> Value {
        json!({"metadata": {"name": "q", "namespace": "shop"}, "spec": {"hard": hard}})
    }

    fn obstacles(api: &FakeApi) -> Arc<Obstacles> {
        Arc::new(Obstacles::new(api.client(), "injector-1".to_owned()))
    }

    /// Of a pod whose proxy has this limit of CPU, if any.
    fn demand(limit: Option<&str>) -> PodDemand {
        let mut resources = json!({"requests": {"cpu": "10m", "memory": "20Mi"}});
        if let Some(limit) = limit {
            resources["limits"] = json!({"cpu": limit});
        }
        let proxy = json!({"name": "weft-proxy", "resources": resources});
        PodDemand::of(&json!({"spec": {"initContainers": [proxy]}}))
    }

    // Claims: observe-113
    #[tokio::test]
    async fn namespace_that_keeps_proxies_out_gets_an_event() {
        let api = api(&quota(&json!({"limits.cpu": "4"})));
        let none = demand(None);
        obstacles(&api).report("shop", &none).await.unwrap();
        let events = api.below(EVENTS);
        let [event] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(
            (&event["type"], &event["reason"]),
            (&json!("Warning"), &json!("PodsNotAdmitted"))
        );
        assert_eq!(event["regarding"]["kind"], "Namespace");
        assert_eq!(event["regarding"]["uid"], "uid-shop");
        let note = event["note"].as_str().unwrap();
        assert!(note.contains("weft.dev/proxy-cpu-limit"), "{note}");
        // Control: what admits proxies.
        let api = self::api(&quota(&json!({"requests.cpu": "4"})));
        obstacles(&api).report("shop", &none).await.unwrap();
        assert!(api.below(EVENTS).is_empty());
    }

    #[tokio::test]
    async fn pod_with_limits_of_its_own_makes_no_event() {
        let api = api(&quota(&json!({"limits.cpu": "4"})));
        let demand = demand(Some("1"));
        obstacles(&api).report("shop", &demand).await.unwrap();
        assert!(api.below(EVENTS).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn namespace_is_looked_at_once_in_ten_minutes() {
        let obstacles = obstacles(&FakeApi::default());
        let none = demand(None);
        assert!(obstacles.is_due("shop", &none) && obstacles.is_due("bank", &none));
        assert!(!obstacles.is_due("shop", &none));
        // A pod that is admitted hides none that is not, and each kind of pod is one look.
        for kind in 1..KINDS + 3 {
            let other = demand(Some(&kind.to_string()));
            assert_eq!(obstacles.is_due("shop", &other), kind < KINDS, "{kind}");
        }
        tokio::time::advance(AGAIN).await;
        assert!(obstacles.is_due("shop", &none));
        for number in 0..MOST {
            obstacles.is_due(&format!("n{number}"), &none);
        }
        assert!(!obstacles.is_due("one-too-many", &none));
    }
}
