//! Services whose endpoints, written by hand, are pods of another namespace.
//!
//! Claims: calls-32, calls-72

use policy::name::{Kind, ObjectRef};
use serde_json::{Value, json};
use wire::v1::destination::Target;

use super::with_next;
use crate::compile::tests::failures;
use crate::fixtures::{self as cluster, Cluster, *};
use crate::problem::{ConditionType, Reason};
use crate::world::ObjectKey;

/// Service `other/NAME`, which leads to the pods of `shop/api`.
fn with_other(cluster: Cluster, name: &str, ip: &str) -> Cluster {
    let endpoints = [
        json!({"addresses": ["10.0.0.11"], "conditions": {"ready": true}}),
        endpoint("api-2", "10.0.0.12"),
    ];
    let slice = slice("by-hand", name, &[("http", 8080)], &endpoints);
    cluster
        .with(namespace("other"))
        .with(in_namespace(service(name, ip, &[("http", 80)]), "other"))
        .with(in_namespace(slice, "other"))
}

/// All that pods are sent about Service `name`.
fn policy_of(name: &str) -> Value {
    let spec = json!({
        "targetRef": {"kind": "Service", "name": name}, "timeouts": {"request": "2s"},
        "rateLimits": [{"name": "all", "requests": 5, "scope": "Service"}],
        "overload": {}, "priority": "Sheddable",
    });
    cluster::traffic_policy("p", spec)
}

#[test]
fn policy_of_other_namespace_guards_no_foreign_pods() {
    let cluster = with_other(shop(), "x", "10.96.0.9");
    let foreign = cluster.clone().with(in_namespace(policy_of("x"), "other"));
    let (model, problems) = foreign.compile();
    for pod in ["api-1", "api-2"] {
        let entry = &model.index.pods[&ObjectKey::new("shop", pod)];
        assert_eq!(entry.led_to_by().count(), 2, "the control: it leads there");
        let resolved = resolve_newest(&model, pod, &[]);
        assert!(!resolved.names().contains(&"guard"), "{pod}");
    }
    let object = ObjectRef::new(Kind::TrafficPolicy, "other", "p");
    assert!(model.protected_by(&object).is_empty());
    let warned = problems.list.iter().filter(|problem| {
        problem.reason == Reason::NotEnforced && problem.message.contains("of another namespace")
    });
    assert_eq!(
        warned.count(),
        2,
        "limits and overload: {:?}",
        problems.list
    );

    let own = cluster.with(policy_of("api"));
    let resolved = resolve_newest(&own.compile().0, "api-1", &[]).guard();
    let port = &resolved.ports[&8080];
    assert_eq!(
        (port.rate_limits.rules.len(), port.overload.rules.len()),
        (1, 1),
        "the control: a Service of their own"
    );
    assert_eq!(super::request(port), Some(2));
}

#[test]
fn policy_cannot_make_foreign_pods_read_only() {
    let spec = json!({"targetRef": {"kind": "Service", "name": "root"},
        "mirror": [{"service": "x", "percent": 100}]});
    let root = in_namespace(service("root", "10.96.0.8", &[("http", 80)]), "other");
    let mirror = in_namespace(cluster::traffic_policy("m", spec), "other");
    // It has no Service of its own namespace.
    let pod = cluster::pod("alone", "10.0.0.31", "alone");
    let endpoints = [json!({"addresses": ["10.0.0.31"], "conditions": {"ready": true}})];
    let slice = slice("by-hand", "x", &[("http", 8080)], &endpoints);
    let cluster = shop()
        .with(pod)
        .with(namespace("other"))
        .with(root)
        .with(in_namespace(
            service("x", "10.96.0.9", &[("http", 80)]),
            "other",
        ))
        .with(in_namespace(slice, "other"))
        .with(mirror);
    let (model, problems) = cluster.compile();
    assert!(
        !resolve_newest(&model, "alone", &[])
            .names()
            .contains(&"guard")
    );
    assert_eq!(
        failures(&problems, ConditionType::Accepted),
        [(Reason::NotGuarded, "spec.mirror[0].service")]
    );
    // Nor does one there take the copies of this namespace away.
    let spec = json!({"targetRef": {"kind": "Service", "name": "api"},
        "mirror": [{"service": "next", "percent": 100}]});
    let endpoints = [json!({"addresses": ["10.0.0.21"], "conditions": {"ready": true}})];
    let slice = cluster::slice("by-hand", "x", &[("http", 8080)], &endpoints);
    let own = with_next(shop())
        .with(namespace("other"))
        .with(in_namespace(
            service("x", "10.96.0.9", &[("http", 80)]),
            "other",
        ))
        .with(in_namespace(slice, "other"))
        .with(cluster::traffic_policy("m", spec));
    let (model, problems) = own.compile();
    assert_eq!(failures(&problems, ConditionType::Accepted), []);
    let guard = resolve_newest(&model, "next-1", &[]).guard();
    assert!(guard.read_only.is_some());
}

#[test]
fn bare_host_at_pod_address_resolves_in_own_namespace() {
    // Both are called `db`; the name of the other namespace comes first.
    let own = slice(
        "db-x",
        "db",
        &[("http", 8080)],
        &[endpoint("api-1", "10.0.0.11")],
    );
    let cluster = with_other(shop(), "db", "None")
        .with(service("db", "None", &[("http", 80)]))
        .with(own);
    let resolved = cluster.resolve("client", &["10.0.0.11:8080"]);
    let Target::Pod(pod) = resolved.destination("10.0.0.11:8080") else {
        panic!("no pod");
    };
    let hosts = |service: &str| {
        let mut all = pod.headless.iter();
        let found = all.find(|headless| headless.service == service);
        found.map(|headless| headless.hosts.clone()).unwrap()
    };
    assert_eq!(
        hosts("service/other/db:80"),
        ["db.other", "db.other.svc", "db.other.svc.cluster.local"]
    );
    assert_eq!(hosts("service/shop/db:80")[0], "db");
}
