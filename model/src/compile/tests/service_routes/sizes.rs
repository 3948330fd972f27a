//! How large tables may become, and what several of them share.

use std::sync::Arc;

use super::*;
use crate::model::service_routes::RoutedTable;

/// A rule's edits are sent with each of its backends.
#[test]
fn edits_beyond_the_bound_cost_the_youngest_route() {
    let value = "x".repeat(40 * 1024);
    let mut rule = rule_over(&[("v1", 1); 16]);
    rule["filters"] = json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {
        "set": [{"name": "x-large", "value": value}],
    }}]);
    rule["matches"] = json!([{"path": {"type": "PathPrefix", "value": "/large"}}]);
    let old = http_route("old", "api", json!([rule_below("/old", "v2")]));
    let both = cluster()
        .with(created(old, 1))
        .with(created(http_route("new", "api", json!([rule])), 2));
    assert_eq!(accepted(&both, "HTTPRoute old"), ACCEPTED);
    let new = parent(&both, "HTTPRoute new").accepted;
    assert_eq!((new.status, new.reason), (false, "UnsupportedValue"));
    let words = "with its filters and backends those at port 80";
    assert!(new.message.contains(words), "{}", new.message);
    let nowhere = Forward::Refuse(reason::Reason::NoRoute);
    assert_eq!(request(&table(&both), "/large"), nowhere);
}

#[test]
fn ports_with_the_same_routes_share_one_table() {
    let cluster = cluster()
        .with(service("api", "10.96.0.1", &[("http", 80), ("more", 81)]))
        .with(timed("web"));
    let tables = |cluster: &Cluster| -> Vec<Arc<RoutedTable>> {
        let (model, _) = cluster.compile();
        let ports = &entry(&model).routes.as_ref().unwrap().0;
        let tables = ports.values().filter_map(|at| at.everyone.clone());
        tables.collect()
    };
    let both = tables(&cluster);
    assert_eq!(both.len(), 2);
    assert!(Arc::ptr_eq(&both[0], &both[1]));

    // What is settled at one port is settled at the other.
    let spec = json!({"targetRef": {"kind": "Mesh"}, "enforce": true, "retry": {"attempts": 0}});
    let mesh = in_namespace(traffic_policy("mesh", spec), "weft-system");
    for table in tables(&cluster.with(mesh)) {
        let actions = actions(&table.table.rules[0].then);
        assert!(actions.timeouts.is_some() && actions.retry.is_none());
    }
}

#[test]
fn routes_are_encoded_for_namespaces_that_call() {
    let rules = json!([rule_over(&[("v1", 1)])]);
    let own = in_namespace(http_route("own", "api", rules.clone()), "other");
    let cluster = cluster().with(http_route("web", "api", rules)).with(own);
    let (model, _) = cluster.compile();
    let is_encoded = |audience: &str| {
        let encoded = entry(&model).ports[&80].routed.get().unwrap();
        encoded[audience].get().is_some()
    };
    resolved(&model, ("shop", "client"));
    assert!(is_encoded("") && !is_encoded("other"));
    resolved(&model, ("other", "caller"));
    assert!(is_encoded("other"));
}

/// Of 16 KiB, the least that is charged for one, 256 are 4 MiB, as much as one object may have;
/// four such routes are as much as a table may have.
#[test]
fn expressions_beyond_the_bound_cost_the_youngest_route() {
    let route = |nth: u8| {
        let rules = (0..4).map(|rule| {
            let matches = (0..64).map(|at| {
                let value = format!("/{nth}/{rule}/{at}/[a-c]+x");
                json!({"path": {"type": "RegularExpression", "value": value}})
            });
            let mut over = rule_over(&[("v1", 1)]);
            over["matches"] = matches.collect();
            over
        });
        let rules: Vec<Value> = rules.collect();
        created(http_route(&format!("r{nth}"), "api", json!(rules)), nth)
    };
    let plain = http_route("plain", "api", json!([rule_below("/plain", "v2")]));
    let all = (1..=5).map(route).fold(cluster(), Cluster::with);
    let (_, problems) = all.with(created(plain, 6)).compile();
    let accepted = |route: &str| &report(&problems, &format!("HTTPRoute {route}")).parents[0];
    for kept in ["r1", "r2", "r3", "r4", "plain"] {
        let report = accepted(kept);
        let accepted = &report.accepted;
        assert_eq!((accepted.status, accepted.reason), ACCEPTED, "{kept}");
        assert_eq!(report.partially_invalid, None, "{kept}");
    }
    let lost = &accepted("r5").accepted;
    assert_eq!((lost.status, lost.reason), (false, "UnsupportedValue"));
    let words = "the expressions of HTTPRoute shop/r5 those at port 80 of Service shop/api take \
                 more than 16 MiB";
    assert!(lost.message.contains(words), "{}", lost.message);
}
