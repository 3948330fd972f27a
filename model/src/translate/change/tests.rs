//! A World with a change laid over it is the World that applying it makes.
//!
//! Claims: observe-108

use kube::core::DynamicObject;
use serde_json::Value;

use super::*;
use crate::fixtures::{annotate, created, namespace, shop, split, tcp_route};

fn object(value: &Value) -> DynamicObject {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn overlaid_change_compiles_like_applied_change() {
    let old = created(split("old", "api", &[("api", 1)]), 5);
    let applied = shop().with(tcp_route("port", &[8080]));
    let before = shop().with(old.clone()).world();
    let change = Change {
        objects: vec![(Kind::TcpRoute, object(&tcp_route("port", &[8080])))],
        delete: vec![(Kind::TrafficSplit, ObjectKey::new("shop", "old"))],
        access: vec![],
    };
    let after = change.over(&before, &Cluster::default(), 1_000);
    assert!(!exists(
        &after,
        Kind::TrafficSplit,
        &ObjectKey::new("shop", "old")
    ));
    assert!(exists(
        &after,
        Kind::TcpRoute,
        &ObjectKey::new("shop", "port")
    ));
    assert!(
        exists(&before, Kind::TrafficSplit, &ObjectKey::new("shop", "old")),
        "as it was"
    );
    let ports = |world: &World| world.tcp_routes.values().next().unwrap().ports.clone();
    assert_eq!(ports(&after), ports(&applied.world()));
}

#[test]
fn changed_object_keeps_age_while_new_is_youngest() {
    let old = created(split("old", "api", &[("api", 1)]), 5);
    let before = shop().with(old).world();
    let key = |name: &str| ObjectKey::new("shop", name);
    let kept_meta = before.splits[&key("old")].meta.clone();
    let change = Change {
        objects: ["old", "new"]
            .map(|name| {
                (
                    Kind::TrafficSplit,
                    object(&split(name, "api", &[("api", 2)])),
                )
            })
            .into(),
        ..Change::default()
    };
    let after = change.over(&before, &Cluster::default(), i64::MAX);
    let meta = |name: &str| after.splits[&key(name)].meta.clone();
    assert_eq!(meta("old").created, kept_meta.created);
    assert_eq!(meta("old").generation, kept_meta.generation + 1);
    assert_eq!(meta("new").created, i64::MAX);
}

#[test]
fn mode_of_a_namespace_is_that_of_its_annotation() {
    let before = shop().world();
    let change = Change {
        access: vec![(ObjectKey::new("", "shop"), AccessMode::Deny)],
        ..Change::default()
    };
    let after = change.over(&before, &Cluster::default(), 0);
    let written = annotate(namespace("shop"), "weft.dev/access", "deny");
    let written = crate::translate::namespace(object(&written)).unwrap();
    let annotations = |world: &World| world.namespace("shop").unwrap().annotations.clone();
    assert_eq!(annotations(&after).access, written.annotations.access);
    assert_ne!(annotations(&after), annotations(&before));
}
