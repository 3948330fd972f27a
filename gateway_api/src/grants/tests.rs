//! Tests of grants: what each permits, and that what cannot be read permits nothing.

use serde_json::{Value, json};

use super::*;

fn grants(spec: Value) -> Grants {
    let object = ReferenceGrant::new("stock", "grant", spec);
    Grants::new([&Grant::read(&object)])
}

fn routes_of_shop() -> Value {
    json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"})
}

#[test]
fn grant_permits_its_kinds_and_namespaces_only() {
    let to = json!([{"group": "", "kind": "Service"}]);
    let grants = grants(json!({"from": [routes_of_shop()], "to": to}));
    let stock = ServiceId::new("stock", "items");
    assert!(grants.allows(RouteKind::Http, "shop", &stock));
    assert!(!grants.allows(RouteKind::Grpc, "shop", &stock));
    assert!(!grants.allows(RouteKind::Http, "web", &stock));
    assert!(!grants.allows(RouteKind::Http, "shop", &ServiceId::new("bank", "items")));
    assert!(grants.allows(RouteKind::Tcp, "bank", &ServiceId::new("bank", "items")));
}

#[test]
fn named_grant_permits_one_service() {
    let to = json!([{"group": "", "kind": "Service", "name": "items"}]);
    let grants = grants(json!({"from": [routes_of_shop()], "to": to}));
    assert!(grants.allows(RouteKind::Http, "shop", &ServiceId::new("stock", "items")));
    assert!(!grants.allows(RouteKind::Http, "shop", &ServiceId::new("stock", "prices")));
}

#[test]
fn unreadable_entry_of_grant_permits_nothing() {
    let service = || json!({"group": "", "kind": "Service"});
    let with = |mut object: Value, field: &str, value: Value| {
        object[field] = value;
        object
    };
    for (from, to) in [
        (with(routes_of_shop(), "group", Value::Null), service()),
        (with(routes_of_shop(), "group", json!("")), service()),
        (with(routes_of_shop(), "namespace", json!("")), service()),
        (with(routes_of_shop(), "namespace", json!("*")), service()),
        (
            with(routes_of_shop(), "labels", json!({"a": "b"})),
            service(),
        ),
        (routes_of_shop(), with(service(), "kind", json!("Secret"))),
        (routes_of_shop(), with(service(), "group", json!("apps"))),
        (routes_of_shop(), with(service(), "group", Value::Null)),
        (routes_of_shop(), with(service(), "name", json!(""))),
        (routes_of_shop(), with(service(), "name", json!(3))),
        (
            routes_of_shop(),
            with(service(), "labels", json!({"a": "b"})),
        ),
        (json!("HTTPRoute"), service()),
    ] {
        let grants = grants(json!({"from": [&from], "to": [&to]}));
        let stock = ServiceId::new("stock", "items");
        assert!(
            !grants.allows(RouteKind::Http, "shop", &stock),
            "{from} {to}"
        );
    }
    for spec in [
        json!(null),
        json!({"from": [routes_of_shop()]}),
        json!({"from": 1, "to": {}}),
    ] {
        let stock = ServiceId::new("stock", "items");
        assert!(!grants(spec).allows(RouteKind::Http, "shop", &stock));
    }
}
