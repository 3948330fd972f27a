//! The driver of releases with an API server in memory: commands, gates, deletion, and statuses
//! that others wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::{Method, Request};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use model::compiled::Compiled;
use model::{Defaults, Model};
use policy::name::{Kind, ObjectRef};
use prometheus_client::metrics::counter::Counter;
use runtime::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tower::BoxError;
use wire::v1;

use super::context::Releases;
use super::releases::Driver;
use crate::apiserver::events::EventRecorder;
use crate::fleet::Fleet;
use crate::metrics::automation::AutomationMetrics;
use crate::observe::acknowledged::Observed;
use crate::observe::early::EarlyCounts;
use crate::testing::api_server::FakeApi;
use crate::testing::cluster;

mod commands;
mod gates;
mod statuses;

const RELEASE: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/canaryreleases/web";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/web";
const PODS: &str = "/api/v1/namespaces/shop/pods";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/shop/events/";
/// The pods of the stable revision `a`, and of the new one `b`.
const OLD: [&str; 2] = ["web-a-1", "web-a-2"];
const NEW: &str = "web-b-1";

/// A cluster with a release, and a controller that drives it. Time is paused.
struct Bench {
    api: FakeApi,
    models: watch::Sender<Option<Arc<Compiled>>>,
    parts: Releases,
    driver: Driver,
    /// Answers to patches are lost.
    lost: Arc<AtomicBool>,
    has_service: bool,
}

fn spec() -> Value {
    json!({
        "service": "web", "deployment": "web", "minRequests": 0,
        "steps": [{"weight": 20, "duration": "30s"}, {"weight": 50, "duration": "30s"}],
        "checks": {"latency": {"percentile": 0}},
    })
}

fn deployment(number: u8, strategy: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-deployment", "generation": 1,
            "annotations": {"deployment.kubernetes.io/revision": number.to_string()}},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "strategy": {"type": strategy}},
        "status": {"observedGeneration": 1},
    })
}

fn replica_set(hash: &str, number: u8) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": format!("web-{hash}"), "namespace": "shop", "uid": hash,
            "labels": {"app": "web", "pod-template-hash": hash},
            "annotations": {"deployment.kubernetes.io/revision": number.to_string()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web",
                "uid": "uid-deployment", "controller": true}]},
        "spec": {"template": {"metadata": {"labels": {"pod-template-hash": hash}},
            "spec": {"containers": [{"name": "app", "image": hash}]}}},
    })
}

fn pod(name: &str, last: u8, hash: &str, open: bool) -> Value {
    let pod = cluster::pod(name, &format!("10.0.1.{last}"), "web");
    let pod = cluster::set(pod, "/metadata/labels", json!({"app": "web"}));
    cluster::gated(cluster::of_revision(pod, "web", hash), [true, open])
}

impl Bench {
    /// Revision `a` is stable.
    async fn new() -> Self {
        let api = FakeApi::default();
        api.put(RELEASE, cluster::release("web", spec(), json!({})));
        api.put(DEPLOYMENT, deployment(1, "RollingUpdate"));
        api.put(&set_path("a"), replica_set("a", 1));
        for (last, name) in (1..).zip(OLD) {
            api.put(&format!("{PODS}/{name}"), pod(name, last, "a", true));
        }
        let (models, latest) = watch::channel(None);
        let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
        tokio::spawn(writer.run(std::future::pending()));
        let lost = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_000_000);
        let parts = Releases {
            client: lossy(&api, &lost),
            enabled: true,
            fleet: Fleet::new(latest.clone(), Counter::default()),
            latest,
            observed: Observed::settled(),
            early: EarlyCounts::new(Counter::default()),
            events,
            metrics: AutomationMetrics::default(),
            clock: Clock::from_fn(move || since + began.elapsed()),
        };
        let mut bench = Self {
            driver: Driver::new(parts.clone()),
            api,
            models,
            parts,
            lost,
            has_service: true,
        };
        bench.look(2).await;
        assert_eq!(bench.phase(), "Idle", "{}", bench.status());
        bench
    }

    /// Revision `b` is being released, and its pod waits.
    async fn releasing() -> Self {
        let mut bench = Self::new().await;
        bench.update();
        bench.look(5).await;
        assert_eq!(bench.phase(), "Progressing", "{}", bench.status());
        bench
    }

    /// Revision `b` was rolled back, and its pod waits.
    async fn refused() -> Self {
        let mut bench = Self::releasing().await;
        bench.command("abort", 0);
        bench.look(2).await;
        assert_eq!(bench.phase(), "RolledBack", "{}", bench.status());
        assert!(!bench.is_open(NEW));
        bench
    }

    /// The Deployment gets template `b`.
    fn update(&self) {
        self.api.put(DEPLOYMENT, deployment(2, "RollingUpdate"));
        self.api.put(&set_path("b"), replica_set("b", 2));
        self.api
            .put(&format!("{PODS}/{NEW}"), pod(NEW, 9, "b", false));
    }

    /// The model that the objects make, and proxies of all pods.
    fn compile(&self) {
        let mut world = cluster::Cluster::default()
            .with(cluster::namespace("shop"))
            .with(cluster::node("node-a", "zone-a"));
        if self.has_service {
            world = world.with(cluster::service("web", "10.96.0.9", &[("http", 80)]));
        }
        let mut endpoints = Vec::new();
        for pod in self.api.below(PODS) {
            let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
            let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();
            if !name.starts_with("web-b") {
                endpoints.push(cluster::endpoint(&name, &ip));
            }
            self.parts.observed.note(1, proxy(name));
            world = world.with(pod);
        }
        world = world.with(cluster::slice(
            "web-x",
            "web",
            &[("http", 8080)],
            &endpoints,
        ));
        for release in self.api.below(RELEASE) {
            world = world.with(release);
        }
        let world = Arc::new(world.world());
        let (model, problems) = Model::compile(&world, &Defaults::default());
        let compiled = Compiled::new(world, model, problems);
        self.models.send_replace(Some(Arc::new(compiled)));
    }

    /// So many seconds of a controller's life.
    async fn look(&mut self, seconds: u32) {
        for _ in 0..seconds {
            sleep(Duration::from_secs(1)).await;
            self.compile();
            self.driver.look().await;
        }
    }

    fn lose_answers(&self, lost: bool) {
        self.lost.store(lost, Ordering::Relaxed);
    }

    /// Another replica gets the Lease.
    fn hand_over(&mut self) {
        self.driver = Driver::new(self.parts.clone());
    }

    fn status(&self) -> Value {
        self.api.read(RELEASE).unwrap()["status"].clone()
    }

    fn phase(&self) -> String {
        self.status()["phase"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Changes fields of the release as a user does.
    fn edit(&self, pointer: &str, value: Value) {
        let release = self.api.read(RELEASE).unwrap();
        self.api.put(RELEASE, cluster::set(release, pointer, value));
    }

    /// Gives a command now, or so many seconds ago.
    fn command(&self, verb: &str, ago: u64) -> String {
        let at = self.parts.clock.now() - Duration::from_secs(ago);
        let at = Timestamp::try_from(at).unwrap();
        let value = format!("{verb}@{}", at.strftime("%Y-%m-%dT%H:%M:%SZ"));
        self.annotate(&value);
        value
    }

    fn annotate(&self, value: &str) {
        self.edit("/metadata/annotations", json!({"weft.dev/command": value}));
        let fields = json!({"f:metadata": {"f:annotations": {"f:weft.dev/command": {}}}});
        let entry = json!({"manager": "kubectl-annotate", "operation": "Update",
            "fieldsType": "FieldsV1", "time": "2026-11-29T14:00:00Z", "fieldsV1": fields});
        self.edit("/metadata/managedFields", json!([entry]));
    }

    fn annotation(&self) -> Option<String> {
        let release = self.api.read(RELEASE).unwrap();
        let value = &release["metadata"]["annotations"]["weft.dev/command"];
        value.as_str().map(str::to_owned)
    }

    fn condition(&self, name: &str) -> (String, String) {
        let status = self.status();
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|one| one["type"] == name);
        let found = found.unwrap_or_else(|| panic!("{name}: {status}"));
        let text = |field: &str| found[field].as_str().unwrap().to_owned();
        (text("status"), text("reason"))
    }

    /// The condition of a pod's gate.
    fn is_open(&self, pod: &str) -> bool {
        let pod = self.api.read(&format!("{PODS}/{pod}")).unwrap();
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        let mut gates = conditions
            .iter()
            .filter(|one| one["type"] == "weft.dev/released");
        gates.any(|gate| gate["status"] == "True")
    }

    /// Reasons of the Events about the release, in order of time.
    async fn events(&self) -> Vec<String> {
        sleep(Duration::from_secs(2)).await;
        let mut events = self.api.below(EVENTS);
        events.retain(|event| event["regarding"]["kind"] == "CanaryRelease");
        events.sort_by_key(|event| event["metadata"]["resourceVersion"].as_str().map(u64_of));
        let reasons = events.iter().map(|event| event["reason"].as_str().unwrap());
        reasons.map(str::to_owned).collect()
    }
}

impl Bench {
    /// What the last Event `Bypassed` about an object of this kind says.
    async fn bypassed(&self, kind: &str) -> String {
        sleep(Duration::from_secs(2)).await;
        let mut events = self.api.below(EVENTS);
        events.retain(|event| event["regarding"]["kind"] == kind && event["reason"] == "Bypassed");
        let note = events.last().map(|event| event["note"].clone());
        let note = note.unwrap_or_else(|| panic!("no Event on a {kind}"));
        note.as_str().unwrap().to_owned()
    }
}

/// A proxy that has all of the release, whichever generation.
fn proxy(pod: String) -> v1::ProxyState {
    let release = ObjectRef::new(Kind::CanaryRelease, "shop", "web");
    v1::ProxyState {
        namespace: "shop".to_owned(),
        uid: format!("uid-{pod}"),
        pod,
        objects: vec![v1::ObjectState {
            object: Some(v1::ObjectRef::from(&release)),
            needed: 1000,
            acknowledged: true,
            ..v1::ObjectState::default()
        }],
        ..v1::ProxyState::default()
    }
}

/// A client that gets no answers to its patches while `lost` is set, though they are carried out.
fn lossy(api: &FakeApi, lost: &Arc<AtomicBool>) -> Client {
    let (client, lost) = (api.client(), Arc::clone(lost));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, lost) = (client.clone(), Arc::clone(&lost));
        async move {
            let is_patch = request.method() == Method::PATCH;
            let answer = client.send(request).await?;
            if is_patch && lost.load(Ordering::Relaxed) {
                return Err(BoxError::from("the answer is lost"));
            }
            Ok::<_, BoxError>(answer)
        }
    });
    Client::new(service, "default")
}

fn u64_of(text: &str) -> u64 {
    text.parse().unwrap()
}

fn set_path(hash: &str) -> String {
    format!("/apis/apps/v1/namespaces/shop/replicasets/web-{hash}")
}

#[tokio::test(start_paused = true)]
async fn new_revision_starts_run_with_its_gate_shut() {
    let bench = Bench::releasing().await;
    let status = bench.status();
    assert_eq!(status["stable"], json!({"revision": "a", "pods": 2}));
    assert_eq!(status["candidate"], json!({"revision": "b", "pods": 1}));
    assert_eq!(status["run"]["number"], 1, "{status}");
    assert_eq!(status["run"]["weight"], 20, "{status}");
    assert_eq!(status["progress"], "1/2");
    assert!(!bench.is_open(NEW));
    for name in ["Accepted", "ResolvedRefs", "Programmed"] {
        assert_eq!(bench.condition(name).0, "True", "{name}: {status}");
    }
    assert_eq!(bench.condition("Ready"), pair("False", "Progressing"));
    assert_eq!(bench.condition("Stalled"), pair("False", "Progressing"));
    assert_eq!(bench.events().await, ["ReleaseStarted", "StepStarted"]);
}

#[tokio::test(start_paused = true)]
async fn run_without_complaint_is_promoted_gate_by_gate() {
    let mut bench = Bench::releasing().await;
    bench.look(75).await;
    assert_eq!(bench.phase(), "Promoting", "{}", bench.status());
    assert!(bench.is_open(NEW));
    // As the kubelet and Kubernetes go on.
    let path = format!("{PODS}/{NEW}");
    bench.api.put(&path, pod(NEW, 9, "b", true));
    for name in OLD {
        bench.api.remove(&format!("{PODS}/{name}"));
    }
    bench.look(3).await;
    let status = bench.status();
    assert_eq!(bench.phase(), "Idle", "{status}");
    assert_eq!(status["stable"], json!({"revision": "b", "pods": 1}));
    assert_eq!(status["history"][0]["result"], "Promoted", "{status}");
    assert_eq!(bench.condition("Ready"), pair("True", "Idle"));
    assert_eq!(bench.parts.metrics.times_ended("promoted"), 1);
    assert_eq!(bench.events().await.last().unwrap(), "Promoted");
}

#[tokio::test(start_paused = true)]
async fn idle_release_is_not_written() {
    let mut bench = Bench::new().await;
    let before = bench.api.writes().len();
    bench.look(60).await;
    assert_eq!(bench.api.writes().len(), before);
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}
