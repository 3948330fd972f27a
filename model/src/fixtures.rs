//! A cluster for tests, written as the objects that the API server would send.
//!
//! A feature: tests of the controller use it too.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

mod external;
mod gateway;
mod revocations;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::smi::validation::Cluster as Judged;
use kube::core::{DynamicObject, Resource};
use serde_json::{Value, json};
use wire::capability::Capabilities;

pub use self::external::*;
pub use self::gateway::*;
pub use self::revocations::*;
use crate::{
    model::{Defaults, Model, PodId, published::EncodedResource},
    problem::Problems,
    translate,
    world::{
        ObjectKey, World,
        collect::{Collector, News, Step},
        kinds::every_kind,
    },
};

/// Objects in the order in which they were applied.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    objects: Vec<Value>,
}

macro_rules! steps {
    (@read $translate:ident $object:ident) => { translate::$translate($object).ok() };
    (@$how:ident $translate:ident $object:ident) => {
        Some(translate::$translate(&$object, &Judged::default()))
    };
    ($($(#[$doc:meta])* $field:ident: $facts:ident = $kind:ty, $how:ident $translate:ident,
        $change:ident, $object:expr, $status:expr;)+) => {
        /// The step that a watcher would take for an object.
        pub fn apply(collector: &mut Collector, object: &Value) -> News {
            let (kind, key, object) = sent(object);
            $(if is::<$kind>(&kind) {
                let fact = steps!(@$how $translate object);
                return collector.$field.take(Step::Applied(key, fact));
            })+
            panic!("no such kind: {kind:?}")
        }

        /// The step that a watcher would take when an object goes.
        pub fn delete(collector: &mut Collector, object: &Value) -> News {
            let (kind, key, _) = sent(object);
            $(if is::<$kind>(&kind) {
                return collector.$field.take(Step::Deleted(key));
            })+
            panic!("no such kind: {kind:?}")
        }

        /// For each kind, the step of a watcher whose kind is not served.
        pub const ABSENT: &[fn(&mut Collector) -> News] =
            &[$(|collector| collector.$field.take(Step::Absent)),+];
    };
}

every_kind!(steps);

/// Group and kind of the object, its key, and the object.
fn sent(object: &Value) -> ((String, String), ObjectKey, DynamicObject) {
    let text = |field: &str| object[field].as_str().unwrap().to_owned();
    let api_version = text("apiVersion");
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let kind = (group.to_owned(), text("kind"));
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    (kind, translate::key(&object.metadata), object)
}

/// Two kinds have one name.
fn is<K: Resource<DynamicType = ()>>((group, kind): &(String, String)) -> bool {
    *group == K::group(&()) && *kind == K::kind(&())
}

impl Cluster {
    /// Adds an object of namespace `shop`, unless it says another one.
    pub fn with(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    /// All objects.
    pub fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// The World of these objects.
    pub fn world(&self) -> World {
        let mut collector = Collector::default();
        for object in &self.objects {
            apply(&mut collector, object);
        }
        collector.world()
    }

    /// Its Model, and the problems of its objects.
    pub fn compile(&self) -> (Model, Problems) {
        self.compile_with(&Defaults::default())
    }

    /// The same with other defaults.
    pub fn compile_with(&self, defaults: &Defaults) -> (Model, Problems) {
        Model::compile(&self.world(), defaults)
    }

    /// What the proxy of a pod in namespace `shop` gets.
    pub fn resolve(&self, pod: &str, destinations: &[&str]) -> Resolved {
        Resolved(resolve(&self.compile().0, pod, destinations))
    }
}

/// What the proxy of a pod in namespace `shop` gets that has no optional capability.
pub fn resolve(
    model: &Model,
    pod: &str,
    destinations: &[&str],
) -> BTreeMap<String, Arc<EncodedResource>> {
    let names: BTreeSet<String> = destinations
        .iter()
        .map(|at| format!("destination/{at}"))
        .collect();
    let capabilities = Capabilities::default();
    let set = model.resolve(&PodId::new("shop", pod), &names, &capabilities);
    set.unwrap().resources
}

/// What a proxy of namespace `shop` gets that has every capability there is.
pub fn resolve_newest(model: &Model, pod: &str, destinations: &[&str]) -> Resolved {
    let names = destinations.iter().map(|at| format!("destination/{at}"));
    let capabilities = Capabilities::named(&Capabilities::of_everything());
    let set = model.resolve(&PodId::new("shop", pod), &names.collect(), &capabilities);
    Resolved(set.unwrap().resources)
}

/// Resources by name, with readers that fail loudly.
#[derive(Debug)]
pub struct Resolved(pub BTreeMap<String, Arc<EncodedResource>>);

macro_rules! reader {
    ($name:ident, $content:ident) => {
        #[doc = concat!("The ", stringify!($content), " of this name.")]
        pub fn $name(&self, name: &str) -> wire::v1::$content {
            match &self.published(name).resource.content {
                Some(wire::v1::resource::Content::$content(content)) => Clone::clone(content),
                other => panic!("{name} is {other:?}"),
            }
        }
    };
}

impl Resolved {
    /// The encoded resource of this name.
    pub fn published(&self, name: &str) -> &EncodedResource {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.names()))
    }

    /// All names.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    reader!(workload_named, Workload);
    reader!(rule, Rule);
    reader!(destination_named, Destination);
    reader!(service, Service);
    reader!(routed_service, RoutedService);
    reader!(endpoints, Endpoints);
    reader!(policy_message, Policy);
    reader!(guard_named, Guard);
    reader!(telemetry_named, Telemetry);
    reader!(routes_named, Routes);
    reader!(place, Place);
    reader!(revocations, Revocations);

    /// What callers of a Service port get, as their proxies read it.
    pub fn policy(&self, service: &str) -> policy::traffic::EffectivePolicy {
        let message = self.policy_message(&format!("policy/{service}"));
        wire::convert::traffic(&message).unwrap()
    }

    /// What the pod gets about requests to it, as its proxy reads it.
    pub fn guard(&self) -> policy::traffic::pod::PodGuard {
        (&self.guard_named("guard")).try_into().unwrap()
    }

    /// What the pod is.
    pub fn workload(&self) -> wire::v1::Workload {
        self.workload_named("workload")
    }

    /// What an address with a port means.
    pub fn destination(&self, at: &str) -> wire::v1::destination::Target {
        self.destination_named(&format!("destination/{at}"))
            .target
            .unwrap()
    }

    /// The rules of the pod, as its proxy reads them.
    pub fn rules(&self) -> Vec<policy::access::Rule> {
        let resources = self.0.values().map(|published| &published.resource);
        resources
            .filter_map(wire::convert::rule_in)
            .map(|rule| policy::access::Rule::try_from(rule).unwrap())
            .collect()
    }

    /// Addresses with ports of an endpoints resource.
    pub fn addresses(&self, name: &str) -> Vec<String> {
        let endpoints = self.endpoints(name).endpoints.into_iter();
        let addresses = endpoints.map(|e| format!("{}:{}", e.ip, e.port));
        addresses.collect()
    }
}

/// Changes parts of an object by JSON pointer.
pub fn set(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    if object.pointer(parent).is_none() {
        object = set(object, parent, json!({}));
    }
    let parent = object.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) => list[field.parse::<usize>().unwrap()] = value,
        parent => parent[field.replace("~1", "/")] = value,
    }
    object
}

/// Adds an annotation to an object.
pub fn annotate(object: Value, name: &str, value: &str) -> Value {
    set(
        object,
        &format!("/metadata/annotations/{}", name.replace('/', "~1")),
        json!(value),
    )
}

/// Puts an object into another namespace than `shop`.
pub fn in_namespace(object: Value, namespace: &str) -> Value {
    set(object, "/metadata/namespace", json!(namespace))
}

fn meta(name: &str) -> Value {
    json!({
        "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 1,
        "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
    })
}

/// The object as created at this second.
pub fn created(object: Value, second: u8) -> Value {
    let time = format!("2026-01-01T00:00:{second:02}Z");
    set(object, "/metadata/creationTimestamp", json!(time))
}

/// A running pod of service account `account` on `node-a`, without a proxy.
pub fn plain_pod(name: &str, ip: &str, account: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": meta(name),
        "spec": {
            "serviceAccountName": account, "nodeName": "node-a",
            "containers": [{"name": "app", "ports": [{"name": "web", "containerPort": 8080}]}],
        },
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    })
}

/// The same with a proxy.
pub fn pod(name: &str, ip: &str, account: &str) -> Value {
    let pod = annotate(
        plain_pod(name, ip, account),
        "weft.dev/proxy-version",
        "0.1.0",
    );
    let init = json!([
        {"name": "weft-capture", "args": ["capture"]},
        {"name": "weft-proxy", "restartPolicy": "Always"},
    ]);
    let running = json!([{"name": "weft-proxy", "state": {"running": {}},
        "ready": true, "restartCount": 0, "image": "", "imageID": ""}]);
    set(
        set(pod, "/spec/initContainers", init),
        "/status/initContainerStatuses",
        running,
    )
}

/// A Service with ports `(name, number)`.
pub fn service(name: &str, ip: &str, ports: &[(&str, u16)]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port)| json!({"name": name, "port": port, "protocol": "TCP"}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(name),
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name}, "ports": ports},
    })
}

/// One ready endpoint backed by a pod.
pub fn endpoint(pod: &str, ip: &str) -> Value {
    json!({
        "addresses": [ip], "nodeName": "node-a",
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod},
    })
}

/// A slice of `service` with ports `(name, number)`.
pub fn slice(name: &str, service: &str, ports: &[(&str, u16)], endpoints: &[Value]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|(name, port)| json!({"name": name, "port": port, "protocol": "TCP"}))
        .collect();
    let mut meta = meta(name);
    meta["labels"] = json!({"kubernetes.io/service-name": service});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    })
}

/// A slice as Kubernetes keeps it, and not one that was written by hand.
pub fn kept(slice: Value) -> Value {
    set(
        slice,
        "/metadata/labels/endpointslice.kubernetes.io~1managed-by",
        json!("endpointslice-controller.k8s.io"),
    )
}

fn smi(kind: &str, api_version: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": meta(name)});
    object["spec"] = spec;
    object
}

/// A split of `root` to backends `(service, weight)`.
pub fn split(name: &str, root: &str, backends: &[(&str, i64)]) -> Value {
    let backends: Vec<Value> = backends
        .iter()
        .map(|(service, weight)| json!({"service": service, "weight": weight}))
        .collect();
    let spec = json!({"service": root, "backends": backends});
    smi("TrafficSplit", "split.smi-spec.io/v1alpha4", name, spec)
}

/// A target for account `to` with sources of its own namespace and these rules.
pub fn target(name: &str, to: &str, from: &[&str], rules: Value) -> Value {
    let sources: Vec<Value> = from
        .iter()
        .map(|name| json!({"kind": "ServiceAccount", "name": name}))
        .collect();
    let destination = json!({"kind": "ServiceAccount", "name": to});
    let mut spec = json!({"destination": destination, "sources": sources});
    spec["rules"] = rules;
    smi("TrafficTarget", "access.smi-spec.io/v1alpha4", name, spec)
}

/// An HTTPRouteGroup with these matches.
pub fn group(name: &str, matches: Value) -> Value {
    let mut spec = json!({});
    spec["matches"] = matches;
    smi("HTTPRouteGroup", "specs.smi-spec.io/v1alpha4", name, spec)
}

/// A TCPRoute for these ports.
pub fn tcp_route(name: &str, ports: &[i64]) -> Value {
    let spec = json!({"matches": {"ports": ports}});
    smi("TCPRoute", "specs.smi-spec.io/v1alpha4", name, spec)
}

/// A UDPRoute for these ports.
pub fn udp_route(name: &str, ports: &[i64]) -> Value {
    let spec = json!({"matches": {"ports": ports}});
    smi("UDPRoute", "specs.smi-spec.io/v1alpha4", name, spec)
}

/// An IdentityBinding with these schemes.
pub fn binding(name: &str, schemes: Value) -> Value {
    let mut spec = json!({});
    spec["schemes"] = schemes;
    smi("IdentityBinding", "access.smi-spec.io/v1alpha4", name, spec)
}

/// A TrafficPolicy of namespace `shop`.
pub fn traffic_policy(name: &str, spec: Value) -> Value {
    smi("TrafficPolicy", "weft.dev/v1alpha1", name, spec)
}

/// A CanaryRelease of namespace `shop`, with what the status orders.
pub fn release(name: &str, spec: Value, status: Value) -> Value {
    let mut object = smi("CanaryRelease", "weft.dev/v1alpha1", name, spec);
    object["status"] = status;
    object
}

/// The pod as one of a revision of a Deployment.
pub fn of_revision(pod: Value, deployment: &str, hash: &str) -> Value {
    let owner = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-{hash}"),
        "uid": "r", "controller": true,
    }]);
    let pod = set(pod, "/metadata/ownerReferences", owner);
    set(pod, "/metadata/labels/pod-template-hash", json!(hash))
}

/// The pod with the gate of releases, and what holds of it: all its containers are ready, and the
/// gate is open.
pub fn gated(pod: Value, [containers, open]: [bool; 2]) -> Value {
    let condition = |kind: &str, holds: bool| {
        json!({"type": kind, "status": if holds { "True" } else { "False" },
            "lastTransitionTime": "2026-01-01T00:05:00Z"})
    };
    let conditions = json!([
        condition("ContainersReady", containers),
        condition("weft.dev/released", open),
        condition("Ready", containers && open),
    ]);
    let gates = json!([{"conditionType": "weft.dev/released"}]);
    let pod = set(pod, "/spec/readinessGates", gates);
    set(pod, "/status/conditions", conditions)
}

/// A namespace without labels.
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A service account of namespace `shop`.
pub fn service_account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(name)})
}

/// A node of this zone.
pub fn node(name: &str, zone: &str) -> Value {
    let labels = json!({"topology.kubernetes.io/zone": zone});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
}

/// A client pod, and Service `api` (10.96.0.1, port 80 to container port 8080)
/// with the meshed pods api-1 and api-2 of account `api`.
pub fn shop() -> Cluster {
    Cluster::default()
        .with(namespace("shop"))
        .with(node("node-a", "zone-a"))
        .with(node("node-b", "zone-b"))
        .with(pod("client", "10.0.0.1", "web"))
        .with(pod("api-1", "10.0.0.11", "api"))
        .with(pod("api-2", "10.0.0.12", "api"))
        .with(service("api", "10.96.0.1", &[("http", 80)]))
        .with(slice(
            "api-x",
            "api",
            &[("http", 8080)],
            &[
                endpoint("api-1", "10.0.0.11"),
                endpoint("api-2", "10.0.0.12"),
            ],
        ))
}
