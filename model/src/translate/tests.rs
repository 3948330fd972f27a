//! Objects of the API server become facts.

use crds::smi::validation::Cluster;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::*;
use crate::fixtures as cluster;
use crate::world::Gate;

fn dynamic(object: Value) -> DynamicObject {
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_pod_without_a_service_account_runs_as_default() {
    let object = cluster::set(
        cluster::plain_pod("p", "10.0.0.1", "x"),
        "/spec/serviceAccountName",
        Value::Null,
    );
    assert_eq!(&*pod(dynamic(object)).unwrap().service_account, "default");
}

#[test]
fn a_proxy_is_seen_with_whether_it_runs() {
    let meshed = cluster::pod("p", "10.0.0.1", "x");
    assert!(pod(dynamic(meshed.clone())).unwrap().proxy.unwrap().running);
    let waiting = json!([{"name": "weft-proxy", "state": {"waiting": {}},
        "ready": false, "restartCount": 0, "image": "", "imageID": ""}]);
    let waiting = cluster::set(meshed, "/status/initContainerStatuses", waiting);
    assert!(!pod(dynamic(waiting)).unwrap().proxy.unwrap().running);
    let plain = cluster::plain_pod("p", "10.0.0.1", "x");
    assert_eq!(pod(dynamic(plain)).unwrap().proxy, None);
}

#[test]
fn gate_has_readiness_and_restarts_of_containers() {
    let plain = cluster::pod("p", "10.0.0.1", "x");
    assert_eq!(pod(dynamic(plain.clone())).unwrap().gate, None);
    let status = |restarts: i32| {
        json!({
            "name": "app", "ready": true, "restartCount": restarts, "image": "", "imageID": "",
        })
    };
    let gated = cluster::gated(plain, [true, false]);
    let gated = cluster::set(
        gated,
        "/status/containerStatuses",
        json!([status(2), status(1)]),
    );
    let facts = pod(dynamic(gated.clone())).unwrap();
    let expected = Gate {
        containers_ready: true,
        ready_since: 1_767_225_900,
        released: false,
        restarts: 3,
    };
    assert_eq!(facts.gate, Some(expected));
    assert!(facts.unready && facts.serves_gated());
    // Before the kubelet writes any condition the gate is shut.
    let new = cluster::set(gated, "/status", json!({}));
    assert_eq!(pod(dynamic(new)).unwrap().gate, Some(Gate::default()));
}

#[test]
fn shut_gate_of_users_keeps_gated_pod_unready() {
    let gated = cluster::gated(cluster::pod("p", "10.0.0.1", "x"), [true, false]);
    let gates = json!([
        {"conditionType": "example.com/balanced"},
        {"conditionType": "weft.dev/released"},
    ]);
    let mut gated = cluster::set(gated, "/spec/readinessGates", gates);
    let serves = |object: &serde_json::Value| pod(dynamic(object.clone())).unwrap().serves_gated();
    assert!(!serves(&gated));
    gated["status"]["conditions"][0]["type"] = json!("example.com/balanced");
    assert!(!serves(&gated), "its containers are not ready");
    let open = json!({"type": "ContainersReady", "status": "True",
        "lastTransitionTime": "2026-01-01T00:04:00Z"});
    gated["status"]["conditions"][1] = open;
    assert!(serves(&gated));
    // The later of both, by which it could serve.
    let gate = pod(dynamic(gated)).unwrap().gate.unwrap();
    assert_eq!(gate.ready_since, 1_767_225_900);
}

#[test]
fn trace_service_names_come_from_separate_annotations() {
    let mut object = cluster::plain_pod("p", "10.0.0.1", "x");
    for (name, value) in [
        ("resource.opentelemetry.io/service.name", "checkout"),
        ("resource.opentelemetry.io/service.namespace", "retail"),
    ] {
        object = cluster::annotate(object, name, value);
    }
    let read = pod(dynamic(object)).unwrap().annotations;
    let names = (&read.service_name, &read.service_namespace);
    assert_eq!(names, (&Some("checkout".into()), &Some("retail".into())));
}

#[test]
fn ports_of_other_protocols_are_dropped() {
    let object = cluster::set(
        cluster::plain_pod("p", "10.0.0.1", "x"),
        "/spec/containers/0/ports",
        json!([{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}]),
    );
    assert_eq!(
        pod(dynamic(object))
            .unwrap()
            .ports
            .into_keys()
            .collect::<Vec<_>>(),
        [80]
    );
    let slice_object = cluster::slice("s", "svc", &[("dns", 53)], &[]);
    let udp = cluster::set(slice_object, "/ports/0/protocol", json!("UDP"));
    assert_eq!(slice(dynamic(udp)), Err(Unusable::NotOurs));
}

#[test]
fn wrongly_shaped_object_is_error_or_marked_unreadable() {
    let bad = cluster::set(
        cluster::plain_pod("p", "10.0.0.1", "x"),
        "/spec",
        json!("none"),
    );
    assert!(matches!(pod(dynamic(bad)), Err(Unusable::Shape(_))));
    let bad = cluster::set(
        cluster::split("s", "r", &[]),
        "/spec/backends",
        json!("none"),
    );
    let facts = split(&dynamic(bad), &Cluster::default());
    assert!(facts.meta.unreadable().is_some());
    assert_eq!(facts.meta.generation, 1);
}

#[test]
fn an_unreadable_target_still_says_whom_it_protects() {
    let object = cluster::target("t", "api", &["web"], json!("everything"));
    let facts = target(&dynamic(object), &Cluster::default());
    assert!(facts.meta.unreadable().is_some());
    assert_eq!(&*facts.spec.destination.unwrap().name, "api");
    assert!(facts.spec.sources.is_empty() && facts.spec.rules.is_empty());
}

#[test]
fn identity_binding_keeps_readable_schemes_despite_broken_one() {
    let read = |schemes: Value| {
        let world = cluster::Cluster::default()
            .with(cluster::binding("b", schemes))
            .world();
        world.bindings.values().next().unwrap().clone()
    };
    let facts = read(json!({"serviceAccount": "web", "spiffeIdentities": ["td/a"]}));
    assert_eq!(facts.spec.service_account.as_deref(), Some("web"));
    let ids: Vec<_> = facts
        .spec
        .ids
        .iter()
        .map(|id| (&*id.written, &id.id))
        .collect();
    assert_eq!(ids, [("td/a", &"spiffe://td/a".parse().ok())]);
    assert_eq!(
        (&facts.spec.labels, &*facts.meta.mistakes),
        (&None, &[][..])
    );
    let facts = read(json!({"podLabelSelector": {"matchLabels": {"app": "web"}}}));
    let labels = [("app".into(), "web".into())].into();
    assert_eq!(facts.spec.labels, Some(labels));
    let broken = json!({"serviceAccount": "web", "spiffeIdentities": "x",
        "podLabelSelector": {"matchLabels": {"app": "web", "n": 1}}});
    let facts = read(broken);
    assert!(facts.meta.unreadable().is_some());
    assert_eq!(facts.spec.service_account.as_deref(), Some("web"));
    let labels = [("app".into(), "web".into())].into();
    assert_eq!(facts.spec.labels, Some(labels));
}

#[test]
fn ports_of_a_udp_route_may_be_absent() {
    let world = cluster::Cluster::default()
        .with(cluster::udp_route("some", &[53]))
        .with(cluster::set(
            cluster::udp_route("all", &[]),
            "/spec",
            json!({}),
        ))
        .world();
    let ports: Vec<_> = world
        .udp_routes
        .values()
        .map(|r| r.ports.0.clone())
        .collect();
    assert_eq!(ports, [None, Some(vec![53])]);
}

#[test]
fn list_replacing_object_is_not_read_by_position() {
    let source = json!([null, "ServiceAccount", "web"]);
    let rules = json!([{"kind": "TCPRoute", "name": "all"}]);
    let mut object = cluster::target("t", "api", &[], rules);
    object["spec"]["sources"] = json!([source]);
    let fact = target(&dynamic(object), &Cluster::default());
    let why = fact.meta.unreadable().unwrap();
    assert_eq!(why.field, "spec.sources[0]");
    assert!(why.text.starts_with("is a list, but must be an object"));
    assert_eq!(
        (
            fact.spec.sources.len(),
            &*fact.spec.destination.unwrap().name
        ),
        (0, "api")
    );

    let mut object = cluster::tcp_route("r", &[8080]);
    object["spec"]["matches"] = json!([]);
    let fact = tcp_route(&dynamic(object), &Cluster::default());
    assert!(
        fact.meta.unreadable().is_some(),
        "else it would stand for every port"
    );
}

#[test]
fn heavy_route_group_keeps_matches_in_bounded_time() {
    let heavy: Vec<Value> = (0..64)
        .map(|n| {
            let headers: serde_json::Map<_, _> = (0..32)
                .map(|h| (format!("x-{h}"), json!(r"\w{3}")))
                .collect();
            json!({"name": format!("m{n}"), "headers": headers})
        })
        .collect();
    let before = std::time::Instant::now();
    let world = cluster::Cluster::default()
        .with(cluster::group("heavy", json!(heavy)))
        .world();
    // Compiling all of them took some seconds.
    assert!(before.elapsed().as_secs() < 2, "{:?}", before.elapsed());
    let facts = world.groups.values().next().unwrap();
    let matches = &facts.spec.matches;
    assert_eq!(matches.len(), 64);
    assert!(matches.iter().skip(3).all(|one| one.criteria.is_none()));
}
