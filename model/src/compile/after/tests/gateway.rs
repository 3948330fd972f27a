//! Routes of the Gateway API in histories, and what a change of what stands around them means.

use super::*;
use crate::fixtures::{gateway_tcp_route, grpc_route, http_route, reference_grant};

/// A route of any kind, for any Service, in one of two namespaces.
pub(super) fn route(dice: &mut StdRng) -> Value {
    let name = format!("route-{}", dice.random_range(0..3));
    let parent = dice.random_range(0..SERVICES);
    let rules: Vec<Value> = (0..dice.random_range(0..3)).map(|_| rule(dice)).collect();
    let rules = json!(rules);
    let mut route = match dice.random_range(0..6) {
        0 => grpc_route(&name, &service_name(parent), json!([over(dice)])),
        1 => gateway_tcp_route(&name, &service_name(parent), json!([over(dice)])),
        _ => http_route(&name, &service_name(parent), rules),
    };
    let reference = &mut route["spec"]["parentRefs"][0];
    if parent == FOREIGN {
        reference["namespace"] = json!("other");
    }
    match dice.random_range(0..6) {
        0 => reference["port"] = json!(80),
        1 => reference["sectionName"] = json!("more"),
        2 => reference["port"] = json!(99),
        _ => {}
    }
    if dice.random_ratio(1, 4) {
        route = cluster::in_namespace(route, "other");
    }
    let second = dice.random_range(0..3);
    cluster::created(route, second)
}

fn rule(dice: &mut StdRng) -> Value {
    let mut rule = over(dice);
    let path = pick(dice, &["/", "/a", "/a/b"]);
    rule["matches"] = json!([{"path": {"type": "PathPrefix", "value": path}}]);
    match dice.random_range(0..5) {
        0 => rule["timeouts"] = json!({"request": "2s"}),
        1 => rule["retry"] = json!({"attempts": 2}),
        2 => {
            let set = json!([{"name": "x-from", "value": "route"}]);
            let modifier = json!({"set": set});
            rule["filters"] = json!([
                {"type": "RequestHeaderModifier", "requestHeaderModifier": modifier},
            ]);
        }
        3 if dice.random() => rule["filters"] = json!([{"type": "ExtensionRef"}]),
        _ => {}
    }
    rule
}

/// A rule over some backends, one of which may be in the other namespace.
fn over(dice: &mut StdRng) -> Value {
    let backends = (0..dice.random_range(0..3)).map(|_| {
        let service = dice.random_range(0..SERVICES);
        let port = if dice.random_ratio(1, 4) { 81 } else { 80 };
        let weight = dice.random_range(0..3);
        let mut backend = json!({"name": service_name(service), "port": port, "weight": weight});
        if service == FOREIGN {
            backend["namespace"] = json!("other");
        }
        backend
    });
    let backends: Vec<Value> = backends.collect();
    json!({"backendRefs": backends})
}

/// What permits routes of namespace `shop` to name Services of the other one, or a policy that is
/// enforced for the mesh.
pub(super) fn grant_or_enforced_policy(dice: &mut StdRng) -> Value {
    if dice.random() {
        let from = pick(dice, &["shop", "elsewhere"]);
        return cluster::in_namespace(reference_grant("grant", from), "other");
    }
    let enforce: bool = dice.random();
    let spec = json!({
        "targetRef": {"kind": "Mesh"}, "enforce": enforce, "retry": {"attempts": 0},
    });
    cluster::in_namespace(cluster::traffic_policy("mesh", spec), "weft-system")
}

/// Service `api` with a route. Its Worlds share what does not change, so that not all is compiled.
fn routed_shop() -> Collector {
    let mut collector = Collector::default();
    let shop = cluster::shop().with(http_route("web", "api", json!([{}])));
    for object in shop.objects() {
        cluster::apply(&mut collector, object);
    }
    collector
}

#[test]
fn routed_resource_is_kept_while_endpoints_change() {
    const ROUTED: &str = "service/shop/api:80";
    let (mut collector, defaults) = (routed_shop(), Defaults::default());
    let (model, problems) = Model::compile(&collector.world(), &defaults);
    let sent = |model: &Model| cluster::resolve_newest(model, "client", &["10.96.0.1:80"]);
    let before = sent(&model);
    let unready = cluster::set(
        cluster::endpoint("api-2", "10.0.0.12"),
        "/conditions/ready",
        json!(false),
    );
    let both = [cluster::endpoint("api-1", "10.0.0.11"), unready];
    let slice = cluster::slice("api-x", "api", &[("http", 8080)], &both);
    cluster::apply(&mut collector, &slice);
    let next = collector.world();
    let (model, ..) = Model::compile_after(&next, &defaults, &model, &Arc::new(problems));
    let after = sent(&model);
    let [was, is] = [&before, &after].map(|sent| sent.published("endpoints/shop/api:80"));
    assert_ne!(was, is);
    let [was, is] = [&before, &after].map(|sent| sent.published(ROUTED));
    assert!(std::ptr::eq(was, is), "{was:?} {is:?}");
    before.routed_service(ROUTED);
}

/// Where HTTP is read no longer, no HTTPRoute decides: a pod alone may say so.
#[test]
fn route_is_compiled_again_when_its_port_becomes_opaque() {
    let (mut collector, defaults) = (routed_shop(), Defaults::default());
    let (model, problems) = Model::compile(&collector.world(), &defaults);
    let is_routed = |model: &Model| {
        let entry = &model.index.services[&ObjectKey::new("shop", "api")];
        entry.all_routed().next().is_some()
    };
    assert!(is_routed(&model));
    let pod = cluster::pod("api-1", "10.0.0.11", "api");
    let opaque = cluster::annotate(pod.clone(), "weft.dev/opaque-ports", "8080");
    cluster::apply(&mut collector, &opaque);
    let next = collector.world();
    let problems = Arc::new(problems);
    let (after, said, changes) = Model::compile_after(&next, &defaults, &model, &problems);
    assert!(!is_routed(&after));
    assert!(changes.services.contains(&ObjectKey::new("shop", "api")));
    assert_eq!(*said, Model::compile(&next, &defaults).1);

    cluster::apply(&mut collector, &pod);
    let back = collector.world();
    let (again, said, _) = Model::compile_after(&back, &defaults, &after, &said);
    assert!(is_routed(&again));
    assert_eq!(*said, *problems);
}
