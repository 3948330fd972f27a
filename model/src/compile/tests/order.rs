//! The same objects give the same bytes, however they arrived.
//!
//! Claims: mesh-19

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};

use crate::{
    fixtures::*,
    model::{Defaults, Model},
    world::{
        ObjectKey,
        collect::{Collector, Step},
    },
};

const ASKED: [&str; 6] = [
    "10.96.0.1:80",
    "10.96.0.11:80",
    "10.0.0.11:8080",
    "10.0.0.12:8080",
    "10.96.0.5:5432",
    "1.2.3.4:5",
];

fn busy() -> Vec<Value> {
    let rule = json!([{"kind": "HTTPRouteGroup", "name": "routes"},
        {"kind": "TCPRoute", "name": "ports"}]);
    let matches = json!([{"name": "a", "pathRegex": "/a"}, {"name": "bad", "pathRegex": "("}]);
    let cluster = shop()
        .with(service("v1", "10.96.0.11", &[("http", 80)]))
        .with(slice(
            "v1-x",
            "v1",
            &[("http", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ))
        .with(created(
            service("young", "10.96.0.5", &[("tcp-pg", 5432)]),
            40,
        ))
        .with(slice(
            "young-x",
            "young",
            &[("tcp-pg", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ))
        .with(service("head", "None", &[("http", 8080)]))
        .with(slice(
            "head-x",
            "head",
            &[("http", 8080)],
            &[endpoint("api-2", "10.0.0.12")],
        ))
        .with(split("s", "api", &[("v1", 3), ("v9", 1)]))
        .with(created(split("t", "api", &[("v1", 1)]), 9))
        .with(group("routes", matches))
        .with(tcp_route("ports", &[80, 9090]))
        .with(target("t", "api", &["web"], rule.clone()))
        .with(target("u", "api", &["other"], rule));
    // The fixture holds each object once, so any order ends in the same cluster.
    cluster.objects().to_vec()
}

/// Every resource of every pod, encoded, and all problems.
fn bytes(model: &Model) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for pod in ["client", "api-1", "api-2"] {
        for (name, published) in resolve(model, pod, &ASKED) {
            all.insert(format!("{pod} {name}"), published.resource.encode_to_vec());
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn event_order_and_repetition_do_not_change_bytes(
        order in Just((0..busy().len()).collect::<Vec<_>>()).prop_shuffle(),
        repeated in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        restarted in any::<bool>(),
    ) {
        let objects = busy();
        let defaults = Defaults::default();
        let mut collector = Collector::default();
        for object in &objects {
            apply(&mut collector, object);
        }
        let (expected, expected_problems) = Model::compile(&collector.world(), &defaults);

        let mut collector = Collector::default();
        for index in &repeated {
            let object = index.get(&objects);
            // Seen, changed, gone, and seen again in the end.
            apply(&mut collector, object);
            apply(&mut collector, &annotate(object.clone(), "weft.dev/access", "deny"));
            delete(&mut collector, object);
        }
        for index in &order {
            apply(&mut collector, &objects[*index]);
        }
        if restarted {
            let world = collector.world();
            collector.pods.take(Step::Restart);
            for (key, facts) in world.pods.iter().rev() {
                collector.pods.take(Step::Listed(key.clone(), Some((**facts).clone())));
            }
            collector.pods.take(Step::Complete);
        }
        let (model, problems) = Model::compile(&collector.world(), &defaults);
        prop_assert_eq!(bytes(&model), bytes(&expected));
        prop_assert_eq!(problems, expected_problems);
    }
}

// Claims: mesh-8
#[test]
fn bad_object_leaves_bytes_of_others_unchanged() {
    let mut collector = Collector::default();
    for object in busy() {
        apply(&mut collector, &object);
    }
    let compile =
        |collector: &Collector| bytes(&Model::compile(&collector.world(), &Defaults::default()).0);
    let before = compile(&collector);
    let bad = [
        split("bad", "ghost", &[("v1", 1)]),
        split("bad2", "v1", &[("v1", -1)]),
        set(split("bad3", "v1", &[]), "/spec/backends", json!(7)),
        target("bad", "absent", &[], json!([])),
        set(
            target("bad2", "x", &[], json!([])),
            "/spec/rules",
            json!({"a": 1}),
        ),
        group("bad", json!([{"name": "x", "pathRegex": "(".repeat(5000)}])),
        set(tcp_route("bad", &[]), "/spec/matches/ports", json!(["x"])),
        set(
            pod("bad", "10.0.0.99", "x"),
            "/spec/containers",
            json!("none"),
        ),
        set(
            service("bad", "10.96.0.99", &[]),
            "/spec/ports",
            json!("none"),
        ),
        set(slice("bad", "api", &[], &[]), "/endpoints", json!(3)),
    ];
    for object in bad {
        apply(&mut collector, &object);
        assert_eq!(compile(&collector), before, "{object}");
    }
}

#[test]
fn list_drops_unnamed_objects_only_when_complete() {
    let mut collector = Collector::default();
    apply(&mut collector, &pod("old", "10.0.0.1", "x"));
    let world = collector.world();
    let (key, facts) = world.pods.iter().next().unwrap();
    collector.pods.take(Step::Restart);
    let renamed = ObjectKey::new("shop", "new");
    collector
        .pods
        .take(Step::Listed(renamed.clone(), Some((**facts).clone())));
    assert!(
        collector.world().pods.contains_key(key),
        "the old list holds until the new one is whole"
    );
    collector.pods.take(Step::Complete);
    assert_eq!(
        collector.world().pods.keys().collect::<Vec<_>>(),
        [&renamed]
    );
}
