//! The cluster that the controller is shown: nodes and pods that exist in the API
//! server only, with the fields that real ones have.
//!
//! Everything about an object follows from its number, so a cluster can grow from
//! one size to the next without writing again what is there.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::api::Wanted;

/// Services of one namespace.
const PER_NAMESPACE: usize = 50;
/// Pods of one node, about what a kubelet takes.
const PER_NODE: usize = 100;
/// Port of every Service, and of the container behind it.
pub(crate) const PORT: u16 = 80;
const CONTAINER_PORT: u16 = 8080;

/// How much of everything there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) services: usize,
    pub(crate) pods_per_service: usize,
    pub(crate) targets: usize,
    pub(crate) groups: usize,
    pub(crate) splits: usize,
}

impl Size {
    pub(crate) fn pods(&self) -> usize {
        self.services * self.pods_per_service
    }

    fn namespaces(&self) -> usize {
        self.services.div_ceil(PER_NAMESPACE)
    }

    fn nodes(&self) -> usize {
        self.pods().div_ceil(PER_NODE)
    }
}

/// What has to be made to get from one size to a larger one, in this order.
pub(crate) fn growth(from: &Size, to: &Size) -> Vec<Vec<Wanted>> {
    let per = to.pods_per_service;
    let services = from.services..to.services;
    vec![
        (from.namespaces()..to.namespaces())
            .map(namespace)
            .collect(),
        (from.nodes()..to.nodes()).map(node).collect(),
        services.clone().map(account).collect(),
        services.clone().map(service).collect(),
        (from.pods()..to.pods())
            .map(|at| pod(at / per, at % per, at))
            .collect(),
        services.map(|service| slice(service, per)).collect(),
        (from.groups..to.groups).map(group).collect(),
        (from.targets..to.targets).map(target).collect(),
        (from.splits..to.splits).map(split).collect(),
        (from.namespaces()..to.namespaces()).map(breaker).collect(),
    ]
}

/// Namespace of a Service and of all that belongs to it.
pub(crate) fn namespace_of(service: usize) -> String {
    format!("shop-{:02}", service / PER_NAMESPACE)
}

pub(crate) fn service_name(service: usize) -> String {
    format!("orders-{service:04}")
}

pub(crate) fn pod_name(service: usize, replica: usize) -> String {
    format!("orders-{service:04}-7c9d5b6f4d-{replica:05}")
}

/// Cluster address of a Service.
pub(crate) fn service_ip(service: usize) -> Ipv4Addr {
    let [high, low] = number(service, 250);
    Ipv4Addr::new(10, 96, high + 1, low + 1)
}

/// Address of the pod with this number.
pub(crate) fn pod_ip(at: usize) -> Ipv4Addr {
    let [_, second, third, fourth] = u32::try_from(at).unwrap_or(u32::MAX).to_be_bytes();
    Ipv4Addr::new(10, 128 + second, third, fourth)
}

/// The two digits of a small number in this base.
fn number(of: usize, base: usize) -> [u8; 2] {
    [of / base, of % base].map(|digit| u8::try_from(digit).unwrap_or(u8::MAX))
}

/// The Service whose pods a target protects; two targets each.
pub(crate) fn protected_by(target: usize) -> usize {
    target / 2
}

/// The root Service of a split.
pub(crate) fn root_of(split: usize) -> usize {
    split * 2
}

/// Whether the first endpoint of a Service is ready at the start. Half are not, so
/// that as many changes bring an endpoint as take one away.
pub(crate) fn first_is_ready(service: usize) -> bool {
    service.is_multiple_of(2)
}

pub(crate) fn slice_path(service: usize) -> String {
    format!(
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/{}-x7k2p",
        namespace_of(service),
        service_name(service)
    )
}

/// Path of one SMI object of a Service's namespace.
pub(crate) fn smi_path(service: usize, kind: &str, name: &str) -> String {
    let group = match kind {
        "traffictargets" => "access",
        "trafficsplits" => "split",
        _ => "specs",
    };
    format!(
        "/apis/{group}.smi-spec.io/v1alpha4/namespaces/{}/{kind}/{name}",
        namespace_of(service)
    )
}

pub(crate) fn target_name(target: usize) -> String {
    format!("orders-{target:04}-callers")
}

pub(crate) fn group_name(group: usize) -> String {
    format!("orders-{group:04}-routes")
}

pub(crate) fn split_name(split: usize) -> String {
    format!("orders-{split:04}-canary")
}

fn plain(path: String, object: Value) -> Wanted {
    Wanted {
        path,
        object,
        status: None,
    }
}

fn in_namespace(service: usize, kind: &str) -> String {
    format!("/api/v1/namespaces/{}/{kind}", namespace_of(service))
}

fn namespace(at: usize) -> Wanted {
    let name = namespace_of(at * PER_NAMESPACE);
    let labels = json!({"weft.dev/inject": "enabled", "team": format!("team-{at}")});
    plain(
        "/api/v1/namespaces".to_owned(),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
    )
}

fn node_name(at: usize) -> String {
    format!("node-{at:04}")
}

fn node(at: usize) -> Wanted {
    let name = node_name(at);
    let address = format!("10.200.{}.{}", at / 250, at % 250 + 1);
    let status = json!({
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}],
        "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110"},
        "allocatable": {"cpu": "15", "memory": "60Gi", "pods": "110"},
    });
    let labels = json!({
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": format!("zone-{}", at % 3),
        "topology.kubernetes.io/region": "region-1",
    });
    Wanted {
        path: "/api/v1/nodes".to_owned(),
        object: json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}),
        status: Some(status),
    }
}

fn account(service: usize) -> Wanted {
    plain(
        in_namespace(service, "serviceaccounts"),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": service_name(service)}}),
    )
}

fn service(service: usize) -> Wanted {
    let name = service_name(service);
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "shop"}},
        "spec": {
            "clusterIP": service_ip(service), "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "http", "port": PORT, "targetPort": "http", "appProtocol": "http"}],
        },
    });
    plain(in_namespace(service, "services"), object)
}

pub(crate) fn pod_path(service: usize, replica: usize) -> String {
    let pods = in_namespace(service, "pods");
    format!("{pods}/{}", pod_name(service, replica))
}

/// Path and object of a pod that has nothing to do with the mesh.
pub(crate) fn job(number: usize) -> (String, Wanted) {
    let name = format!("report-{number:05}");
    let ip = pod_ip(200_000 + number % 50_000);
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"job-name": name, "team": "reports"}},
        "spec": {"nodeName": node_name(0), "serviceAccountName": service_name(0), "restartPolicy": "Never",
            "containers": [{"name": "report", "image": "shop/report:1.0.0"}]},
    });
    let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]});
    let path = in_namespace(0, "pods");
    let wanted = Wanted {
        path: path.clone(),
        object,
        status: Some(status),
    };
    (format!("{path}/{name}"), wanted)
}

/// A pod as the injector leaves it: the application, the proxy and traffic capture.
pub(crate) fn pod(service: usize, replica: usize, at: usize) -> Wanted {
    let (name, app) = (pod_name(service, replica), service_name(service));
    let owner = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-7c9d5b6f4d"),
        "uid": format!("00000000-0000-4000-8000-{service:012}"), "controller": true, "blockOwnerDeletion": true,
    }]);
    let labels = json!({
        "app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "shop",
        "app.kubernetes.io/version": "1.4.2", "pod-template-hash": "7c9d5b6f4d",
    });
    let annotations = json!({"weft.dev/proxy-version": "0.1.0", "prometheus.io/scrape": "true", "prometheus.io/port": "15090"});
    let resources =
        json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}});
    let probe = json!({"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10});
    let environment = |names: &[&str]| -> Vec<Value> {
        let one = |name: &&str| json!({"name": name, "value": format!("value-of-{}", name.to_lowercase())});
        names.iter().map(one).collect()
    };
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "annotations": annotations, "ownerReferences": owner},
        "spec": {
            "nodeName": node_name(at / PER_NODE), "serviceAccountName": app,
            "initContainers": [
                {"name": "weft-capture", "image": "weft/proxy:0.1.0", "args": ["capture"], "resources": resources,
                 "securityContext": {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}},
                {"name": "weft-proxy", "image": "weft/proxy:0.1.0", "restartPolicy": "Always", "resources": resources,
                 "env": environment(&["WEFT_NAMESPACE", "WEFT_POD_NAME", "WEFT_POD_IP", "WEFT_CONTROLLER", "WEFT_TRUST_DOMAIN", "WEFT_LOG"]),
                 "ports": [{"name": "weft-admin", "containerPort": 15090}]},
            ],
            "containers": [
                {"name": "app", "image": "shop/orders:1.4.2", "resources": resources, "livenessProbe": probe, "readinessProbe": probe,
                 "env": environment(&["DATABASE", "CACHE", "QUEUE", "LOG_LEVEL", "REGION", "FEATURES"]),
                 "ports": [{"name": "http", "containerPort": CONTAINER_PORT}]},
            ],
        },
    });
    let ip = pod_ip(at);
    let running = |name: &str| {
        json!({"name": name, "ready": true, "restartCount": 0, "started": true,
            "image": "shop/orders:1.4.2", "imageID": format!("sha256:{service:064x}"),
            "containerID": format!("containerd://{at:064x}"), "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": "2026-01-01T00:00:00Z",
        "conditions": [condition("PodScheduled"), condition("Initialized"), condition("ContainersReady"), condition("Ready")],
        "initContainerStatuses": [running("weft-proxy")], "containerStatuses": [running("app")],
    });
    Wanted {
        path: in_namespace(service, "pods"),
        object,
        status: Some(status),
    }
}

/// The endpoint of one pod in its Service's slice.
pub(crate) fn endpoint(service: usize, per: usize, replica: usize) -> Value {
    let at = service * per + replica;
    let ready = replica > 0 || first_is_ready(service);
    json!({
        "addresses": [pod_ip(at)], "nodeName": node_name(at / PER_NODE), "zone": format!("zone-{}", at / PER_NODE % 3),
        "conditions": {"ready": ready, "serving": ready, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": namespace_of(service), "name": pod_name(service, replica)},
    })
}

fn slice(service: usize, per: usize) -> Wanted {
    let name = service_name(service);
    let endpoints: Vec<Value> = (0..per)
        .map(|replica| endpoint(service, per, replica))
        .collect();
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{name}-x7k2p"), "labels": {
            "kubernetes.io/service-name": name, "app.kubernetes.io/name": name,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }},
        "addressType": "IPv4", "ports": [{"name": "http", "port": CONTAINER_PORT, "protocol": "TCP", "appProtocol": "http"}],
        "endpoints": endpoints,
    });
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
        namespace_of(service)
    );
    plain(path, object)
}

fn smi(service: usize, kind: &str, plural: &str, name: &str, spec: &Value) -> Wanted {
    let path = smi_path(service, plural, "");
    let api_version: Vec<&str> = path.split('/').skip(2).take(2).collect();
    let object = json!({
        "apiVersion": api_version.join("/"), "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    plain(path.trim_end_matches('/').to_owned(), object)
}

/// A group with five matches, as of a small HTTP API.
fn group(at: usize) -> Wanted {
    let service = protected_by(at);
    let spec = json!({"matches": [
        {"name": "read", "methods": ["GET", "HEAD"], "pathRegex": "/orders(/[0-9]+)?"},
        {"name": "write", "methods": ["POST", "PUT"], "pathRegex": "/orders(/[0-9]+)?"},
        {"name": "remove", "methods": ["DELETE"], "pathRegex": "/orders/[0-9]+"},
        {"name": "report", "methods": ["GET"], "pathRegex": format!("/reports/{at}/.*"), "headers": {"x-team": "(sales|billing)"}},
        {"name": "health", "methods": ["GET"], "pathRegex": "/healthz"},
    ]});
    smi(
        service,
        "HTTPRouteGroup",
        "httproutegroups",
        &group_name(at),
        &spec,
    )
}

/// A target for one Service's account, open to three other accounts.
fn target(at: usize) -> Wanted {
    let service = protected_by(at);
    let spec = json!({
        "destination": {"kind": "ServiceAccount", "name": service_name(service)},
        "sources": sources(at, None),
        "rules": [{"kind": "HTTPRouteGroup", "name": group_name(at), "matches": ["read", "write", "report"]}],
    });
    smi(
        service,
        "TrafficTarget",
        "traffictargets",
        &target_name(at),
        &spec,
    )
}

/// The callers that a target names, and one more.
pub(crate) fn sources(target: usize, more: Option<&str>) -> Value {
    let callers = (1..=3).map(|step| {
        let caller = (protected_by(target) + step * 17) % PER_NAMESPACE;
        json!({"kind": "ServiceAccount", "name": service_name(caller), "namespace": namespace_of(caller)})
    });
    let more =
        more.map(|name| json!({"kind": "ServiceAccount", "name": name, "namespace": "shop-00"}));
    Value::Array(callers.chain(more).collect())
}

/// A split of a Service between itself and its neighbour.
fn split(at: usize) -> Wanted {
    let root = root_of(at);
    let spec = json!({"service": service_name(root), "backends": backends(at, 10)});
    smi(
        root,
        "TrafficSplit",
        "trafficsplits",
        &split_name(at),
        &spec,
    )
}

/// Backends of a split, with the second one's weight of 1000.
pub(crate) fn backends(split: usize, weight: u32) -> Value {
    let root = root_of(split);
    json!([
        {"service": service_name(root), "weight": 1000 - weight},
        {"service": service_name(root + 1), "weight": weight},
    ])
}

/// A policy that gives every Service of a namespace a breaker.
fn breaker(at: usize) -> Wanted {
    let namespace = namespace_of(at * PER_NAMESPACE);
    let spec = json!({"targetRef": {"kind": "Namespace"}, "breaker": {"failurePercent": 40}});
    plain(
        format!("/apis/weft.dev/v1alpha1/namespaces/{namespace}/trafficpolicies"),
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": {"name": "breakers"}, "spec": spec}),
    )
}
