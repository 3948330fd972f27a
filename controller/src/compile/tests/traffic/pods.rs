//! Pods that several Services select, and callers that come by a split.

use policy::traffic::guard::Priority;
use serde_json::{Value, json};

use super::{policy, with_next};
use crate::testing::cluster::{self, Cluster, *};

/// `second` selects pods of `api`, on the same port of theirs.
fn with_second(cluster: Cluster) -> Cluster {
    cluster
        .with(service("second", "10.96.0.3", &[("http", 90)]))
        .with(slice(
            "second-x",
            "second",
            &[("http", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ))
}

fn of_second(name: &str, fields: &Value) -> Value {
    let mut spec = json!({"targetRef": {"kind": "Service", "name": "second"}});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    cluster::traffic_policy(name, spec)
}

/// The `request` that callers from outside have of api-1, in seconds.
fn outside(cluster: &Cluster) -> Option<u64> {
    let resolved = resolve_newest(&cluster.compile().0, "api-1", &[]);
    if !resolved.names().contains(&"guard") {
        return None;
    }
    let guard = resolved.guard();
    super::request(guard.ports.get(&8080)?)
}

#[test]
fn callers_from_outside_have_the_longest_time_of_any_service_and_all_of_one_that_sets_none() {
    let short = policy("short", &json!({"timeouts": {"request": "2s"}}));
    let long = of_second("long", &json!({"timeouts": {"request": "9s"}}));
    let none = of_second("none", &json!({"timeouts": {}}));
    let mesh_only = of_second(
        "inside",
        &json!({"timeouts": {"request": "1s"}, "sources": [{"kind": "ServiceAccount", "name": "web"}]}),
    );
    assert_eq!(outside(&shop().with(short.clone())), Some(2));
    let two = with_second(shop()).with(short.clone());
    assert_eq!(outside(&two), None, "a Service without any policy");
    assert_eq!(outside(&two.clone().with(long.clone())), Some(9));
    assert_eq!(outside(&with_second(shop()).with(long)), None);
    assert_eq!(outside(&two.clone().with(none)), None);
    // It says nothing of callers from outside.
    assert_eq!(
        outside(&two.with(mesh_only)),
        None,
        "pods are told nothing of it"
    );
}

/// Nobody knows which of them such a caller meant.
#[test]
fn callers_from_outside_have_the_longest_time_of_any_route_of_several_services() {
    let reads = group("reads", json!([{"name": "reads", "methods": ["GET"]}]));
    let routed = |name: &str, time: &str| {
        let routes = json!([{"kind": "HTTPRouteGroup", "name": "reads"}]);
        policy(
            name,
            &json!({"timeouts": {"request": time}, "routes": routes}),
        )
    };
    let all = policy("all", &json!({"timeouts": {"request": "5s"}}));
    let second = of_second("second", &json!({"timeouts": {"request": "10s"}}));
    let one = shop().with(reads).with(routed("reads", "1s"));
    let two = with_second(one.clone()).with(second);
    assert_eq!(outside(&two), None, "the first ends reads alone");
    assert_eq!(outside(&two.clone().with(all.clone())), Some(10));
    let long = with_second(shop())
        .with(group(
            "reads",
            json!([{"name": "reads", "methods": ["GET"]}]),
        ))
        .with(routed("reads", "60s"))
        .with(all.clone())
        .with(of_second(
            "second",
            &json!({"timeouts": {"request": "10s"}}),
        ));
    assert_eq!(outside(&long), Some(60));
    // Control: of one Service each route has its own.
    let guard = resolve_newest(&one.with(all).compile().0, "api-1", &[]).guard();
    assert_eq!(guard.ports[&8080].timeouts.rules.len(), 2);
}

#[test]
fn last_word_of_one_service_does_not_hide_the_narrower_ones_of_the_next() {
    let source = json!([{"kind": "ServiceAccount", "name": "job"}]);
    let cluster = with_second(shop())
        .with(policy("all", &json!({"priority": "Critical"})))
        .with(of_second("rest", &json!({"priority": "Normal"})))
        .with(of_second(
            "jobs",
            &json!({"priority": "Sheddable", "sources": source}),
        ));
    let guard = resolve_newest(&cluster.compile().0, "api-1", &[]).guard();
    let rules = guard.ports[&8080].priority.rules.iter();
    let sections: Vec<(&str, Priority)> = rules
        .map(|rule| (&**rule.origin.name(), rule.then.as_ref().unwrap().section))
        .collect();
    assert_eq!(
        sections,
        [("jobs", Priority::Sheddable), ("rest", Priority::Normal)]
    );
}

#[test]
fn policy_of_a_backend_is_needed_by_callers_of_the_root() {
    use policy::name::{Kind, ObjectRef};
    let spec = json!({"targetRef": {"kind": "Service", "name": "next"}, "breaker": {},
        "fallback": {"service": "second"}});
    let cluster = with_second(with_next(shop()))
        .with(service("second", "10.96.0.3", &[("http", 80)]))
        .with(split("s", "api", &[("next", 1)]))
        .with(cluster::traffic_policy("p", spec));
    let (model, _) = cluster.compile();
    let resolved = resolve_newest(&model, "client", &["10.96.0.1:80"]);
    assert!(resolved.names().contains(&"policy/shop/next:80"));
    // Where calls go instead is said by the Service that was called.
    assert!(
        !resolved.names().contains(&"endpoints/shop/second:80"),
        "{:?}",
        resolved.names()
    );
    let p = ObjectRef::new(Kind::TrafficPolicy, "shop", "p");
    let through: Vec<String> = model.called_through(&p).into_iter().collect();
    assert_eq!(
        through,
        ["destination/10.96.0.1:80", "destination/10.96.0.2:80"]
    );
}
