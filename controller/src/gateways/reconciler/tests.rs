//! Gateways get their objects, keep them, and say how they are; what is another owner's stays.

use std::collections::BTreeSet;

use http::Method;
use model::{Defaults, Model};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

mod additions;
mod unwritten;

use super::*;
use crate::testing::api_server::FakeApi;
use crate::testing::cluster::Cluster;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/edge/events";
const API: &str = "/apis/gateway.networking.k8s.io/v1";
const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/edge/gateways/web";
const CLASS: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses/weft";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/gatewayclasses.gateway.networking.k8s.io";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/edge/deployments/web-weft";
const SERVICE: &str = "/api/v1/namespaces/edge/services/web-weft";
const ACCOUNT: &str = "/api/v1/namespaces/edge/serviceaccounts/web-weft";
const PARAMETERS: &str = "/api/v1/namespaces/edge/configmaps/sizes-a";

fn class() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "weft", "uid": "uid-class", "generation": 1},
        "spec": {"controllerName": "weft.dev/gateway"},
    })
}

fn gateway(generation: i64, more: &Value) -> Value {
    let listener = |name: &str, port: u16| json!({"name": name, "port": port, "protocol": "HTTP"});
    let mut spec = json!({
        "gatewayClassName": "weft",
        "listeners": [listener("http", 80), listener("other", 8080)],
    });
    for (name, value) in more.as_object().unwrap() {
        spec[name.as_str()] = value.clone();
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {
            "name": "web", "namespace": "edge", "uid": "uid-web", "generation": generation,
        },
        "spec": spec,
    })
}

fn named_parameters() -> Value {
    let named = json!({"group": "", "kind": "ConfigMap", "name": "sizes-a"});
    json!({"infrastructure": {"parametersRef": named}})
}

fn compiled(gateway: &Value, namespaces: &[&str]) -> Arc<Compiled> {
    let cluster = Cluster::default().with(class()).with(gateway.clone());
    compiled_of(&cluster, namespaces)
}

fn compiled_of(cluster: &Cluster, namespaces: &[&str]) -> Arc<Compiled> {
    let world = Arc::new(cluster.world());
    let namespaces = namespaces.iter().map(|name| (*name).to_owned());
    let defaults = Defaults {
        gateway_namespaces: Some(Arc::new(namespaces.collect::<BTreeSet<String>>())),
        ..Defaults::default()
    };
    let (model, problems) = Model::compile(&world, &defaults);
    Arc::new(Compiled::new(world, model, problems))
}

struct Bench {
    api: FakeApi,
    models: watch::Sender<Option<Arc<Compiled>>>,
    reconciler: Reconciler,
    seen: usize,
}

impl Bench {
    /// A cluster with this Gateway, and nothing that looks after it yet.
    fn of(gateway: &Value) -> Self {
        let api = FakeApi::default();
        api.put(CLASS, class());
        api.put(GATEWAY, gateway.clone());
        let (models, latest) = watch::channel(Some(compiled(gateway, &["edge"])));
        let (events, _) = EventRecorder::new(api.client(), "me", Counter::default());
        let settings = GatewaySettings {
            namespaces: Arc::new(BTreeSet::from(["edge".to_owned()])),
            image: "weft/gateway:1".to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
            pull_secrets: vec!["registry".to_owned()],
            architectures: "amd64,arm64".parse().unwrap(),
            controller_address: "weft-controller.weft-system.svc.cluster.local.:8443".to_owned(),
            controller_namespace: "weft-system".to_owned(),
            trust_domain: "cluster.local".to_owned(),
        };
        let reconciler = Reconciler {
            client: api.client(),
            latest,
            observed: Observed::settled(),
            events,
            settings: Arc::new(settings),
            written: Counter::default(),
        };
        Self {
            api,
            models,
            reconciler,
            seen: 0,
        }
    }

    /// The same, looked after.
    async fn start(gateway: &Value) -> Self {
        let bench = Self::of(gateway);
        tokio::spawn(bench.reconciler.clone().keep());
        sleep(3 * SOON).await;
        bench
    }

    /// The Gateway is another one from now on.
    async fn change(&self, gateway: &Value) {
        self.api.put(GATEWAY, gateway.clone());
        self.models.send_replace(Some(compiled(gateway, &["edge"])));
        sleep(3 * SOON).await;
    }

    fn read(&self, path: &str) -> Value {
        self.api.read(path).unwrap_or_default()
    }

    /// What Kubernetes makes of the objects.
    async fn becomes_available(&self) {
        let mut deployment = self.read(DEPLOYMENT);
        deployment["status"] = json!({"availableReplicas": 1});
        self.api.put(DEPLOYMENT, deployment);
        let mut service = self.read(SERVICE);
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.18.0.1"}]}});
        self.api.put(SERVICE, service);
        sleep(2 * EVERY).await;
    }

    /// Status and reason of a condition of the Gateway, and its message.
    fn condition(&self, kind: &str) -> (String, String, String) {
        let status = self.read(GATEWAY)["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let one = conditions.iter().find(|one| one["type"] == kind);
        let text = |field: &str| {
            let value = one.map(|one| one[field].as_str().unwrap_or_default().to_owned());
            value.unwrap_or_default()
        };
        (text("status"), text("reason"), text("message"))
    }

    fn is(&self, kind: &str, status: &str, reason: &str) {
        let (now, why, message) = self.condition(kind);
        assert_eq!((now.as_str(), why.as_str()), (status, reason), "{message}");
    }

    /// Its Events are written from now on.
    fn write_events(&mut self) {
        let (events, writer) = EventRecorder::new(self.api.client(), "me", Counter::default());
        self.reconciler.events = events;
        tokio::spawn(writer.run(std::future::pending()));
    }

    /// What its Events of this reason say.
    fn notes(&self, reason: &str) -> Vec<String> {
        let events = self.api.below(EVENTS).into_iter();
        let events = events.filter(|event| event["reason"] == reason);
        let notes = events.map(|event| event["note"].as_str().unwrap_or_default().to_owned());
        notes.collect()
    }

    /// Writes since the last time.
    fn writes(&mut self) -> Vec<(Method, String)> {
        let all = self.api.writes();
        let new = all[self.seen..].to_vec();
        self.seen = all.len();
        new
    }
}

#[tokio::test(start_paused = true)]
async fn gateway_gets_objects_of_its_own_and_address() {
    let more = json!({"infrastructure": {
        "labels": {"team": "a", "weft.dev/account": "x"}, "annotations": {"note": "b", "weft.dev/access-log": "errors"},
    }});
    let mut bench = Bench::start(&gateway(1, &more)).await;
    for path in [ACCOUNT, DEPLOYMENT, SERVICE] {
        let metadata = &bench.read(path)["metadata"];
        assert_eq!(metadata["ownerReferences"][0]["uid"], "uid-web", "{path}");
        let labels = &metadata["labels"];
        assert_eq!(labels["team"], "a", "{path}");
        assert_eq!(labels["gateway.networking.k8s.io/gateway-name"], "web");
        assert_eq!(labels["weft.dev/account"], Value::Null);
        assert_eq!(labels["weft.dev/inject"], Value::Null);
        assert_eq!(metadata["annotations"]["weft.dev/access-log"], Value::Null);
        assert_eq!(metadata["annotations"]["note"], "b", "{path}");
    }
    let ports = json!([
        {"name": "port-80", "port": 80, "targetPort": 20080, "protocol": "TCP"},
        {"name": "port-8080", "port": 8080, "targetPort": 8080, "protocol": "TCP"},
    ]);
    assert_eq!(bench.read(SERVICE)["spec"]["ports"], ports);
    let pod = bench.read(DEPLOYMENT)["spec"]["template"].clone();
    assert_eq!(pod["spec"]["serviceAccountName"], "web-weft");
    assert_eq!(
        pod["spec"]["imagePullSecrets"],
        json!([{"name": "registry"}])
    );
    let nodes = &pod["spec"]["affinity"]["nodeAffinity"];
    let nodes = &nodes["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let processors = &nodes[0]["matchExpressions"][0]["values"];
    assert_eq!(*processors, json!(["amd64", "arm64"]));
    assert_eq!(pod["metadata"]["labels"]["team"], "a");
    assert_eq!(pod["metadata"]["labels"]["weft.dev/inject"], "disabled");
    assert_eq!(
        pod["metadata"]["annotations"]["weft.dev/access-log"],
        "errors"
    );
    assert!(pod["metadata"]["annotations"]["weft.dev/proxy-version"].is_string());
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["name"], "weft-gateway");
    assert_eq!(
        container["ports"].as_array().unwrap().len(),
        1,
        "a new listener rolls no pod"
    );
    bench.is("Accepted", "True", "Accepted");
    bench.is("Programmed", "False", "Pending");

    bench.becomes_available().await;
    bench.is("Programmed", "True", "Programmed");
    let addresses = json!([{"type": "IPAddress", "value": "198.18.0.1"}]);
    assert_eq!(bench.read(GATEWAY)["status"]["addresses"], addresses);
    let listeners = bench.read(GATEWAY)["status"]["listeners"].clone();
    assert_eq!(listeners.as_array().unwrap().len(), 2);

    bench.writes();
    sleep(5 * EVERY).await;
    assert!(bench.writes().is_empty(), "nothing to do");
}

/// Restricted pods get no privilege for a port.
#[tokio::test(start_paused = true)]
async fn pod_of_gateway_needs_no_privilege() {
    let bench = Bench::start(&gateway(1, &json!({}))).await;
    let pod = bench.read(DEPLOYMENT)["spec"]["template"]["spec"].clone();
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["sysctls"], Value::Null);
    assert_eq!(pod["automountServiceAccountToken"], false);
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
}

#[tokio::test(start_paused = true)]
async fn foreign_object_of_its_name_is_never_touched() {
    for (path, kind) in [
        (ACCOUNT, "ServiceAccount"),
        (DEPLOYMENT, "Deployment"),
        (SERVICE, "Service"),
    ] {
        for owners in [json!([]), json!([{"uid": "uid-other", "controller": true}])] {
            let gateway = gateway(1, &json!({}));
            let bench = Bench::of(&gateway);
            let theirs = json!({
                "metadata": {"name": "web-weft", "namespace": "edge", "ownerReferences": owners},
                "spec": {"theirs": true},
            });
            bench.api.put(path, theirs);
            let before = bench.read(path);
            tokio::spawn(bench.reconciler.clone().keep());
            sleep(2 * EVERY).await;
            assert_eq!(bench.read(path), before, "{path}");
            let writes = bench.api.writes();
            assert!(writes.iter().all(|(_, at)| at != path), "{writes:?}");
            bench.is("Programmed", "False", "NameTaken");
            let (_, _, message) = bench.condition("Programmed");
            assert!(
                message.contains(kind) && message.contains("edge/web-weft"),
                "{message}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn changed_or_deleted_objects_are_put_right() {
    let bench = Bench::start(&gateway(1, &json!({}))).await;
    bench.becomes_available().await;
    let right = bench.read(SERVICE)["spec"].clone();
    let mut wrong = bench.read(SERVICE);
    wrong["spec"]["selector"] = json!({"app": "other"});
    bench.api.put(SERVICE, wrong);
    bench.api.remove(DEPLOYMENT);
    sleep(2 * EVERY).await;
    for (label, value) in right["selector"].as_object().unwrap() {
        assert_eq!(&bench.read(SERVICE)["spec"]["selector"][label], value);
    }
    assert!(bench.read(DEPLOYMENT)["spec"].is_object());
}

#[tokio::test(start_paused = true)]
async fn parameters_are_followed_and_wrong_ones_refused() {
    let bench = Bench::of(&gateway(1, &named_parameters()));
    tokio::spawn(bench.reconciler.clone().keep());
    sleep(3 * SOON).await;
    bench.is("Accepted", "False", "InvalidParameters");
    assert!(
        bench.condition("Accepted").2.contains("edge/sizes-a"),
        "it does not exist"
    );
    assert_eq!(bench.read(DEPLOYMENT), Value::Null);

    let sizes = |data: Value| json!({"metadata": {"name": "sizes-a"}, "data": data});
    let good = json!({"replicas": "3", "serviceType": "ClusterIP", "trustedHops": "1"});
    bench.api.put(PARAMETERS, sizes(good));
    sleep(2 * EVERY).await;
    bench.is("Accepted", "True", "Accepted");
    assert_eq!(bench.read(DEPLOYMENT)["spec"]["replicas"], 3);
    assert_eq!(bench.read(SERVICE)["spec"]["type"], "ClusterIP");
    let env = bench.read(DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let hops = json!({"name": "WEFT_TRUSTED_HOPS", "value": "1"});
    assert!(env.as_array().unwrap().contains(&hops), "{env}");

    // What runs goes on.
    bench.api.put(PARAMETERS, sizes(json!({"replica": "1"})));
    sleep(2 * EVERY).await;
    bench.is("Accepted", "False", "InvalidParameters");
    assert!(bench.condition("Accepted").2.contains("replica"));
    assert_eq!(bench.read(DEPLOYMENT)["spec"]["replicas"], 3);

    let other = json!({"infrastructure": {"parametersRef": {
        "group": "invalid.io", "kind": "InvalidParameters", "name": "invalid",
    }}});
    bench.change(&gateway(2, &other)).await;
    bench.is("Accepted", "False", "InvalidParameters");
}

#[tokio::test(start_paused = true)]
async fn replicas_set_by_autoscaler_stay() {
    let bench = Bench::of(&gateway(1, &named_parameters()));
    let data = json!({"metadata": {"name": "sizes-a"}, "data": {"replicas": "auto"}});
    bench.api.put(PARAMETERS, data);
    tokio::spawn(bench.reconciler.clone().keep());
    sleep(3 * SOON).await;
    assert_eq!(bench.read(DEPLOYMENT)["spec"]["replicas"], Value::Null);
    let mut scaled = bench.read(DEPLOYMENT);
    scaled["spec"]["replicas"] = json!(7);
    bench.api.put(DEPLOYMENT, scaled);
    bench
        .change(&gateway(
            2,
            &json!({
                "infrastructure": {
                    "parametersRef": {"group": "", "kind": "ConfigMap", "name": "sizes-a"},
                    "labels": {"team": "b"},
                },
            }),
        ))
        .await;
    let deployment = bench.read(DEPLOYMENT);
    assert_eq!(deployment["metadata"]["labels"]["team"], "b");
    assert_eq!(deployment["spec"]["replicas"], 7);
}

#[tokio::test(start_paused = true)]
async fn gateway_of_unnamed_namespace_gets_nothing() {
    let gateway = gateway(1, &json!({}));
    let bench = Bench::of(&gateway);
    let elsewhere = compiled(&gateway, &["shop"]);
    bench.models.send_replace(Some(elsewhere));
    tokio::spawn(bench.reconciler.clone().keep());
    sleep(3 * SOON).await;
    let (status, _, message) = bench.condition("Accepted");
    assert_eq!(status, "False");
    assert!(message.contains("gateway.namespaces"), "{message}");
    assert_eq!(bench.read(DEPLOYMENT), Value::Null);
    bench.is("Programmed", "False", "Invalid");
}

#[tokio::test(start_paused = true)]
async fn next_lease_holder_keeps_programmed_gateway_for_moment() {
    let mut gateway = gateway(1, &json!({}));
    gateway["status"] = json!({"conditions": [{
        "type": "Programmed", "status": "True", "reason": "Programmed", "message": "1 of 1 proxies",
        "observedGeneration": 1, "lastTransitionTime": "2026-11-30T12:00:00Z",
    }]});
    let bench = Bench::start(&gateway).await;
    bench.is("Programmed", "True", "Programmed");
    sleep(2 * EVERY).await;
    bench.is("Programmed", "False", "Pending");
}

#[tokio::test(start_paused = true)]
async fn class_of_ours_is_accepted_with_version() {
    let definition = |version: &str| {
        json!({"metadata": {"name": "gatewayclasses", "annotations": {
            "gateway.networking.k8s.io/bundle-version": version,
        }}})
    };
    let bench = Bench::of(&gateway(1, &json!({})));
    bench.api.put(DEFINITION, definition("v1.6.3"));
    tokio::spawn(bench.reconciler.clone().keep());
    sleep(3 * SOON).await;
    let version = |bench: &Bench| {
        let status = bench.read(CLASS)["status"].clone();
        assert_eq!(status["conditions"][0]["type"], "Accepted");
        assert_eq!(status["conditions"][0]["status"], "True");
        status["conditions"][1]["status"].clone()
    };
    assert_eq!(version(&bench), "True");
    bench.api.put(DEFINITION, definition("v0.0.0"));
    sleep(2 * CLASS_EVERY).await;
    assert_eq!(version(&bench), "False");
}

#[tokio::test(start_paused = true)]
async fn gateway_of_another_class_loses_its_objects() {
    let mut other = gateway(2, &json!({}));
    let bench = Bench::start(&gateway(1, &json!({}))).await;
    bench.becomes_available().await;
    other["spec"]["gatewayClassName"] = json!("theirs");
    bench.change(&other).await;
    for path in [ACCOUNT, DEPLOYMENT, SERVICE] {
        assert_eq!(bench.read(path), Value::Null, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn gateway_stays_programmed_while_api_server_fails() {
    let mut bench = Bench::start(&gateway(1, &json!({}))).await;
    bench.becomes_available().await;
    sleep(2 * EVERY).await;
    bench.is("Programmed", "True", "Programmed");
    let mut wrong = bench.read(SERVICE);
    wrong["spec"]["selector"]["app.kubernetes.io/name"] = json!("other");
    bench.api.put(SERVICE, wrong);
    bench.writes();
    bench.api.lose_answers(1);
    sleep(2 * EVERY).await;
    let mut paths = bench.writes().into_iter().map(|(_, path)| path);
    assert_eq!(paths.next().as_deref(), Some(SERVICE));
    assert_eq!(paths.next(), None, "its status stays");
}

/// A class that is made anew is the same class, and the address of a load balancer would not be.
#[tokio::test(start_paused = true)]
async fn gateway_keeps_objects_while_its_class_is_gone() {
    let gateway = gateway(1, &json!({}));
    let bench = Bench::start(&gateway).await;
    bench.becomes_available().await;
    let become_of = |cluster: Cluster| {
        let compiled = compiled_of(&cluster, &["edge"]);
        bench.models.send_replace(Some(compiled));
        sleep(3 * EVERY)
    };
    become_of(Cluster::default().with(gateway.clone())).await;
    for path in [ACCOUNT, DEPLOYMENT, SERVICE] {
        assert_ne!(bench.read(path), Value::Null, "{path}");
    }
    let mut theirs = class();
    theirs["spec"]["controllerName"] = json!("example.com/theirs");
    become_of(Cluster::default().with(theirs).with(gateway)).await;
    for path in [ACCOUNT, DEPLOYMENT, SERVICE] {
        assert_eq!(bench.read(path), Value::Null, "{path}");
    }
}
