//! What a proxy gets depends on what it understands.

use serde_json::json;

use super::*;
use crate::fixtures::*;
use crate::model::Defaults;
use crate::world::World;

#[test]
fn unsupported_resources_are_skipped_and_their_objects_named() {
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    let limited = set(
        target("limited", "api", &["web"], rules.clone()),
        "/spec/destination/port",
        json!(8080),
    );
    let cluster = shop()
        .with(group("routes", json!([{"name": "all", "methods": ["*"]}])))
        .with(limited)
        .with(target("plain", "api", &["web"], rules));
    let (model, _) = cluster.compile();
    let subscribed = BTreeSet::from(["destination/10.96.0.1:80".to_owned()]);
    let resolve = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let capabilities = Capabilities::named(&names);
        let set = model.resolve(&PodId::new("shop", "api-1"), &subscribed, &capabilities);
        set.unwrap()
    };
    let all = resolve(&[]);
    assert!(all.left_out.is_empty());
    assert!(all.resources.contains_key("extended-rule/shop/limited"));
    assert_eq!(resolve(&["extended-rule"]).resources, all.resources);

    let mut less = resolve(&["something-else"]);
    let left_out: BTreeSet<String> = less
        .left_out
        .iter()
        .map(|left_out| left_out.object.to_string())
        .collect();
    let named = ["HTTPRouteGroup shop/routes", "TrafficTarget shop/limited"];
    assert_eq!(left_out, named.map(str::to_owned).into());
    // Everything else is as it was; the workload still refuses what no rule allows.
    let rule = all.resources["extended-rule/shop/limited"].clone();
    less.resources.insert(rule.resource.name.clone(), rule);
    assert_eq!(less.resources, all.resources);
}

#[test]
fn endpoints_of_address_are_shared_by_all_callers() {
    let endpoints = |model: &Model, pod: &str| {
        let all = resolve(model, pod, &["10.96.0.1:80"]);
        Arc::clone(&all["destination/10.96.0.1:80"])
    };
    let (defaults, world) = (Defaults::default(), shop().world());
    let (model, problems) = Model::compile(&world, &defaults);
    let problems = Arc::new(problems);
    let after = |world: &World| Model::compile_after(world, &defaults, &model, &problems).0;
    let first = endpoints(&model, "client");
    assert!(
        Arc::ptr_eq(&first, &endpoints(&model, "api-1")),
        "of one Model"
    );

    let mut one_gone = world.clone();
    Arc::make_mut(&mut one_gone.pods).remove(&ObjectKey::new("shop", "api-2"));
    let other_service = shop().with(service("v2", "10.96.0.2", &[("http", 80)]));
    for (case, next) in [
        ("states of endpoints", world.clone()),
        ("pods", one_gone),
        ("all anew", other_service.world()),
    ] {
        let next = endpoints(&after(&next), "api-1");
        assert!(Arc::ptr_eq(&first, &next), "{case}");
    }

    let mut without = world.clone();
    Arc::make_mut(&mut without.services).remove(&ObjectKey::new("shop", "api"));
    assert_ne!(
        endpoints(&after(&without), "client"),
        first,
        "what is there now"
    );
}
