//! What the routes of a Gateway may take.

use super::*;

/// An HTTPRoute whose rule sets a header of so many bytes with each of 16 backends.
fn large(name: &str, bytes: usize) -> Value {
    let mut rule = rule_over(&[("api", 1); 16]);
    rule["filters"] = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {
        "set": [{"name": "x-large", "value": "x".repeat(bytes)}],
    }}]);
    routed(name, json!([rule]))
}

const LARGE: (bool, &str) = (false, "UnsupportedValue");

#[test]
fn route_too_large_alone_costs_no_other() {
    let old = created(large("old", 40 * 1024), 1);
    let new = created(routed("new", json!([rule_below("/new", "v1")])), 2);
    let (model, problems) = compile(&plain().with(old).with(new));
    assert_eq!(accepted(&problems, "HTTPRoute old"), LARGE);
    assert_eq!(accepted(&problems, "HTTPRoute new"), ACCEPTED);
    let listener = served_listener(&model, "http");
    assert_eq!(goes(&listener, "a.example.com", "/new"), to("v1"));
    assert_eq!(said(&problems, "http").attached_routes, 1);
}

#[test]
fn youngest_routes_beyond_a_listeners_bound_do_not_decide() {
    let mut cluster = plain();
    for (name, second) in [("one", 1), ("two", 2), ("three", 3)] {
        cluster = cluster.with(created(large(name, 12 * 1024), second));
    }
    let (_, problems) = compile(&cluster);
    assert_eq!(accepted(&problems, "HTTPRoute one"), ACCEPTED);
    assert_eq!(accepted(&problems, "HTTPRoute two"), ACCEPTED);
    assert_eq!(accepted(&problems, "HTTPRoute three"), LARGE);
    let message = parent(&problems, "HTTPRoute three").accepted.message;
    assert!(
        message.contains("listener http of Gateway shop/edge"),
        "{message}"
    );
}

/// A listener may be lost to a route of another kind, too: there it is not attached.
#[test]
fn route_is_accepted_while_it_decides_at_one_listener() {
    let at = |route: Value, listener: &str| {
        set(route, "/spec/parentRefs/0/sectionName", json!(listener))
    };
    let grpc = grpc_route("grpc", "", json!([rule_over(&[("v1", 1)])]));
    let grpc = at(to_gateway(grpc, "edge"), "a");
    let listeners = json!([
        listener("a", 80, "HTTP", ""),
        listener("b", 81, "HTTP", ""),
        listener("c", 82, "HTTP", ""),
    ]);
    let full = || {
        let other = |name: &str, second| created(at(large(name, 12 * 1024), "b"), second);
        let grpc = created(grpc.clone(), 1);
        let all = cluster(listeners.clone()).with(grpc);
        all.with(other("one", 2)).with(other("two", 3))
    };
    for (bytes, expected) in [(12 * 1024, ACCEPTED), (40 * 1024, LARGE)] {
        let (_, problems) = compile(&full().with(created(large("new", bytes), 4)));
        assert_eq!(accepted(&problems, "HTTPRoute new"), expected, "{bytes}");
    }
}

/// Hosts with the same routes share a table; others have the same route once each.
#[test]
fn route_counts_once_for_each_table_of_hosts() {
    let hosts: Vec<String> = (0..16).map(|n| format!("h{n}.example.com")).collect();
    let all = set(large("all", 20 * 1024), "/spec/hostnames", json!(hosts));
    let (model, problems) = compile(&plain().with(created(all.clone(), 1)));
    assert_eq!(accepted(&problems, "HTTPRoute all"), ACCEPTED);
    let routes = &served_listener(&model, "http").routes;
    assert_eq!(routes.len(), 16);
    assert!(
        routes
            .iter()
            .all(|one| Arc::ptr_eq(&one.table, &routes[0].table))
    );
    // Now one of the hosts has two routes, and a table of its own.
    let one = set(
        routed("one", json!([rule_below("/", "v1")])),
        "/spec/hostnames",
        json!(["h0.example.com"]),
    );
    let (_, problems) = compile(&plain().with(created(all, 1)).with(created(one, 2)));
    assert_eq!(accepted(&problems, "HTTPRoute all"), ACCEPTED);
    assert_eq!(accepted(&problems, "HTTPRoute one"), LARGE);
}

/// All listeners of a Gateway are in the memory of each of its pods.
#[test]
fn expressions_of_a_gateway_are_bounded_together() {
    // Each takes 64 to 256 KiB.
    let matches: Vec<Value> = (0..16)
        .map(|n| {
            let path = format!("/{n}/\\w{{3}}");
            json!({"path": {"type": "RegularExpression", "value": path}})
        })
        .collect();
    let mut cluster = plain();
    let mut names = Vec::new();
    for n in 0..20_u8 {
        let mut rule = rule_over(&[("api", 1)]);
        rule["matches"] = json!(matches);
        let name = format!("route-{n:02}");
        cluster = cluster.with(created(routed(&name, json!([rule])), n));
        names.push(name);
    }
    let (model, problems) = compile(&cluster);
    let outcomes = names
        .iter()
        .map(|name| accepted(&problems, &format!("HTTPRoute {name}")));
    let outcomes: Vec<_> = outcomes.collect();
    let fit = outcomes.iter().take_while(|one| **one == ACCEPTED).count();
    assert!(fit > 0 && fit < 20, "{fit}");
    assert!(
        outcomes[fit..].iter().all(|one| *one == LARGE),
        "{outcomes:?}"
    );
    let rules = &served_listener(&model, "http").routes[0].table.rules;
    assert_eq!(rules.len(), fit);
}
