//! What routes of another namespace change for a Service and its owners: nothing.

use super::*;

/// Calls of `api` are copied to `next`, whose pods get nothing else.
fn copied() -> Cluster {
    let pods = [endpoint("next-1", "10.0.0.21")];
    let spec = json!({
        "targetRef": {"kind": "Service", "name": "api"},
        "mirror": [{"service": "next", "percent": 10}],
    });
    cluster()
        .with(pod("next-1", "10.0.0.21", "next"))
        .with(service("next", "10.96.0.2", &[("http", 80)]))
        .with(slice("next-x", "next", &[("http", 8080)], &pods))
        .with(traffic_policy("p", spec))
}

/// A route that leads calls of `api` to `next`.
fn leading() -> Value {
    let mut route = http_route("web", "api", json!([rule_over(&[("next", 3)])]));
    route["spec"]["rules"][0]["backendRefs"][0]["namespace"] = json!("shop");
    route
}

/// Status and reason of the policy.
fn policy_accepted(cluster: &Cluster) -> (bool, &'static str) {
    let (_, problems) = cluster.compile();
    let accepted = &report(&problems, "TrafficPolicy p").accepted;
    (accepted.status, accepted.reason)
}

#[test]
fn route_of_another_namespace_does_not_unguard_copies() {
    assert_eq!(policy_accepted(&copied()), ACCEPTED);
    let foreign = copied().with(in_namespace(leading(), "other"));
    let table = table_of(&foreign, ("other", "caller"));
    assert_eq!(shares(&request(&table, "/")), [share("next", 3)]);
    assert_eq!(policy_accepted(&foreign), ACCEPTED);

    let own = copied().with(leading());
    assert_eq!(policy_accepted(&own), (false, "NotGuarded"));
}

#[test]
fn weights_of_another_namespace_are_none_of_the_service() {
    let weights = |cluster: Cluster| {
        let (model, _) = cluster.compile();
        entry(&model).weights()
    };
    assert!(weights(copied().with(in_namespace(leading(), "other"))).is_empty());
    let own = weights(copied().with(leading()));
    assert_eq!(own, [[(ObjectKey::new("shop", "next"), 3)]]);
}
