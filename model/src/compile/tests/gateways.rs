//! What pods of Gateways get, and which pods these are.

use std::collections::BTreeSet;
use std::sync::Arc;

use policy::gateway::{Gateway, Listener};
use policy::name::{Kind, ObjectRef};
use policy::reason;
use policy::route::Forward;
use serde_json::{Value, json};
use wire::capability::Capabilities;

use super::report;
use crate::fixtures::*;
use crate::model::{Defaults, Model, PodId};
use crate::problem::{ListenerReport, ParentReport, Problems};
use crate::world::ObjectKey;
use crate::world::collect::Collector;

mod bounds;
mod certificates;
mod egress;
mod listeners;
mod routes;

/// Service `api` beside `v1` and `v2`, all of port 80, and Gateway `edge` with one pod.
fn cluster(listeners: Value) -> Cluster {
    shop()
        .with(service("v1", "10.96.0.11", &[("http", 80)]))
        .with(service("v2", "10.96.0.12", &[("http", 80)]))
        .with(gateway_class())
        .with(gateway("edge", listeners))
        .with(gateway_pod("edge-1", "10.0.0.40", "edge"))
}

/// With one listener of HTTP for every host.
fn plain() -> Cluster {
    cluster(json!([listener("http", 80, "HTTP", "")]))
}

/// An HTTPRoute of Gateway `edge`.
fn routed(name: &str, rules: Value) -> Value {
    to_gateway(http_route(name, "", rules), "edge")
}

fn compile(cluster: &Cluster) -> (Model, Problems) {
    cluster.compile_with(&with_gateways())
}

/// The same, where a controller has read these Secrets.
fn compile_with(cluster: &Cluster, read: &[((&str, &str), Option<&str>)]) -> (Model, Problems) {
    let mut collector = Collector::default();
    for object in cluster.objects() {
        apply(&mut collector, object);
    }
    for (secret, fingerprint) in read {
        read_certificate(&mut collector, *secret, *fingerprint);
    }
    Model::compile(&collector.world(), &with_gateways())
}

/// What a pod of namespace `shop` gets whose program is a Gateway's.
fn sent(model: &Model, pod: &str) -> Resolved {
    let capabilities = Capabilities::named(&Capabilities::of_gateways());
    let pod = PodId::new("shop", pod);
    let set = model.resolve(&pod, &BTreeSet::new(), &capabilities);
    Resolved(set.unwrap().resources)
}

/// What the pod of Gateway `edge` serves, as it reads it.
fn served(model: &Model) -> Gateway {
    let message = sent(model, "edge-1").gateway_named("gateway");
    wire::convert::gateway(&message).unwrap()
}

fn served_listener(model: &Model, name: &str) -> Listener {
    let mut listeners = served(model).listeners.into_iter();
    listeners.find(|one| *one.name == *name).unwrap()
}

/// What is said of a listener of Gateway `edge`.
fn said(problems: &Problems, name: &str) -> ListenerReport {
    let mut listeners = report(problems, "Gateway edge").listeners.iter();
    listeners.find(|one| *one.name == *name).unwrap().clone()
}

/// What is said of the only parent of a route.
fn parent(problems: &Problems, route: &str) -> ParentReport {
    let report = report(problems, route);
    assert_eq!(report.parents.len(), 1, "{report:?}");
    report.parents[0].clone()
}

/// Status and reason of `Accepted`.
fn accepted(problems: &Problems, route: &str) -> (bool, &'static str) {
    let accepted = parent(problems, route).accepted;
    (accepted.status, accepted.reason)
}

const ACCEPTED: (bool, &str) = (true, "Accepted");

#[test]
fn gateway_pod_gets_listeners_routes_and_their_backends() {
    let cluster = plain().with(routed("web", json!([rule_over(&[("api", 9), ("v1", 1)])])));
    let (model, problems) = compile(&cluster);
    let edge = sent(&model, "edge-1");
    let listener = served_listener(&model, "http");
    assert_eq!((listener.port, listener.target_port), (80, 20_080));
    let rule = listener.decide(None, None);
    assert_eq!(rule, None, "bytes are no request");
    let rules = &listener.routes[0].table.rules;
    let Forward::Split(backends) = &rules[0].then else {
        panic!("{rules:?}");
    };
    let shares = backends.iter().map(|one| (&*one.endpoints, one.weight));
    let expected = [("endpoints/shop/api:80", 9), ("endpoints/shop/v1:80", 1)];
    assert_eq!(shares.collect::<Vec<_>>(), expected);
    for name in [
        "service/shop/api:80",
        "service/shop/v1:80",
        "endpoints/shop/api:80",
    ] {
        assert!(edge.0.contains_key(name), "{name}");
    }
    assert_eq!(accepted(&problems, "HTTPRoute web"), ACCEPTED);
    let report = parent(&problems, "HTTPRoute web");
    assert_eq!(report.controller, "weft.dev/gateway");
    assert_eq!(report.listeners, [Arc::<str>::from("http")]);
    let ports = model.gateway_ports(&ObjectKey::new("shop", "edge"));
    assert_eq!(ports.into_iter().collect::<Vec<_>>(), [(80, 20_080)]);
    assert_eq!(said(&problems, "http").attached_routes, 1);
}

#[test]
fn splits_of_backends_hold_at_gateways_and_routes_do_not() {
    let cluster = plain()
        .with(routed("web", json!([rule_over(&[("api", 1)])])))
        .with(http_route("own", "api", json!([rule_over(&[("v1", 1)])])))
        .with(split("canary", "api", &[("v1", 90), ("v2", 10)]));
    let (model, _) = compile(&cluster);
    let edge = sent(&model, "edge-1");
    let service = edge.service("service/shop/api:80");
    assert_eq!(service.splits.len(), 1);
    for backend in ["v1", "v2"] {
        edge.endpoints(&format!("endpoints/shop/{backend}:80"));
    }
    // Both are what the Gateway's pods need; the Service's own route is not.
    let pod = PodId::new("shop", "edge-1");
    let needed = |kind, name: &str| {
        let object = ObjectRef::new(kind, "shop", name);
        model.protected_by(&object).contains(&pod)
    };
    assert!(needed(Kind::Gateway, "edge"));
    assert!(needed(Kind::HttpRoute, "web"));
    assert!(needed(Kind::TrafficSplit, "canary"));
    assert!(!needed(Kind::HttpRoute, "own"));
}

/// No controller serves the pods of a revoked account: nothing of a Gateway's is waited for.
#[test]
fn revoked_pods_are_no_backends_and_serve_no_gateway() {
    let plain = || plain().with(routed("web", json!([rule_over(&[("api", 1)])])));
    let without = |account: &str| {
        let account = json!({"serviceAccount": {"namespace": "shop", "name": account}});
        let spec = json!({"reason": "test", "subjects": [account]});
        compile(&plain().with(revocation("leak", spec))).0
    };
    let backends = |model: &Model| {
        sent(model, "edge-1")
            .addresses("endpoints/shop/api:80")
            .len()
    };
    let pods = |model: &Model| model.gateway_pods(&ObjectKey::new("shop", "edge")).len();
    for (model, expected) in [
        (compile(&plain()).0, (2, 1)),
        (without("api"), (0, 1)),
        (without("edge-weft"), (2, 0)),
    ] {
        assert_eq!((backends(&model), pods(&model)), expected);
        assert!(sent(&model, "edge-1").0.contains_key("gateway"));
    }
}

/// Else any pod could have what is meant for another one.
#[test]
fn pod_without_label_account_and_program_is_no_gateways() {
    type Change = fn(Value) -> Value;
    let pod = |change: Change| change(gateway_pod("other", "10.0.0.41", "edge"));
    let label = "/metadata/labels/gateway.networking.k8s.io~1gateway-name";
    let none: [(&str, Change); 5] = [
        ("label", |pod| {
            set(pod, "/metadata/labels", json!({"app": "edge"}))
        }),
        ("account", |pod| {
            set(pod, "/spec/serviceAccountName", json!("web"))
        }),
        ("program", |pod| {
            set(pod, "/spec/containers", json!([{"name": "app"}]))
        }),
        ("version", |pod| {
            set(pod, "/metadata/annotations", json!({}))
        }),
        ("namespace", |pod| in_namespace(pod, "other")),
    ];
    let is_one = |pod: Value| {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap().to_owned();
        let (model, _) = compile(&plain().with(pod));
        model.gateway_of(&PodId::new(&namespace, "other")).is_some()
    };
    assert!(is_one(pod(|pod| pod)));
    for (what, change) in none {
        assert!(!is_one(pod(change)), "{what}");
    }
    let (model, _) = compile(&plain().with(set(
        gateway_pod("other", "10.0.0.41", "edge"),
        label,
        json!("gone"),
    )));
    assert_eq!(model.gateway_of(&PodId::new("shop", "other")), None);
    let edge = ObjectKey::new("shop", "edge");
    assert_eq!(model.gateway_pods(&edge), [PodId::new("shop", "edge-1")]);
    assert!(!sent(&model, "other").0.contains_key("gateway"));
    assert!(!sent(&model, "client").0.contains_key("gateway"));
}

#[test]
fn older_program_gets_no_gateway_and_is_reported() {
    let cluster = plain().with(routed("web", json!([rule_over(&[("api", 1)])])));
    let (model, _) = compile(&cluster);
    let older = Capabilities::named(&Capabilities::of_this_version());
    let pod = PodId::new("shop", "edge-1");
    let set = model.resolve(&pod, &BTreeSet::new(), &older).unwrap();
    assert!(!set.resources.contains_key("gateway"));
    assert!(!set.resources.contains_key("service/shop/api:80"));
    assert!(set.certificates.is_empty());
    let left_out = set.left_out.iter().map(|one| one.object.to_string());
    let left_out: BTreeSet<String> = left_out.collect();
    let expected = ["HTTPRoute shop/web", "Gateway shop/edge"].map(str::to_owned);
    assert_eq!(left_out, BTreeSet::from(expected));
}

/// A Gateway's pods take plaintext at every port but the mesh's own.
#[test]
fn calls_to_gateway_pods_are_plaintext_but_at_mesh_port() {
    let (model, _) = compile(&plain());
    let facts = &model.index.world.pods[&ObjectKey::new("shop", "edge-1")];
    let proxy = facts.proxy.as_ref().unwrap();
    assert!(proxy.is_gateway && proxy.running);
    for (port, skips) in [(1, true), (20_080, true), (15_108, false), (65_535, true)] {
        assert_eq!(proxy.skips(port), skips, "{port}");
    }
    assert!(
        model.skipped_ports().is_empty(),
        "there is no application behind it"
    );
}

#[test]
fn gateways_are_served_where_the_chart_says_and_nowhere_else() {
    let cluster = plain().with(routed("web", json!([rule_over(&[("api", 1)])])));
    let (model, problems) = cluster.compile();
    assert_eq!(model.gateway_of(&PodId::new("shop", "edge-1")), None);
    let gateways = [Kind::Gateway, Kind::GatewayClass, Kind::HttpRoute];
    let mut about = problems.reports.keys();
    assert!(!about.any(|object| gateways.contains(&object.kind)));

    let elsewhere = Defaults {
        gateway_namespaces: Some(Arc::new(BTreeSet::from(["edge".to_owned()]))),
        ..Defaults::default()
    };
    let (model, problems) = cluster.compile_with(&elsewhere);
    assert_eq!(model.gateway_of(&PodId::new("shop", "edge-1")), None);
    let accepted = &report(&problems, "Gateway edge").accepted;
    assert_eq!((accepted.status, accepted.reason), (false, "NotAllowed"));
    assert!(
        accepted.message.contains("gateway.namespaces"),
        "{}",
        accepted.message
    );
    assert_eq!(
        self::accepted(&problems, "HTTPRoute web"),
        (false, "NoMatchingParent")
    );
    assert_eq!(said(&problems, "http").attached_routes, 0);
}

/// Another controller's Gateways, and their routes, are left alone.
#[test]
fn gateway_of_another_class_is_left_alone() {
    let mut other = gateway("theirs", json!([listener("http", 80, "HTTP", "")]));
    other["spec"]["gatewayClassName"] = json!("nginx");
    let mut class = gateway_class();
    class["metadata"]["name"] = json!("nginx");
    class["spec"]["controllerName"] = json!("example.com/nginx");
    let rules = json!([rule_over(&[("api", 1)])]);
    let route = to_gateway(http_route("web", "", rules), "theirs");
    let (_, problems) = compile(&plain().with(class).with(other).with(route));
    let about = problems.reports.keys().map(|object| &*object.name);
    let about: Vec<&str> = about.filter(|name| *name != "edge").collect();
    assert_eq!(about, ["weft"]);
}

#[test]
fn class_with_parameters_is_refused_with_its_gateways() {
    let mut class = gateway_class();
    class["spec"]["parametersRef"] = json!({"group": "", "kind": "ConfigMap", "name": "x"});
    let (model, problems) = compile(&plain().with(class));
    for object in ["GatewayClass weft", "Gateway edge"] {
        let accepted = &report(&problems, object).accepted;
        assert_eq!(
            (accepted.status, accepted.reason),
            (false, "InvalidParameters")
        );
    }
    assert_eq!(model.gateway_of(&PodId::new("shop", "edge-1")), None);
}

/// Where a request of this path to a host goes; a reason where it is refused.
fn goes(listener: &Listener, host: &str, path: &str) -> Result<Vec<String>, reason::Reason> {
    let headers = http::HeaderMap::new();
    let facts = policy::http_match::RequestFacts {
        method: &http::Method::GET,
        path,
        query: None,
        headers: &headers,
    };
    match listener
        .decide(Some(host), Some(&facts))
        .map(|rule| &rule.then)
    {
        None => Err(reason::Reason::NoRoute),
        Some(Forward::Refuse(reason)) => Err(*reason),
        Some(Forward::Split(backends)) => {
            let names = backends.iter().map(|one| one.service.name.to_string());
            Ok(names.collect())
        }
        Some(other) => panic!("{other:?}"),
    }
}

fn to(service: &str) -> Result<Vec<String>, reason::Reason> {
    Ok(vec![service.to_owned()])
}
